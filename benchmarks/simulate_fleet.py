"""What a fleet asks of the certs endpoint, with and without a snapshot store and jitter, in virtual time.

    python benchmarks/simulate_fleet.py                  print the table
    python benchmarks/simulate_fleet.py --write docs     and write it into docs/guides/fleet.md, with a plot

Each worker decides with the package's own `KeySetCache` and `FetchRateLimiter`. A fetch takes 0.1 s. All workers start
within ten seconds. Each one gets a request with the latest key every five seconds on average.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, product
from math import inf
from pathlib import Path
from random import Random

from drawn import record
from simulate_unknown_keys import insert

from fastapi_cloudflare_access._keys.cache import FetchOptions, KeySetCache, PendingFetch
from fastapi_cloudflare_access._keys.document import Document, FetchProblem
from fastapi_cloudflare_access._keys.rate_limiter import Decision
from fastapi_cloudflare_access._keys.sharing import STORE_POLL, STORE_WAIT
from fastapi_cloudflare_access._keys.snapshot import ClockReading
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import FakeTeam

FETCH, START, QUIET, REQUESTS = 0.1, 10.0, 1_500.0, 5.0
"""Seconds: of a fetch, in which all workers start, before something happens, and between requests to a worker."""
OUTAGE, ROLLING = 1_800.0, 600.0
"""Seconds of the outage, and of the restart of all workers after a new name of the team."""
AFTER = 900.0
BINS = 10.0
EPOCH = 1_767_225_600.0
TEAM = FakeTeam("acme")
SETTINGS = Settings.load(team_domain="acme", audience=TEAM.audience)


def reading(now: float) -> ClockReading:
    """Return the time on both clocks."""
    return ClockReading(now, EPOCH + now)


def middle(low: float, high: float) -> float:
    """Stand in for chance where there is no jitter."""
    return (low + high) / 2


@dataclass
class World:
    """The endpoint, the store and the time.

    Attributes:
        chance: Source of random numbers.
        jitter: Whether pauses vary.
        has_store: Whether the workers share a store.
        document: The certs document; None while the endpoint fails.
        kid: The key of the requests.
        name: The name of the team; workers with another one get no keys.
        stored: Time of the fetch of the stored snapshot, and its document.
        locked: Names of the teams whose lock a worker holds.
        fetches: Number of fetches in each second.
        waiting: Workers that do not have the latest key.
        accepted_at: Time at which the last one had it.
    """

    chance: Random
    jitter: bool
    has_store: bool
    document: bytes | None = field(default_factory=TEAM.certs_body)
    kid: str = ""
    name: str = "acme"
    stored: tuple[float, bytes] | None = None
    locked: set[str] = field(default_factory=set[str])
    fetches: Counter[int] = field(default_factory=Counter[int])
    waiting: set[int] = field(default_factory=set[int])
    accepted_at: float = 0.0
    _events: list[tuple[float, int, Callable[[float], None]]] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    def at(self, time: float, event: Callable[[float], None]) -> None:
        """Call a function at a time."""
        heappush(self._events, (time, next(self._numbers), event))

    def run(self, end: float) -> None:
        """Call everything until then."""
        while self._events[0][0] <= end:
            time, _, event = heappop(self._events)
            event(time)


class Worker:
    """One worker: what `KeySource`, `KeyFetcher` and `KeySharing` do, in virtual time."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.name = world, number, ""
        self.restart(0.0)

    def restart(self, _now: float) -> None:
        """Forget the keys."""
        self.cache = KeySetCache(SETTINGS, ())
        self.cache._limiter._uniform = self.world.chance.uniform if self.world.jitter else middle  # noqa: SLF001
        self.pending: PendingFetch | None = None
        self.deadline, self.pause, self.has_lock, self.timer = inf, STORE_POLL, False, 0

    def start(self, now: float) -> None:
        """Start, or start again."""
        self._unlock()
        self.restart(now)
        self.name = self.world.name
        if not self._share(now, FetchOptions()):
            self._begin(now, FetchOptions())

    def request(self, now: float) -> None:
        """Get a request with the new key, and wait for the next one until it is accepted."""
        world = self.world
        if self.number not in world.waiting:
            return
        world.at(now + world.chance.expovariate(1 / REQUESTS), self.request)
        if not self.cache.is_usable(reading(now)):
            return
        if self.pending or self.cache.may_fetch(world.kid, reading(now)).decision is Decision.FETCH:
            self._begin(now, FetchOptions(no_cache=True, requested_kids={world.kid}))

    def _refresh(self, now: float, timer: int) -> None:
        if timer == self.timer:
            self._begin(now, FetchOptions(may_confirm_removals=True))

    def _begin(self, now: float, options: FetchOptions) -> None:
        if self.pending:
            if not self.pending.sequence:
                self.pending.options.add(options)
            return
        self.pending = self.cache.reserve(options, reading(now))
        self.deadline, self.pause = inf, STORE_POLL
        self._step_at(self.pending.earliest_start)

    def _step_at(self, time: float) -> None:
        pending = self.pending
        self.world.at(time, lambda now: self._step(now) if self.pending is pending else None)

    def _step(self, now: float) -> None:
        """Look at the store, wait for another worker, or send the request."""
        assert self.pending
        if (start := self.cache.not_before(now)) > now:
            self.pending.earliest_start = start
            self._step_at(start)
            return
        if self._share(now, self.pending.options):
            self._ended(now)
        elif not self.world.has_store or self._may_send(now):
            self._send(now)
        else:
            self._step_at(min(now + self.pause, self.deadline))
            self.pause *= 2

    def _may_send(self, now: float) -> bool:
        self.deadline = min(self.deadline, now + STORE_WAIT)
        if self.name not in self.world.locked:
            self.world.locked.add(self.name)
            self.has_lock = True
        return self.has_lock or now >= self.deadline

    def _share(self, now: float, options: FetchOptions) -> bool:
        """Use the snapshot of the store; return whether it makes a fetch unnecessary."""
        if self.world.stored is None or self.name != self.world.name:
            return False
        fetched_at, document = self.world.stored
        if (mine := self.cache.snapshot.fetched) and fetched_at <= mine.wall:
            return False  # as `share` would find, in less time
        may_confirm = options.may_confirm_removals
        used = self.cache.share(document, fetched_at, may_confirm_removals=may_confirm, now=reading(now))
        served = used and self.cache.is_served(options, reading(now))
        if served and not self.pending:
            self._ended(now)
        return served

    def _send(self, now: float) -> None:
        assert self.pending
        self.world.fetches[int(now)] += 1
        self.cache.record_start(self.pending)
        self.pending.base = self.cache.snapshot
        pending = self.pending
        self.world.at(now + FETCH, lambda time: self._answered(time) if self.pending is pending else None)

    def _answered(self, now: float) -> None:
        assert self.pending
        document, at = self.world.document, reading(now)
        if document is None or self.name != self.world.name:
            self.cache.reject(self.pending, FetchProblem("a response with HTTP status 503"), at=at)
        else:
            self.cache.accept(self.pending, Document(document, None, None), at=at, seconds=FETCH)
            if self.world.has_store:
                self.world.stored = at.wall, document
        self._unlock()
        self._ended(now)

    def _unlock(self) -> None:
        if self.has_lock:
            self.world.locked.discard(self.name)
            self.has_lock = False

    def _ended(self, now: float) -> None:
        self.pending = None
        self.timer += 1
        timer = self.timer
        self.world.at(now + self.cache.due_in(reading(now)), lambda time: self._refresh(time, timer))
        if self.number in self.world.waiting and self.world.kid in self.cache.snapshot.keys:
            self.world.waiting.discard(self.number)
            self.world.accepted_at = now


