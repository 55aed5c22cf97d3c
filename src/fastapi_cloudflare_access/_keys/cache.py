"""The keys and everything known about them, without any waiting: what a fetch brings, how old it is, what is due."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal, TypeAlias
from weakref import WeakMethod

from fastapi_cloudflare_access._keys.http import MAX_DOCUMENT, Document, describe
from fastapi_cloudflare_access._keys.jwks import JwksProblem, KeySet, parse_jwks
from fastapi_cloudflare_access._keys.metrics import KeyReport
from fastapi_cloudflare_access._keys.rate_limiter import KeyPolicy
from fastapi_cloudflare_access._keys.snapshot import Fetched, Moment, Snapshot, confirmation_due, merge
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import Listener
from fastapi_cloudflare_access.settings import Settings

State: TypeAlias = Literal["cold", "ok", "degraded", "expired"]
"""How good the keys are.

`cold`: there are none yet. `degraded`: older than `degraded_after`, still used. `expired`: older than `max_staleness`,
used no longer.
"""

FUTURE = 60.0
"""How far the clock of whoever exported a snapshot may be ahead, in seconds."""


@dataclass(eq=False, slots=True)
class Wish:
    """What is wanted of a fetch.

    Attributes:
        no_cache: Whether caches on the way must ask the origin.
        may_finish: Whether it may confirm a removal.
        at_once: Whether removals need no confirmation.
        sought: The unknown keys it is for.
    """

    no_cache: bool = False
    may_finish: bool = False
    at_once: bool = False
    sought: set[str] = field(default_factory=set[str])

    def add(self, other: "Wish") -> None:
        """Want that as well."""
        self.no_cache |= other.no_cache
        self.may_finish |= other.may_finish
        self.at_once |= other.at_once
        self.sought |= other.sought


@dataclass(eq=False, slots=True)
class Errand:
    """One fetch. Until it begins, others may join in and wish for more.

    Attributes:
        wish: What it is for.
        start: When (monotonic) it may begin.
        booked: How many tokens of the bucket it took.
        known: The keys at hand when it asked; what a 304 confirms.
        sequence: Its number; 0 until it begins.
        error: Why it failed, in words; None once it succeeded.
    """

    wish: Wish
    start: float
    booked: int
    known: Snapshot = field(default_factory=Snapshot)
    sequence: int = 0
    error: str | None = "the fetch was cancelled"


class KeyStore:
    """The state of one key source.

    Attributes:
        snapshot: The keys.
        policy: When fetches may start.
        report: What happened.
        refreshed: What to call after each successful fetch.
        attend_at: From then on (monotonic) a lookup has more to do than to look.
        attend_wall: The same on the wall clock, for a machine that slept.
    """

    def __init__(self, settings: Settings, listeners: Sequence[Listener]) -> None:
        """Begin without keys."""
        self.settings = settings.key_settings
        self.snapshot = Snapshot()
        self.policy = KeyPolicy(settings.key_settings)
        self.report = KeyReport(listeners)
        self.attend_at = self.attend_wall = float("-inf")
        self.refreshed: list[WeakMethod[Callable[[float], None]]] = []
        self._sequence = 0
        self._lock = Lock()

    def age(self, now: Moment) -> float | None:
        """Seconds since the last good fetch."""
        fetched = self.snapshot.fetched
        return None if fetched is None else fetched.until(now)

    def state(self, now: Moment) -> State:
        """Say how good the keys are."""
        age = self.age(now)
        if age is None:
            return "cold"
        if age > self.settings.max_staleness:
            return "expired"
        return "degraded" if age > self.settings.degraded_after else "ok"

    def is_usable(self, now: Moment) -> bool:
        """Tell whether there are keys within the hard limit."""
        age = self.age(now)
        return age is not None and age <= self.settings.max_staleness

    def due(self) -> float:
        """When (monotonic) the refresher must fetch next."""
        confirmation = confirmation_due(self.snapshot, self.settings.removal_grace)
        wanted = self.policy.refresh_at if confirmation is None else min(self.policy.refresh_at, confirmation)
        return max(wanted, self.policy.retry_at)

    def due_in(self, now: Moment) -> float:
        """Seconds until the refresher must fetch next; none after a sleep of the machine that lasted that long."""
        overslept = now.wall >= self.attend_wall and now.monotonic >= self.policy.retry_at
        return 0.0 if overslept else max(0.0, self.due() - now.monotonic)

    def postpone(self, now: Moment, until: float) -> None:
        """Let lookups only look until then, or until the keys expire."""
        age = self.age(now)
        left = -math.inf if age is None else self.settings.max_staleness - age
        self.attend_at = min(until, now.monotonic + left)
        self.attend_wall = now.wall + (self.attend_at - now.monotonic)

    def begin(self, errand: Errand) -> None:
        """Number an errand as it begins, and count it."""
        with self._lock:
            self._sequence += 1
            errand.sequence = self._sequence
        self.report.counts["fetches"] += 1

    def book_retry(self, errand: Errand, now: float) -> bool:
        """Tell whether the errand may try a second time, and count that."""
        cold = not errand.booked
        if not self.policy.book_retry(now, cold=cold):
            return False
        errand.booked += not cold
        self.report.counts["fetches"] += 1
        return True

    def forked(self, now: Moment) -> None:
        """Be fit for use in a new process: another thread of the old one may have held the lock."""
        self._lock = Lock()
        self.policy.forked(now.monotonic)

    def accept(self, errand: Errand, document: Document, *, at: Moment, seconds: float) -> None:
        """Take over what a good fetch brought, unless something newer is there.

        Raises:
            JwksProblem: The document cannot be used.
        """
        fetched = self._parse(errand, document, at)
        with self._lock:
            old = self.snapshot
            if errand.sequence > old.sequence:
                delay = None if errand.wish.at_once else self.settings.removal_grace or None
                self.snapshot = merge(old, fetched, removal_delay=delay, may_finish=errand.wish.may_finish)
            new = self.snapshot
        errand.error = None
        self.policy.succeeded(at.monotonic, max_age=document.max_age)
        self._remember(errand.wish.sought, old, new, at)
        self.postpone(at, self.due())
        self.report.refreshed(old, new, at=at, seconds=seconds, modified=document.body is not None)
        alive = [(weak, callback) for weak in self.refreshed if (callback := weak())]
        self.refreshed = [weak for weak, _ in alive]
        for _, callback in alive:
            callback(at.wall)

    def _parse(self, errand: Errand, document: Document, at: Moment) -> Fetched:
        if document.body is None:
            return Fetched(at, errand.sequence, errand.known.document, errand.known.listed, errand.known.etag)
        key_set = parse_jwks(document.body)
        return Fetched(at, errand.sequence, document.body, key_set, document.etag)

    def _remember(self, sought: set[str], old: Snapshot, new: Snapshot, at: Moment) -> None:
        for kid in new.keys.keys() - old.keys.keys():
            self.policy.appeared(kid)
        for kid in sought - new.keys.keys():
            self.policy.absent(kid, at.monotonic)

    def reject(self, errand: Errand, problem: BaseException, *, at: Moment) -> None:
        """Note that a fetch failed; the keys stay."""
        errand.error = str(problem) if isinstance(problem, JwksProblem) else describe(problem)
        policy = self.policy
        policy.failed(at.monotonic, cold=not self.is_usable(at), booked=errand.booked)
        self.postpone(at, self.due())
        retry_in = policy.retry_at - at.monotonic
        self.report.failed(problem, errand.error, at=at, failures=policy.failures, retry_in=retry_in)
        self.check_age(at)

    def check_age(self, now: Moment) -> None:
        """Tell, once, that the keys are stale."""
        age = self.age(now)
        if age is not None and age > self.settings.degraded_after:
            self.report.stale(age, now)

    def seed(self, document: bytes, fetched_at: float, now: Moment) -> None:
        """Take over a document fetched elsewhere, unless it is older than what is there.

        Raises:
            ConfigurationError: It is no certs document, or its time is none.
        """
        key_set, age = self._checked_seed(document, fetched_at, now)
        with self._lock:
            old, current = self.snapshot, self.age(now)
            if current is not None and current < age:
                return
            at = Moment(now.monotonic - age, now.wall - age)
            fetched = Fetched(at, old.sequence, document, key_set, None)  # any fetch that has begun brings more
            new = self.snapshot = merge(old, fetched, removal_delay=None, may_finish=True)
        self.policy.due_now()
        self._remember(set(), old, new, now)
        self.postpone(now, self.due())
        self.report.changed(old, new, at=now)

    def _checked_seed(self, document: object, fetched_at: object, now: Moment) -> tuple[KeySet, float]:
        if not isinstance(document, bytes) or len(document) > MAX_DOCUMENT:
            raise ConfigurationError("seed() takes a certs document as bytes, of at most 64 KiB")
        if (
            isinstance(fetched_at, bool)
            or not isinstance(fetched_at, int | float)
            or not 0 <= fetched_at <= now.wall + FUTURE
        ):
            raise ConfigurationError("fetched_at must be the time of the fetch: seconds since 1970, not ahead of now")
        try:
            return parse_jwks(document), max(0.0, now.wall - fetched_at)
        except JwksProblem as problem:
            raise ConfigurationError(f"seed() got no usable keys: {problem}") from None
