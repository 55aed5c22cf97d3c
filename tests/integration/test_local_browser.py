"""A real browser: login, single sign-on, logout, errors and the control page."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import HTMLResponse
from support.browser import browser, needs_browser

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.local import App, Config, Person, Policy, RunningAccess, run_local_access

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = needs_browser

SHOP = App(name="Shop", host="shop.localhost", policies=(Policy(groups=("admins",)),))
OPEN_A_SOCKET = """() => new Promise(resolve => {
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket");
  socket.onmessage = event => resolve(event.data);
  socket.onerror = () => resolve("refused");
})"""


def make_site(local: RunningAccess) -> FastAPI:
    access = CloudflareAccess(team_domain=local.team_domain, audience=list(local.local_access.config.tags))
    app = FastAPI(lifespan=access.lifespan)

    @app.get("/{path:path}", response_class=HTMLResponse)
    async def page(path: str, user: Annotated[UserClaims, Depends(access.user)]) -> str:
        return f"<title>App</title><h1>Hello {user.email}</h1>"

    @app.websocket("/socket")
    async def socket(socket: WebSocket, user: Annotated[UserClaims, Depends(access.user)]) -> None:
        await socket.accept()
        await socket.send_text(f"hello {user.email}")
        await socket.close()

    return app


@pytest.fixture(scope="module")
def local() -> Iterator[RunningAccess]:
    with run_local_access(config=Config(apps=(App(name="Wiki"), SHOP))) as running:
        running.mount(make_site(running))
        yield running


@pytest.fixture
def context(local: RunningAccess) -> Iterator["BrowserContext"]:
    local.control("reset")
    with browser() as opened:
        yield opened


@pytest.fixture
def page(context: "BrowserContext") -> "Page":
    return context.new_page()


def log_in(page: "Page", local: RunningAccess, name: str = "Ada", path: str = "/") -> None:
    page.goto(local.url(path))
    page.get_by_role("button", name=name).click()
    page.wait_for_url(local.url(path))


def test_a_login_returns_to_the_requested_page(page: "Page", local: RunningAccess) -> None:
    log_in(page, local, path="/a/b?c=d#part")
    assert page.url == local.url("/a/b?c=d#part")
    assert page.inner_text("h1") == "Hello ada@example.com"


def test_a_login_needs_only_the_keyboard(page: "Page", local: RunningAccess) -> None:
    page.goto(local.url("/"))
    seen: list[str] = []
    while "Any email" not in seen:
        page.keyboard.press("Tab")
        focused = "document.activeElement.labels?.[0]?.innerText.slice(0, 9) || document.activeElement.innerText"
        seen.append(str(page.evaluate(focused)))
        assert len(seen) < 10
    page.keyboard.type("new@example.org")
    page.keyboard.press("Enter")
    page.wait_for_url(local.url("/"))
    assert page.inner_text("h1") == "Hello new@example.org"
    assert seen[0].startswith("Ada Lovelace")


def test_a_second_app_needs_no_second_login(page: "Page", local: RunningAccess) -> None:
    log_in(page, local)
    page.goto(local.url("/cart", app="Shop"))
    assert (page.url, page.inner_text("h1")) == (local.url("/cart", app="Shop"), "Hello ada@example.com")


def test_a_user_without_access_can_log_in_as_another(page: "Page", local: RunningAccess) -> None:
    log_in(page, local, "Grace")
    page.goto(local.url("/cart", app="Shop"))
    assert page.inner_text("h1") == "That account does not have access"
    page.get_by_role("link").click()
    page.get_by_role("button", name="Ada").click()
    page.wait_for_url(local.url("/cart", app="Shop"))


def test_an_invalid_nonce_does_not_log_in(page: "Page", local: RunningAccess) -> None:
    page.goto(local.url("/"))
    page.goto(local.url("/cdn-cgi/access/authorized?nonce=wrong&state=x"))
    assert page.inner_text("h1") == "Invalid login session"
    page.goto(local.url("/"))
    assert page.inner_text("h1") == "Log in to Wiki"


def test_logout_ends_every_session(page: "Page", local: RunningAccess) -> None:
    log_in(page, local)
    page.goto(local.url("/", app="Shop"))
    page.goto(local.url("/cdn-cgi/access/logout"))
    assert page.inner_text("h1") == "You are logged out"
    for app in ("Wiki", "Shop"):
        page.goto(local.url("/", app=app))
        assert page.inner_text("h1") == f"Log in to {app}"


def test_an_expired_session_gets_the_login_page(page: "Page", local: RunningAccess) -> None:
    log_in(page, local)
    session = next(iter(local.local_access.state.sessions))
    local.control("expire", session=session)
    page.goto(local.url("/"))
    assert page.inner_text("h1") == "Log in to Wiki"


def test_a_rotation_keeps_sessions(page: "Page", local: RunningAccess) -> None:
    log_in(page, local)
    local.control("rotate")
    page.reload()
    assert page.inner_text("h1") == "Hello ada@example.com"


def test_a_page_opens_a_websocket(page: "Page", local: RunningAccess) -> None:
    log_in(page, local)
    assert page.evaluate(OPEN_A_SOCKET) == "hello ada@example.com"
    local.control("revoke", email="ada@example.com")
    assert page.evaluate(OPEN_A_SOCKET) == "refused"


def test_a_script_gets_401_instead_of_a_login(page: "Page", local: RunningAccess) -> None:
    log_in(page, local)
    local.control("revoke", email="ada@example.com")
    ask = "fetch('/x', {headers: {'X-Requested-With': 'XMLHttpRequest'}}).then(answer => answer.status)"
    assert page.evaluate(ask) == 401


def test_the_buttons_of_the_control_page_work(page: "Page", local: RunningAccess) -> None:
    before = local.local_access.team.current.kid
    page.goto(local.team_domain)
    page.get_by_role("button", name="Rotate").click()
    page.wait_for_load_state()
    assert local.local_access.team.current.kid != before
    assert page.url.endswith("/#keys")
    assert page.evaluate("document.querySelector('#keys').getBoundingClientRect().top < window.innerHeight")
    page.get_by_label("The endpoint").select_option("fail")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_load_state()
    assert "It answers 503." in page.inner_text("main")


def test_the_control_page_shifts_and_corrects_the_clock(page: "Page", local: RunningAccess) -> None:
    page.goto(local.team_domain)
    for seconds, said in (("-20000", "20000 seconds behind"), ("0", "correct")):
        page.get_by_label("Seconds ahead").fill(seconds)
        page.get_by_role("button", name="Set").click()
        page.wait_for_load_state()
        assert f"The team's clock is {said}." in page.inner_text("main")


def test_everything_works_without_scripts(local: RunningAccess) -> None:
    local.control("reset")
    with browser(java_script_enabled=False) as context:
        page = context.new_page()
        log_in(page, local)
        page.goto(local.team_domain)
        page.get_by_role("button", name="Log all users out").click()
        page.wait_for_load_state()
        assert "No sessions." in page.inner_text("main")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_narrow_window_at_double_size(local: RunningAccess, scheme: str) -> None:
    """A window of 640 pixels has 320 CSS pixels at 200 % zoom."""
    local.control("reset")
    with browser(viewport={"width": 320, "height": 640}, color_scheme=scheme) as context:
        page = context.new_page()
        for address in (local.url("/"), local.team_domain, local.url("/cdn-cgi/access/logout")):
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth") <= 320


PEOPLE = tuple(
    Person(email=f"{'long.' * 10}p{number}@subdomain.of-a-long-name.example.com", name="Name-without-a-break-" * 4)
    for number in range(50)
)
APPS = tuple(
    App(name=f"{'A long name ' * 6}{number}", host=f"app{number}.localhost", paths=("/one/long/path/to/here", "/two"))
    for number in range(20)
)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_with_many_long_names(scheme: str, width: int) -> None:
    outside = """[...document.querySelectorAll("button, a, input, select, code, td")].filter(
        element => element.getBoundingClientRect().right > document.documentElement.clientWidth
    ).map(element => element.innerText)"""
    with run_local_access(config=Config(apps=APPS, people=PEOPLE)) as crowded:
        for person in PEOPLE[:5]:
            crowded.control("token", email=person.email)
        with browser(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
            page = context.new_page()
            for address in (crowded.team_domain, crowded.url("/two"), crowded.team_domain + "/nothing"):
                page.goto(address)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.evaluate(outside) == []


def test_every_button_of_the_control_page_has_the_focus_once(page: "Page", local: RunningAccess) -> None:
    log_in(page, local)
    page.goto(local.team_domain)
    buttons = page.locator("button").count()
    seen: list[str] = []
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "BUTTON":
            seen.append(page.evaluate("document.activeElement.innerText"))
        if seen and seen[-1].startswith("Log all users out"):
            break
    assert len(seen) == buttons


def test_the_page_renames_the_team_in_two_steps(page: "Page", local: RunningAccess) -> None:
    page.goto(local.team_domain)
    page.get_by_role("button", name="Rename the team").click()
    page.wait_for_load_state()
    page.get_by_role("button", name="Put the new name into tokens").click()
    page.wait_for_load_state()
    assert local.local_access.team.issuer == local.team_domain
    assert local.team_domain.startswith("http://[::1]:")
    page.goto(local.url("/"))
    page.get_by_role("button", name="Ada").click()
    page.wait_for_url(local.url("/"))
