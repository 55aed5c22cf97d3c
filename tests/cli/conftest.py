"""A fake team, and the command line called as a function."""

import io
import os
import socket
import sys

import pytest
from support.command_line import Cli, Result

from fastapi_cloudflare_access.cli import main
from fastapi_cloudflare_access.protocols import Clock, Fetch
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

TERMINAL_VARIABLES = (
    "NO_COLOR",
    "FORCE_COLOR",
    "COLORTERM",
    "COLUMNS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove settings and proxies, and set one kind of terminal."""
    for name in os.environ:
        if name.startswith("CF_ACCESS_") or name.lower().endswith("_proxy") or name in TERMINAL_VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam("acme")


@pytest.fixture
def configured(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> FakeTeam:
    """Configure the team in the environment."""
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.issuer)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    return team


@pytest.fixture
def certs(team: FakeTeam) -> MemoryFetch:
    return MemoryFetch(team)


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve every name to an address for documentation."""
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry])


@pytest.fixture
def cli(team: FakeTeam, certs: MemoryFetch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a function that calls `main` with the team's clock and certs."""

    def call(
        *arguments: str, stdin: str | bytes = "", clock: Clock = team.clock, fetch: Fetch | None = certs
    ) -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        capsys.readouterr()
        code = main(arguments, clock=clock, fetch=fetch)
        written = capsys.readouterr()
        return Result(code, written.out, written.err)

    return call
