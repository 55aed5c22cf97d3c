"""The worker processes of a long run, seen from outside: memory, files and sockets."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from long_runs.judge import Sample
from support.key_servers import TESTS, free_port

PATIENCE = 60.0
"""Seconds that a worker may take to start, and to answer the first requests."""
READINGS = 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


class WorkerProcess:
    """A process of uvicorn with the app.

    Attributes:
        port: Its port.
        samples: Its memory so far.
        log: The file with what it wrote.
    """

    def __init__(self, number: int, folder: Path, environment: Mapping[str, str], peers: Mapping[int, str]) -> None:
        """Start the process; `peers` names the ports of the servers that it uses."""
        self._peers = peers
        self.port = free_port()
        self.samples: list[Sample] = []
        self.log = folder / f"worker-{number}.log"
        options = ["--port", str(self.port), "--no-access-log", "--log-level", "warning"]
        path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(TESTS)])
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "long_runs.app:app", *options],
                env={**os.environ, **environment, "PYTHONPATH": path},
                stdout=log,
                stderr=log,
            )

    async def state(self, client: httpx.AsyncClient) -> dict[str, Any]:
        """Return what the app reports, and what the process has open."""
        state: dict[str, Any] = (await client.get(f"http://127.0.0.1:{self.port}/state")).json()
        state["open"] |= self._files()
        return state

    def _files(self) -> Counter[str]:
        found, sockets = Counter[str](), self._sockets()
        for each in Path(f"/proc/{self._process.pid}/fd").iterdir():
            try:
                target = str(each.readlink())
            except FileNotFoundError:  # it was closed meanwhile
                continue
            kind, _, inode = target.partition(":[")
            found[f"fd {kind}"] += 1
            if kind == "socket":
                found[f"socket {sockets.get(inode.rstrip(']'), 'of another kind')}"] += 1
        return found

    def _sockets(self) -> dict[str, str]:
        """Return the other end of each TCP connection of the machine, by its inode."""
        lines = Path(f"/proc/{self._process.pid}/net/tcp").read_text().splitlines()[1:]
        rows = [
            (int(row[1].partition(":")[2], 16), int(row[2].partition(":")[2], 16), row[9])
            for row in map(str.split, lines)
        ]
        return {
            inode: "of a client" if here == self.port else self._peers.get(there, "to another server")
            for here, there, inode in rows
        }

    def sample(self, began: float) -> None:
        """Note the resident memory now."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        self.samples.append((time.monotonic() - began, float(pages * _PAGE)))

    @property
    def tracebacks(self) -> int:
        """The number of tracebacks in the log."""
        return self.log.read_text(errors="replace").count("Traceback (most recent call last)")

    def check_runs(self) -> None:
        """Raise an error with the end of the log if the process has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"a worker ended: {self.log.read_text(errors='replace')[-2000:]}")

    async def wait_until_ready(self, client: httpx.AsyncClient) -> None:
        """Wait until the app answers."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.check_runs()
            try:
                await self.state(client)
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return
        raise RuntimeError("a worker did not start in time")

    async def quiet_state(self, client: httpx.AsyncClient, *, seconds: float) -> dict[str, Any]:
        """Return its state after so many quiet seconds; of several readings the least and the most that was open."""
        await asyncio.sleep(seconds)
        states = [await self.state(client)]
        for _ in range(READINGS - 1):
            await asyncio.sleep(0.1)
            states.append(await self.state(client))
        names = set[str]().union(*(state["open"] for state in states))
        numbers = {name: [each["open"].get(name, 0) for each in states] for name in sorted(names)}
        least, most = ({name: bound(found) for name, found in numbers.items()} for bound in (min, max))
        return {**states[-1], "open": least, "most": most}

    def stop(self) -> None:
        """Stop the process."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def worker_processes(
    number: int, folder: Path, environment: Mapping[str, str], peers: Mapping[int, str]
) -> Iterator[list[WorkerProcess]]:
    """Run so many workers until the context ends."""
    workers = [WorkerProcess(each, folder, environment, peers) for each in range(number)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.stop()
