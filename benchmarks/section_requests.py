"""A whole request: FastAPI with each contender, called over ASGI and over sockets."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from itertools import cycle
from statistics import median
from typing import Any

from aims import BASE, EMPTY, KNOWN, NEW, UNCACHED, UNPROTECTED
from apps import APPS
from fastapi import FastAPI
from material import bare
from serving import Load, Stage, ask, drive, headers
from timing import added, awaited, figure, plain, table

PROMISED = (UNPROTECTED, EMPTY, KNOWN, NEW)
"""The apps that a promise over sockets is about."""
LAPS = 7
"""Number of processes for each of them: one may lie in memory better than the next."""
LAPS_OF_OTHERS = 2
SLOW = "Cloudflare's tutorial"
"""It fetches the keys for every request, so that it waits for another server; over ASGI it is left out."""
TIMES = 10
"""Number of requests in a turn over ASGI."""
Headers = list[tuple[bytes, bytes]]
Turn = Callable[[int], Awaitable[float]]


def usable(stage: Stage) -> list[str]:
    """Return the apps that can be made here: a peer may not be installed."""
    os.environ.update(stage.environment(""))
    names = []
    for name, make in APPS.items():
        try:
            make()
        except ImportError as missing:
            print(f"  without {name}: {missing}")
        else:
            names.append(name)
    return names


async def call(app: FastAPI, sent: Headers) -> int:
    """Send one request over ASGI and return the status."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http"}
    place = {"path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "server": ("x", 80)}
    await app({**scope, **place, "headers": sent, "client": ("127.0.0.1", 1)}, receive, send)
    return status


def prepared(token: str) -> Headers:
    """Return the headers of a request with this token, as a server passes them on."""
    return [(name.lower().encode(), value.encode()) for name, value in headers(token).items()]


def calling(app: FastAPI, tokens: Sequence[str]) -> Turn:
    """Return turns of requests with these tokens, one after another, over and over."""
    upcoming = cycle([prepared(token) for token in tokens])
    return awaited(lambda: call(app, next(upcoming)))


async def over_asgi(stage: Stage, names: Sequence[str], rounds: int) -> dict[str, dict[str, float]]:
    """Measure these apps and one bare RSA verification in turns, in this process.

    `added` is the time in microseconds that an app adds to a request to the unprotected route; `best` is that of a
    request in the best turn: other processes only ever add to it.
    """
    os.environ.update(stage.environment(""))
    signature = plain(bare(stage.token, stage.team))

    async def alone(times: int) -> float:
        return signature(times)

    turns: dict[str, Turn] = {BASE: alone}
    async with AsyncExitStack() as stack:
        for name in names:
            app, tokens = APPS[name](), stage.distinct if name == NEW else [stage.token]
            await stack.enter_async_context(app.router.lifespan_context(app))
            assert await call(app, prepared(tokens[-1])) == 200, name
            turns[name] = calling(app, tokens)
        seconds = await _interleave(turns, rounds)
    base = seconds[UNPROTECTED]
    figures = {name: figure(values, base) for name, values in seconds.items()}
    table("A request over ASGI", figures, "times the unprotected")
    return {
        name: one.json() | {"added": round(added(seconds[name], base), 4), "best": round(min(seconds[name]) * 1e6, 4)}
        for name, one in figures.items()
    }


async def _interleave(turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        await turn(TIMES)
    for _ in range(rounds):
        for name in random.sample(list(turns), len(turns)):
            seconds[name].append(await turns[name](TIMES) / TIMES)
    return seconds


def over_sockets(stage: Stage, names: Sequence[str], http: str, *, laps: int, seconds: float) -> dict[str, Any]:
    """Measure these apps in turns, each lap in new server processes; the last laps are for the promised ones.

    Raises:
        RuntimeError: A request to one of those failed.
    """
    loads: dict[str, list[Load]] = {name: [] for name in names}
    for lap in range(laps):
        running = [name for name in names if lap < LAPS_OF_OTHERS or name in PROMISED]
        with ExitStack() as stack:
            ports = {name: stack.enter_context(stage.serve(name, http=http)) for name in running}
            for name, port in ports.items():
                assert ask(port, stage.token, *stage.returning) == 200, name
            for name in random.sample(running, len(running)):
                tokens = stage.distinct if name == NEW else stage.returning
                loads[name].append(drive(ports[name], tokens, seconds=seconds))
    found = {name: summary(one, loads[EMPTY]) for name, one in loads.items()}
    if failed := {name: found[name]["failed"] for name in PROMISED if found[name]["failed"]}:
        raise RuntimeError(f"requests failed, so that a figure is wrong: {failed}")
    show(f"Over sockets, uvicorn with {http}", found)
    return found


def summary(loads: list[Load], reference: list[Load]) -> dict[str, float]:
    """Return the medians, and of the rates the ratio to the reference's of the same lap."""
    ratios = [mine.rate / theirs.rate for mine, theirs in zip(loads, reference, strict=False)]
    return {
        "rate": round(median(load.rate for load in loads), 1),
        "p50": round(median(load.p50 for load in loads), 3),
        "p99": round(median(load.p99 for load in loads), 3),
        "ratio": round(median(ratios), 4),
        "low": round(min(ratios), 4),
        "high": round(max(ratios), 4),
        "failed": sum(load.failed for load in loads),
    }


def show(title: str, found: dict[str, Any]) -> None:
    """Print the results over sockets."""
    print(f"\n{title}")
    for name, one in found.items():
        print(
            f"  {name:36} {one['rate']:8.0f}/s  p50 {one['p50']:7.2f} ms  p99 {one['p99']:7.2f} ms"
            f"  {one['ratio']:.3f} of '{EMPTY}' ({one['low']:.3f} to {one['high']:.3f})"
        )


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure this section, print it and return it."""
    found: dict[str, Any] = {}
    with Stage() as stage:
        names = [name for name in usable(stage) if name != UNCACHED]
        asgi = [name for name in names if name != SLOW]
        found["asgi"] = asyncio.run(over_asgi(stage, asgi, 50 if quick else 400))
        few, many, seconds = (1, 2, 1) if quick else (LAPS_OF_OTHERS, LAPS, 2)
        found["h11"] = over_sockets(stage, names, "h11", laps=few, seconds=1)
        found["httptools"] = over_sockets(stage, names, "httptools", laps=many, seconds=seconds)
    return found


if __name__ == "__main__":
    run()
