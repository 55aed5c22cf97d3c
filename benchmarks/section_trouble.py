"""The p99 of known callers while the certs endpoint hangs, the keys rotate, or tokens of unknown keys arrive."""

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from statistics import median
from threading import Event, Thread
from typing import Any

from aims import KNOWN, PEERS, UNCACHED
from section_requests import usable
from serving import HOST, NO_ANSWER, Load, Stage, ask, drive, exchange

from fastapi_cloudflare_access.testing._issuer import base64url, compact_json

CONTENDERS = (KNOWN, UNCACHED, *PEERS)
FLOOD = 200.0
"""Tokens of unknown keys per second."""
NUDGE = 2.0
"""The same while the endpoint hangs: enough that every contender that would fetch does."""
SETTLE = 31.0
"""Seconds since its last fetch after which every contender would fetch again; PyJWT's client waits for 30."""
PURPOSES = ("quiet", "hang", "rotation")
"""Each contender has a server for each, which gets no requests until all have settled."""

Pairs = list[tuple[Load, Load]]
"""The answers to a load, quiet and then in trouble, for each round."""


@dataclass(frozen=True, slots=True)
class Place:
    """A contender on a server of its own, over a certs endpoint of its own."""

    stage: Stage
    port: int

    def known(self, seconds: float) -> Load:
        """Send tokens of a known key."""
        return drive(self.port, [self.stage.token], seconds=seconds, connections=4)


@contextmanager
def place(name: str) -> Iterator[Place]:
    """Start a contender, and let it fetch the keys."""
    with Stage() as stage, stage.serve(name, http="httptools") as port:
        assert ask(port, stage.token) == 200
        yield Place(stage, port)


def unknown_token(stage: Stage) -> str:
    """Return a token that is valid but for its key, which is unknown."""
    _, payload, signature = stage.token.split(".")
    header = base64url(compact_json({"alg": "RS256", "kid": secrets.token_hex(32)}))
    return f"{header}.{payload}.{signature}"


