"""A server-rendered site in a real browser: login, logout, and what a foreign page can make the browser send."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import pytest
from fastapi import Depends, FastAPI, Response, WebSocket
from fastapi.responses import HTMLResponse
from support.browser import browser, needs_browser
from support.example_app import running_example

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.browser import SameOrigin
from fastapi_cloudflare_access.local import App, Config, Policy, RunningAccess, load_config, run_local_access

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = needs_browser

GUIDE = Path(__file__).parents[2] / "docs/guides/browsers.md"
PUBLIC = (Policy(decision="bypass", everyone=True),)
NEIGHBOUR = App(name="neighbour", host="other.acme.localhost", policies=PUBLIC)
"""Another app of the same site: browsers send it the cookies of the app, whatever SameSite is."""
FOREIGN = App(name="foreign", host="evil.localhost", policies=PUBLIC)
FORM = '<title>Form</title><form method="post" action="{target}"><button>Send</button></form>'
OPEN_A_SOCKET = """target => new Promise(resolve => {
  const socket = new WebSocket(target.replace("http", "ws"));
  socket.onmessage = event => resolve(event.data);
  socket.onerror = () => resolve("refused");
})"""


@pytest.fixture(scope="module")
def chromium() -> Iterator["BrowserContext"]:
    with browser() as opened:
        yield opened


@pytest.fixture
def context(chromium: "BrowserContext") -> "BrowserContext":
    chromium.clear_cookies()
    return chromium


# the example


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAccess]:
    """Run the example with the configuration of the guide."""
    file = tmp_path_factory.mktemp("site") / "access.toml"
    file.write_text(GUIDE.read_text().partition("```toml\n")[2].partition("```")[0])
    with running_example("site_app", load_config(file), origin_variable="SITE_ORIGIN") as running:
        yield running


def test_the_links_log_in_and_out(context: "BrowserContext", site: RunningAccess) -> None:
    page = context.new_page()
    page.goto(site.url("/"))
    assert page.inner_text("h1") == "Hello"
    page.get_by_role("link", name="Log in").click()
    page.get_by_role("button", name="Ada").click()
    page.wait_for_url(site.url("/votes"))
    page.get_by_role("button", name="Vote").click()
    page.get_by_text("1 votes").wait_for()
    page.goto(site.url("/"))
    assert page.inner_text("h1") == "Hello ada@example.com"
    page.get_by_role("link", name="Log out").click()
    page.wait_for_url(site.url("/"))
    assert page.inner_text("h1") == "Hello"
    page.goto(site.url("/votes"))
    assert page.inner_text("h1") == "Log in to Votes"


# a foreign page


def make_app(local: RunningAccess, *, protected: bool) -> FastAPI:
    access = CloudflareAccess(team_domain=local.team_domain, audience=local.audience)
    app = FastAPI(lifespan=access.lifespan)
    if protected:
        app.add_middleware(SameOrigin, origins=[local.url("")])

    @app.get("/")
    async def home(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
        return user.email

    @app.get("/page", response_class=HTMLResponse)
    async def page(response: Response, target: str, policy: str = "") -> str:
        response.headers["Referrer-Policy"] = policy
        return FORM.format(target=target)

    @app.post("/send", response_class=HTMLResponse)
    async def send(user: Annotated[UserClaims, Depends(access.user)]) -> str:
        return f"<h1>Sent by {user.email}</h1>"

    @app.websocket("/socket")
    async def socket(socket: WebSocket, user: Annotated[UserClaims, Depends(access.user)]) -> None:
        await socket.accept()
        await socket.send_text(f"hello {user.email}")
        await socket.close()

    return app


@pytest.fixture(scope="module")
def local() -> Iterator[RunningAccess]:
    app = App(name="app", host="app.acme.localhost")
    with run_local_access(config=Config(apps=(app, NEIGHBOUR, FOREIGN))) as running:
        yield running


@pytest.fixture
def page(context: "BrowserContext", local: RunningAccess) -> Iterator["Page"]:
    local.control("reset")
    local.mount(make_app(local, protected=True))
    page = context.new_page()
    page.goto(local.url("/"))
    page.get_by_role("button", name="Ada").click()
    page.wait_for_url(local.url("/"))
    yield page
    page.close()


def open_page(page: "Page", local: RunningAccess, *, app: str, policy: str = "") -> None:
    """Open a page with a form that is sent to the app."""
    page.goto(local.url(f"/page?{urlencode({'target': local.url('/send'), 'policy': policy})}", app=app))


def send(page: "Page") -> str:
    page.get_by_role("button", name="Send").click()
    page.wait_for_url("**/send")
    return page.inner_text("body")


@pytest.mark.parametrize("policy", ["", "no-referrer"])
def test_a_form_of_the_app_is_sent(page: "Page", local: RunningAccess, policy: str) -> None:
    """With `no-referrer` its Origin is null, and Sec-Fetch-Site says that it comes from the app."""
    open_page(page, local, app="app", policy=policy)
    assert send(page) == "Sent by ada@example.com"


@pytest.mark.parametrize("policy", ["", "no-referrer"])
@pytest.mark.parametrize("other", ["foreign", "neighbour"])
def test_a_form_of_another_origin_is_refused(page: "Page", local: RunningAccess, other: str, policy: str) -> None:
    open_page(page, local, app=other, policy=policy)
    assert send(page) == '{"detail":"A page of another origin sent this request"}'


@pytest.mark.parametrize("other", ["foreign", "neighbour"])
def test_without_the_middleware_such_a_form_has_a_valid_token(page: "Page", local: RunningAccess, other: str) -> None:
    local.mount(make_app(local, protected=False))
    open_page(page, local, app=other)
    assert send(page) == "Sent by ada@example.com"


def test_a_script_of_a_neighbour_is_refused(page: "Page", local: RunningAccess) -> None:
    open_page(page, local, app="neighbour")
    ask = "target => fetch(target, {method: 'POST', mode: 'no-cors', credentials: 'include'}).then(r => r.type)"
    with page.expect_response("**/send") as answer:
        assert page.evaluate(ask, local.url("/send")) == "opaque"
    assert answer.value.status == 403


def test_a_socket_of_the_app_opens_and_one_of_a_neighbour_does_not(page: "Page", local: RunningAccess) -> None:
    target = local.url("/socket")
    assert page.evaluate(OPEN_A_SOCKET, target) == "hello ada@example.com"
    open_page(page, local, app="neighbour")
    assert page.evaluate(OPEN_A_SOCKET, target) == "refused"
    local.mount(make_app(local, protected=False))
    assert page.evaluate(OPEN_A_SOCKET, target) == "hello ada@example.com"
