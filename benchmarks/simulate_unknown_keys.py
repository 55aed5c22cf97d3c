"""How soon a fresh key is accepted, and what that costs in fetches: this package's policy beside the others' rules.

    python benchmarks/simulate_unknown_keys.py                  print the table
    python benchmarks/simulate_unknown_keys.py --write docs     and write it into docs/guides/keys.md, with a plot

Virtual time. Five requests a second carry the new key from the rotation on; a fetch takes 0.1 s and brings the new key
once the edge has it. This package's row is computed by its own `FetchRateLimiter`.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import merge
from math import inf, log10
from pathlib import Path
from random import Random
from statistics import median
from typing import Protocol

from drawn import record

from fastapi_cloudflare_access._keys.rate_limiter import Decision, FetchRateLimiter
from fastapi_cloudflare_access.settings import KeySettings

FETCH, REFRESH, HOUR = 0.1, 600.0, 3600.0
WARM_UP = 300.0
NEW, STALE = "new", "stale"
NOISES = {"none": 0.0, "one removed key, 1/s": 1.0, "random keys, 0.5/s": 0.5, "random keys, 20/s": 20.0}
LAGS = (0.0, 3.0)
BEGIN, END = "<!-- simulation -->", "<!-- end of simulation -->"


class Rule(Protocol):
    """Says when a fetch for an unknown key may start, and learns what came of it."""

    def start(self, kid: str, now: float, /) -> float | None:
        """When a fetch for this key may start; None for not now."""

    def ended(self, now: float, requested_kids: set[str], /) -> None:
        """A fetch ended well and did not bring these keys."""


@dataclass
class Cooldown:
    """No fetch for so long after the last good one (jose, PyJWT, aws-jwt-verify, keyfunc)."""

    seconds: float
    last: float = -inf

    def start(self, _kid: str, now: float) -> float | None:
        """As in `Rule`."""
        return now if now - self.last >= self.seconds else None

    def ended(self, now: float, _sought: set[str]) -> None:
        """As in `Rule`."""
        self.last = now


@dataclass
class PerKey:
    """No fetch for the same key within 60 s (Kafka)."""

    until: dict[str, float] = field(default_factory=dict[str, float])

    def start(self, kid: str, now: float) -> float | None:
        """As in `Rule`."""
        return now if now >= self.until.get(kid, -inf) else None

    def ended(self, now: float, requested_kids: set[str]) -> None:
        """As in `Rule`."""
        self.until |= dict.fromkeys(requested_kids, now + 60)


class Own:
    """This package's policy object."""

    def __init__(self, chance: Random, **options: float) -> None:
        settings = KeySettings(**options)  # type: ignore[arg-type]
        self.policy = FetchRateLimiter(settings, uniform=chance.uniform)

    def start(self, kid: str, now: float) -> float | None:
        """As in `Rule`."""
        return (
            self.policy.reserve(now, without_keys=False)
            if self.policy.check(kid, now).decision is Decision.FETCH
            else None
        )

    def ended(self, now: float, requested_kids: set[str]) -> None:
        """As in `Rule`."""
        self.policy.succeeded(now, max_age=None)
        for kid in requested_kids:
            self.policy.record_miss(kid, now)


@dataclass
class World:
    """One process under one rule."""

    rule: Rule
    published: float = inf
    fetches: int = 0
    start: float = inf
    requested_kids: set[str] = field(default_factory=set[str])
    joined: set[str] = field(default_factory=set[str])
    has_new: bool = False

    def settle(self, now: float) -> float | None:
        """Let fetches end that ended by now; give the time at which a waiting request got the new key."""
        while self.start + FETCH <= now:
            end, waiting = self.start + FETCH, self.requested_kids | self.joined
            self.has_new |= self.start >= self.published
            absent = {kid for kid in self.requested_kids if kid != NEW or not self.has_new}
            joined = self.joined if isinstance(self.rule, Own) else set[str]()  # elsewhere a late-comer is answered too
            self.start, self.requested_kids, self.joined = inf, set(), set()
            self.rule.ended(end, absent)
            if self.has_new and NEW in waiting:
                return end
            for kid in joined:
                self.ask(kid, end)
        return None

    def ask(self, kid: str, now: float) -> None:
        """A request with an unknown key."""
        if self.start <= now:
            self.joined.add(kid)
        elif self.start < inf:
            self.requested_kids.add(kid)
        elif (start := self.rule.start(kid, now)) is not None:
            self.begin(start, {kid})

    def refresh(self, now: float) -> None:
        """A background refresh is due; this package's takes its token of the bucket as well."""
        if self.start == inf:
            self.begin(self.rule.policy.reserve(now, without_keys=False) if isinstance(self.rule, Own) else now, set())

    def begin(self, start: float, requested_kids: set[str]) -> None:
        """Start a fetch."""
        self.fetches += 1
        self.start, self.requested_kids = start, requested_kids


def noise_of(name: str, chance: Random, end: float) -> Iterator[tuple[float, str]]:
    """The requests that are only noise."""
    rate, now, number = NOISES[name], chance.random(), 0
    while rate and now < end:
        yield now, STALE if "removed" in name else f"random-{number}"
        number += 1
        now += 1 / rate if "removed" in name else chance.expovariate(rate)


def refreshes(chance: Random, end: float) -> Iterator[tuple[float, str]]:
    """The background refreshes."""
    now = chance.uniform(0, REFRESH)
    while now < end:
        yield now, ""
        now += REFRESH * chance.uniform(0.9, 1.1)


