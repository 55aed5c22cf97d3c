"""Comparing operations fairly: in one process, in short turns one after another, by processor time."""

import random
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any, TypeVar

WARM = 3
"""How often an operation is done before its turn counts: somebody else had the caches before."""

T = TypeVar("T")
Turn = Callable[[int], float]
"""Does an operation so often, and gives the seconds that took."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured for one contender.

    Attributes:
        microseconds: The median of its turns.
        ratio: The median, over all rounds, of its turn against the reference's turn of the same round.
        low: The tenth percentile of those ratios.
        high: The ninetieth.
    """

    microseconds: float
    ratio: float
    low: float
    high: float

    def json(self) -> dict[str, float]:
        """As it is written to the results."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def plain(operation: Callable[[], object]) -> Turn:
    """Take turns with a function."""

    def turn(times: int) -> float:
        for _ in range(WARM):
            operation()
        start = time.process_time()
        for _ in range(times):
            operation()
        return time.process_time() - start

    return turn


def straight(operation: Callable[[], Coroutine[Any, Any, object]]) -> Turn:
    """Take turns with a coroutine that never waits, so that no event loop is measured."""

    async def many(times: int) -> float:
        for _ in range(WARM):
            await operation()
        start = time.process_time()
        for _ in range(times):
            await operation()
        return time.process_time() - start

    return lambda times: at_once(many(times))


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Give the result of a coroutine that never waits, without an event loop."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("the operation waited")


def interleave(turns: Mapping[str, Turn], *, rounds: int, times: int, base: str | None = None) -> dict[str, Figure]:
    """Let all take turns, in another order each round, and compare each with `base` (else the first)."""
    base = base or next(iter(turns))
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    order = list(turns)
    for turn in turns.values():
        turn(times)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            seconds[name].append(turns[name](times) / times)
    return {name: figure(values, seconds[base]) for name, values in seconds.items()}


def figure(values: list[float], reference: list[float]) -> Figure:
    """Sum up what one contender did beside the reference, round by round."""
    ratios = [mine / theirs for mine, theirs in zip(values, reference, strict=True)]
    tenths = quantiles(ratios, n=10) if len(ratios) > 1 else ratios * 9
    return Figure(median(values) * 1e6, median(ratios), tenths[0], tenths[-1])


def table(title: str, figures: Mapping[str, Figure], unit: str = "times the first") -> None:
    """Print figures."""
    print(f"\n{title}")
    width = max(map(len, figures))
    for name, one in figures.items():
        print(
            f"  {name:{width}}  {one.microseconds:9.2f} µs  {one.ratio:7.3f} {unit}  ({one.low:.3f} to {one.high:.3f})"
        )
