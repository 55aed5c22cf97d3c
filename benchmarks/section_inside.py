"""One verification inside the requests of a server under load, where other code uses the caches of the processor."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any
from urllib.request import urlopen

from aims import BASE, PROTOCOLS, REMEMBERED, TOKEN, VERIFIED
from apps import app_with, doing
from fastapi import FastAPI, HTTPException
from material import TOKENS, bare, verifier
from section_verification import by_others
from serving import HOST, Stage, ask, drive
from timing import Figure, at_once, figure, table

TURN = 100
"""Number of requests in a row that do the same."""
WARM = 10
"""Number of them that do not count."""
Operation = Callable[[], object]
Seconds = dict[str, list[float]]


def contenders() -> dict[str, Operation]:
    """Return every contender over one token."""
    token = TOKENS[TOKEN]
    wire, cold, cached = token.encode(), verifier(token_cache_size=0), verifier()
    ours = {VERIFIED: lambda: at_once(cold.verify(wire)), REMEMBERED: lambda: at_once(cached.verify(wire))}
    return {BASE: bare(token), **ours, **by_others(token)}


def make() -> FastAPI:
    """Return an app with a route whose dependency lets the contenders take turns, and a route with their figures."""
    with ThreadPoolExecutor() as aside:  # uvicorn calls this in its loop, and keys are fetched in one of their own
        operations = aside.submit(contenders).result()
    kept: Seconds = {name: [] for name in operations}
    turns = taking_turns(operations, kept)

    def work() -> None:
        operation, took = next(turns)
        start = time.perf_counter()
        operation()
        took.append(time.perf_counter() - start)

    app = app_with(doing(work))

    @app.get("/figures")
    async def figures() -> dict[str, dict[str, float]]:
        if not (rounds := min(map(len, kept.values()))):
            raise HTTPException(503, "no round is whole yet")
        base = kept[BASE][:rounds]
        return {name: figure(values[:rounds], base).json() for name, values in kept.items()}

    return app


def taking_turns(operations: Mapping[str, Operation], kept: Seconds) -> Iterator[tuple[Operation, list[float]]]:
    """Yield what each request does and where to note how long it took; keep each turn's median.

    The order is another one each round.
    """
    while True:
        for name in random.sample(list(operations), len(operations)):
            took: list[float] = []
            for _ in range(TURN):
                yield operations[name], took
            kept[name].append(median(took[WARM:]))


def measure(stage: Stage, http: str, *, seconds: float) -> dict[str, dict[str, float]]:
    """Let the contenders take turns inside one server.

    Raises:
        RuntimeError: A request failed.
    """
    with stage.serve(factory="section_inside:make", http=http) as port:
        assert ask(port, stage.token) == 200
        if failed := drive(port, [stage.token], seconds=seconds).failed:
            raise RuntimeError(f"{failed} requests failed, so that a figure is wrong")
        with urlopen(f"http://{HOST}:{port}/figures") as answer:
            found: dict[str, dict[str, float]] = json.load(answer)
    table(f"Inside requests, uvicorn with {http}", {name: Figure(**one) for name, one in found.items()})
    return found


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure this section, print it and return it."""
    with Stage() as stage:
        return {http: measure(stage, http, seconds=2 if quick else 10) for http in PROTOCOLS}


if __name__ == "__main__":
    run()
