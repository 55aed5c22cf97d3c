"""The built documentation: no warning, no broken link, every public thing on it, and each page as Markdown."""

import json
import re
import runpy
import shutil
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from support.public_names import MODULES, PACKAGE, load, public_names
from support.site import DOCS, PAGES, ROOT, built

from fastapi_cloudflare_access import events

pytestmark = [pytest.mark.sources, pytest.mark.once]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory)


@pytest.fixture(scope="module")
def site(folder: Path) -> Path:
    return folder / "site"


class Content(HTMLParser):
    """Collects the anchors of a page, and where it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"id", "name"} and value:
                self.anchors.add(value)
            if name in {"href", "src"} and value and (tag, dict(attrs).get("rel")) != ("link", "canonical"):
                self.links.add(value)


@cache
def content(page: Path) -> Content:
    found = Content()
    found.feed(page.read_text())
    return found


def html(site: Path, page: str) -> Path:
    """Return the built page of a source, such as `guides/keys.md`."""
    stem = page.removesuffix(".md").removesuffix("index")
    return site / stem / "index.html"


def broken(site: Path, page: Path) -> list[str]:
    """Return the links of a page to pages, files and anchors of this site that do not exist."""
    wrong: list[str] = []
    for link in content(page).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        path = unquote(parts.path)
        target = (site / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve() if path else page
        target = target / "index.html" if target.is_dir() else target
        anchor = unquote(parts.fragment)
        if not target.is_file() or (anchor and target.suffix == ".html" and anchor not in content(target).anchors):
            wrong.append(link)
    return [link for link in wrong if not re.search(r"#only-(?:light|dark)$", link) or not exists(page, link)]


def exists(page: Path, link: str) -> bool:
    """Check whether the picture of a link exists; what follows `#` chooses it for a scheme of colours."""
    return (page.parent / urlsplit(link).path).is_file()


def test_the_documentation_builds_without_a_warning(folder: Path) -> None:
    log = (folder / "log.txt").read_text()
    assert "No issues found" in log, log


@pytest.mark.parametrize("page", PAGES)
def test_no_link_of_a_page_is_broken(site: Path, page: str) -> None:
    assert broken(site, html(site, page)) == []


def test_a_broken_link_is_noticed(site: Path, tmp_path: Path) -> None:
    shutil.copy(site / "404.html", tmp_path / "other.html")
    page = tmp_path / "index.html"
    links = ["other.html", "other.html#nowhere", "missing/", "missing.png", "#here", "#gone", "https://a.example/"]
    page.write_text('<p id="here">' + "".join(f'<a href="{link}">a</a>' for link in links))
    assert set(broken(tmp_path, page)) == {"other.html#nowhere", "missing/", "missing.png", "#gone"}


def test_every_picture_and_file_is_used_by_a_page() -> None:
    pages = "".join(path.read_text() for path in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "mkdocs.yml"])
    assert [path.name for path in (DOCS / "assets").iterdir() if path.name not in pages] == []


def test_the_pictures_of_the_local_access_were_taken_from_its_present_pages() -> None:
    """If this fails, look at the pages, and run `python scripts/screenshots.py local`."""
    templates = ROOT / "src/fastapi_cloudflare_access/local/templates"
    files = [path for path in templates.iterdir() if path.suffix in {".css", ".html"}]
    taken_from = json.loads((ROOT / "scripts/screenshots.json").read_text())
    assert taken_from == {path.name: sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == PAGES


def test_every_section_of_a_page_is_a_heading_of_it(site: Path) -> None:
    """A heading right below a table would be a row of it."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)
        sections = re.findall(r"^## ", text, re.MULTILINE)
        assert (page, len(re.findall("<h2 id=", html(site, page).read_text()))) == (page, len(sections))


def test_readers_browsers_load_nothing_from_other_hosts(site: Path) -> None:
    loaded = re.compile(r"""(?:src="|<link [^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href=")(?:https?:)?//""")
    pages = list(site.rglob("*.html"))
    assert pages
    assert [page.name for page in pages if loaded.search(page.read_text())] == []


# nothing public is undocumented


@pytest.fixture(scope="module")
def reference(site: Path) -> set[str]:
    """Return the names that the reference documents."""
    pages = (site / "reference/api").rglob("index.html")
    return {name for page in pages for name in re.findall(r'id="([\w.]+)"', page.read_text())}


