"""What known callers notice while the certs endpoint hangs, the keys rotate, or somebody floods with unknown keys."""

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from statistics import median
from threading import Event, Thread
from typing import Any

from section_requests import usable
from serving import HOST, Stage, ask, drive, exchange

from fastapi_cloudflare_access._issuer import base64url, compact_json

CONTENDERS = (
    "this package",
    "this package, token cache",
    "sync PyJWKClient",
    "fastapi-cloudflare-access-jwt",
    "fastapi-azure-auth",
    "Cloudflare's tutorial",
)
FLOOD = 200.0
"""Unknown keys per second."""
COOLDOWN = {"sync PyJWKClient": 31.0}
"""Seconds after a fetch in which it would not fetch again, so that it would not notice that the endpoint hangs."""
NUDGE = 2.0
"""The same while the endpoint hangs: so many that every cache that would fetch does."""


def unknown_token(stage: Stage) -> str:
    """A token that would fit, of a key that nobody knows."""
    _, payload, signature = stage.token.split(".")
    header = base64url(compact_json({"alg": "RS256", "kid": secrets.token_hex(32)}))
    return f"{header}.{payload}.{signature}"


@contextmanager
def beside(port: int, token: Callable[[], str], rate: float) -> Iterator[None]:
    """Send other tokens at a steady rate meanwhile, each over a connection of its own where answers take long."""
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


def measure(stage: Stage, app: str, seconds: float, rounds: int) -> dict[str, Any]:
    """One contender: each round on a new server, quiet and then troubled; the last lives through a rotation."""
    p99: dict[str, list[float]] = {name: [] for name in ("quiet", "flood", "hang")}
    failed = dict.fromkeys(p99, 0)
    fetches = 0

    def known(phase: str) -> None:
        load = drive(port, stage.token, seconds=seconds, connections=4)
        p99[phase].append(load.p99)
        failed[phase] += load.failed

    for _ in range(rounds):
        with stage.serve(app, http="httptools") as port:
            assert ask(port, stage.token) == 200
            known("quiet")
            before = stage.certs.fetches
            with beside(port, lambda: unknown_token(stage), FLOOD):
                known("flood")
            fetches += stage.certs.fetches - before
            time.sleep(COOLDOWN.get(app, 0.0))
            stage.certs.hang()
            with beside(port, lambda: unknown_token(stage), NUDGE):
                time.sleep(0.6)
                known("hang")
            stage.certs.recover()
    with stage.serve(app, http="httptools") as port:
        assert ask(port, stage.token) == 200
        rotation = rotate(stage, port, seconds)
    medians = {**{phase: median(values) for phase, values in p99.items()}, "rotation": rotation["p99"]}
    return {
        "p99": {phase: finite(value) for phase, value in medians.items()},
        "times quiet": {phase: finite(value / medians["quiet"]) for phase, value in medians.items()},
        "failed": {**failed, "rotation": rotation["failed"]},
        "fetches per second of flood": round(fetches / rounds / seconds, 2),
        "new key accepted after": rotation["after"],
    }


def finite(value: float) -> float | None:
    """A figure for JSON; None where there was no answer at all."""
    return None if math.isinf(value) else round(value, 3)


def rotate(stage: Stage, port: int, seconds: float) -> dict[str, Any]:
    """Rotate the keys: how known callers fare, and after how many seconds (None: not in ten) the new key passes."""
    old = stage.token
    stage.team.rotate()
    fresh = stage.mint()
    start, after = time.monotonic(), None
    while after is None and time.monotonic() - start < 10:
        if ask(port, fresh) == 200:
            after = round(time.monotonic() - start, 2)
        else:
            time.sleep(0.25)
    load = drive(port, old, seconds=seconds, connections=4)
    stage.token = fresh
    return {"p99": load.p99, "failed": load.failed, "after": after}


def show(found: dict[str, Any]) -> None:
    """Print what was measured."""
    print("\nUnder trouble: p99 of known callers in ms (failed answers)")
    for name, one in found.items():
        phases = "  ".join(
            f"{phase} {'none' if value is None else f'{value:.2f}':>8} ({one['failed'][phase]})"
            for phase, value in one["p99"].items()
        )
        print(
            f"  {name:30} {phases}  flood: {one['fetches per second of flood']:.1f} fetches/s,"
            f" new key after {one['new key accepted after']} s"
        )


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print and give everything of this section."""
    found = {}
    with Stage() as stage:
        names = [name for name in usable(stage) if name in CONTENDERS]
    for name in names:
        with Stage() as stage:
            found[name] = measure(stage, name, seconds=1 if quick else 2, rounds=1 if quick else 2)
    show(found)
    return found


if __name__ == "__main__":
    run()
