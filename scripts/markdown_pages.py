"""Add what language models read to a built site: each page as Markdown, `llms.txt` and `llms-full.txt`.

    python scripts/markdown_pages.py site

A page has the same path as in `docs`, so that its links to other pages and to pictures work: the page `guides/keys/` is
`guides/keys.md`. Names that mkdocstrings documents are written out. `llms.txt` follows llmstxt.org.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import yaml

ROOT = Path(__file__).parents[1]
DIRECTIVE = re.compile(r"^::: (\S+)\n((?:    .*\n|\n(?=    ))*)", re.MULTILINE)
"""What mkdocstrings replaces by the documentation of a name, with its options."""
CROSS_REFERENCE = re.compile(r"\[([^\[\]]+)\]\[[\w.]+\]")
STYLE = re.compile(r"(?<=\))\s?\{ (?:\.[\w-]+ ?)+\}|^</?div[^>]*>\n\n?", re.MULTILINE)
"""The style of a link, a picture or a block, which only the site shows."""
ANCHOR = re.compile(r"\[\]\(\)\{#[\w.]+\}\n?")
SETTINGS = re.compile(r"\A---\n.*?^---\n+", re.MULTILINE | re.DOTALL)
"""The settings of a page, which only the builder of the site reads."""
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


class Page(NamedTuple):
    """A page of the navigation.

    Attributes:
        section: The heading above it; empty for the start page.
        title: Its title in the navigation.
        path: Its path below `docs`.
    """

    section: str
    title: str
    path: str


def settings() -> dict[str, Any]:
    """Return what mkdocs.yml says, without the tags that only the builder of the site knows."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("", lambda *_: None)
    found: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), loader)  # noqa: S506 - a subclass of the safe one
    return found


def pages(navigation: list[Any], section: str = "") -> Iterator[Page]:
    """Return the pages of a navigation, in its order."""
    for entry in navigation:
        for title, target in entry.items():
            if isinstance(target, str):
                yield Page(section, title, target)
            else:
                yield from pages(target, f"{section}: {title}" if section else title)


def markdown(path: Path) -> str:
    """Return a page with the documentation of each name that it shows."""
    text = SETTINGS.sub("", path.read_text())
    text = DIRECTIVE.sub(lambda found: documentation(found[1], found[2]), text)
    text = STYLE.sub("", ANCHOR.sub("", text))
    text = re.sub(r"^<!-- .*? -->\n", "", text, flags=re.MULTILINE)
    return CROSS_REFERENCE.sub(r"\1", text)


def documentation(name: str, options: str) -> str:
    """Return the signature and the docstring of a name, and of its members as the options choose them."""
    found = resolve(name)
    chosen = re.search(r"(?<!\w)members: \[(.*?)\]", options)
    inherited = re.search(r"inherited_members: \[(.*?)\]", options)
    names = chosen[1].split(", ") if chosen else [*public_members(found)]
    names += inherited[1].split(", ") if inherited else []
    if inspect.ismodule(found):
        parts = [inspect.getdoc(found) or "", *(documented(f"{name}.{one}", getattr(found, one)) for one in names)]
    else:
        parts = [documented(name, found)]
        if inspect.isclass(found) and "members: false" not in options:
            members = [one for one in names if one in dir(found)]
            parts += [documented(f"{found.__name__}.{one}", inspect.getattr_static(found, one)) for one in members]
    return "\n\n".join(part for part in parts if part) + "\n"


def public_members(found: Any) -> Iterator[str]:
    """Return the names without an underscore that a class has, and those of what a module defines."""
    for name, value in vars(found).items() if hasattr(found, "__dict__") else ():
        if not name.startswith("_") and (
            not inspect.ismodule(found) or getattr(value, "__module__", "") == found.__name__
        ):
            yield name


def resolve(name: str) -> Any:
    """Return the module, or what the module has by that name."""
    module, _, rest = name.rpartition(".")
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return getattr(resolve(module), rest)


def documented(name: str, found: Any) -> str:
    """Return the heading, the signature and the docstring of a name; empty for what has no docstring."""
    found = getattr(found, "fget", None) or getattr(found, "__func__", found)
    text = inspect.getdoc(found) if inspect.isclass(found) or inspect.isroutine(found) else None
    if not text:
        return ""
    short = name.rpartition(".")[2] if inspect.isclass(found) else name
    return f"### `{name}`\n\n```python\n{short}{signature(found)}\n```\n\n{text}"


def signature(found: Any) -> str:
    """Return the signature of a class or a function, without the marks that only the package reads."""
    try:
        shown = inspect.signature(found)
    except (TypeError, ValueError):
        return ""

    def plain(annotation: Any) -> Any:
        return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation

    parameters = [one.replace(annotation=plain(one.annotation)) for one in shown.parameters.values()]
    text = str(shown.replace(parameters=parameters, return_annotation=plain(shown.return_annotation)))
    return re.sub(r"\b(?:typing|collections\.abc|fastapi_cloudflare_access(?:\.\w+)*)\.", "", text)


def summary(text: str) -> str:
    """Return the first sentence of a page."""
    text = FENCE.sub("", text)
    for block in text.split("\n\n"):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(block.split()))
        if plain and not plain.startswith(("#", "|", "<", "!", "-", ":::", "```")):
            return re.split(r"(?<=[.:])\s", plain)[0].rstrip(":")
    return ""


def index(site: dict[str, Any], listed: list[Page], texts: dict[str, str]) -> str:
    """Return `llms.txt`."""
    base = f"{site['site_url'].rstrip('/')}/" if site.get("site_url") else ""
    lines = [f"# {site['site_name']}", "", f"> {site['site_description']}"]
    for number, page in enumerate(listed):
        if number == 0 or page.section != listed[number - 1].section:
            lines += ["", f"## {page.section or 'Start'}", ""]
        about = summary(texts[page.path])
        lines.append(f"- [{page.title}]({base}{page.path})" + (f": {about}" if about else ""))
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Write the files into a built site."""
    site = settings()
    listed = [*pages(site["nav"])]
    texts = {page.path: markdown(ROOT / site["docs_dir"] / page.path) for page in listed}
    for path, text in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    (folder / "llms.txt").write_text(index(site, listed, texts))
    (folder / "llms-full.txt").write_text("\n\n".join(f"<!-- {path} -->\n{text}" for path, text in texts.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
