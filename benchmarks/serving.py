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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

from fastapi_cloudflare_access.testing import CertsServer, LocalTeam, SystemClock

HERE = Path(__file__).parent
HOST = "127.0.0.1"
WRK = shutil.which("wrk")
GRACE = 2.0
"""Seconds that the client in Python waits for answers after its time."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a load met with.

    Attributes:
        rate: Requests per second.
        p50: Milliseconds.
        p99: Milliseconds.
        failed: Answers other than 200.
    """

    rate: float
    p50: float
    p99: float
    failed: int


NO_ANSWER = Load(0.0, float("inf"), float("inf"), 0)


class Stage:
    """A team, its certs endpoint, and servers that verify its tokens."""

    def __init__(self) -> None:
        self.team: LocalTeam[SystemClock] = LocalTeam("acme", clock=SystemClock())
        self.certs = CertsServer(self.team)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.certs)
        self.openid = self._stack.enter_context(openid(self.certs.origin))
        self.token = self.mint()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def mint(self, **options: Any) -> str:
        """A user's token that every contender accepts: some take an audience only as text."""
        claims = {"aud": self.team.audience, "ver": "2.0", **options.pop("claims", {})}
        return self.team.user_token("ada@example.com", claims=claims, **options)

    def environment(self, app: str) -> dict[str, str]:
        """What the process of an app is told."""
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
        """Run an app on uvicorn and give its port."""
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
    """The document by which an OpenID client finds the certs."""
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
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Return once somebody listens."""
    for _ in range(400):
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError("the server did not start")


def headers(token: str) -> dict[str, str]:
    """The token wherever one of the contenders looks for it."""
    return {
        "Cf-Access-Jwt-Assertion": token,
        "Cookie": f"CF_Authorization={token}",
        "Authorization": f"Bearer {token}",
    }


def drive(port: int, token: str, *, seconds: float, connections: int = 16) -> Load:
    """Ask as often as it answers."""
    load = _wrk if WRK else _python
    return load(port, token, seconds, connections)


def _wrk(port: int, token: str, seconds: float, connections: int) -> Load:
    sent = [f"-H{name}: {value}" for name, value in headers(token).items()]
    command = [str(WRK), "--latency", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", *sent, f"http://{HOST}:{port}/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    rate = float(re.findall(r"Requests/sec:\s*([\d.]+)", said)[0])
    p50, p99 = (_milliseconds(re.findall(rf"{share}%\s+([\d.]+\w+)", said)[0]) for share in (50, 99))
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
    failed += sum(sum(map(int, found)) for found in re.findall(r"read (\d+), write (\d+), timeout (\d+)", said))
    return Load(rate, p50, p99, failed) if rate else NO_ANSWER


def _milliseconds(text: str) -> float:
    number, unit = re.findall(r"([\d.]+)(\w+)", text)[0]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]


def _python(port: int, token: str, seconds: float, connections: int) -> Load:
    return asyncio.run(_ask_all(port, token, seconds, connections))


async def _ask_all(port: int, token: str, seconds: float, connections: int) -> Load:
    took: list[float] = []
    statuses: list[int] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds + GRACE):
                while (start := time.perf_counter()) < end:
                    statuses.append(await exchange(reader, writer, token))
                    took.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    took.sort()
    if not took:
        return NO_ANSWER
    failed = sum(status != 200 for status in statuses)
    return Load(len(took) / seconds, took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3, failed)


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> int:
    """Send one request and give the status."""
    lines = [f"{name}: {value}" for name, value in headers(token).items()]
    writer.write("\r\n".join(["GET / HTTP/1.1", "host: x", *lines, "", ""]).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
    return int(head[9:12])


def ask(port: int, token: str) -> int:
    """Send one request over a connection of its own, and give the status; 0 where none comes in time."""

    async def once() -> int:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            return await asyncio.wait_for(exchange(reader, writer, token), 8)
        finally:
            writer.close()

    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        return asyncio.run(once())
    return 0