def rotation(world: World, workers: list[Worker]) -> float:
    """Rotate the keys by hand; return the time from which the new key counts."""
    world.at(QUIET, lambda now: _rotate(world, workers, now))
    return QUIET


def outage(world: World, workers: list[Worker]) -> float:
    """Let the endpoint fail for half an hour, at whose end it has a new key; return that end."""

    def fail(_now: float) -> None:
        world.document = None

    world.at(QUIET, fail)
    world.at(QUIET + OUTAGE, lambda now: _rotate(world, workers, now))
    return QUIET + OUTAGE


def rename(world: World, workers: list[Worker]) -> float:
    """Give the team a new name, and restart the workers with it one after another; return the end of that."""

    def switch(now: float) -> None:
        world.name, world.stored = "globex", None  # its snapshot is another one
        _rotate(world, [], now)
        world.waiting = {worker.number for worker in workers}

    world.at(QUIET, switch)
    for number, worker in enumerate(workers):
        world.at(QUIET + ROLLING * (number + 1) / len(workers), worker.start)
    return QUIET + ROLLING


def _rotate(world: World, workers: list[Worker], now: float) -> None:
    TEAM.rotate()
    world.kid, world.document = TEAM.current.kid, TEAM.certs_body()
    world.waiting = {worker.number for worker in workers}
    for worker in workers:
        world.at(now + world.chance.expovariate(1 / REQUESTS), worker.request)


