"""Real servers, each in a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

TESTS = Path(__file__).parents[1]


def free_port() -> int:
    """A port on which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(module: str, *arguments: str, port: int, **settings: str) -> Iterator[None]:
    """Run `python -m module arguments` until it answers on the port; it ends with the context.

    Args:
        module: The server.
        *arguments: What it takes.
        port: Where it listens.
        **settings: Settings of the app, as environment variables `CF_ACCESS_<NAME>`.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(TESTS)])}
    environment |= {f"CF_ACCESS_{name.upper()}": value for name, value in settings.items()}
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment)
    try:
        _wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait(timeout=15)


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            get(port, "/health")
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the server did not come up; exit status {process.poll()}")


def get(port: int, path: str, token: str | None = None) -> tuple[int, bytes]:
    """Send one request over a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Cf-Access-Jwt-Assertion": token} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
