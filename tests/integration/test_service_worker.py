"""The service worker of the guide in a real browser: it answers for files, and keeps out of the login."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.browser import browser, needs_browser
from support.example_app import running_example

from fastapi_cloudflare_access.local import App, Config, RunningAccess

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = needs_browser

HELLO = "Hello ada@example.com"
STORED = """caches.keys()
  .then(names => caches.open(names[0]))
  .then(cache => cache.keys())
  .then(requests => requests.map(request => new URL(request.url).pathname).sort())"""


@pytest.fixture(scope="module")
def local() -> Iterator[RunningAccess]:
    with running_example("spa_app", Config(apps=(App(name="Single page"),))) as running:
        yield running


@pytest.fixture
def page(local: RunningAccess) -> Iterator["Page"]:
    """Return the app, logged in, with its service worker in control."""
    local.control("reset")
    with browser() as context:
        page = context.new_page()
        page.goto(local.url("/"))
        log_in(page)
        page.wait_for_function("navigator.serviceWorker.controller !== null")
        yield page


def log_in(page: "Page") -> None:
    page.get_by_role("button", name="Ada").click()
    page.get_by_text(HELLO).wait_for()


def test_a_service_worker_stores_files_and_keeps_out_of_the_login(page: "Page", local: RunningAccess) -> None:
    page.reload()
    page.get_by_text(HELLO).wait_for()
    page.wait_for_function("caches.match('/app.js').then(Boolean)")
    local.control("revoke", email="ada@example.com")
    page.get_by_role("button", name="Refresh").click()
    log_in(page)
    assert page.evaluate(STORED) == ["/app.js", "/session.js"]


def test_a_logout_is_a_navigation_that_the_worker_does_not_answer(page: "Page", local: RunningAccess) -> None:
    page.get_by_role("link", name="Log out").click()
    assert page.inner_text("h1") == "You are logged out"
    page.goto(local.url("/"))
    log_in(page)
