"""A real browser is redirected to the login by the guard, comes back to its page, and never runs in circles."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request
from support.answer_servers import uvicorn_serving
from support.browser import browser, needs_browser

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.guard import AccessGuard
from fastapi_cloudflare_access.local import App, Config, Policy, RunningAccess, run_local_access

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = needs_browser

APPS = (
    App(name="app", host="app.acme.localhost"),
    App(name="open", host="open.acme.localhost", policies=(Policy(decision="bypass", everyone=True),)),
)
"""An app that needs a login, and one that every request reaches without a token."""


@pytest.fixture(scope="module")
def chromium() -> Iterator["BrowserContext"]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def local() -> Iterator[RunningAccess]:
    with run_local_access(config=Config(apps=APPS)) as running:
        yield running


@pytest.fixture
def page(chromium: "BrowserContext", local: RunningAccess) -> Iterator["Page"]:
    local.control("reset")
    chromium.clear_cookies()
    page = chromium.new_page()
    yield page
    page.close()


def guarded(local: RunningAccess, name: str) -> FastAPI:
    access = CloudflareAccess(team_domain=local.team_domain, audience=local.app(name).tag)
    app = FastAPI(lifespan=access.lifespan)
    app.add_middleware(
        AccessGuard, access=access, login_redirect=urlsplit(local.url(app=name)).netloc, exempt=["/open"]
    )

    @app.get("/page")
    async def page(request: Request, x: str) -> str:
        return f"{request.state.cloudflare_access.email} reads {x}"

    @app.get("/open")
    async def is_open() -> str:
        return "open"

    return app


def test_a_browser_that_goes_round_the_edge_logs_in_and_comes_back_to_its_page(
    page: "Page", local: RunningAccess
) -> None:
    app = guarded(local, "app")
    local.mount(app)
    with uvicorn_serving(app) as origin:
        page.goto(f"http://{origin}/page?x=a%26b")
        page.get_by_role("button", name="Ada").click()
        page.wait_for_url(local.url("/page?x=a%26b", app="app"))
    assert page.inner_text("body") == '"ada@example.com reads a&b"'


def test_a_script_of_an_open_page_gets_401(page: "Page", local: RunningAccess) -> None:
    local.mount(guarded(local, "open"))
    page.goto(local.url("/open", app="open"))
    for options in ("{}", '{headers: {"Accept": "text/html"}}', '{redirect: "manual"}', '{method: "POST"}'):
        assert page.evaluate(f"fetch('/page?x=1', {options}).then(answer => answer.status)") == 401


@pytest.mark.conformance(62)
def test_an_app_that_never_sees_the_token_shows_401_instead_of_a_loop(page: "Page", local: RunningAccess) -> None:
    local.mount(guarded(local, "open"))
    url = local.url("/page?x=1", app="open")
    page.goto(url)
    with page.expect_response(lambda answer: answer.url == url) as answer:
        page.get_by_role("button", name="Ada").click()
    assert answer.value.status == 401
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answered = page.goto(url)
    assert answered is not None
    assert (answered.status, asked.count(url)) == (401, 2)
