"""`cf-access routes` shows which callers each route of an app admits."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Cli

from fastapi_cloudflare_access.cli.routes import imported
from fastapi_cloudflare_access.testing import FakeTeam

APP = """
from fastapi import Depends, FastAPI, WebSocket
from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.guard import AccessGuard

print("starting")
access = CloudflareAccess()
other = access.with_audience("1" * 64)
app = FastAPI(openapi_url=None)

@app.get("/me", dependencies=[Depends(access.user)])
def me(): ...

@app.get("/reports/{number}", dependencies=[Depends(other)])
def report(number: int): ...

@app.get("/healthz")
def health(): ...

@app.get("/me")
def again(): ...

@app.websocket("/chat")
async def chat(socket: WebSocket): ...

class Holder:
    app = app
"""
LONG = """
app = FastAPI(openapi_url=None)
@app.get("/a/very/long/path/that/does/not/fit/into/a/column/of/the/table/{number}")
def route(): ...
"""
OUTPUT = """\
✓ GET     /me                users (access.user)
✓ GET     /reports/{number}  users and services (access)
✗ GET     /healthz           anyone: no dependency of access
  → write Depends(access.user)
· GET     /me                never reached: /me is declared before it
✗ WS      /chat              anyone: no dependency of access
  → write Depends(access.user)

✗ 5 routes, 2 open, 2 of them not listed
  → to list them: --open '/healthz' --open 'WS /chat'
"""
GUIDE = (Path(__file__).parents[2] / "docs/guides/audit.md").read_text()
NAME = "routes_of_a_test"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: FakeTeam) -> str:
    """The name of a module with an app, in the folder of the command."""
    (tmp_path / f"{NAME}.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    return NAME


@pytest.mark.conformance(108)
def test_each_route_is_a_line_and_each_open_one_a_failure(cli: Cli, app: str) -> None:
    result = cli("routes", f"{app}:app")
    assert (result.code, result.out, result.err) == (1, OUTPUT, "starting\n")


def test_the_guide_shows_what_the_command_writes(cli: Cli, app: str, tmp_path: Path) -> None:
    blocks = dict(re.findall(r"^```(python|console)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)[1::-1])
    (tmp_path / f"{NAME}.py").write_text(blocks["python"])
    command, _, shown = blocks["console"].partition("\n")
    assert command == "$ cf-access routes app:app"
    assert cli("routes", f"{app}:app").out == shown


def test_listed_routes_may_be_open(cli: Cli, app: str) -> None:
    result = cli("routes", f"{app}:Holder.app", "--open", "/healthz", "--open", "WS /chat")
    assert result.code == 0
    assert "! GET     /healthz           anyone, as listed\n" in result.out
    assert result.out.endswith("\n\n✓ 5 routes, 2 open, 0 of them not listed\n")


def test_a_listed_path_that_is_not_served_is_a_failure(cli: Cli, app: str) -> None:
    result = cli("routes", f"{app}:app", "--open", "/healthz", "--open", "WS /chat", "--open", "/helthz")
    assert result.code == 1
    assert "✗ open lists '/helthz', which the app does not serve: did you mean '/healthz'?\n" in result.out


def test_the_objects_that_count_can_be_chosen(cli: Cli, app: str) -> None:
    result = cli("routes", f"{app}:app", "--access", f"{app}:access")
    assert "✗ GET     /reports/{number}  anyone: access of another CloudflareAccess object\n" in result.out
    result = cli("routes", f"{app}:app", "--access", f"{app}:access", "--access", f"{app}:other")
    assert "✓ GET     /reports/{number}  users and services (access)\n" in result.out


def test_json_has_the_same_and_conforms_to_the_schema(cli: Cli, app: str) -> None:
    result = cli("routes", f"{app}:app", "--open", "/healthz", "--json")
    schema = json.loads((Path(__file__).parents[2] / "docs/reference/cli.schema.json").read_text())
    import_module("jsonschema").Draft202012Validator(schema).validate(result.json)
    assert (result.code, result.json["ok"], result.json["problems"]) == (1, False, [])
    states = [(each["path"], each["open"], each["listed"], each["who"]) for each in result.json["routes"]]
    assert states == [
        ("/me", False, False, "users"),
        ("/reports/{number}", False, False, "users and services"),
        ("/healthz", True, True, "anyone"),
        ("/me", False, False, "never reached"),
        ("/chat", True, False, "anyone"),
    ]


SOCKETS = """
from fastapi import Depends, FastAPI, WebSocket
from fastapi_cloudflare_access import CloudflareAccess

access = CloudflareAccess()
app = FastAPI(openapi_url=None, dependencies=[Depends(access.user)])

