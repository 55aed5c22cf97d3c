"""What the local Access adds to a request, beside reverse proxies written in Python.

`python benchmarks/local_edge.py FOLDER`: FOLDER is a virtual environment with mitmproxy, fastapi-proxy-lib and
uvicorn[standard]; without it only the edge is measured.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

HOST = "127.0.0.1"
ROUNDS, REQUESTS, WARM_UP = 5, 400, 50
APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
"""
PROXY = """
from fastapi_proxy_lib.fastapi.app import reverse_http_app
app = reverse_http_app(base_url="http://127.0.0.1:{port}/")
"""
CF_ACCESS = "from fastapi_cloudflare_access.cli import main; import sys; sys.exit(main())"


def free_port() -> int:
    """Give a port that nobody has."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(folder: str, port: int, *command: str) -> Iterator[None]:
    """Run a server until the block ends."""
    log = Path(folder, f"{port}.log")
    with log.open("wb") as written:
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONUNBUFFERED": "1"}
        server = subprocess.Popen(  # noqa: S603 - of our own making
            command, cwd=folder, env=environment, stdout=written, stderr=written
        )
        try:
            for _ in range(400):
                with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
                    break
                time.sleep(0.05)
            yield
        finally:
            server.terminate()
            server.wait(15)


def milliseconds(port: int, headers: dict[str, str]) -> float:
    """Give the median time of a request on one connection that stays open."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n{lines}\r\n".encode()
    taken: list[float] = []
    with socket.create_connection((HOST, port)) as connection:
        connection.settimeout(10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(REQUESTS + WARM_UP):
            begun = time.perf_counter()
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"hello"):
                piece = connection.recv(65_536)
                if not piece:
                    raise SystemExit(f"port {port} broke off: {answer[:200]!r}")
                answer += piece
            if number >= WARM_UP:
                taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


def user_token(team: str) -> str:
    """Log somebody in."""
    import httpx  # noqa: PLC0415 - only here

    made = httpx.post(f"{team}control/api/token", json={"email": "ada@example.com"}, trust_env=False)
    return str(made.json()["token"])


def main() -> None:
    """Measure each in turn, in several rounds, and print the medians."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        app, edge, other, last = (free_port() for _ in range(4))
        Path(folder, "upstream.py").write_text(APP)
        Path(folder, "peer.py").write_text(PROXY.format(port=app))
        uvicorn = [sys.executable, "-m", "uvicorn", "upstream:app", "--log-level=warning", f"--port={app}"]
        servers.enter_context(running(folder, app, *uvicorn))
        dev = ["dev", f"--upstream=http://{HOST}:{app}", f"--port={edge}"]
        servers.enter_context(running(folder, edge, sys.executable, "-c", CF_ACCESS, *dev))
        headers = {"Cookie": f"CF_Authorization={user_token(f'http://{HOST}:{edge}/')}"}
        measured = {"the app alone": (app, {}), "local Access, a user": (edge, headers)}
        if peers := sys.argv[1:]:
            programs = Path(peers[0]).absolute() / "bin"
            lib = [str(programs / "uvicorn"), "peer:app", "--log-level=warning", f"--port={other}"]
            servers.enter_context(running(folder, other, *lib))
            measured["fastapi-proxy-lib"] = (other, {})
            mitm = [str(programs / "mitmdump"), "--quiet", f"--listen-port={last}", "--listen-host=127.0.0.1"]
            servers.enter_context(running(folder, last, *mitm, f"--mode=reverse:http://{HOST}:{app}"))
            measured["mitmproxy"] = (last, {})
        report({name: [milliseconds(*what) for _ in range(ROUNDS)] for name, what in measured.items()})


def report(rounds: dict[str, list[float]]) -> None:
    """Print what each adds to the app alone."""
    alone = statistics.median(rounds["the app alone"])
    for name, taken in rounds.items():
        middle = statistics.median(taken)
        print(f"{name:24} {middle:7.3f} ms   adds {middle - alone:7.3f} ms")


if __name__ == "__main__":
    main()
