"""The line about open routes: who forgot a dependency sees it while developing."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local import open_routes
from fastapi_cloudflare_access.local.open_routes import main, reporting_open_routes, sentence

NAME = "app_with_open_routes"
APP = """\
from fastapi import Depends, FastAPI
from fastapi_cloudflare_access import CloudflareAccess
print("the module prints")
access = CloudflareAccess(team_domain="acme", audience="a" * 64)
app = FastAPI()
closed = FastAPI(dependencies=[Depends(access)])
def nothing(): ...
def make(): return app
app.add_api_route("/me", nothing, dependencies=[Depends(access)])
app.add_api_route("/forgotten", nothing)
app.add_api_websocket_route("/feed", nothing)
async def raw(scope, receive, send): ...
"""
FOUND = ["GET /forgotten", "WS /feed"]
LINE = "cf-access dev: anyone can use GET /forgotten, WS /feed without a token"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / f"{NAME}.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop(NAME, None)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([f"{NAME}:app", ".", "app"], {"routes": FOUND, "has_command": True}),
        ([f"{NAME}:make", ".", "factory"], {"routes": FOUND, "has_command": False}),
        ([f"{NAME}:make", ".", "app"], {"routes": FOUND, "has_command": False}),
        ([f"{NAME}:closed", ".", "app"], {"routes": [], "has_command": True}),
    ],
)
def test_open_routes_besides_the_documentation_are_found(arguments: list[str], found: object) -> None:
    result = StringIO()
    main(arguments, result)
    assert json.loads(result.getvalue()) == found


def test_an_app_in_another_folder_is_found_without_a_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert open_routes.open_routes(f"{NAME}:app", folder, is_factory=False) == {"routes": FOUND, "has_command": False}


def test_an_app_whose_routes_are_not_known_is_an_error_of_that_process() -> None:
    with pytest.raises(ConfigurationError):
        main([f"{NAME}:raw", ".", "app"], StringIO())


def test_the_line_names_at_most_five_routes_and_the_command() -> None:
    routes = [f"GET /{number}" for number in range(7)]
    assert sentence(routes, "m:app") == (
        "cf-access dev: anyone can use GET /0, GET /1, GET /2, GET /3, GET /4 and 2 more without a token: "
        "cf-access routes m:app shows why"
    )
    assert sentence(FOUND, None) == LINE


def reported(name: str, capsys: pytest.CaptureFixture[str], *, seconds: float = 60.0) -> str:
    with reporting_open_routes(name, Path(), is_factory=False) as start:
        start()
        (thread,) = [each for each in threading.enumerate() if each.name == "open-routes"]
        thread.join(seconds)
    return capsys.readouterr().err


def test_the_line_is_printed_once_and_is_no_error_for_other_apps(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(f"{NAME}:app", capsys) == f"{LINE}: cf-access routes {NAME}:app shows why\n"
    assert reported(f"{NAME}:closed", capsys) == ""
    assert reported(f"{NAME}:raw", capsys) == ""


NOISE = """
import atexit, os, subprocess, sys, threading
os.write(1, b"printed below Python")
subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)
atexit.register(print, "printed at the exit")
threading.Thread(target=threading.Event().wait).start()
"""


def test_an_app_that_prints_in_other_ways_and_leaves_a_thread_has_the_line_too(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / f"{NAME}.py").write_text(NOISE + APP)
    assert reported(f"{NAME}:app", capsys).startswith(LINE)


def test_a_module_beside_the_app_does_not_replace_one_of_python(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "queue.py").write_text("raise SystemExit(1)")
    assert reported(f"{NAME}:app", capsys).startswith(LINE)


def test_the_exit_ends_an_audit_that_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_routes, "_COMMAND", "import time; time.sleep(600)")
    began: list[subprocess.Popen[bytes]] = []
    report = open_routes._report

    def reporting(process: "subprocess.Popen[bytes]", name: str) -> None:
        began.append(process)
        report(process, name)

    monkeypatch.setattr(open_routes, "_report", reporting)
    with reporting_open_routes(f"{NAME}:app", Path(), is_factory=False) as start:
        start()
        while not began:
            time.sleep(0)
    assert began[0].wait(30) < 0


def test_an_audit_that_takes_too_long_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(open_routes, "_COMMAND", "import time; time.sleep(600)")
    monkeypatch.setattr(open_routes, "TIME_LIMIT", 0.01)
    assert reported(f"{NAME}:app", capsys) == ""
