"""A load generator on bare sockets: cheap enough to share two cores with the server it drives."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
HOST = "127.0.0.1"


@dataclass
class Seen:
    """The answers to one kind of traffic: how often each status, and the seconds that each request took."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    seconds: list[float] = field(default_factory=list[float])

    def percentile(self, share: float) -> float:
        """Return the seconds within which this share of the requests was answered."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


@contextmanager
def quickstart(*arguments: str, **settings: str) -> Iterator[tuple[int, int]]:
    """Run the quickstart app on uvicorn, and yield its port and process id."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "quickstart_app:app", f"--app-dir={EXAMPLES}", f"--port={port}"]
    environment = os.environ | {f"CF_ACCESS_{name.upper()}": value for name, value in settings.items()}
    server = subprocess.Popen(  # noqa: S603 - of our own making
        [*command, "--log-level=critical", *arguments], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
                break
            time.sleep(0.05)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait(timeout=15)


def memory_of(pid: int) -> float:
    """Return the resident memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Keep one connection open."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> int:
    """Send one request and return the status of its answer."""
    writer.write(f"GET /me HTTP/1.1\r\nhost: x\r\ncf-access-jwt-assertion: {token}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head[9:12])


async def drive(port: int, token: Callable[[], str], *, rate: float, seconds: float, seen: Seen) -> None:
    """Send tokens over one connection at a steady rate; after a delay, send the next at once."""
    start = time.monotonic()
    async with connection(port) as (reader, writer):
        for number in range(int(rate * seconds)):
            if (pause := start + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            if time.monotonic() - start > seconds:
                return
            began = time.perf_counter()
            seen.statuses[await send(reader, writer, token())] += 1
            seen.seconds.append(time.perf_counter() - began)
