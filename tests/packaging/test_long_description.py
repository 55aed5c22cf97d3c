"""The description on a package index: no dead link, with the addresses that the owner sets and without them."""

import re
import runpy
import tomllib
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SOURCE = "https://code.example/acme/fastapi-cloudflare-access"
DOCUMENTATION = "https://docs.example/"
SET = {"Source": SOURCE}


@pytest.fixture(scope="module")
def hooks() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts/hatch_build.py"))


class Links(HTMLParser):
    """Collects what a page links to or loads, and the anchors that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if name in {"href", "src", "srcset"} and value]
        self.anchors |= {value for name, value in attrs if name in {"id", "name"} and value}


def rendered(text: str) -> str:
    """Return the HTML that a package index shows."""
    html = import_module("readme_renderer.markdown").render(text)
    assert html is not None
    return str(html)


def dead(html: str) -> list[str]:
    """Return the links that lead nowhere from the page of a package index."""
    links = Links()
    links.feed(html)
    assert links.targets
    return [
        one for one in links.targets if not re.match(r"https?://", one) and one.removeprefix("#") not in links.anchors
    ]


@pytest.mark.parametrize("urls", [{}, SET, SET | {"Documentation": DOCUMENTATION}], ids=["none", "source", "both"])
def test_the_description_has_no_dead_link(hooks: dict[str, Any], urls: dict[str, str]) -> None:
    assert dead(rendered(hooks["long_description"](README, urls, "0.1.0"))) == []


def test_the_readme_itself_would_have_dead_links() -> None:
    assert len(dead(rendered(README))) > 10


@pytest.mark.parametrize("urls", [{}, SET], ids=["none", "source"])
def test_the_description_says_what_the_readme_says(hooks: dict[str, Any], urls: dict[str, str]) -> None:
    def words(html: str) -> list[str]:
        return re.sub(r"<[^>]+>", "", html).split()

    assert words(rendered(hooks["long_description"](README, urls, "0.1.0"))) == words(rendered(README))


def test_every_link_to_the_repository_names_the_tag_and_a_file(hooks: dict[str, Any]) -> None:
    links = Links()
    links.feed(rendered(hooks["long_description"](README, SET, "1.2.3")))
    ours = [one.removeprefix(f"{SOURCE}/") for one in links.targets if one.startswith(SOURCE)]
    assert len(ours) > 10
    for one in ours:
        view, tag, path = one.split("/", 2)
        target = ROOT / path.partition("#")[0]
        assert (view, tag) == ("tree" if target.is_dir() else "blob", "v1.2.3")
        assert target.exists(), path


@pytest.mark.parametrize(
    ("link", "without", "with_source", "with_both"),
    [
        ("[a](docs/b.md)", "a", f"[a]({SOURCE}/blob/v1/docs/b.md)", "[a](https://docs.example/b/)"),
        ("[a](docs/b.md#c)", "a", f"[a]({SOURCE}/blob/v1/docs/b.md#c)", "[a](https://docs.example/b/#c)"),
        ("[a](docs/index.md)", "a", f"[a]({SOURCE}/blob/v1/docs/index.md)", "[a](https://docs.example/)"),
        ("[a](docs/b/index.md)", "a", f"[a]({SOURCE}/blob/v1/docs/b/index.md)", "[a](https://docs.example/b/)"),
        ("[a](docs/c.json)", "a", f"[a]({SOURCE}/blob/v1/docs/c.json)", f"[a]({SOURCE}/blob/v1/docs/c.json)"),
        ("[a/](a/)", "a/", f"[a/]({SOURCE}/tree/v1/a/)", f"[a/]({SOURCE}/tree/v1/a/)"),
        ("[a](#b)", "a", f"[a]({SOURCE}/blob/v1/README.md#b)", f"[a]({SOURCE}/blob/v1/README.md#b)"),
        ("![a](b.png)", "a", f"![a]({SOURCE}/raw/v1/b.png)", f"![a]({SOURCE}/raw/v1/b.png)"),
        ("[`a`](b.md)", "`a`", f"[`a`]({SOURCE}/blob/v1/b.md)", f"[`a`]({SOURCE}/blob/v1/b.md)"),
        *((same, same, same, same) for same in ("[a](https://b.example/)", "[a](mailto:b@c.example)", "`[a](b)`")),
        ("```\n[a](b)\n```", "```\n[a](b)\n```", "```\n[a](b)\n```", "```\n[a](b)\n```"),
    ],
    ids=lambda value: value.replace("\n", " ") if value.startswith(("[", "!", "`")) else None,
)
def test_a_link_becomes_absolute_or_text(
    hooks: dict[str, Any], link: str, without: str, with_source: str, with_both: str
) -> None:
    describe = hooks["long_description"]
    assert describe(link, {}, "1") == without
    assert describe(link, SET, "1") == with_source
    assert describe(link, SET | {"Documentation": DOCUMENTATION}, "1") == with_both


def test_the_prepared_addresses_are_complete_but_for_the_owner() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = re.findall(r"^# (\[project\.urls\]\n(?:# .+\n)+)", text, re.MULTILINE)
    assert len(block) == 1
    urls = tomllib.loads(block[0].replace("\n# ", "\n"))["project"]["urls"]
    assert list(urls) == ["Homepage", "Documentation", "Source", "Changelog", "Issues", "Security"]
    assert [url for url in urls.values() if "OWNER" not in url or not url.startswith("https://")] == []
