"""A whole request: FastAPI with each contender, called through ASGI and over sockets."""

import asyncio
import os
import random
import time
from contextlib import AsyncExitStack, ExitStack
from statistics import median
from typing import Any

from aims import CACHED, COLD, LEAST, LEAST_CACHED, PROTOCOLS
from apps import APPS, TREES
from fastapi import FastAPI
from serving import Load, Stage, ask, drive, headers
from timing import figure, table

REFERENCES = {
    "this package": COLD,
    "this package, router": f"{COLD}, router",
    "this package, policy": COLD,
    "this package, guard": COLD,
    "this package, token cache": CACHED,
    LEAST_CACHED: CACHED,
}
PROMISED = {*REFERENCES, *REFERENCES.values(), LEAST}
LAPS = 4
"""In how many processes each app that a promise is about is measured: one may lie in memory better than the next."""
SLOW = "Cloudflare's tutorial"


def usable(stage: Stage) -> list[str]:
    """The apps that can be made here: a peer may be missing."""
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


async def call(app: FastAPI, sent: list[tuple[bytes, bytes]]) -> int:
    """One request through ASGI; gives the status."""
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


async def through_asgi(stage: Stage, names: list[str], rounds: int) -> dict[str, Any]:
    """Everybody in turns, in this process."""
    sent = [(name.lower().encode(), value.encode()) for name, value in headers(stage.token).items()]
    makers = APPS | TREES
    names = [*names, *TREES]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    async with AsyncExitStack() as stack:
        apps = {name: makers[name]() for name in names}
        for name, app in apps.items():
            await stack.enter_async_context(app.router.lifespan_context(app))
            assert await call(app, sent) == 200, name
        for number in range(rounds):
            for name in random.sample(names, len(names)):
                if name != SLOW or number < 5:
                    seconds[name].append(await _turn(apps[name], sent))
    base = seconds["unprotected"]
    figures = {name: figure(values, base[: len(values)]) for name, values in seconds.items()}
    table("A request through ASGI", figures, "times the unprotected")
    return {name: one.json() for name, one in figures.items()}


async def _turn(app: FastAPI, sent: list[tuple[bytes, bytes]], times: int = 5) -> float:
    await call(app, sent)
    start = time.perf_counter()
    for _ in range(times):
        await call(app, sent)
    return (time.perf_counter() - start) / times


def over_sockets(
    stage: Stage, names: list[str], http: str, *, laps: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Everybody in turns, each in a server process of its own; those with a promise in one more each lap."""
    loads: dict[str, list[Load]] = {name: [] for name in names}
    for lap in range(laps):
        with ExitStack() as stack:
            running = names if not lap else [name for name in names if name in PROMISED]
            ports = {name: stack.enter_context(stage.serve(name, http=http)) for name in running}
            for name, port in ports.items():
                assert ask(port, stage.token) == 200, name
            for number in range(rounds):
                for name in random.sample(running, len(running)):
                    if name != SLOW or not number:
                        loads[name].append(drive(ports[name], stage.token, seconds=seconds))
    return {name: summary(found, loads[REFERENCES.get(name, COLD)]) for name, found in loads.items()}


def summary(loads: list[Load], reference: list[Load]) -> dict[str, float]:
    """The medians, and of the rates the ratio to the reference's of the same round."""
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
    """Print what came over sockets."""
    print(f"\n{title}")
    for name, one in found.items():
        reference = REFERENCES.get(name, COLD)
        print(
            f"  {name:30} {one['rate']:8.0f}/s  p50 {one['p50']:7.2f} ms  p99 {one['p99']:7.2f} ms"
            f"  {one['ratio']:.3f} of '{reference}' ({one['low']:.3f} to {one['high']:.3f})"
        )


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print and give everything of this section."""
    found: dict[str, Any] = {}
    with Stage() as stage:
        names = usable(stage)
        found["asgi"] = asyncio.run(through_asgi(stage, names, 20 if quick else 200))
        for http in PROTOCOLS:
            found[http] = over_sockets(
                stage, names, http, laps=1 if quick else LAPS, rounds=1 if quick else 2, seconds=1
            )
            show(f"Over sockets, uvicorn with {http}", found[http])
    return found


if __name__ == "__main__":
    run()
