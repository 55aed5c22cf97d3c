"""Servers and load: uvicorn processes for the apps, a certs endpoint, wrk (or a client in Python without it)."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Thread
from typing import Any, Self

from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

HERE = Path(__file__).parent
HOST = "127.0.0.1"
WRK = shutil.which("wrk")
GRACE = 2.0
"""Seconds that the client in Python waits for answers after its time."""
CACHED: int = Settings.model_fields["token_cache_size"].default
"""Number of tokens that the token cache holds by default."""
RETURNING = 100
"""Number of callers that come back: all of them fit into the cache."""
BEFORE = 1000
"""Number of tokens that a process verifies before its memory counts."""
DISTINCT = 3 * CACHED
"""Number of tokens that are sent in turn when each shall be new: the cache, which drops the oldest, never has it."""


@dataclass(frozen=True, slots=True)
class Load:
    """The answers to a load.

    Attributes:
        rate: Requests per second.
        p50: Milliseconds.
        p99: Milliseconds.
        failed: Number of answers other than 200.
    """

    rate: float
    p50: float
    p99: float
    failed: int


NO_ANSWER = Load(0.0, float("inf"), float("inf"), 0)


class Stage:
    """A team, its certs endpoint, and servers that verify its tokens."""

    def __init__(self) -> None:
        self.team: FakeTeam[SystemClock] = FakeTeam("acme", clock=SystemClock())
        self.certs = CertsServer(self.team)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.certs)
        self.openid = self._stack.enter_context(openid(self.certs.origin))
        self.token = self.mint()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def mint(self, email: str = "ada@example.com") -> str:
        """Return a user's token that every contender accepts: some take an audience only as text."""
        return self.team.user_token(email, claims={"aud": self.team.audience, "ver": "2.0"})

    @cached_property
    def distinct(self) -> list[str]:
        """Tokens of different callers, more than the token cache holds."""
        return [self.mint(f"caller-{number:05}@example.com") for number in range(DISTINCT)]

    @cached_property
    def returning(self) -> list[str]:
        """Tokens of callers that the token cache knows after their first request."""
        return [self.mint(f"returning-{number:05}@example.com") for number in range(RETURNING)]

    def environment(self, app: str) -> dict[str, str]:
        """Return the environment of an app's process."""
        key = self.team.current.jwk()
        return {
            "BENCH_APP": app,
            "BENCH_ORIGIN": self.certs.origin,
            "BENCH_AUDIENCE": self.team.audience,
            "BENCH_OPENID": self.openid,
            "BENCH_TOKEN": self.token,
            "BENCH_KEY": json.dumps({"n": key["n"], "e": key["e"]}),
        }

    @contextmanager
    def serve(
        self,
        app: str = "",
        *,
        factory: str = "apps:make",
        http: str = "h11",
        loop: str = "asyncio",
        workers: int = 1,
    ) -> Iterator[int]:
        """Run an app on uvicorn and yield its port."""
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "--factory", factory, f"--app-dir={HERE}", f"--port={port}"]
        command += [f"--http={http}", f"--loop={loop}", "--log-level=critical", f"--workers={workers}"]
        environment = os.environ | self.environment(app)
        server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)  # noqa: S603
        try:
            wait_for(port)
            yield port
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=5)
            server.kill()
            server.wait()


@contextmanager
def openid(origin: str) -> Iterator[str]:
    """Serve the document by which an OpenID client finds the certs, and yield its URL."""
    names = ("authorization_endpoint", "token_endpoint")
    document = {"issuer": origin, "jwks_uri": f"{origin}/cdn-cgi/access/certs"} | dict.fromkeys(names, origin)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://{HOST}:{server.server_address[1]}/openid"
        server.shutdown()


def free_port() -> int:
    """Return a port on which no server listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Wait until a server listens on this port.

    Raises:
        RuntimeError: No server listens after 20 seconds.
    """
    for _ in range(400):
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError("the server did not start")


def headers(token: str) -> dict[str, str]:
    """Return the headers that carry the token in every place where a contender looks for it."""
    return {
        "Cf-Access-Jwt-Assertion": token,
        "Cookie": f"CF_Authorization={token}",
        "Authorization": f"Bearer {token}",
    }


def request(token: str) -> bytes:
    """Return the bytes of a request with this token."""
    lines = [f"{name}: {value}" for name, value in headers(token).items()]
    return "\r\n".join(["GET / HTTP/1.1", "host: x", *lines, "", ""]).encode()


def drive(port: int, tokens: Sequence[str], *, seconds: float, connections: int = 16) -> Load:
    """Send these tokens in turn, over and over, each connection as soon as the last answer is there."""
    load = _wrk if WRK else _python
    return load(port, tokens, seconds, connections)


def _wrk(port: int, tokens: Sequence[str], seconds: float, connections: int) -> Load:
    with NamedTemporaryFile() as file:
        file.write(b"".join(map(request, tokens)))
        file.flush()
        options = ["--latency", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", f"-s{HERE / 'tokens.lua'}"]
        command = [str(WRK), *options, f"http://{HOST}:{port}/", "--", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    rate = float(re.findall(r"Requests/sec:\s*([\d.]+)", said)[0])
    p50, p99 = (_milliseconds(re.findall(rf"{share}%\s+([\d.]+\w+)", said)[0]) for share in (50, 99))
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
    failed += sum(sum(map(int, found)) for found in re.findall(r"read (\d+), write (\d+), timeout (\d+)", said))
    return Load(rate, p50, p99, failed) if rate else NO_ANSWER


def _milliseconds(text: str) -> float:
    number, unit = re.findall(r"([\d.]+)(\w+)", text)[0]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]


def _python(port: int, tokens: Sequence[str], seconds: float, connections: int) -> Load:
    return asyncio.run(_ask_all(port, tokens, seconds, connections))


async def _ask_all(port: int, tokens: Sequence[str], seconds: float, connections: int) -> Load:
    took: list[float] = []
    statuses: list[int] = []
    upcoming = cycle(tokens)
    end = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds + GRACE):
                while (start := time.perf_counter()) < end:
                    statuses.append(await exchange(reader, writer, next(upcoming)))
                    took.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    took.sort()
    if not took:
        return NO_ANSWER
    failed = sum(status != 200 for status in statuses)
    return Load(len(took) / seconds, took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3, failed)


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> int:
    """Send one request and return the status."""
    writer.write(request(token))
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
    return int(head[9:12])


def ask(port: int, *tokens: str) -> int:
    """Send these tokens over one connection, and return the last status; 0 if an answer does not come in time."""

    async def all_of_them() -> int:
        reader, writer = await asyncio.open_connection(HOST, port)
        status = 0
        try:
            for token in tokens:
                status = await asyncio.wait_for(exchange(reader, writer, token), 8)
        finally:
            writer.close()
        return status

    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        return asyncio.run(all_of_them())
    return 0
