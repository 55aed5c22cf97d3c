"""The time that the local Access adds to a request, beside reverse proxies in Python; its start and its stop."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx

HOST = "127.0.0.1"
MITMDUMP = Path(sys.prefix, "mitmproxy", "bin", "mitmdump")
"""In an environment of its own, if `scripts/bench` could make one."""
WARM_UP = 50
ALONE, EDGE, QUIET = "the app alone", "local Access", "local Access, no line for each request"
APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
"""
PROXY = """
from fastapi_proxy_lib.fastapi.app import reverse_http_app
app = reverse_http_app(base_url="http://127.0.0.1:{port}/")
"""
PROTECTED = """
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from fastapi_cloudflare_access import CloudflareAccess

access = CloudflareAccess()
app = FastAPI(lifespan=access.lifespan, dependencies=[Depends(access)])

@app.get("/stream")
async def stream():
    async def events():
        import asyncio
        yield b"first"
        await asyncio.Event().wait()
    return StreamingResponse(events())
"""
CF_ACCESS = "from fastapi_cloudflare_access.cli import main; import sys; sys.exit(main())"


def run(*, quick: bool) -> dict[str, Any]:
    """Measure each in turn, in several rounds; return the medians, and what each adds to the app alone."""
    rounds, requests = (2, 100) if quick else (9, 400)
    taken: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder, ExitStack() as servers:
        contenders = start(folder, servers)
        for _ in range(rounds):
            for name, (port, headers) in contenders.items():
                taken.setdefault(name, []).append(milliseconds(port, headers, requests))
    middles = {name: median(times) for name, times in taken.items()}
    alone = middles[ALONE]
    found = {name: {"p50": round(one, 3), "added": round(one - alone, 3)} for name, one in middles.items()}
    for name, one in found.items():
        print(f"{name:32} {one['p50']:7.3f} ms   adds {one['added']:7.3f} ms")
    lines = median(with_lines / without for with_lines, without in zip(taken[EDGE], taken[QUIET], strict=True))
    print(f"a request with a line of the log takes {lines:.3f} times as long as one without")
    return {**found, "lines": round(lines, 3), **start_and_stop(1 if quick else 7)}


def start_and_stop(times: int) -> dict[str, float]:
    """Return the seconds from the start to the first page, and from Ctrl-C with an open stream to the end."""
    taken: list[tuple[float, float]] = []
    for _ in range(times):
        with TemporaryDirectory() as folder:
            Path(folder, "protected.py").write_text(PROTECTED)
            port = free_port()
            taken.append(first_page_and_end(folder, port))
    first, end = (median(each) for each in zip(*taken, strict=True))
    print(f"first page after {first:.2f} s, stop with an open stream within {end:.2f} s")
    return {"first page": round(first, 2), "stop": round(end, 2)}


def first_page_and_end(folder: str, port: int) -> tuple[float, float]:
    """Run `cf-access dev` once, and return both times in seconds."""
    command = (sys.executable, "-c", CF_ACCESS, "dev", "protected:app", f"--port={port}")
    begun = time.perf_counter()
    with running(folder, port, *command) as server, httpx.Client(trust_env=False, timeout=30) as client:
        login = client.get(f"http://localhost:{port}/", follow_redirects=True)
        first_page = time.perf_counter() - begun
        if "Log in to" not in login.text:
            raise SystemExit(f"no login page: {login.text[:200]}")
        headers = {"cf-access-token": user_token(port)}
        with client.stream("GET", f"http://localhost:{port}/stream", headers=headers) as events:
            next(events.iter_raw())
            begun = time.perf_counter()
            server.send_signal(signal.SIGINT)
            server.wait(30)
            return first_page, time.perf_counter() - begun


def start(folder: str, servers: ExitStack) -> dict[str, tuple[int, dict[str, str]]]:
    """Start the app and the proxies; return their ports, and the headers to send to each."""
    app, edge, quiet, library, tool = (free_port() for _ in range(5))
    Path(folder, "upstream.py").write_text(APP)
    Path(folder, "peer.py").write_text(PROXY.format(port=app))
    uvicorn = [sys.executable, "-m", "uvicorn", "--log-level=warning"]
    behind = f"http://{HOST}:{app}"
    local = [sys.executable, "-c", CF_ACCESS, "dev", f"--upstream={behind}"]
    commands = {
        app: [*uvicorn, "upstream:app", f"--port={app}"],
        edge: [*local, f"--port={edge}"],
        quiet: [*local, f"--port={quiet}", "--state=quiet", "--no-access-log"],
        library: [*uvicorn, "peer:app", f"--port={library}"],
        tool: [str(MITMDUMP), "--quiet", f"--listen-host={HOST}", f"--listen-port={tool}", f"--mode=reverse:{behind}"],
    }
    ports = {ALONE: app, EDGE: edge, QUIET: quiet, "fastapi-proxy-lib": library}
    ports |= {"mitmproxy": tool} if MITMDUMP.exists() else {}
    for port in ports.values():
        servers.enter_context(running(folder, port, *commands[port]))
    people = {port: {"Cookie": f"CF_Authorization={user_token(port)}"} for port in (edge, quiet)}
    return {name: (port, people.get(port, {})) for name, port in ports.items()}


def free_port() -> int:
    """Return a free port."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(folder: str, port: int, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends."""
    log = Path(folder, f"{port}.log")
    with log.open("wb") as written:
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONUNBUFFERED": "1"}
        server = subprocess.Popen(  # noqa: S603 - of our own making
            command, cwd=folder, env=environment, stdout=written, stderr=written
        )
        try:
            wait_for(server, port, log)
            yield server
        finally:
            server.terminate()
            server.wait(15)


def wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server listens.

    Raises:
        SystemExit: It did not start.
    """
    for _ in range(2000):
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        if server.poll() is not None:
            break
        time.sleep(0.01)
    raise SystemExit(f"a server did not start:\n{log.read_text()}")


def milliseconds(port: int, headers: dict[str, str], requests: int) -> float:
    """Return the median time of a request on one connection that stays open.

    Raises:
        SystemExit: The server closed it.
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n{lines}\r\n".encode()
    taken: list[float] = []
    with socket.create_connection((HOST, port)) as connection:
        connection.settimeout(10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(WARM_UP + requests):
            begun = time.perf_counter()
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"hello"):
                piece = connection.recv(65_536)
                if not piece:
                    raise SystemExit(f"port {port} closed the connection: {answer[:200]!r}")
                answer += piece
            if number >= WARM_UP:
                taken.append(time.perf_counter() - begun)
    return median(taken) * 1000


def user_token(edge: int) -> str:
    """Log a user in, and return the token."""
    address = f"http://{HOST}:{edge}/control/api/token"
    made = httpx.post(address, json={"email": "ada@example.com"}, trust_env=False)
    return str(made.json()["token"])
