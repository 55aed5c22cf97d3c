"""End-to-end tests of the quickstart app, over HTTP and in a browser."""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

from fastapi_cloudflare_access.local import RunningAccess

if TYPE_CHECKING:
    from playwright.sync_api import Browser, StorageState

APP = "quickstart_app:app"
CHROMIUM = shutil.which("chromium")


@pytest.fixture
def local(local_access: RunningAccess) -> RunningAccess:
    local_access.mount(APP)
    return local_access


def test_a_visitor_is_sent_to_the_login(local: RunningAccess) -> None:
    answer = httpx.get(local.url("/me"), trust_env=False)
    assert answer.status_code == 302
    assert answer.headers["location"].startswith(local.team_domain)


def test_a_user_sees_their_address(local: RunningAccess) -> None:
    token = local.control("token", email="ada@example.com")["token"]
    headers = {"cf-access-token": token}
    answer = httpx.get(local.url("/me"), headers=headers, trust_env=False)
    assert answer.json()["email"] == "ada@example.com"


def test_a_service_starts_a_backup(local: RunningAccess) -> None:
    url, headers = local.url("/jobs/backup"), local.service_headers()
    assert httpx.post(url, headers=headers, trust_env=False).status_code == 202


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as playwright:
        launch = playwright.chromium.launch
        yield launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def logged_in(
    chromium: "Browser",
    local_access_server: RunningAccess,
) -> "StorageState":
    """Log in once, and keep the cookies."""
    local_access_server.mount(APP)
    url = local_access_server.url("/me")
    context = chromium.new_context()
    page = context.new_page()
    page.goto(url)
    page.get_by_role("button", name="Ada Lovelace").click()
    page.wait_for_url(url)
    state = context.storage_state()
    context.close()
    return state


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_page_begins_logged_in(
    number: int,
    chromium: "Browser",
    logged_in: "StorageState",
    local: RunningAccess,
) -> None:
    context = chromium.new_context(storage_state=logged_in)
    page = context.new_page()
    page.goto(local.url(f"/me?test={number}"))
    assert "ada@example.com" in page.inner_text("body")
    context.close()
