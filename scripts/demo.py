"""What scripts/demo runs: the quickstart app on uvicorn with callers good and bad, then behind a local Access."""

import os
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import demo_edge
from demo_output import BOLD, DIM, GREEN, YELLOW, say

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

EXAMPLES = Path(__file__).parents[1] / "examples"
HOST, PORT = "127.0.0.1", 8000
HEADER = "Cf-Access-Jwt-Assertion"
PATIENCE = 20.0
"""Seconds that the app may take to start or to answer."""


@dataclass(frozen=True)
class Call:
    """One request of the demo."""

    title: str
    method: str
    path: str
    token: str | None

    @property
    def headers(self) -> dict[str, str]:
        """What Access adds to it."""
        return {HEADER: self.token} if self.token else {}

    def curl(self, port: int) -> str:
        """Give the line to paste."""
        method = [] if self.method == "GET" else ["-X", self.method]
        headers = [f"-H '{name}: {value}'" for name, value in self.headers.items()]
        return " ".join(["curl", "-i", *method, f"http://{HOST}:{port}{self.path}", *headers])


def calls(team: FakeTeam) -> list[Call]:
    """Give the callers: good ones, and each kind of bad one."""
    user = team.user_token("ada@example.com")
    return [
        Call("A user", "GET", "/me", user),
        Call("A service token", "POST", "/jobs/backup", team.service_token("nightly backup")),
        Call("An expired token", "GET", "/me", team.forge("expired")),
        Call("A forged token: signed by a stranger", "GET", "/me", team.forge("wrong_key")),
        Call("A foreign token: for another application of the team", "GET", "/me", team.forge("wrong_audience")),
        Call("No token", "GET", "/me", None),
        Call("A user where only services may", "POST", "/jobs/backup", user),
    ]


def show(call: Call, port: int, log: IO[str]) -> None:
    """Make a call; print the line to paste, what the app answers, and what it logs."""
    say(call.title, BOLD)
    say(call.curl(port), DIM)
    connection = HTTPConnection(HOST, port, timeout=PATIENCE)
    connection.request(call.method, call.path, headers=call.headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    say(
        f"→ {response.status} {response.reason}  {body}", YELLOW if response.status >= HTTPStatus.BAD_REQUEST else GREEN
    )
    if challenge := response.getheader("www-authenticate"):
        say(f"  {challenge}")
    for record in log:
        say(f"  log: {record.rstrip()}")
    say()


def free_port() -> int:
    """Give the usual port where it is free, else any."""
    for port in (PORT, 0):
        with suppress(OSError), socket.create_server((HOST, port)) as listener:
            return int(listener.getsockname()[1])
    raise SystemExit(f"no port is free on {HOST}")


@contextmanager
def running_app(team: FakeTeam, port: int) -> Iterator[IO[str]]:
    """Run the quickstart app for that team; give what it logs."""
    settings = {"CF_ACCESS_TEAM_DOMAIN": team.team_domain, "CF_ACCESS_AUDIENCE": team.audience}
    server = [sys.executable, "-m", "uvicorn", "--host", HOST, "--port", str(port), "--log-level", "warning"]
    with TemporaryDirectory() as folder:
        path = Path(folder, "log")
        with path.open("ab") as written, path.open() as log:
            command = [*server, "--app-dir", str(EXAMPLES), "quickstart_app:app"]
            app = subprocess.Popen(command, env=os.environ | settings, stdout=written, stderr=written)
            try:
                wait_for(app, port, log)
                yield log
            finally:
                app.terminate()
                app.wait()


def wait_for(app: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    """Return when the app listens."""
    end = time.monotonic() + PATIENCE
    while app.poll() is None and time.monotonic() < end:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"the app did not start:\n{log.read()}")


def demonstrate(*, once: bool) -> None:
    """Show every call, around the edge and through it; go on unless `once`."""
    team = FakeTeam("demo", clock=SystemClock())
    port = free_port()
    with CertsServer(team), running_app(team, port) as log:
        say(f"Around the edge: examples/quickstart_app.py, on http://{HOST}:{port} reachable by every client", BOLD)
        say()
        log.read()  # that the team is a local one
        for call in calls(team):
            show(call, port, log)
        demo_edge.demonstrate(once=once)


def main() -> None:
    """Read the arguments; stop cleanly by Ctrl-C or SIGTERM."""
    parser = ArgumentParser(
        "scripts/demo", description="See the quickstart app answer callers good and bad, then open it in a browser."
    )
    parser.add_argument(
        "--once", action="store_true", help="print and stop, as it does if the output is not a terminal"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with suppress(KeyboardInterrupt):
        demonstrate(once=arguments.once or not sys.stdout.isatty())


if __name__ == "__main__":
    main()