@contextmanager
def beside(port: int, token: Callable[[], str], rate: float) -> Iterator[None]:
    """Send other tokens at a steady rate meanwhile, each over a connection of its own."""
    over = Event()

    async def one(limit: asyncio.Semaphore) -> None:
        async with limit:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(HOST, port)
                try:
                    await asyncio.wait_for(exchange(reader, writer, token()), 10)
                finally:
                    writer.close()

    async def keep_sending() -> None:
        limit, tasks = asyncio.Semaphore(32), set[asyncio.Task[None]]()
        start, sent = time.monotonic(), 0
        while not over.is_set():
            if sent < (time.monotonic() - start) * rate and len(tasks) < 64:
                tasks.add(task := asyncio.ensure_future(one(limit)))
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(0.5 / rate)
        for task in tasks:
            task.cancel()

    thread = Thread(target=asyncio.run, args=(keep_sending(),), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


def flooded(name: str, *, seconds: float, rounds: int) -> tuple[Pairs, float]:
    """Measure known callers during a flood; return the fetches per second of flood as well."""
    pairs: Pairs = []
    fetches = 0
    with place(name) as one:
        for _ in range(rounds):
            quiet, before = one.known(seconds), one.stage.certs.fetches
            with beside(one.port, lambda: unknown_token(one.stage), FLOOD):
                pairs.append((quiet, one.known(seconds)))
            fetches += one.stage.certs.fetches - before
    return pairs, round(fetches / rounds / seconds, 2)


def hanging(quiet: Place, hung: Place, *, seconds: float, rounds: int) -> tuple[Pairs, int]:
    """Compare two servers in turns, of which one has an endpoint that hangs; return its tries to fetch as well."""
    pairs: Pairs = []
    before = hung.stage.certs.fetches
    hung.stage.certs.hang()
    with beside(hung.port, lambda: unknown_token(hung.stage), NUDGE):
        time.sleep(0.6)
        while len(pairs) < rounds and (not pairs or pairs[-1][1] is not NO_ANSWER):
            pairs.append((quiet.known(seconds), hung.known(seconds)))
    return pairs, hung.stage.certs.fetches - before


def rotating(one: Place, *, seconds: float) -> Pairs:
    """Measure known callers while the keys rotate and callers of the new key arrive."""
    quiet = one.known(seconds)
    with ThreadPoolExecutor(1) as pool:
        meanwhile = pool.submit(one.known, seconds)
        time.sleep(seconds / 4)
        noticed(one, within=seconds)
        return [(quiet, meanwhile.result())]


def noticed(one: Place, *, within: float = 10) -> float | None:
    """Rotate the keys, and return after how many seconds the new key is accepted; None if not within so many."""
    one.stage.team.rotate()
    fresh, start = one.stage.mint(), time.monotonic()
    while time.monotonic() - start < within:
        if ask(one.port, fresh) == 200:
            return round(time.monotonic() - start, 3)
        time.sleep(0.05)
    return None


def summary(phases: dict[str, Pairs]) -> dict[str, Any]:
    """Return the medians of all rounds; the ratios are those of each round."""
    loads = {name: [troubled for _, troubled in pairs] for name, pairs in phases.items()}
    ratios = {name: [troubled.p99 / quiet.p99 for quiet, troubled in pairs] for name, pairs in phases.items()}
    loads["quiet"] = [quiet for pairs in phases.values() for quiet, _ in pairs]
    return {
        "p99": {name: finite(median(load.p99 for load in all_of)) for name, all_of in loads.items()},
        "times quiet": {name: finite(median(all_of)) for name, all_of in ratios.items()},
        "failed": {name: sum(load.failed for load in all_of) for name, all_of in loads.items()},
    }


def finite(value: float) -> float | None:
    """Return a figure for JSON; None if there was no answer at all."""
    return round(value, 3) if math.isfinite(value) else None


def show(found: dict[str, Any]) -> None:
    """Print the results."""
    print("\nUnder trouble: p99 of known callers in ms (failed answers)")
    for name, one in found.items():
        phases = "  ".join(
            f"{phase} {'none' if value is None else f'{value:.2f}':>8} ({one['failed'][phase]})"
            for phase, value in one["p99"].items()
        )
        print(
            f"  {name:30} {phases}  flood: {one['fetches per second of flood']:.1f} fetches/s,"
            f" tried while it hung: {one['fetches while it hung']}, new key after {one['new key accepted after']} s"
        )


def measure(name: str, places: dict[str, Place], flood: tuple[Pairs, float], *, quick: bool) -> dict[str, Any]:
    """Measure one contender, after its servers have settled.

    Raises:
        RuntimeError: This package did not try to fetch while the endpoint hung, so that nothing was measured.
    """
    seconds, rounds = (1, 1) if quick else (2, 3)
    pairs, tries = hanging(places["quiet"], places["hang"], seconds=seconds, rounds=rounds)
    if not tries and name.startswith("this package"):
        raise RuntimeError(f"{name} did not notice that the endpoint hangs")
    rotation = rotating(places["rotation"], seconds=2 * seconds)
    return {
        **summary({"flood": flood[0], "hang": pairs, "rotation": rotation}),
        "fetches per second of flood": flood[1],
        "fetches while it hung": tries,
        "new key accepted after": noticed(places["quiet"]),
    }


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure this section, print it and return it."""
    with Stage() as stage:
        names = [name for name in usable(stage) if name in CONTENDERS]
    with ExitStack() as stack:
        places = {name: {purpose: stack.enter_context(place(name)) for purpose in PURPOSES} for name in names}
        settled = time.monotonic() + SETTLE
        floods = {name: flooded(name, seconds=1 if quick else 2, rounds=1 if quick else 2) for name in names}
        time.sleep(max(0.0, settled - time.monotonic()))
        found = {name: measure(name, places[name], floods[name], quick=quick) for name in names}
    show(found)
    return found


if __name__ == "__main__":
    run()
