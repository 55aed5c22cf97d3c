"""What holds for the package as a whole: its face, its sizes, its architecture, its documents."""

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.public_names import MODULES as DOCUMENTED

import fastapi_cloudflare_access
from fastapi_cloudflare_access import errors

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fastapi_cloudflare_access"
MODULES = sorted(PACKAGE.parent.rglob("*.py"))
MAX_FACADE, MAX_MODULE, MAX_FUNCTION, MAX_README = 40, 400, 40, 150


def of_path(path: Path) -> str:
    return str(path.relative_to(ROOT))


def written_files() -> Iterator[Path]:
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        generated = any(part.startswith((".venv", ".cache", ".coverage", ".hypothesis")) for part in parts)
        generated |= any(part.endswith("_cache") for part in parts)
        if path.is_file() and not generated and not {".git", "site", "dist", "__pycache__"} & {*parts}:
            yield path


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_the_facade_exports_what_can_be_seen_sorted() -> None:
    visible = {
        name
        for name, value in vars(fastapi_cloudflare_access).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert fastapi_cloudflare_access.__all__ == sorted(visible)


def test_the_error_tree_is_drawn_as_it_grows() -> None:
    tree = {kind.__name__ for kind in error_classes()}
    drawn = set(re.findall(r"[├└]── (\w+)", inspect.getdoc(errors) or "")) | {"AccessError"}
    assert drawn == tree


def test_the_facade_is_one_screen() -> None:
    assert len((PACKAGE / "__init__.py").read_text().splitlines()) <= MAX_FACADE


@pytest.mark.parametrize("path", MODULES, ids=of_path)
def test_modules_and_functions_fit_a_glance(path: Path) -> None:
    lengths = {function.name: code_lines(function) for function in functions(path)}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION} == {}
    assert len(path.read_text().splitlines()) <= MAX_MODULE


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    documented = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - documented


def test_the_architecture_names_every_module_without_exception() -> None:
    """`exhaustive` makes import-linter refuse a module that no layer names, so nothing may soften it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")
    named = set(re.findall(r"\w+", " ".join(layers["layers"])))
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules | packages <= named
    assert layers["exhaustive"] is True
    assert [name for contract in contracts for name in contract if "ignore" in name] == []


def test_every_module_has_a_docstring_and_nothing_imports_relatively() -> None:
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())), path
        assert not re.search(r"^\s*from \.", path.read_text(), re.MULTILINE), path


def test_no_file_names_a_package_registry_or_the_home_of_who_wrote_it() -> None:
    forbidden = re.compile(rb"pypi[.]org|pythonhosted[.]org|registry[.]npmjs|/(?:home|Users)/\w|/root[/]|/wor[k]/")
    assert [of_path(path) for path in written_files() if forbidden.search(path.read_bytes())] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README


def test_the_changelog_has_unreleased_on_top() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"


def test_every_reason_code_that_a_request_can_meet_is_in_the_table_of_answers() -> None:
    answers = (ROOT / "docs/reference/answers.md").read_text()
    kinds = error_classes() - {errors.ConfigurationError}
    leaves = {kind for kind in kinds if not any(kind in other.__bases__ for other in kinds)}
    assert [kind.reason for kind in leaves if f"`{kind.reason}`" not in answers] == []


def error_classes() -> set[type[errors.AccessError]]:
    return {kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.AccessError)}


def test_contributing_names_every_package_of_the_code() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \| ", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} <= listed


def test_every_public_module_is_among_those_whose_names_are_documented() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    public = {path.stem for path in entries if not path.name.startswith("_")} - {"cli"}
    assert public == {module.partition(".")[0] for module in DOCUMENTED}
