"""The result of an audit: one entry for each route, and the sentences about what is wrong besides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["route", "websocket", "starlette", "docs", "mount", "frontend", "fallback", "exempt"]

Caller = Literal["users", "services"]
ANYONE = "anyone"
NEVER = "never reached"


class Note(NamedTuple):
    """A remark on a protected route, which is no failure, and the change that mends it."""

    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A route and the callers that it admits.

    Attributes:
        path: Its path in the whole app; `/*` at its end means every path below.
        methods: The HTTP methods for which this holds; `WS` for WebSockets, `ANY` for all.
        kind: The kind of route.
        is_open: Whether it admits clients without a token.
        callers: The kinds of callers that it admits, if it is not open.
        policies: The policies that must be true.
        by: The dependencies and guards that decide.
        why: The reason why it is open, or why no request reaches it.
        advice: The change that protects it.
        is_reached: Whether requests reach it; an earlier route may serve its path.
        notes: What it does not hold, if it is protected.
    """

    path: str
    methods: tuple[str, ...]
    kind: Kind
    is_open: bool
    callers: tuple[Caller, ...] = ()
    policies: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    why: str | None = None
    advice: str | None = None
    is_reached: bool = True
    notes: tuple[Note, ...] = ()

    @property
    def shown_methods(self) -> str:
        """The methods; HEAD is not shown beside GET."""
        return ",".join(method for method in self.methods if method != "HEAD" or "GET" not in self.methods)

    @property
    def who(self) -> str:
        """The callers that it admits, in words."""
        if not self.is_reached:
            return NEVER
        if self.is_open:
            return ANYONE
        callers = " and ".join(self.callers) or "no caller"
        return f"{callers} with {' and '.join(self.policies)}" if self.policies else callers

    @property
    def listing(self) -> str:
        """The item of `open=` that lists it."""
        method = self.shown_methods
        return f"WS {self.path}" if method == "WS" else self.path

    def is_listed(self, listed: Sequence[str]) -> bool:
        """Check whether every method of this entry is listed: a path lists all methods of HTTP."""
        return all(any(_lists(item, self, method) for item in listed) for method in self.methods)

    def is_named(self, item: str) -> bool:
        """Check whether an item of `open=` names this entry, or one of its methods."""
        return any(_lists(item, self, method) for method in self.methods)


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit.

    Attributes:
        entries: The routes, in the order in which they are matched.
        problems: Sentences about declarations that are wrong.
    """

    entries: list[Entry]
    problems: list[str]


def _lists(item: str, entry: Entry, method: str) -> bool:
    named, _, path = item.rpartition(" ")
    return path == entry.path and (named.upper() == method or (not named and method != "WS"))
