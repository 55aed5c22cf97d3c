"""The search of the documentation, in a real browser: one query finds the page of each task and each cause of a 401."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.browser import browser, needs_browser
from support.tasks import CAUSES, MESSAGES, TASKS

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("zensical", reason="builds the site, and its search")
pytestmark = needs_browser

ROOT = Path(__file__).parents[2]
FIRST = 3
"""A page counts as found among so many pages, as the search lists them."""
PARTS = 4
"""A test for all queries would take long on a busy machine."""
QUERIES = {**TASKS, **dict.fromkeys([*CAUSES, *MESSAGES, "401"], "guides/when-it-says-401.md")}
RESULTS = """() => {
    const found = [];
    const visit = (root, inside) => {
        for (const element of root.querySelectorAll("*")) {
            if (element.shadowRoot) visit(element.shadowRoot, true);
            if (inside && element.tagName === "A") found.push(new URL(element.href).pathname);
        }
    };
    visit(document, false);
    return [...new Set(found)];
}"""
"""The pages that the search lists, in its order."""
NONSENSE = "qzxqzx"
"""A word that no page has."""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it has
        """Write nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("search")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for name in ("src", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    subprocess.run([sys.executable, "-m", "zensical", "build"], cwd=folder, check=True, capture_output=True)
    with served(folder / "site") as address:
        yield address


def open_search(page: "Page") -> None:
    """Press the button until the search is open: before its scripts run, the button does nothing."""
    from playwright.sync_api import TimeoutError as NotOpen

    for _ in range(10):
        with suppress(NotOpen):
            page.locator(".md-search__button").click(timeout=1_000)
        with suppress(NotOpen):
            return page.locator('input[aria-label="Search"]').wait_for(timeout=1_000)
    pytest.fail("the search does not open")


def listed(page: "Page", query: str, expected: str) -> list[str]:
    """Return the first pages that the search lists, when it has listed the expected one, or after a while."""
    from playwright.sync_api import TimeoutError as NotListed

    page.keyboard.press("Control+a")
    page.keyboard.insert_text(NONSENSE)  # or the results of the last query would count
    page.wait_for_function(f"() => ({RESULTS})().length === 0")
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(query)  # in one event, so that the search runs once
    with suppress(NotListed):
        page.wait_for_function(f"wanted => ({RESULTS})().slice(0, {FIRST}).includes(wanted)", arg=expected)
    found: list[str] = page.evaluate(RESULTS)
    return found[:FIRST]


@pytest.fixture(scope="module")
def search(site: str) -> "Iterator[Page]":
    with browser() as context:
        page = context.new_page()
        page.goto(site, wait_until="networkidle")
        open_search(page)
        yield page


@pytest.mark.parametrize("part", range(PARTS))
def test_one_query_finds_each_task_and_each_cause(search: "Page", part: int) -> None:
    paths = {query: f"/{found.removesuffix('.md')}/" for query, found in [*QUERIES.items()][part::PARTS]}
    missed = {query: found for query, path in paths.items() if path not in (found := listed(search, query, path))}
    assert missed == {}
