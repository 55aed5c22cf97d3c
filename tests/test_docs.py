"""The documentation builds without a warning, and the Python in it runs."""

import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic.fields import FieldInfo
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

import fastapi_cloudflare_access
import fastapi_cloudflare_access.testing
from fastapi_cloudflare_access import errors, health, protocols
from fastapi_cloudflare_access._settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
ENVIRONMENT = {"CF_ACCESS_TEAM_DOMAIN": "acme", "CF_ACCESS_AUDIENCE": "32eafc7626e737969582a7b2a3b5a1c1"}


class Snippets(PythonEvaluator):
    """Executes a block, then calls the tests it defines."""

    def __call__(self, example: Example) -> None:
        before = dict(example.namespace)
        super().__call__(example)
        for name, value in list(example.namespace.items()):
            if name.startswith("test_") and inspect.isfunction(value) and before.get(name) is not value:
                call(value)


def call(test: Callable[[], object]) -> None:
    outcome = test()
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


def parse(page: Path) -> Document:
    parser = CodeBlockParser(language="python", evaluator=Snippets())
    return Sybil(parsers=[parser], path=str(ROOT)).parse(page)


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Be a module, so that classes defined on a page can be found by name, and `app.py`, where a page is about that."""
    module = ModuleType("a_page_of_the_documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "app", module)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return module.__dict__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_every_page_runs_from_top_to_bottom(page: Path, namespace: dict[str, object]) -> None:
    document = parse(page)
    document.namespace = namespace
    examples = list(document.examples())
    assert len(examples) >= len(re.findall(r"^\s*```\s*(?:python|py)\b", page.read_text(), re.MULTILINE))
    for example in examples:
        example.evaluate()


def test_the_readme_shows_the_quickstart_app() -> None:
    app = (ROOT / "examples/quickstart_app.py").read_text()
    assert f"```python\n{app}```" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return folder, built.returncode, built.stderr.strip()


def test_the_documentation_builds_without_a_warning(site: tuple[Path, int, str]) -> None:
    assert site[1:] == (0, "")


def test_every_section_of_a_page_is_a_heading_of_it(site: tuple[Path, int, str]) -> None:
    """A heading right below a table would be a row of it."""
    for page in (ROOT / "docs").rglob("*.md"):
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        folder = site[0] / page.relative_to(ROOT / "docs").with_suffix("")
        built = (folder.parent if page.stem == "index" else folder) / "index.html"
        sections = re.findall(r"^## ", text, re.MULTILINE)
        assert (page.name, len(re.findall("<h2 id=", built.read_text()))) == (page.name, len(sections))


def test_readers_browsers_load_nothing_from_other_hosts(site: tuple[Path, int, str]) -> None:
    loaded = re.compile(r"""(?:src="|<link [^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href=")(?:https?:)?//""")
    pages = list(site[0].rglob("*.html"))
    assert pages
    assert [page.name for page in pages if loaded.search(page.read_text())] == []


@pytest.mark.parametrize("module", [fastapi_cloudflare_access, fastapi_cloudflare_access.testing])
def test_the_reference_has_every_exported_name(site: tuple[Path, int, str], module: ModuleType) -> None:
    missing = {
        name
        for name in module.__all__
        if not {f"{module.__name__}.{name}", f"{getattr(getattr(module, name), '__module__', '')}.{name}"}
        & reference(site)
    }
    assert missing == set()


@pytest.mark.parametrize("module", [errors, health, protocols])
def test_the_reference_has_every_name_of_a_public_module(site: tuple[Path, int, str], module: ModuleType) -> None:
    names = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    assert {name for name in names if f"{module.__name__}.{name}" not in reference(site)} == set()


def reference(site: tuple[Path, int, str]) -> set[str]:
    return set(re.findall(r'id="([\w.]+)"', (site[0] / "reference/api/index.html").read_text()))


def test_the_page_of_settings_has_each_with_its_default_and_bounds() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|", page, re.MULTILINE)
    assert [(name, default) for name, default, _ in rows] == [
        (name, shown(field)) for name, field in Settings.model_fields.items()
    ]
    stated = {name: bounds for name, _, bounds in rows}
    assert {name: stated[name] for name in stated if bounds_of(name)} == {
        name: bounds_of(name) for name in stated if bounds_of(name)
    }


def shown(field: FieldInfo) -> str:
    if field.is_required():
        return "none"
    if isinstance(field.default, bool | int | float):
        return str(field.default).lower() if isinstance(field.default, bool) else f"{field.default:.15g}"
    parts = [field.default] if isinstance(field.default, str) else field.default
    return "`" + ",".join(part if isinstance(part, str) else f"{part:g}" for part in parts) + "`"


def bounds_of(name: str) -> str | None:
    """In words, of a setting that is one number."""
    limits = {kind: limit for part in Settings.model_fields[name].metadata for kind, limit in vars_of(part).items()}
    if not limits.keys() & {"ge", "gt"}:
        return None
    low = f"{limits['ge']:.15g}" if "ge" in limits else f"above {limits['gt']:.15g},"
    return f"{low} to {limits['le']:.15g}"


def vars_of(part: object) -> dict[str, Any]:
    return {kind: getattr(part, kind) for kind in ("ge", "gt", "le") if hasattr(part, kind)}
