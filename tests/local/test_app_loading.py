"""An app is found as uvicorn and the FastAPI command line find it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.app_loading import AppImportError, entrypoint, load_app

MODULE = """\
class App:
    async def __call__(self, scope, receive, send): ...
app = App()
def create_app(): return app
async def plain(scope, receive, send): ...
def broken(): raise RuntimeError("no database")
number = int
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "loaded_app_of_a_test.py").write_text(MODULE)

    def load(name: str, *, is_factory: bool = False) -> Any:
        return load_app(f"loaded_app_of_a_test:{name}", folder=tmp_path, is_factory=is_factory)

    yield load
    sys.modules.pop("loaded_app_of_a_test", None)


def test_an_app_and_a_function_are_apps(module: Any) -> None:
    assert type(module("app")).__name__ == "App"
    assert module("plain").__name__ == "plain"


@pytest.mark.parametrize("is_factory", [True, False])
def test_a_factory_is_called(module: Any, is_factory: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert module("create_app", is_factory=is_factory) is module("app")


def test_a_factory_that_raises_shows_its_own_lines(module: Any) -> None:
    with pytest.raises(AppImportError) as raised:
        module("broken")
    lines = str(raised.value).splitlines()
    assert lines[-1] == "RuntimeError: no database"
    assert len(lines) <= 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[tool.fastapi]\nentrypoint = "a.b:app"\n', "a.b:app"),
        ("[tool.fastapi]\n", None),
        ("[tool]\nfastapi = 1\n", None),
        ("tool = 1\n", None),
        ("", None),
    ],
)
def test_the_entrypoint_is_in_pyproject(tmp_path: Path, text: str, found: str | None) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert entrypoint(tmp_path) == found


def test_without_pyproject_there_is_no_entrypoint(tmp_path: Path) -> None:
    assert entrypoint(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "problem"), [("[tool", "cannot be read as TOML"), ("[tool.fastapi]\nentrypoint = 1", "must be a text")]
)
def test_a_wrong_entrypoint_is_rejected(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=problem):
        entrypoint(tmp_path)
