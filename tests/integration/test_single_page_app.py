"""The single-page app of the guide in a real browser: its session ends, and it finds the way to the login and back."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.browser import browser, needs_browser
from support.example_app import running_example

from fastapi_cloudflare_access.local import App, Config, RunningAccess

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Route

pytestmark = needs_browser

HELLO = "Hello ada@example.com"
EMAIL = "ada@example.com"
NOTE_TYPES = """() => {
  const ask = fetch;
  window.fetch = async (...request) => {
    const response = await ask(...request);
    localStorage.type = response.type;
    return response;
  };
}"""


@pytest.fixture(scope="module")
def local() -> Iterator[RunningAccess]:
    with running_example("spa_app", Config(apps=(App(name="Single page"),))) as running:
        yield running


@pytest.fixture(scope="module")
def context() -> Iterator["BrowserContext"]:
    """Open a browser without service workers, whose requests a test could not change."""
    with browser(service_workers="block") as opened:
        yield opened


@pytest.fixture
def page(context: "BrowserContext", local: RunningAccess) -> Iterator["Page"]:
    """Return the app, logged in."""
    local.control("reset")
    context.clear_cookies()
    page = context.new_page()
    page.goto(local.url("/#/settings"))
    log_in(page)
    yield page
    page.close()


def log_in(page: "Page") -> None:
    page.get_by_role("button", name="Ada").click()
    page.get_by_text(HELLO).wait_for()


def end_session(local: RunningAccess) -> None:
    local.control("revoke", email=EMAIL)


def run_later(page: "Page", script: str) -> None:
    """Run a script that may leave the page, after this call has returned."""
    page.evaluate(f"() => {{ setTimeout(() => {{ {script} }}) }}")


def count_navigations(page: "Page") -> list[str]:
    """Return the list of addresses that the tab is going to open."""
    opened: list[str] = []
    page.on("framenavigated", lambda frame: opened.append(frame.url))
    return opened


def test_a_session_that_ended_leads_to_the_login_and_back_to_the_same_place(page: "Page", local: RunningAccess) -> None:
    end_session(local)
    page.get_by_role("button", name="Refresh").click()
    log_in(page)
    assert page.url == local.url("/#/settings")
    assert page.evaluate("sessionStorage.length") == 0
    end_session(local)
    page.get_by_role("button", name="Refresh").click()
    log_in(page)


SEEN = {
    "fetch": ("fetch('/api/me').catch(error => `${error}`)", "TypeError: Failed to fetch"),
    "manual": ("fetch('/api/me', {redirect: 'manual'}).then(answer => answer.type + answer.status)", "opaqueredirect0"),
    "header": (
        "fetch('/api/me', {headers: {'X-Requested-With': 'XMLHttpRequest'}}).then(answer => answer.status)",
        401,
    ),
    "events": (
        """new Promise(resolve => {
          const source = new EventSource('/api/events');
          source.onerror = () => resolve(source.readyState === EventSource.CLOSED);
        })""",
        True,
    ),
    "socket": (
        "new Promise(resolve => { new WebSocket('/api/feed').onclose = event => resolve(event.code) })",
        1006,
    ),
}


@pytest.mark.parametrize(("script", "seen"), SEEN.values(), ids=SEEN)
def test_a_script_sees_what_the_guide_says(page: "Page", local: RunningAccess, script: str, seen: object) -> None:
    end_session(local)
    assert page.evaluate(script) == seen


def test_an_edge_that_redirects_is_noticed_too(page: "Page", local: RunningAccess) -> None:
    def without_header(route: "Route") -> None:
        headers = {name: value for name, value in route.request.headers.items() if name != "x-requested-with"}
        route.continue_(headers=headers)

    end_session(local)
    page.route("**/api/me", without_header)
    page.evaluate(NOTE_TYPES)
    page.get_by_role("button", name="Refresh").click()
    log_in(page)
    assert page.evaluate("localStorage.type") == "opaqueredirect"


def test_requests_that_fail_together_load_the_page_once(page: "Page", local: RunningAccess) -> None:
    opened = count_navigations(page)
    end_session(local)
    ask = "for (let i = 0; i < 9; i++) api('/api/me').catch(() => {})"
    run_later(page, f"import('/session.js').then(({{api}}) => {{ {ask} }})")
    page.get_by_role("button", name="Ada").wait_for()
    assert len(opened) == 1


def test_a_login_that_does_not_help_ends_in_a_message_and_not_in_a_loop(page: "Page", local: RunningAccess) -> None:
    page.route("**/api/me", lambda route: route.fulfill(status=401))
    opened = count_navigations(page)
    page.get_by_role("button", name="Refresh").click()
    page.get_by_role("alert").wait_for()
    page.get_by_role("button", name="Refresh").click()
    page.wait_for_load_state("networkidle")
    assert len(opened) == 1
    page.unroute("**/api/me")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text(HELLO).wait_for()
    assert page.get_by_role("alert").is_hidden()


def test_the_app_can_keep_the_page_while_there_is_unsaved_work(page: "Page", local: RunningAccess) -> None:
    opened = count_navigations(page)
    page.evaluate("addEventListener('session-ended', event => { event.preventDefault(); document.title = 'Ended' })")
    end_session(local)
    page.get_by_role("button", name="Refresh").click()
    page.wait_for_function("document.title === 'Ended'")
    assert opened == []
    run_later(page, "import('/session.js').then(({logIn}) => logIn())")
    log_in(page)


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_other_errors_are_the_apps(page: "Page", status: int) -> None:
    page.route("**/api/other", lambda route: route.fulfill(status=status))
    opened = count_navigations(page)
    assert (
        page.evaluate("import('/session.js').then(({api}) => api('/api/other')).then(answer => answer.status)")
        == status
    )
    assert opened == []


def test_a_lost_network_is_no_end_of_a_session(page: "Page") -> None:
    page.route("**/api/other", lambda route: route.abort())
    opened = count_navigations(page)
    ask = "import('/session.js').then(({api}) => api('/api/other')).catch(error => error.constructor.name)"
    assert page.evaluate(ask) == "TypeError"
    assert opened == []


@pytest.mark.parametrize("source", ["new EventSource('/api/events')", "new WebSocket('/api/feed')"])
def test_a_stream_that_is_refused_leads_to_the_login(page: "Page", local: RunningAccess, source: str) -> None:
    receive = f"""new Promise(resolve => {{
        const source = {source};
        source.onmessage = event => {{ source.close(); resolve(event.data) }};
    }})"""
    assert page.evaluate(receive) == EMAIL
    end_session(local)
    run_later(page, f"import('/session.js').then(({{watch}}) => watch({source}, '/api/me'))")
    log_in(page)


def test_a_stream_that_the_server_ends_does_not_leave_the_page(page: "Page") -> None:
    opened = count_navigations(page)
    asked = """import('/session.js').then(({watch}) => new Promise(resolve => {
        const ask = fetch;
        window.fetch = async (...request) => { resolve(request[0]); return ask(...request) };
        watch(new WebSocket('/api/feed'), '/api/me').onopen = event => event.target.send('end');
    }))"""
    assert page.evaluate(asked) == "/api/me"
    page.get_by_role("button", name="Refresh").click()
    page.wait_for_load_state("networkidle")
    assert opened == []


def test_the_back_button_from_the_login_does_not_leave_a_dead_page(page: "Page", local: RunningAccess) -> None:
    end_session(local)
    page.get_by_role("button", name="Refresh").click()
    page.get_by_role("button", name="Ada").wait_for()
    page.goto(local.url("/"))
    log_in(page)
    page.go_back()
    page.get_by_text(HELLO).wait_for()
