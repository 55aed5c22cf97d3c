"""The Python of the documentation runs, and what it says of settings and mistakes is true."""

import asyncio
import inspect
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Annotated, Any

import fastapi
import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, KeySettings, UserClaims, guard
from fastapi_cloudflare_access.guard import AccessGuard
from fastapi_cloudflare_access.instrumentation.opentelemetry import OpenTelemetryListener
from fastapi_cloudflare_access.instrumentation.prometheus import PrometheusListener
from fastapi_cloudflare_access.policies import Group
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import FakeTeam, assert_protected, override

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
GENERATED = {"conformance.md", "performance.md"}
"""Pages that other scripts write."""
ENVIRONMENT = {
    "CF_ACCESS_TEAM_DOMAIN": "acme",
    "CF_ACCESS_AUDIENCE": "0" * 64,
    "STORE_URL": "redis://localhost:6379/0",
    "STORE_SECRET": "0" * 32,
}
WIDTH = 84
"""Columns of a code block, so that none has to be scrolled."""
UNPLAIN = re.compile(r"\b(who|whom|whoever|nobody|somebody|errand|wish|crowd)\b", re.IGNORECASE)


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
def namespace(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """Be a module, so that classes defined on a page can be found by name, and `app.py`, where a page is about that."""
    module = ModuleType("a_page_of_the_documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "app", module)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    registered = {*REGISTRY._collector_to_names}
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [*root.handlers])  # a page may configure logging
    monkeypatch.setattr(root, "level", root.level)
    logger = logging.getLogger("fastapi_cloudflare_access")
    level = logger.level
    yield module.__dict__
    logger.setLevel(level)
    for collector in {*REGISTRY._collector_to_names} - registered:  # a page may register metrics
        REGISTRY.unregister(collector)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_every_page_runs_from_top_to_bottom(page: Path, namespace: dict[str, object]) -> None:
    if page.name == "mcp.md":
        pytest.importorskip(
            "fastmcp", reason="the MCP SDKs need newer versions than the lowest that the package admits"
        )
    document = parse(page)
    document.namespace = namespace
    examples = list(document.examples())
    assert len(examples) >= len(re.findall(r"^\s*```\s*(?:python|py)\b", page.read_text(), re.MULTILINE))
    for example in examples:
        example.evaluate()


@pytest.mark.parametrize(
    "documented",
    [
        CloudflareAccess,
        guard.AccessGuard,
        guard.PrivateResponses,
        OpenTelemetryListener,
        PrometheusListener,
        FakeTeam.patch,
        assert_protected,
        override,
    ],
    ids=lambda documented: str(documented.__name__),
)
def test_the_example_of_a_docstring_runs(documented: object, namespace: dict[str, object]) -> None:
    section = (inspect.getdoc(documented) or "").partition("Examples:\n")[2]
    code = re.sub(r"^```\w*$", "", dedent(section), flags=re.MULTILINE)
    assert code.strip()
    exec(code, namespace)  # noqa: S102 - the package's own


def test_the_readme_shows_the_quickstart_app() -> None:
    app = (ROOT / "examples/quickstart_app.py").read_text()
    assert f"```python\n{app}```" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("script", ["session.js", "app.js", "service-worker.js"])
def test_the_guide_shows_the_scripts_of_the_single_page_app(script: str) -> None:
    text = (ROOT / "examples/spa" / script).read_text()
    assert f"```js\n{text}```" in (ROOT / "docs/guides/single-page-apps.md").read_text()


# the settings


@pytest.mark.sources
@pytest.mark.once  # the script needs the packages of the documentation
def test_the_page_of_settings_is_what_the_script_writes() -> None:
    command = [sys.executable, str(ROOT / "scripts/reference.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def rows() -> dict[str, tuple[str, str, str]]:
    """Each setting of the page, with its environment variable, its default and the values that it admits."""
    page = (ROOT / "docs/reference/settings.md").read_text()
    found = re.findall(r"^\| `(\w+)`<br>`(CF_ACCESS_\w+)` \| (.+?) \| (.+?) \|", page, re.MULTILINE)
    return {name: (variable, default.strip("`"), values) for name, variable, default, values in found}


def test_the_page_of_settings_has_each_of_them() -> None:
    fields = [*Settings.model_fields, *KeySettings.model_fields]
    assert list(rows()) == [name for name in fields if name != "key_settings"]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def in_force(name: str) -> object:
    made = CloudflareAccess().settings
    return getattr(made.key_settings if name in KeySettings.model_fields else made, name)


@pytest.mark.parametrize("name", rows())
def test_the_default_on_the_page_is_the_one_in_force(name: str, configured: pytest.MonkeyPatch) -> None:
    variable, default, _ = rows()[name]
    if default == "none":
        configured.delenv(variable)
        with pytest.raises(ConfigurationError, match=f"set {variable}"):
            CloudflareAccess()
    elif default == "not set":
        assert not in_force(name)
    else:
        without = in_force(name)
        configured.setenv(variable, default)
        assert in_force(name) == without


@pytest.mark.parametrize("name", [name for name, (_, _, values) in rows().items() if " to " in values])
def test_the_bounds_on_the_page_are_those_in_force(name: str, configured: pytest.MonkeyPatch) -> None:
    variable, _, values = rows()[name]
    low, high = map(int, re.findall(r"\d+", values))
    for beyond in (str(low) if values.startswith("above") else str(low - 1), str(high + 1)):
        configured.setenv(variable, beyond)
        with pytest.raises(ConfigurationError, match=variable):
            CloudflareAccess()


# mistakes


class Strict(UserClaims, extra="forbid"):
    """A model that the guide shows as a mistake."""


class Employee(UserClaims):
    """A model that the guide shows without `user_model=`."""


class Directory(BaseModel):
    """Typed custom claims, without groups."""


class Typed(UserClaims):
    """A model that the guide shows with a policy about groups."""

    custom: Directory = Directory()


class View:
    """A class whose method the guide shows as a route."""

    def me(self) -> None: ...


async def async_policy(caller: object) -> bool:
    return bool(caller)


def policy_of_two(caller: object, request: object) -> bool:
    return caller is request


MISTAKES = re.findall(
    r"^\| `(.+?)` \| (.+) \|$",
    (ROOT / "docs/guides/callers.md").read_text().partition("## Mistakes that become errors")[2].partition("\n## ")[0],
    re.MULTILINE,
)


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(("mistake", "sentence"), MISTAKES, ids=[mistake for mistake, _ in MISTAKES])
def test_a_mistake_in_the_guide_becomes_the_error_that_the_guide_shows(mistake: str, sentence: str) -> None:
    pattern = re.escape(sentence.replace("\\|", "|")).replace("…", ".*")
    with pytest.raises(ConfigurationError, match=f"^{pattern}$"):
        make(mistake)


def make(mistake: str) -> None:
    """Write the mistake as a parameter, an app, an object or a dependency of a route, and start the app."""
    access = CloudflareAccess()
    names: dict[str, Any] = {name: getattr(fastapi, name) for name in ("Depends", "FastAPI", "Security")}
    names |= {"CloudflareAccess": CloudflareAccess, "UserClaims": UserClaims, "Annotated": Annotated}
    names |= {"access": access, "Strict": Strict, "async_policy": async_policy, "policy_of_two": policy_of_two}
    names |= {"request": HTTPConnection({"type": "http"}), "View": View, "Employee": Employee}
    names |= {"Group": Group, "AccessGuard": AccessGuard}
    names["access_of_typed"] = CloudflareAccess(user_model=Typed)
    names["app"] = app = fastapi.FastAPI(lifespan=access.lifespan)
    if mistake.startswith(("CloudflareAccess(", "AccessGuard(", "access.", "access_of_typed.", "app.")):
        eval(mistake, names)  # noqa: S307 - what the guide shows
    elif mistake.startswith("FastAPI("):
        app = eval(mistake, names)  # noqa: S307 - the same
    else:
        parameter = mistake if mistake.startswith("user: ") else f"user: {mistake}"
        is_type = mistake.startswith(("user: ", "Annotated["))
        body = f"async def me({parameter}): ..." if is_type else f"async def me(user=None, it={mistake}): ..."
        exec(f"@app.get('/me')\n{body}", names)  # noqa: S102 - the same
    with FakeTeam().patch(access), TestClient(app):
        pass


# the words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_a_code_block_is_too_long(page: Path) -> None:
    blocks = re.findall(r"^```.*?\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert [line for block in blocks for line in block.splitlines() if len(line) > WIDTH] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_uses_plain_words(page: Path) -> None:
    if page.name in GENERATED:
        pytest.skip("another script writes it")
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert UNPLAIN.findall(text) == []
