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

import pytest
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

import fastapi_cloudflare_access
import fastapi_cloudflare_access.testing
from fastapi_cloudflare_access import errors, health, protocols

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
    """Be a module, so that classes defined on a page can be found by name."""
    module = ModuleType("a_page_of_the_documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)
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
