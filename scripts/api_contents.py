"""The table at the top of each API page: every name below it, by section, with the first sentence of its docstring.

`scripts/reference.py` writes it, and checks it.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import griffe

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/reference/api"
PACKAGE = "fastapi_cloudflare_access"
BEGIN, END = "<!-- contents -->\n", "<!-- end of contents -->\n"
ENTRY = re.compile(r"^(?:## (?P<section>.+)|::: (?P<name>\S+)\n(?P<options>(?:    .*\n|\n(?=    ))*))", re.MULTILINE)
"""A heading of a section, or what mkdocstrings replaces by the documentation of a name."""
WITH_MEMBERS = f"{PACKAGE}.CloudflareAccess"
"""The class whose members the table has too, since an app uses most of them."""


class Name(NamedTuple):
    """A name that a page documents.

    Attributes:
        path: The name with its module, as an anchor of the page.
        section: The heading above it.
        sentence: What it is or does.
    """

    path: str
    section: str
    sentence: str


@cache
def package() -> griffe.Object | griffe.Alias:
    """Return the package as its source has it."""
    return griffe.load(PACKAGE, search_paths=[ROOT / "src"], resolve_aliases=True, resolve_external=False)


def names(text: str) -> Iterator[Name]:
    """Yield the names that a page documents, in its order."""
    section = ""
    for found in ENTRY.finditer(text):
        if found["section"]:
            section = found["section"]
            continue
        for path in expanded(found["name"], found["options"]):
            yield Name(path, section, sentence(path))


def expanded(path: str, options: str) -> list[str]:
    """Return a name, or the public names of a module, or those that the options choose."""
    found = package()[path.removeprefix(f"{PACKAGE}.")]
    if path == WITH_MEMBERS:
        own = [name for name, member in found.members.items() if shown(member)]
        return [path, *(f"{path}.{name}" for name in [*own, *chosen(options, "inherited_members")])]
    if not found.is_module:
        return [path]
    public = found.exports or [name for name, member in found.members.items() if not member.is_alias and shown(member)]
    return [f"{path}.{name}" for name in chosen(options, "members") or public]


def chosen(options: str, name: str) -> list[str]:
    """Return the list of an option."""
    found = re.search(rf"(?<!\w){name}: \[(.*?)\]", options)
    return found[1].split(", ") if found else []


def shown(member: griffe.Object | griffe.Alias) -> bool:
    """Check whether mkdocstrings shows a member of a module."""
    return not member.name.startswith("_") and member.has_docstring


def sentence(path: str) -> str:
    """Return the first sentence of a docstring, as a cell of a table."""
    owner, _, name = path.removeprefix(f"{PACKAGE}.").rpartition(".")
    documented = (package()[owner] if owner else package()).all_members[name].docstring
    first = " ".join(documented.value.split("\n\n")[0].split()) if documented else ""
    first = re.split(r"(?<=[.:;])\s", re.sub(r"\[([^\[\]]+)\]\[[\w.]+\]", r"\1", first))[0]
    return first.rstrip(".:;").replace("|", "\\|")


def contents(text: str) -> str:
    """Return the table of a page."""
    lines, section = ["| name | what it is or does |", "|---|---|"], ""
    for name in names(text):
        if name.section != section:
            section = name.section
            anchor = re.sub(r"\W+", "-", section.lower())
            lines.append(f"| **[{section}](#{anchor})** | {imported_from(text, section)} |")
        lines.append(f"| [`{short(name.path)}`][{name.path}] | {name.sentence} |")
    return "\n".join(lines) + "\n"


def short(path: str) -> str:
    """Return a name without its module; a member as an app writes it."""
    name = path.rpartition(".")[2]
    return f"access.{name}" if path.startswith(f"{WITH_MEMBERS}.") else name


def imported_from(text: str, section: str) -> str:
    """Return where the names of a section are imported from."""
    listed = [name.path for name in names(text) if name.section == section]
    modules = dict.fromkeys(path.rpartition(".")[0] for path in listed if not path.startswith(f"{WITH_MEMBERS}."))
    return "from " + ", ".join(f"`{module}`" for module in modules)


def written(text: str) -> str:
    """Return a page with the table of today."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"a page of {PAGES.relative_to(ROOT)} has no place for its contents: {BEGIN.strip()}")
    return f"{before}{BEGIN}\n{contents(after)}\n{END}{after}"


def pages() -> dict[Path, str]:
    """Return each API page as it has to be."""
    return {path: written(path.read_text()) for path in sorted(PAGES.glob("*.md"))}
