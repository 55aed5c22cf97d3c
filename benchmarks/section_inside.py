"""One verification where it happens: inside the requests of a server under load, where other code had the caches."""

import json
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any
from urllib.request import urlopen

from apps import app_with, tree
from fastapi import FastAPI
from material import TOKENS, bare, verifier
from section_verification import BASE, CACHED, OURS
from serving import HOST, Stage, drive
from timing import Figure, figure, table

TOKEN = "user, 0.9 kB"  # noqa: S105 - the name of one
TURN = 100
"""How many requests in a row do the same."""
WARM = 10
"""How many of them do not count."""
PROTOCOLS = ("h11", "httptools")


def at_once(work: Coroutine[Any, Any, object]) -> object:
    """Give the result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("the operation waited")


def contenders() -> dict[str, Callable[[], object]]:
    """Everybody, over one token."""
    from peers import PEERS  # noqa: PLC0415 - tests do without them

    token = TOKENS[TOKEN]
    wire, cold, cached = token.encode(), verifier(), verifier(token_cache_size=10)
    ours = {OURS: lambda: at_once(cold.verify(wire)), CACHED: lambda: at_once(cached.verify(wire))}
    peers = {name: prepare() for name, prepare in PEERS.items()}
    return {BASE: bare(token), **ours, **{name: lambda v=verify: v(token) for name, verify in peers.items()}}


def make() -> FastAPI:
    """A route whose dependency lets the contenders take turns, and a route that tells how long they took."""
    with ThreadPoolExecutor() as aside:  # uvicorn calls this in its loop, and keys are fetched in one of their own
        operations = aside.submit(contenders).result()
    seconds: dict[str, list[float]] = {name: [] for name in operations}
    turns = taking_turns(operations, seconds)

    def work() -> None:
        next(turns)()

    app = app_with(tree(work))

    @app.get("/figures")
    async def figures() -> dict[str, dict[str, float]]:
        whole = min(map(len, seconds.values()))
        base = seconds[BASE][:whole]
        return {name: figure(values[:whole], base).json() for name, values in seconds.items()}

    return app


def taking_turns(
    operations: dict[str, Callable[[], object]], seconds: dict[str, list[float]]
) -> Iterator[Callable[[], None]]:
    """Give what each request is to do, in another order each round; the median of each turn is kept."""
    took: list[float] = []
    while True:
        for name in random.sample(list(operations), len(operations)):
            timed = timing(operations[name], took)
            for _ in range(TURN):
                yield timed
            seconds[name].append(median(took[WARM:]))
            took.clear()


def timing(operation: Callable[[], object], took: list[float]) -> Callable[[], None]:
    """Do it, and note how long it took."""

    def timed() -> None:
        start = time.perf_counter()
        operation()
        took.append(time.perf_counter() - start)

    return timed


def measure(stage: Stage, http: str, *, seconds: float) -> dict[str, dict[str, float]]:
    """Have everybody take turns inside one server."""
    with stage.serve("inside", factory="section_inside:make", http=http) as port:
        drive(port, stage.token, seconds=seconds)
        with urlopen(f"http://{HOST}:{port}/figures") as answer:
            found: dict[str, dict[str, float]] = json.load(answer)
    table(f"Inside requests, uvicorn with {http}", {name: Figure(**one) for name, one in found.items()})
    return found


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print and give everything of this section."""
    with Stage() as stage:
        return {http: measure(stage, http, seconds=2 if quick else 10) for http in PROTOCOLS}


if __name__ == "__main__":
    run()