@pytest.mark.parametrize("module", ["", *MODULES], ids=[module or PACKAGE for module in ["", *MODULES]])
def test_the_reference_has_every_public_name(reference: set[str], module: str) -> None:
    if module == "mcp":
        reason = "the MCP SDKs need newer versions than the lowest that the package admits"
        pytest.importorskip("fastapi_cloudflare_access.mcp", reason=reason, exc_type=ImportError)
    loaded, names = load(module), public_names(module)
    missing = {
        name
        for name in names
        if not {
            f"{loaded.__name__}.{name}",
            f"{PACKAGE}.{name}",
            f"{getattr(getattr(loaded, name), '__module__', '')}.{name}",
        }
        & reference
    }
    assert names
    assert missing == set()


def test_the_reference_shows_no_helper_of_the_code(site: Path) -> None:
    """Not how a default is declared, but what it is."""
    for page in ("app", "callers", "operation"):
        text = re.sub(r"<[^>]+>", "", (site / f"reference/api/{page}/index.html").read_text())
        helpers = r"left_out\(|Annotated\[(?!UserClaims, Depends)|_NO_REQUEST|_NOT_PASSED|BeforeValidator"
        assert re.findall(rf"{helpers}|Documented\[|Strict(?:Str|Bool)", text) == []


def test_every_event_is_named_in_a_guide_or_on_the_page_about_stability() -> None:
    pages = "".join(path.read_text() for path in DOCS.rglob("*.md"))
    kinds: list[type] = [events.AccessEvent, *events.AccessEvent.__subclasses__(), *events.KeyEvent.__subclasses__()]
    assert [kind.__name__ for kind in kinds if f"`{kind.__name__}`" not in pages] == []


# for language models


@pytest.mark.parametrize("page", PAGES)
def test_each_page_is_there_as_markdown(site: Path, page: str) -> None:
    text = (site / page).read_text()
    assert text.startswith("# ")
    assert re.findall(r"\)\{ \.|^::: |\]\[fastapi_cloudflare_access|\]\(\)\{#|^<!--", text, re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES)
def test_no_link_of_a_page_as_markdown_is_broken(site: Path, page: str) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", (site / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [urlsplit(link) for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    paths = [link.path for link in links if not link.scheme and link.path]
    assert [path for path in paths if not ((site / page).parent / path).is_file()] == []


def test_the_markdown_of_the_reference_has_the_names_with_their_signatures(site: Path) -> None:
    app = (site / "reference/api/app.md").read_text()
    assert "### `fastapi_cloudflare_access.CloudflareAccess`\n" in app
    assert "CloudflareAccess.logout_url(self, *, host: str | None = None, return_to: str | None = None) -> str" in app
    assert "NotADependency" not in app


def test_llms_txt_lists_each_page_once_with_a_sentence(site: Path) -> None:
    lines = (site / "llms.txt").read_text().splitlines()
    assert lines[0] == "# fastapi-cloudflare-access"
    assert lines[2].startswith("> ")
    entries = [re.fullmatch(r"- \[(.+)\]\((.+)\): (.+)", line) for line in lines if line.startswith("- ")]
    assert None not in entries
    assert sorted(entry[2] for entry in entries if entry) == PAGES


@pytest.mark.parametrize("address", ["https://docs.example/access", "https://docs.example/access/"])
def test_llms_txt_has_absolute_addresses_if_the_owner_has_set_one(address: str) -> None:
    script = runpy.run_path(str(ROOT / "scripts/markdown_pages.py"))
    site = {"site_name": "a", "site_description": "b", "site_url": address}
    text = script["index"](site, [script["Page"]("Guides", "C", "guides/c.md")], {"guides/c.md": "# C\n\nIt is c.\n"})
    assert text.endswith("## Guides\n\n- [C](https://docs.example/access/guides/c.md): It is c.\n")


def test_the_address_of_the_documentation_is_one_line_to_uncomment() -> None:
    lines = re.findall(r"^(# )?site_url: (\S+)", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(lines) == 1
    assert ("OWNER" in lines[0][1]) == bool(lines[0][0])


def test_the_search_leaves_out_the_pages_of_evidence_alone(site: Path) -> None:
    """Their many words would hide the guide that answers."""
    items = json.loads((site / "search.json").read_text())["items"]
    found = {item["location"].partition("#")[0].rstrip("/") or "index" for item in items}
    left_out = {"concepts/conformance", "concepts/performance", "reference/differences"}
    assert {page.removesuffix(".md") for page in PAGES} - found == left_out


def test_llms_full_txt_has_every_page(site: Path) -> None:
    text = (site / "llms-full.txt").read_text()
    assert [page for page in PAGES if (site / page).read_text() not in text] == []
