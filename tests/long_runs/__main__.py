"""Runs two workers for long: `python -m long_runs [SECONDS]`, or `scripts/soak long [SECONDS]`.

The clock of workers and clients is 24 times as fast as the machine's, so that an hour contains a day. Keys rotate, the
team is renamed, the certs endpoint fails, Redis restarts and callers are revoked, while streams and requests go on.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from long_runs.issuing import Issuing
from long_runs.judge import Tally, Worker, as_json, problems, summary
from long_runs.plan import CYCLE, Plan
from long_runs.requests import Requests
from long_runs.scaled import ScaledClock
from long_runs.streams import Streams
from long_runs.workers import PATIENCE, WorkerProcess, worker_processes
from support.key_servers import free_port
from support.redis_server import REDIS, redis_server

from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

SECRET = "the secret of the long run, for tests"
WARM_UP = 1 / 3
"""Fraction of the run after which memory and open files are compared, once everything has happened."""
PEAK = 1.5
"""Load of the warm-up: a process keeps the memory of its highest load, so what grows afterwards is not released."""
SENDERS = 4
UNKNOWN_KEYS = 60.0
"""Least seconds of the clock between two tokens of unknown keys, which leave fetches for rotations."""


@dataclass
class Run:
    """The size of a run; seconds are the machine's, but for `allowed`.

    Attributes:
        seconds: Length of the run.
        factor: Seconds of the clock in a second of the machine.
        streams: Number of streams.
        rate: Number of requests in a second.
        workers: Number of processes.
        allowed: Seconds by which a stream may outlive its token, and a worker may learn late of a revocation.
        max_growth: Bound of the growth of memory, in MiB per hour.
        settling: Seconds for which nothing happens before open files are counted; uvicorn keeps connections for 5.
        quiet: Whether nothing is printed.
    """

    seconds: float
    factor: float = 24.0
    streams: int = 1_000
    rate: float = 40.0
    workers: int = 2
    allowed: float = 5.0
    max_growth: float = 1.0
    settling: float = 8.0
    quiet: bool = False

    def report(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


@dataclass
class Stage:
    """Everything that runs beside the workers."""

    run: Run
    processes: list[WorkerProcess]
    plan: Plan
    tally: Tally
    began: float

    @asynccontextmanager
    async def clients(self, load: float) -> AsyncGenerator[None]:
        """Let clients send requests and keep streams open until the context ends, at this multiple of the load."""
        requests, streams = self.plan.requests, self.plan.streams
        work: list[Coroutine[Any, Any, None]] = [
            requests.send_unknown_keys(pause=max(self.plan.cycle / 100, UNKNOWN_KEYS))
        ]
        work += [requests.send(pause=SENDERS / self.run.rate / load) for _ in range(SENDERS)]
        work += [streams.keep(number) for number in range(round(self.run.streams * load))]
        tasks = [asyncio.ensure_future(each) for each in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    self.tally.mistake("a client failed", repr(ended))

    async def go_on(self, seconds: float, *, load: float = 1.0) -> None:
        """Let everything go on for so many seconds, and sample the memory of the workers."""
        async with self.clients(load):
            await self._wait_until_served()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for process in self.processes:
                    process.check_runs()
                    process.sample(self.began)
                await asyncio.sleep(min(1.0, seconds / 20))

    async def _wait_until_served(self) -> None:
        deadline, first = time.monotonic() + PATIENCE, self.tally.responses.total()
        while time.monotonic() < deadline:
            if self.plan.streams.tokens and self.tally.responses.total() > first + SENDERS:
                return
            await asyncio.sleep(0.1)

    async def quiet_states(self, client: httpx.AsyncClient) -> list[dict[str, Any]]:
        """Return the states of the workers while nothing happens."""
        async with self.plan.pause():
            self.run.report("a quiet moment")
            return await asyncio.gather(
                *(process.quiet_state(client, seconds=self.run.settling) for process in self.processes)
            )


@contextmanager
def stage(run: Run, folder: Path) -> Iterator[tuple[Stage, str]]:
    """Start the servers and the workers; yield the name that the team takes, too."""
    clock = ScaledClock.start(run.factor)
    cycles = max(1, round(run.seconds * run.factor / CYCLE))
    cycle = run.seconds * run.factor / cycles
    former = f"http://127.0.0.1:{free_port()}"
    team = FakeTeam("acme", clock=clock)
    with redis_server(hz="100") as redis, CertsServer(team) as certs:
        new_name, team.issuer = team.issuer, former
        access = {"TEAM_DOMAIN": new_name, "AUDIENCE": team.audience, "FORMER_TEAM_DOMAINS": former}
        environment = {f"CF_ACCESS_{name}": value for name, value in access.items()} | clock.environment
        environment |= {"STORE_URL": redis.url, "STORE_SECRET": SECRET}
        peers = {redis.port: "to Redis", int(new_name.rpartition(":")[2]): "to the certs endpoint"}
        with worker_processes(run.workers, folder, environment, peers) as processes:
            ports = [process.port for process in processes]
            tally, issuing = Tally(), Issuing(team, lifetime=(cycle / 12, cycle / 4))
            allowed = run.allowed * run.factor
            streams = Streams(issuing, tally, ports, allowed=allowed)
            requests = Requests(issuing, tally, ports)
            plan = Plan(issuing, certs, redis, streams, requests, tally, ports, cycle, allowed)
            yield Stage(run, processes, plan, tally, 0.0), new_name


async def hold(run: Run, folder: Path) -> tuple[list[Worker], Tally]:
    """Run, and return what is known at the end."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with stage(run, folder) as (acts, new_name):
        async with httpx.AsyncClient(timeout=60.0, trust_env=False, limits=limits) as client:
            for process in acts.processes:
                await process.wait_until_ready(client)
            acts.began = time.monotonic()
            events = asyncio.ensure_future(acts.plan.run(new_name, run.report))
            await acts.go_on(run.seconds * WARM_UP, load=PEAK)
            warm = len(acts.processes[0].samples)
            before = await acts.quiet_states(client)
            await acts.go_on(run.seconds * (1 - WARM_UP))
            after = await acts.quiet_states(client)
            events.cancel()
            with suppress(asyncio.CancelledError):
                await events
        found = [
            Worker(process.samples[warm:], first["most"], last["open"], last, process.tracebacks)
            for process, first, last in zip(acts.processes, before, after, strict=True)
        ]
    return found, acts.tally


def main(arguments: list[str]) -> int:
    """Run, print the report, and return 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=3600.0)
    parser.add_argument("--factor", type=float, default=24.0)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=40.0, help="requests per second")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args(arguments)
    if REDIS is None:
        parser.error("this needs the program redis-server")
    run = Run(options.seconds, options.factor, options.streams, options.rate)
    with TemporaryDirectory(prefix="long-run-") as folder:
        workers, tally = asyncio.run(hold(run, Path(folder)))
    print(summary(workers, tally))
    if options.json:
        about = {"seconds": run.seconds, "factor": run.factor, "streams": run.streams}
        options.json.write_text(as_json(workers, tally, **about) + "\n")
    found = problems(workers, tally, max_growth=run.max_growth)
    print("\n".join(["", *found, *tally.examples]) if found else "\nNo problem was found.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
