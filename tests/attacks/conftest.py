"""One app under attack for each kind of server."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attacks.wire import Connection, request
from attacks.workshop import Workshop

from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

SERVE = Path(__file__).with_name("serve.py")
SECONDS = 30
KINDS = ("h11", "httptools", "hypercorn")


@dataclass(frozen=True, slots=True)
class Target:
    """An app behind a real server.

    Attributes:
        kind: Of the server.
        connection: To talk to it.
        shop: What the attacker has.
        trap: Listens at the URL that forged headers name.
        certs: The team's certs endpoint.
        log: Everything that the process wrote.
    """

    kind: str
    connection: Connection
    shop: Workshop
    trap: socket.socket
    certs: CertsServer
    log: Path


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    team = FakeTeam("acme", clock=SystemClock())
    log = tmp_path / "log"
    with CertsServer(team) as certs, socket.create_server(("127.0.0.1", 0)) as trap:
        shop = Workshop(team, f"http://127.0.0.1:{trap.getsockname()[1]}/certs")
        with serving(request.param, certs, log) as connection:
            yield Target(request.param, connection, shop, trap, certs, log)


@contextmanager
def serving(
    kind: str, certs: CertsServer, log: Path, *, constants: Mapping[str, Any] | None = None, **settings: str
) -> Iterator[Connection]:
    """Run the app on such a server, with these settings besides, and other constants of the package."""
    with listener() as listening:
        process = start(kind, listening, certs, log, settings, constants or {})
        connection = Connection(listening.getsockname())
        try:
            wait_for(connection, process)
            yield connection
        finally:
            connection.close()
            process.terminate()
            process.wait(10)


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def start(
    kind: str,
    listening: socket.socket,
    certs: CertsServer,
    log: Path,
    settings: Mapping[str, str],
    constants: Mapping[str, Any],
) -> "subprocess.Popen[bytes]":
    told = {"team_domain": certs.origin, "audience": certs.team.audience, **settings}
    environment = os.environ | {f"CF_ACCESS_{name.upper()}": value for name, value in told.items()}
    environment["CONSTANTS"] = json.dumps({"_keys.rate_limiter.NEGATIVE_CACHE_TTLS": [600.0], **constants})
    descriptor = listening.fileno()
    command = [sys.executable, str(SERVE), kind, str(descriptor)]
    with log.open("wb") as written:
        return subprocess.Popen(command, env=environment, pass_fds=[descriptor], stdout=written, stderr=written)


def wait_for(connection: Connection, process: "subprocess.Popen[bytes]") -> None:
    """Ask until there is an answer: the socket listens from the beginning."""
    began = time.monotonic()
    while not answers(connection):
        assert process.poll() is None, "the server did not start"
        assert time.monotonic() - began < SECONDS


def answers(connection: Connection) -> bool:
    try:
        return bool(connection.ask(request(), seconds=1).status)
    except TimeoutError:
        connection.close()
        return False