@app.get("/me")
def me(): ...

@app.websocket("/live")
async def live(socket: WebSocket): ...

@app.websocket("/chat")
async def chat(socket: WebSocket): ...
"""
NOTES = """\
✓ GET     /me    users (access.user)
! WS      /live  users (access.user); pages of any origin may open it; it is not seen to end with its token
! WS      /chat  users (access.user); pages of any origin may open it; it is not seen to end with its token
  → write app.add_middleware(SameOrigin, origins=[…])
  → write async with access.while_valid(user), or AccessGuard(end_streams=True)

✓ 3 routes, 0 open, 0 of them not listed
"""


def test_a_note_on_a_protected_websocket_is_a_warning_and_no_failure(cli: Cli, app: str, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.py").write_text(SOCKETS)
    result = cli("routes", f"{app}:app")
    assert (result.code, result.out) == (0, NOTES)


def test_a_path_that_two_open_routes_have_is_once_in_the_hint(cli: Cli, app: str, tmp_path: Path) -> None:
    twice = "".join(f"@app.{method}('/both')\ndef {method}(): ...\n" for method in ("get", "post"))
    (tmp_path / f"{NAME}.py").write_text(f"from fastapi import FastAPI\napp = FastAPI(openapi_url=None)\n{twice}")
    assert cli("routes", f"{app}:app").out.endswith("\n  → to list them: --open '/both'\n")


def test_all_open_routes_are_in_the_hint(cli: Cli, app: str, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.py").write_text("from fastapi import FastAPI\napp = FastAPI()")
    hint = cli("routes", f"{app}:app").out.splitlines()[-1]
    assert (
        hint == "  → to list them: --open '/openapi.json' --open '/docs' --open '/docs/oauth2-redirect' --open '/redoc'"
    )


def test_an_app_without_routes_has_nothing_to_show(cli: Cli, app: str, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.py").write_text("from fastapi import FastAPI\napp = FastAPI(openapi_url=None)")
    assert cli("routes", f"{app}:app").out == "\n✓ 0 routes, 0 open, 0 of them not listed\n"


def test_the_table_fits_a_terminal(cli: Cli, app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{NAME}.py").write_text(APP + LONG)
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    lines = cli("routes", f"{app}:app").out.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert lines[1:3] == ["    anyone: no dependency of access", "  → write Depends(access.user)"]
    assert max(map(len, lines[1:])) <= 80


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (NAME, f"'{NAME}' is not an import string: write package.module:app."),
        (":app", "':app' is not an import string: write package.module:app."),
        ("no_such_module:app", "no_such_module cannot be imported: there is no module no_such_module."),
        (f"{NAME}:nothing", f"{NAME}:nothing cannot be imported: module '{NAME}' has no attribute 'nothing'."),
        (
            f"{NAME}:access",
            f"{NAME}:access cannot be audited: the app must be a FastAPI or Starlette app, not CloudflareAccess.",
        ),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(cli: Cli, app: str, name: str, error: str) -> None:
    result = cli("routes", name)
    assert (result.code, result.out) == (2, "")
    assert result.err.removeprefix("starting\n") == f"cf-access: {error}\n"


def test_what_is_no_access_object_is_one_sentence(cli: Cli, app: str) -> None:
    result = cli("routes", f"{app}:app", "--access", f"{app}:app")
    assert (result.code, result.err) == (
        2,
        f"starting\ncf-access: {NAME}:app is not an access object, such as access.\n",
    )


def test_a_list_of_what_are_no_paths_is_one_sentence(cli: Cli, app: str) -> None:
    result = cli("routes", f"{app}:app", "--open", "healthz", "--json")
    assert (result.code, result.json["command"]) == (2, "routes")
    assert "open lists paths" in result.json["error"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise ValueError('no \\x1b database')", f"{NAME} cannot be imported: ValueError: no \\x1b database."),
        ("import nowhere_at_all", f"{NAME} cannot be imported: there is no module nowhere_at_all."),
        (
            "from fastapi_cloudflare_access import CloudflareAccess; CloudflareAccess(audience='')",
            "The settings are not valid: audience",
        ),
    ],
)
def test_a_module_that_fails_is_one_sentence(cli: Cli, app: str, tmp_path: Path, code: str, error: str) -> None:
    (tmp_path / f"{NAME}.py").write_text(code)
    result = cli("routes", f"{app}:app")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"cf-access: {error}")


def test_the_folder_of_the_command_is_looked_into_once(app: str) -> None:
    first: Any = imported(f"{app}:app")
    assert imported(f"{app}:app") is first
    assert sys.path.count(str(Path.cwd())) == 1
