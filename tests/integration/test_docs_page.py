"""The docs page of a protected app, in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pytest
from fastapi import Depends, FastAPI
from support import npm
from support.answer_servers import uvicorn_serving
from support.answer_table import Team, ada, protector
from support.browser import browser, needs_browser

from fastapi_cloudflare_access import UserClaims
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = needs_browser


@pytest.fixture
def swagger_ui(request: pytest.FixtureRequest) -> Path:
    """What the docs page loads from a CDN, from npm."""
    assert request.config.cache is not None
    installed = npm.install("swagger-ui-dist@5", request.config.cache.mkdir("swagger-ui"))
    if isinstance(installed, str):
        pytest.skip(f"the docs page has no scripts: {installed}")
    return installed / "node_modules/swagger-ui-dist"


@pytest.fixture
def page(swagger_ui: Path) -> Iterator["Page"]:
    def from_npm(route: "Route") -> None:
        file = swagger_ui / Path(route.request.url).name
        if file.is_file():
            route.fulfill(path=file)
        else:
            route.abort()

    with browser() as context:
        page = context.new_page()
        page.route(lambda url: "127.0.0.1" not in url, from_npm)
        yield page


def test_the_authorize_button_takes_a_token_and_sends_it_where_it_is_read(page: "Page") -> None:
    team: Team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as certs:
        access = protector(certs)
        app = FastAPI(lifespan=access.lifespan)

        @app.get("/me")
        async def me(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
            return user.email

        with uvicorn_serving(app) as address:
            page.goto(f"http://{address}/docs")
            page.locator(".auth-wrapper .authorize").click()
            header = page.locator(".auth-container").filter(has_text="CloudflareAccess")
            header.locator("input").fill(ada(team))
            header.get_by_role("button", name="Apply credentials").click()
            header.locator(".btn-done").click()
            page.locator(".opblock-summary-control").click()
            page.get_by_role("button", name="Try it out").click()
            page.get_by_role("button", name="Execute").click()
            answer = page.locator(".live-responses-table .response").first
            assert answer.locator(".response-col_status").inner_text().strip() == "200"
            assert "ada@example.com" in answer.inner_text()