def news(rotated: float, end: float) -> Iterator[tuple[float, str]]:
    """The requests with the new key."""
    for number in range(int((end - rotated) * 5)):
        yield rotated + number / 5, NEW


def accepted_after(rule: Rule, noise: str, lag: float, chance: Random) -> float:
    """Seconds from the rotation until the first request with the new key passes."""
    rotated = WARM_UP + chance.uniform(0, 60)
    end = rotated + 700
    world = World(rule, published=rotated + lag)
    for now, kid in merge(noise_of(noise, chance, end), refreshes(chance, end), news(rotated, end)):
        if (passed := world.settle(now)) is not None:
            return passed - rotated
        if kid == NEW and world.has_new:
            return now - rotated
        if kid:
            world.ask(kid, now)
        else:
            world.refresh(now)
    return end - rotated


def fetches_in_an_hour(rule: Rule, noise: str, chance: Random) -> int:
    """How many fetches the noise and the refreshes cost."""
    world = World(rule)
    for now, kid in merge(noise_of(noise, chance, HOUR), refreshes(chance, HOUR)):
        world.settle(now)
        if kid:
            world.ask(kid, now)
        else:
            world.refresh(now)
    return world.fetches


@dataclass(frozen=True)
class Cell:
    """What one rule does under one noise and lag."""

    typical: float
    worst: float
    fetches: int


RULES = {
    "30 s after success (jose, PyJWT)": lambda _: Cooldown(30),
    "5 s after success": lambda _: Cooldown(5),
    "10 s after success (aws-jwt-verify)": lambda _: Cooldown(10),
    "300 s (keyfunc)": lambda _: Cooldown(300),
    "no limit (go-oidc)": lambda _: Cooldown(-1),
    "60 s for each key (Kafka)": lambda _: PerKey(),
    "bucket 4, 1 per 10 s, each key 1-60 s": lambda chance: Own(chance, unknown_kid_burst=4, unknown_kid_interval=10),
    "this package: bucket 3, 1 per 5 s, each key 1-60 s": Own,
}


def simulate(rule: str, noise: str, lag: float, *, trials: int) -> Cell:
    """Compute one cell."""
    times = [accepted_after(RULES[rule](chance := Random(seed)), noise, lag, chance) for seed in range(trials)]
    return Cell(median(times), max(times), fetches_in_an_hour(RULES[rule](chance := Random(0)), noise, chance))


def table(cells: dict[tuple[str, str, float], Cell]) -> str:
    """The cells of the longest lag in Markdown: median and worst seconds until a fresh key passes, fetches an hour."""
    lines = [f"| rule | {' | '.join(NOISES)} |", "|" + "---|" * (len(NOISES) + 1)]
    for rule in dict.fromkeys(name for name, _, _ in cells):
        row = [cells[rule, noise, max(LAGS)] for noise in NOISES]
        lines.append(f"| {rule} | " + " | ".join(f"{c.typical:.1f}/{c.worst:.1f} s, {c.fetches}/h" for c in row) + " |")
    return "\n".join(lines) + "\n"


def plot(cells: dict[tuple[str, str, float], Cell], path: Path) -> None:
    """Draw the worst time against the most fetches, one point for each rule."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only for this

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    points: list[tuple[float, float]] = []
    for rule in RULES:
        own = [cell for (name, _, _), cell in cells.items() if name == rule]
        fetches, worst = max(cell.fetches for cell in own), max(cell.worst for cell in own)
        axes.scatter(
            fetches, worst, s=70 if "this package" in rule else 35, marker="D" if "this package" in rule else "o"
        )
        taken = any(abs(log10(fetches / x)) < 0.3 and abs(log10(worst / y)) < 0.05 for x, y in points)
        points.append((fetches, worst))
        side, place = ("right", (-6, 4)) if taken else ("left", (6, 4))
        axes.annotate(rule, (fetches, worst), xytext=place, textcoords="offset points", fontsize=8, ha=side)
    axes.set(xscale="log", yscale="log", xlim=(5, 400_000), ylim=(2, 800))
    axes.set_xlabel("fetches an hour, in the worst case")
    axes.set_ylabel("seconds until a fresh key passes, in the worst case")
    axes.grid(visible=True, which="both", alpha=0.2)
    figure.savefig(path, metadata={"Date": None})


def insert(text: str, page: Path) -> None:
    """Put the table between the marks of the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}")


def main(arguments: list[str]) -> int:
    """Simulate, print, write, and tell whether this package's bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--only", default="", help="rules with this in their name")
    options = parser.parse_args(arguments)
    cells = {
        (rule, noise, lag): simulate(rule, noise, lag, trials=options.trials)
        for rule in RULES
        if options.only in rule
        for noise in NOISES
        for lag in LAGS
    }
    print(table(cells))
    if options.write:
        insert(table(cells), options.write / "guides" / "keys.md")
        plot(cells, picture := options.write / "assets" / "unknown-keys.svg")
        record(picture.name, picture)
    own = {key: cell for key, cell in cells.items() if "this package" in key[0]}
    quiet = next(cell for (_, noise, lag), cell in own.items() if noise == "none" and not lag)
    worst, fetches = max(cell.worst for cell in own.values()), max(cell.fetches for cell in own.values())
    print(f"this package: quiet {quiet.typical:.2f} s, at worst {quiet.worst:.2f} s")
    print(f"worst cell {worst:.1f} s, {fetches} fetches an hour at most")
    gap = 1.0  # where a refresh began within the last second
    return 0 if quiet.typical < 0.2 and quiet.worst <= gap + FETCH and worst <= 9 and fetches <= 740 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
