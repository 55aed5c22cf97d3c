"""Each page of the documentation in a real browser: it fits a phone and a laptop, and no column is squeezed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.browser import browser, needs_browser
from support.site import PAGES, built, served

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

pytest.importorskip("zensical", reason="builds the site")
pytestmark = needs_browser

PHONE: "ViewportSize" = {"width": 390, "height": 844}
LAPTOP: "ViewportSize" = {"width": 1280, "height": 800}
PARTS = 10
"""Number of tests that the pages are divided among, so that none takes long on a busy machine."""
FAULTS = """() => {
    const faults = [];
    const room = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > room) faults.push("the page is too wide");
    for (const table of document.querySelectorAll("article table:not([class])")) {
        const place = table.closest(".md-typeset__scrollwrap") ?? table;
        const isCut = place.scrollWidth > place.clientWidth + 1;
        if (isCut && room > 1000) faults.push(`cut: ${table.innerText.slice(0, 60)}`);
        for (const cell of table.querySelectorAll("td")) {
            const words = cell.innerText.split(/\\s+/).length;
            if (words > 8 && cell.offsetWidth < 100) faults.push(`squeezed: ${cell.innerText.slice(0, 60)}`);
        }
    }
    return faults;
}"""
ON_THE_FIRST_SCREEN = ("h1", "text=pip install", "article .md-button >> nth=0", "article img.wide >> visible=true")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(built(tmp_path_factory) / "site") as address:
        yield address


@pytest.fixture(scope="module")
def tab(site: str) -> "Iterator[Page]":
    with browser(base_url=site) as context:
        yield context.new_page()


def address_of(page: str) -> str:
    return page.removesuffix(".md").removesuffix("index")


@pytest.mark.parametrize("part", range(PARTS))
def test_every_page_fits_a_phone_and_a_laptop(tab: "Page", part: int) -> None:
    faults: dict[str, Any] = {}
    for page in PAGES[part::PARTS]:
        tab.set_viewport_size(LAPTOP)
        tab.goto(address_of(page))
        for size in (LAPTOP, PHONE):
            tab.set_viewport_size(size)
            if found := tab.evaluate(FAULTS):
                faults[f"{page}, {size['width']} px"] = found
    assert faults == {}


def test_the_first_screen_of_a_laptop_shows_what_the_package_is(tab: "Page") -> None:
    tab.set_viewport_size(LAPTOP)
    tab.goto("")
    for part in (*ON_THE_FIRST_SCREEN, "article .start pre >> nth=1"):
        box = tab.locator(part).first.bounding_box()
        assert box
        assert (part, box["y"] + box["height"] <= LAPTOP["height"]) == (part, True)
