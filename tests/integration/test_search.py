"""The search of the documentation, in a real browser: one query finds the page of each task and each cause of a 401."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from support.browser import browser, needs_browser
from support.site import built, served
from support.tasks import CAUSES, MESSAGES, SHORT, TASKS

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("zensical", reason="builds the site, and its search")
pytestmark = needs_browser

FIRST = 3
"""A page counts as found among so many pages, as the search lists them."""
QUERIES = {**TASKS, **SHORT, **dict.fromkeys([*CAUSES, *MESSAGES, "401"], "guides/when-it-says-401.md")}
SEARCH = """async ({queries, first, nonsense, patience}) => {
    const everything = root => [...root.querySelectorAll("*")].flatMap(
        element => [element, ...(element.shadowRoot ? everything(element.shadowRoot) : [])]);
    const root = everything(document).find(element => element.matches('input[aria-label="Search"]')).getRootNode();
    const listed = () => [...new Set([...root.querySelectorAll("a")].map(link => new URL(link.href).pathname))];
    const type = text => {
        const input = root.querySelector('input[aria-label="Search"]');
        input.value = text;
        input.dispatchEvent(new InputEvent("input", {bubbles: true, composed: true}));
    };
    const until = async holds => {
        const end = performance.now() + patience;
        while (!holds() && performance.now() < end) await new Promise(resolve => setTimeout(resolve, 5));
        return holds();
    };
    const missed = {};
    for (const [query, expected] of Object.entries(queries)) {
        type(nonsense);  // or the results of the last query would count
        if (!await until(() => listed().length === 0)) throw new Error("the search lists pages for nonsense");
        type(query);
        if (!await until(() => listed().slice(0, first).includes(expected))) missed[query] = listed().slice(0, first);
    }
    return missed;
}"""
"""Types each query, in the page, and returns what the search lists for those that do not find their page."""
PATIENCE = 10_000
"""Milliseconds for one query."""
NONSENSE = "qzxqzx"
"""A word that no page has."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(built(tmp_path_factory) / "site") as address:
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


def test_one_query_finds_each_task_and_each_cause(site: str) -> None:
    queries = {query: f"/{page.removesuffix('.md')}/" for query, page in QUERIES.items()}
    options = {"queries": queries, "first": FIRST, "nonsense": NONSENSE, "patience": PATIENCE}
    with browser() as context:
        page = context.new_page()
        page.goto(site, wait_until="networkidle")
        open_search(page)
        assert page.evaluate(SEARCH, options) == {}
