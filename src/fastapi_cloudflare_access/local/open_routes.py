"""The routes of an app that admit anyone: `cf-access dev` prints them once after its start.

The audit sends requests through the middleware of the app, so it runs in a process of its own.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

import typer
from uvicorn.importer import import_from_string

from fastapi_cloudflare_access.local.app_loading import load_app
from fastapi_cloudflare_access.local.request_log import printable

MAX_ROUTES = 5
"""Number of routes that the line names."""
TIME_LIMIT = 60.0
"""Seconds after which the audit is given up."""

_COMMAND = """
import os, sys
result = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from fastapi_cloudflare_access.local.open_routes import main
main(sys.argv[1:], result)
os._exit(0)
"""
"""The program of that process. Whatever the app or its processes print is not the result, and its threads cannot delay
the exit."""


@contextmanager
def reporting_open_routes(name: str, folder: Path, *, is_factory: bool) -> Generator[Callable[[], None]]:
    """Return a function that starts the report about an app; the exit ends a report that still runs."""
    running: list[tuple[subprocess.Popen[bytes], Thread]] = []

    def start() -> None:
        arguments = [name, str(folder), "factory" if is_factory else "app"]
        process = subprocess.Popen(  # noqa: S603 - this program
            [sys.executable, "-P", "-c", _COMMAND, *arguments],  # no module of the app instead of one of Python
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        thread = Thread(target=_report, args=(process, name), name="open-routes", daemon=True)
        running.append((process, thread))
        thread.start()

    try:
        yield start
    finally:
        for process, thread in running:
            process.kill()
            thread.join()


def _report(process: "subprocess.Popen[bytes]", name: str) -> None:
    """Print the line; an app that cannot be audited has none."""
    with process:
        try:
            output, _ = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            return
    if process.returncode == 0 and (found := json.loads(output))["routes"]:
        typer.echo(sentence(found["routes"], name if found["has_command"] else None), err=True)


def sentence(routes: Sequence[str], name: str | None) -> str:
    """Return the line about these routes, with the command that shows more if there is one."""
    more = f" and {len(routes) - MAX_ROUTES} more" if len(routes) > MAX_ROUTES else ""
    listed = printable(", ".join(routes[:MAX_ROUTES]))
    command = f": cf-access routes {name} shows why" if name else ""
    return f"cf-access dev: anyone can use {listed}{more} without a token{command}"


def main(arguments: Sequence[str], result: TextIO) -> None:
    """Audit an app, and write its open routes as JSON."""
    name, folder, kind = arguments
    json.dump(open_routes(name, Path(folder), is_factory=kind == "factory"), result)
    result.flush()


def open_routes(name: str, folder: Path, *, is_factory: bool) -> dict[str, Any]:
    """Return the open routes of an app besides those of its documentation, and whether `cf-access routes` shows them.

    Raises:
        ConfigurationError: The routes of the app are not known.
    """
    from fastapi_cloudflare_access.testing._audit.running import audit  # noqa: PLC0415 - the start needs no audit

    app = load_app(name, folder=folder, is_factory=is_factory)
    entries = [entry for entry in audit(app).entries if entry.is_open and entry.is_reached and entry.kind != "docs"]
    routes = list(dict.fromkeys(f"{entry.shown_methods} {entry.path}" for entry in entries))
    return {"routes": routes, "has_command": folder == Path() and import_from_string(name) is app}
