"""Judges a long run: memory that grows, what is left over, and responses that a caller must not get."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MEBIBYTE = 1024.0 * 1024.0
HOUR = 3600.0
MAX_KEPT = 20

Sample = tuple[float, float]
"""Seconds of the machine since the run began, and the bytes of memory that the worker had then."""


def growth(samples: Sequence[Sample]) -> float:
    """Return the slope of a series in MiB per hour, by least squares.

    Raises:
        ValueError: There are fewer than two different times.
    """
    count = len(samples)
    middle = sum(at for at, _ in samples) / max(count, 1)
    mean = sum(size for _, size in samples) / max(count, 1)
    spread = sum((at - middle) ** 2 for at, _ in samples)
    if not spread:
        raise ValueError("there are too few samples of the memory for a slope")
    return sum((at - middle) * (size - mean) for at, size in samples) / spread * HOUR / MEBIBYTE


def left_over(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return what is open at the end and was not at the first quiet moment, with the numbers."""
    more = {name: number - before.get(name, 0) for name, number in after.items()}
    return {name: number for name, number in sorted(more.items()) if number > 0}


@dataclass
class Tally:
    """What the clients saw.

    Attributes:
        responses: Number of responses by kind of token and outcome.
        streams: Number of streams by the way they ended.
        mistakes: Number of mistakes by kind; any is an error.
        examples: The first mistakes, in words.
        moment: What the plan last did.
        latest: Seconds of the clock by which a stream outlived its token at most, leeway apart.
    """

    responses: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    streams: Counter[str] = field(default_factory=Counter[str])
    mistakes: Counter[str] = field(default_factory=Counter[str])
    examples: list[str] = field(default_factory=list[str])
    moment: str = ""
    latest: float = 0.0

    def response(self, kind: str, outcome: str, *, expected: bool | None) -> None:
        """Count a response.

        Args:
            kind: The kind of token.
            outcome: `ok`, or the status and the reason code.
            expected: Whether the token must pass; None if either is right, as at the moment of its end.
        """
        self.responses[kind, outcome] += 1
        if expected is True and outcome != "ok":
            self.mistake("a valid token was refused", f"{kind}: {outcome}")
        if expected is False and outcome == "ok":
            self.mistake("an invalid token was accepted", kind)

    def ended(self, how: str, *, early: float, late: float, allowed: float) -> None:
        """Count the end of a stream.

        Args:
            how: The reason code.
            early: Seconds of the clock from the end of the stream to `exp`, if it was earlier.
            late: Seconds of the clock from `exp` plus leeway, or from the revocation, to the end of the stream.
            allowed: Bound of `late`.
        """
        self.streams[how] += 1
        self.latest = max(self.latest, late)
        if early > 0:
            self.mistake("a stream ended before its token", f"{how}, by {early:.0f} s")
        if late > allowed:
            self.mistake("a stream outlived its token", f"{how}, by {late:.0f} s")

    def mistake(self, kind: str, example: str) -> None:
        """Count a mistake."""
        self.mistakes[kind] += 1
        if len(self.examples) < MAX_KEPT:
            self.examples.append(f"{kind}: {example}" + f" (after: {self.moment})" * bool(self.moment))


@dataclass
class Worker:
    """What is known about one worker at the end.

    Attributes:
        memory: Its samples after the warm-up.
        before: The most that it had open at the quiet moment after the warm-up.
        after: The least that it had open at the end.
        state: What its app reported at the end.
        tracebacks: Number of tracebacks in its log.
    """

    memory: Sequence[Sample]
    before: Mapping[str, int]
    after: Mapping[str, int]
    state: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tracebacks: int = 0

    def problems(self, *, max_growth: float) -> list[str]:
        """Return a sentence for each problem."""
        found = [f"{number} more at the end: {name}" for name, number in left_over(self.before, self.after).items()]
        if (slope := growth(self.memory)) > max_growth:
            found.append(f"the memory grows by {slope:.2f} MiB an hour, above {max_growth:g}")
        if self.tracebacks:
            found.append(f"{self.tracebacks} tracebacks in its log")
        return found


def problems(workers: Sequence[Worker], tally: Tally, *, max_growth: float) -> list[str]:
    """Return a sentence for each problem of a run; none if it was good."""
    found = [f"{kind}: {number} times" for kind, number in sorted(tally.mistakes.items())]
    for number, worker in enumerate(workers):
        found += [f"worker {number}: {problem}" for problem in worker.problems(max_growth=max_growth)]
    if not any(outcome == "ok" for _, outcome in tally.responses) or not tally.streams:
        found.append("no request was answered, or no stream ended: nothing was tested")
    return found


def as_json(workers: Sequence[Worker], tally: Tally, **about: Any) -> str:
    """Return all figures of a run."""
    responses = {f"{kind}: {outcome}": number for (kind, outcome), number in sorted(tally.responses.items())}
    shown = [{**asdict(worker), "MiB an hour": growth(worker.memory)} for worker in workers]
    clients: dict[str, Any] = {"responses": responses, "streams": tally.streams, "mistakes": tally.mistakes}
    clients |= {"examples": tally.examples, "latest": tally.latest}
    return json.dumps({**about, "clients": clients, "workers": shown}, indent=1)


def summary(workers: Sequence[Worker], tally: Tally) -> str:
    """Return the figures of a run in Markdown."""
    lines = ["| | " + " | ".join(f"worker {number}" for number in range(len(workers))) + " |"]
    lines.append("|---|" + "---|" * len(workers))

    def row(name: str, values: Sequence[object]) -> None:
        lines.append(f"| {name} | " + " | ".join(map(str, values)) + " |")

    row("memory at the end, MiB", [f"{worker.memory[-1][1] / MEBIBYTE:.1f}" for worker in workers])
    row("growth, MiB an hour", [f"{growth(worker.memory):.2f}" for worker in workers])
    for part in ("task ", "socket ", "fd "):
        numbers = [[_number(opened, part) for opened in (worker.before, worker.after)] for worker in workers]
        row(f"{part.strip()}s, after the warm-up and at the end", [f"{first}, {last}" for first, last in numbers])
    lines += ["", "| token | responses |", "|---|---|"]
    for kind in sorted({kind for kind, _ in tally.responses}):
        outcomes = [f"{number:,} {outcome}" for (one, outcome), number in tally.responses.most_common() if one == kind]
        lines.append(f"| {kind} | {', '.join(outcomes)} |")
    ends = ", ".join(f"{number:,} {how}" for how, number in tally.streams.most_common())
    return "\n".join([*lines, "", f"Streams ended: {ends}. None outlived its token by more than {tally.latest:.1f} s."])


def _number(opened: Mapping[str, int], beginning: str) -> int:
    return sum(number for name, number in opened.items() if name.startswith(beginning))
