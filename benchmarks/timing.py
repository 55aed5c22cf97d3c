"""Comparing operations fairly: in one process, in short turns one after another, by processor time."""

import random
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any, TypeVar

WARM = 3
"""Number of operations before a turn is timed: another contender used the caches of the processor before."""

T = TypeVar("T")
Turn = Callable[[int], float]
"""Repeats an operation so often, and returns the seconds that took."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The result of one contender.

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
        """Return the figure as the results hold it."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def plain(operation: Callable[[], object]) -> Turn:
    """Return turns of a function."""

    def turn(times: int) -> float:
        for _ in range(WARM):
            operation()
        start = time.process_time()
        for _ in range(times):
            operation()
        return time.process_time() - start

    return turn


def awaited(operation: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[int], Coroutine[Any, Any, float]]:
    """Return turns of a coroutine function, to be awaited."""

    async def turn(times: int) -> float:
        for _ in range(WARM):
            await operation()
        start = time.process_time()
        for _ in range(times):
            await operation()
        return time.process_time() - start

    return turn


def straight(operation: Callable[[], Coroutine[Any, Any, object]]) -> Turn:
    """Return turns of a coroutine function that never waits, so that no event loop is measured."""
    turn = awaited(operation)
    return lambda times: at_once(turn(times))


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never waits, without an event loop.

    Raises:
        RuntimeError: It waited.
    """
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
    """Return the result of one contender beside the reference, round by round."""
    ratios = [mine / theirs for mine, theirs in zip(values, reference, strict=True)]
    tenths = quantiles(ratios, n=10) if len(ratios) > 1 else ratios * 9
    return Figure(median(values) * 1e6, median(ratios), tenths[0], tenths[-1])


def added(values: list[float], reference: list[float]) -> float:
    """Return by how many microseconds a turn is longer than the reference's of the same round: the median."""
    return median(mine - theirs for mine, theirs in zip(values, reference, strict=True)) * 1e6


def table(title: str, figures: Mapping[str, Figure], unit: str = "times the first") -> None:
    """Print figures."""
    print(f"\n{title}")
    width = max(map(len, figures))
    for name, one in figures.items():
        print(
            f"  {name:{width}}  {one.microseconds:9.2f} µs  {one.ratio:7.3f} {unit}  ({one.low:.3f} to {one.high:.3f})"
        )
