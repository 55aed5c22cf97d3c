"""The pages of the API reference: four, each with a table of its names, and every public name on one of them."""

import re
import runpy
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.public_names import MODULES, load, members, public_names

from fastapi_cloudflare_access import CloudflareAccess

pytest.importorskip("griffe", reason="needs the packages of the documentation")

pytestmark = [pytest.mark.sources, pytest.mark.once]

ROOT = Path(__file__).parents[1]
CONTENTS: dict[str, Any] = runpy.run_path(str(ROOT / "scripts/api_contents.py"))
PAGES: dict[Path, str] = CONTENTS["pages"]()
NAMES: dict[str, list[Any]] = {path.stem: [*CONTENTS["names"](text)] for path, text in PAGES.items()}
LISTED = [name for names in NAMES.values() for name in names]
OBJECT = "fastapi_cloudflare_access.CloudflareAccess"
ON_THE_TABLE_OF_DEPENDENCIES = {"user", "service", "optional", "identity"}


def test_the_reference_has_four_pages() -> None:
    assert [path.stem for path in PAGES] == ["app", "callers", "operation", "testing"]


def test_each_name_is_documented_once() -> None:
    counted = Counter(name.path for name in LISTED)
    assert [path for path, times in counted.items() if times > 1] == []


def test_each_name_has_a_sentence_and_a_section() -> None:
    assert [name.path for name in LISTED if not (name.section and name.sentence)] == []


@pytest.mark.parametrize("module", MODULES)
def test_the_public_names_of_a_module_are_on_one_page(module: str) -> None:
    if module == "mcp":
        reason = "the MCP SDKs need newer versions than the lowest that the package admits"
        pytest.importorskip("fastapi_cloudflare_access.mcp", reason=reason, exc_type=ImportError)
    names = public_names(module)
    loaded = {name: getattr(load(module), name) for name in names}
    found = {name: {page for page, listed in NAMES.items() if is_listed(name, loaded[name], listed)} for name in names}
    assert [name for name, pages in found.items() if len(pages) != 1] == []
    assert len(set().union(*found.values())) == 1


def is_listed(name: str, value: object, listed: list[Any]) -> bool:
    """Check whether one of the names of a page means this value."""
    modules = [one.path.rpartition(".")[0] for one in listed if one.path.endswith(f".{name}")]
    known = [module for module in modules if not module.endswith("CloudflareAccess")]
    return any(getattr(import_module(module), name) is value for module in known)


def test_the_contents_have_each_attribute_of_the_object_that_the_page_about_stability_promises() -> None:
    stability = (ROOT / "docs/reference/stability.md").read_text()
    promised = {name for name in members(CloudflareAccess) if f"`{name}`" in stability}
    listed = {name.path.removeprefix(f"{OBJECT}.") for name in LISTED if name.path.startswith(f"{OBJECT}.")}
    assert listed >= promised - ON_THE_TABLE_OF_DEPENDENCIES
    table = next(text for path, text in PAGES.items() if path.stem == "app").partition("## Dependencies")[2]
    assert {name for name in ON_THE_TABLE_OF_DEPENDENCIES if f"`Depends(access.{name})`" not in table} == set()


def test_the_contents_link_to_each_section_in_its_order() -> None:
    for path, text in PAGES.items():
        sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert (path.stem, re.findall(r"^\| \*\*\[(.+?)\]\(#", text, re.MULTILINE)) == (path.stem, sections)


def test_a_page_without_a_place_for_its_contents_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no place for its contents"):
        CONTENTS["written"]("# API: a page\n")