SITUATIONS = {"a manual rotation": rotation, "an outage of 30 minutes": outage, "a new name of the team": rename}
FLEETS = {
    "jitter, store": (True, True),
    "jitter, no store": (True, False),
    "no jitter, store": (False, True),
    "no jitter, no store": (False, False),
}


@dataclass(frozen=True)
class Result:
    """What one fleet did in one situation.

    Attributes:
        fetches: Number of fetches in each second, from the situation on.
        peak: The most fetches in one second.
        total: Number of fetches.
        accepted_after: Seconds until every worker accepts the new key.
    """

    fetches: Counter[int]
    peak: int
    total: int
    accepted_after: float


def simulate(situation: str, fleet: str, *, workers: int) -> Result:
    """Compute one cell."""
    jitter, has_store = FLEETS[fleet]
    world = World(Random(1), jitter=jitter, has_store=has_store, kid=TEAM.current.kid)
    members = [Worker(world, number) for number in range(workers)]
    for worker in members:
        world.at(world.chance.uniform(0, START), worker.start)
    counted_from = SITUATIONS[situation](world, members)
    world.run(counted_from + AFTER)
    fetches = Counter({second - int(QUIET): number for second, number in world.fetches.items() if second >= QUIET})
    after = inf if world.waiting else world.accepted_at - counted_from
    return Result(fetches, max(fetches.values(), default=0), fetches.total(), after)


def table(cells: dict[tuple[str, str], Result], *, workers: int) -> str:
    """Return the cells in Markdown."""
    lines = [f"For {workers:,} workers:", ""]
    lines += ["| situation | " + " | ".join(FLEETS) + " |", "|" + "---|" * (len(FLEETS) + 1)]
    for situation in SITUATIONS:
        found = [cells[situation, fleet] for fleet in FLEETS]
        texts = [f"{one.total:,} fetches, {one.peak:,}/s, {max(one.accepted_after, 0):.0f} s" for one in found]
        lines.append(f"| {situation} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def plot(cells: dict[tuple[str, str], Result], path: Path) -> None:
    """Draw the requests per second at the endpoint over time."""
    import plots  # noqa: PLC0415 - only for this

    figure, all_axes = plots.plt.subplots(3, 1, figsize=(7.2, 7.5), layout="constrained")
    for axes, situation in zip(all_axes, SITUATIONS, strict=True):
        for fleet, (jitter, has_store) in FLEETS.items():
            binned: Counter[int] = Counter()
            for second, number in cells[situation, fleet].fetches.items():
                binned[int(second / BINS)] += number
            times = range(max(binned) + 1)
            axes.step(
                [time * BINS / 60 for time in times],
                [binned[time] / BINS for time in times],
                color=plots.OURS if has_store else plots.LIMIT,
                linestyle="-" if jitter else ":",
                label=fleet,
                where="post",
                linewidth=1.2,
            )
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set(title=f"After {situation}", ylabel="fetches per second")
        axes.grid(alpha=0.3)
    all_axes[-1].set_xlabel("minutes")
    figure.legend(*all_axes[0].get_legend_handles_labels(), ncols=4, fontsize=8, loc="outside upper center")
    figure.savefig(path, metadata={"Date": None})


def main(arguments: list[str]) -> int:
    """Simulate, print, write, and check the bounds of a fleet with jitter and a store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    logging.disable()
    cells = {
        (situation, fleet): simulate(situation, fleet, workers=options.workers)
        for situation, fleet in product(SITUATIONS, FLEETS)
    }
    text = table(cells, workers=options.workers)
    print(text)
    if options.write:
        insert(text, options.write / "guides" / "fleet.md")
        plot(cells, picture := options.write / "assets" / "fleet.svg")
        record(picture.name, picture)
    alone, shared = (cells["a manual rotation", fleet] for fleet in ("jitter, no store", "jitter, store"))
    accepted = all(cell.accepted_after < 2 * SETTINGS.key_settings.refresh_interval for cell in cells.values())
    return 0 if accepted and shared.total <= alone.total / 20 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
