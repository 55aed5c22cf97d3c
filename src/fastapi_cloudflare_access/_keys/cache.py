"""The cached keys, their age, and when the next fetch is due. Nothing here waits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal, TypeAlias
from weakref import WeakMethod

from fastapi_cloudflare_access._keys.document import MAX_DOCUMENT, Document, FetchProblem, describe
from fastapi_cloudflare_access._keys.jwks import JwksProblem, KeySet, parse_jwks
from fastapi_cloudflare_access._keys.metrics import KeyMetrics
from fastapi_cloudflare_access._keys.rate_limiter import CheckResult, Decision, FetchRateLimiter
from fastapi_cloudflare_access._keys.snapshot import ClockReading, ParsedDocument, Snapshot, confirmation_due, merge
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.events import LimitReason, StoreOperation
from fastapi_cloudflare_access.protocols import Listener
from fastapi_cloudflare_access.settings import Settings

State: TypeAlias = Literal["cold", "ok", "degraded", "expired"]
"""The state of the keys.

`cold`: nothing was fetched yet. `ok`: usable. `degraded`: older than `degraded_after`, still used. `expired`: older
than `max_staleness`, not used.
"""

MAX_CLOCK_SKEW = 60.0
"""Seconds by which the clock of the exporting process may be ahead."""


@dataclass(eq=False, slots=True)
class FetchOptions:
    """The options of a fetch.

    Attributes:
        no_cache: Whether to send `Cache-Control: no-cache` and no `If-None-Match`.
        may_confirm_removals: Whether this fetch may confirm that a key is no longer published.
        force: Whether to ignore back-off, and to remove at once the keys that are no longer published.
        requested_kids: The unknown `kid`s that requests wait for.
    """

    no_cache: bool = False
    may_confirm_removals: bool = False
    force: bool = False
    requested_kids: set[str] = field(default_factory=set[str])

    def add(self, other: "FetchOptions") -> None:
        """Add the options of another caller."""
        self.no_cache |= other.no_cache
        self.may_confirm_removals |= other.may_confirm_removals
        self.force |= other.force
        self.requested_kids |= other.requested_kids


@dataclass(eq=False, slots=True)
class PendingFetch:
    """One fetch. Until its request is sent, callers that join it may add options.

    Attributes:
        options: The options of this fetch.
        earliest_start: Monotonic time from which the request may be sent.
        reserved: Number of bucket tokens that it took.
        base: The snapshot when the request was sent, which a 304 confirms.
        sequence: Number of this fetch; 0 until the request is sent.
        error: Why it failed, in words; None after it succeeded.
    """

    options: FetchOptions
    earliest_start: float
    reserved: int
    base: Snapshot = field(default_factory=Snapshot)
    sequence: int = 0
    error: str | None = "the fetch was cancelled"


class KeySetCache:
    """The cached key set of one key source, its rate limits and its metrics.

    Attributes:
        snapshot: The current key set.
        refreshed: Weak references to the bound methods that each successful fetch calls with the time.
        next_check_at: Monotonic time from which the next `get` must check the freshness of the keys.
        next_check_wall: The same on the wall clock, since the monotonic one stops while a machine sleeps.
    """

    def __init__(self, settings: Settings, listeners: Sequence[Listener]) -> None:
        """Create an empty cache."""
        self.settings = settings.key_settings
        self.snapshot = Snapshot()
        self._limiter = FetchRateLimiter(settings.key_settings)
        self._metrics = KeyMetrics(listeners, settings.certs_url)
        self.next_check_at = self.next_check_wall = float("-inf")
        self.refreshed: list[WeakMethod[Callable[[float], None]]] = []
        self._sequence = 0
        self._lock = Lock()

    def age(self, now: ClockReading) -> float | None:
        """Return the seconds since the last successful fetch, or None."""
        fetched = self.snapshot.fetched
        return None if fetched is None else fetched.until(now)

    def state(self, now: ClockReading) -> State:
        """Return the state of the keys."""
        age = self.age(now)
        if age is None:
            return "cold"
        if age > self.settings.max_staleness:
            return "expired"
        return "degraded" if age > self.settings.degraded_after else "ok"

    def is_usable(self, now: ClockReading) -> bool:
        """Check whether there are keys that are not older than `max_staleness`."""
        age = self.age(now)
        return age is not None and age <= self.settings.max_staleness

    def due(self) -> float:
        """Return the monotonic time of the next refresh."""
        confirmation = confirmation_due(self.snapshot, self.settings.removal_grace)
        wanted = self._limiter.refresh_at if confirmation is None else min(self._limiter.refresh_at, confirmation)
        return max(wanted, self._limiter.retry_at)

    def due_in(self, now: ClockReading) -> float:
        """Return the seconds until the next refresh; 0 if a sleep of the machine has lasted longer."""
        overslept = now.wall >= self.next_check_wall and not self.is_backing_off(now)
        return 0.0 if overslept else max(0.0, self.due() - now.monotonic)

    def schedule_next_check(self, now: ClockReading, until: float) -> None:
        """Schedule the next freshness check for then, or for the time at which the keys expire."""
        age = self.age(now)
        left = -math.inf if age is None else self.settings.max_staleness - age
        self.next_check_at = min(until, now.monotonic + left)
        self.next_check_wall = now.wall + (self.next_check_at - now.monotonic)

    @property
    def retry_at(self) -> float:
        """Monotonic time until which the back-off lasts."""
        return self._limiter.retry_at

    def is_backing_off(self, now: ClockReading) -> bool:
        """Check whether no fetch may start yet, since the last one failed."""
        return now.monotonic < self._limiter.retry_at

    @property
    def last_error(self) -> str | None:
        """Why the last fetch failed, in words; None after a successful one."""
        return self._metrics.last_error

    @property
    def last_store_error(self) -> str | None:
        """Why the store last failed, in words; None after a success."""
        return self._metrics.last_store_error

    @property
    def counts(self) -> dict[str, int]:
        """The counters of `KeysHealth`."""
        limiter = self._limiter
        return self._metrics.counts | {
            "consecutive_failures": limiter.failures,
            "negative_cache_entries": limiter.negative_cache_entries,
        }

    def may_fetch(self, kid: str, now: ClockReading) -> CheckResult:
        """Decide whether an unknown `kid` may cause a fetch, and count the rejection of one in the negative cache."""
        result = self._limiter.check(kid, now.monotonic)
        if result.decision is Decision.NOT_FOUND_CACHED:
            self._metrics.counts["unknown_kid_rejections"] += 1
        return result

    def record_limited(self, reason: LimitReason, retry_after: float, now: ClockReading) -> None:
        """Report that a request got 503 because no fetch was allowed."""
        self._metrics.report_limited(reason, retry_after, now)

    def record_crash(self, problem: BaseException, now: ClockReading) -> None:
        """Report that the refresh task crashed."""
        self._metrics.report_crash(problem, now)

    def reserve(self, options: FetchOptions, now: ClockReading) -> PendingFetch:
        """Return a fetch that starts as soon as the rate limits allow; without usable keys it takes no bucket token."""
        without_keys = not self.is_usable(now)
        start = self._limiter.reserve(now.monotonic, without_keys=without_keys)
        return PendingFetch(options, earliest_start=start, reserved=int(not without_keys))

    def not_before(self, start: float) -> float:
        """Return the start of a fetch, moved to the end of the back-off if fetches have failed since."""
        return self._limiter.not_before(start)

    def record_start(self, pending: PendingFetch) -> None:
        """Number a fetch, whose request is now sent, and count it."""
        with self._lock:
            self._sequence += 1
            pending.sequence = self._sequence
        self._metrics.counts["fetches"] += 1

    def try_reserve_retry(self, pending: PendingFetch, now: float) -> bool:
        """Reserve a second attempt of a fetch; return whether there was a bucket token."""
        without_keys = not pending.reserved
        if not self._limiter.try_reserve_retry(now, without_keys=without_keys):
            return False
        pending.reserved += int(not without_keys)
        self._metrics.counts["fetches"] += 1
        return True

    def reset_after_fork(self, now: ClockReading) -> None:
        """Reset what a forked process must not share: another thread may have held the lock."""
        self._lock = Lock()
        self._limiter.reset_after_fork(now.monotonic)

    def accept(self, pending: PendingFetch, document: Document, *, at: ClockReading, seconds: float) -> None:
        """Replace the snapshot by a fetched document, unless a later fetch has done so.

        Raises:
            JwksProblem: The document cannot be used.
        """
        parsed = self._parse(pending, document, at)
        with self._lock:
            old = self.snapshot
            if pending.sequence > old.sequence:
                grace = None if pending.options.force else self.settings.removal_grace or None
                self.snapshot = merge(
                    old, parsed, removal_grace=grace, may_confirm_removals=pending.options.may_confirm_removals
                )
            new = self.snapshot
        pending.error = None
        self._limiter.succeeded(at.monotonic, max_age=document.max_age)
        self._remember(pending.options.requested_kids, old, new, at)
        self.schedule_next_check(at, self.due())
        self._metrics.report_refresh(old, new, at=at, seconds=seconds, modified=document.body is not None)
        self._notify(at)

    def _notify(self, at: ClockReading) -> None:
        alive = [(weak, callback) for weak in self.refreshed if (callback := weak())]
        self.refreshed = [weak for weak, _ in alive]
        for _, callback in alive:
            callback(at.wall)

    def _parse(self, pending: PendingFetch, document: Document, at: ClockReading) -> ParsedDocument:
        if document.body is None:
            return ParsedDocument(
                at, pending.sequence, pending.base.document, pending.base.published, pending.base.etag
            )
        key_set = parse_jwks(document.body)
        return ParsedDocument(at, pending.sequence, document.body, key_set, document.etag)

    def _remember(self, requested_kids: set[str], old: Snapshot, new: Snapshot, at: ClockReading) -> None:
        for kid in new.keys.keys() - old.keys.keys():
            self._limiter.forget_miss(kid)
        for kid in requested_kids - new.keys.keys():
            self._limiter.record_miss(kid, at.monotonic)

    def share(self, document: bytes, fetched_at: float, *, may_confirm_removals: bool, now: ClockReading) -> bool:
        """Replace the snapshot by a document that another worker fetched, if it is newer and still usable.

        Args:
            document: The certs document.
            fetched_at: Time of its fetch, in seconds since 1970; the next refresh counts from it.
            may_confirm_removals: Whether it may remove keys, or only mark them as pending.
            now: The time.

        Returns:
            Whether it replaced the snapshot.

        Raises:
            JwksProblem: The document cannot be used.
        """
        at = ClockReading(now.monotonic - max(0.0, now.wall - fetched_at), fetched_at)
        mine = self.snapshot.fetched
        if at.until(now) > self.settings.max_staleness or (mine and at.wall <= mine.wall):
            return False
        key_set = parse_jwks(document)
        with self._lock:
            old = self.snapshot
            # The sequence stays, so that a fetch whose request was sent replaces these keys.
            shared = ParsedDocument(at, old.sequence, document, key_set, None)
            grace = self.settings.removal_grace or None
            new = self.snapshot = merge(old, shared, removal_grace=grace, may_confirm_removals=may_confirm_removals)
        self._limiter.refreshed_elsewhere(at.monotonic)
        self._remember(set(), old, new, now)
        self.schedule_next_check(now, self.due())
        self._metrics.report_shared(old, new, age=at.until(now), at=now)
        self._notify(now)
        return True

    def is_served(self, options: FetchOptions, now: ClockReading) -> bool:
        """Check whether keys that another worker fetched make a fetch with these options unnecessary."""
        if options.force or not self.is_usable(now) or options.requested_kids - self.snapshot.keys.keys():
            return False
        return not options.may_confirm_removals or self.due_in(now) > 0

    def to_share(self, now: ClockReading, *, newer_than: float) -> tuple[float, bytes] | None:
        """Return the time of the last fetch and its document, for other workers; None if they have a newer one."""
        fetched = self.snapshot.fetched
        if fetched is None or fetched.wall <= newer_than or not self.is_usable(now):
            return None
        return fetched.wall, self.snapshot.document

    def record_saved(self) -> None:
        """Report that the keys were saved in the store."""
        self._metrics.report_saved()

    def record_snapshot_rejected(self, reason: str, now: ClockReading) -> None:
        """Report that a snapshot of the store cannot be used."""
        self._metrics.report_snapshot_rejected(reason, now)

    def record_store_failure(self, operation: StoreOperation, cause: str, now: ClockReading) -> None:
        """Report that the store could not be asked."""
        self._metrics.report_store_failure(operation, cause, now)

    def reject(self, pending: PendingFetch, problem: BaseException, *, at: ClockReading) -> None:
        """Record a failed fetch; the keys stay."""
        pending.error = str(problem) if isinstance(problem, JwksProblem) else describe(problem)
        limiter = self._limiter
        retry_after = problem.retry_after if isinstance(problem, FetchProblem) else 0.0
        age = self.age(at)
        usable_for = 0.0 if age is None else max(0.0, self.settings.max_staleness - age)
        limiter.failed(at.monotonic, usable_for=usable_for, reserved=pending.reserved, retry_after=retry_after)
        self.schedule_next_check(at, self.due())
        retry_in = limiter.retry_at - at.monotonic
        seconds = max(0.0, at.monotonic - pending.earliest_start)
        self._metrics.report_failure(
            problem, pending.error, at=at, failures=limiter.failures, retry_in=retry_in, seconds=seconds
        )
        self.check_age(at)

    def check_age(self, now: ClockReading) -> None:
        """Report once that the keys are older than `degraded_after`."""
        age = self.age(now)
        if age is not None and age > self.settings.degraded_after:
            self._metrics.report_stale(age, now)

    def seed(self, document: bytes, fetched_at: float, now: ClockReading) -> None:
        """Replace the snapshot by a document that was fetched elsewhere, unless it is older.

        Raises:
            ConfigurationError: The document is not a valid certs document, or the time is not valid.
        """
        key_set, age = self._checked_seed(document, fetched_at, now)
        with self._lock:
            old, current = self.snapshot, self.age(now)
            if current is not None and current < age:
                return
            at = ClockReading(now.monotonic - age, now.wall - age)
            # The sequence stays, so that a fetch whose request was sent replaces the seeded keys.
            seeded = ParsedDocument(at, old.sequence, document, key_set, None)
            new = self.snapshot = merge(old, seeded, removal_grace=None, may_confirm_removals=True)
        self._limiter.due_now()
        self._remember(set(), old, new, now)
        self.schedule_next_check(now, self.due())
        self._metrics.report_changes(old, new, at=now)

    def _checked_seed(self, document: object, fetched_at: object, now: ClockReading) -> tuple[KeySet, float]:
        if not isinstance(document, bytes) or len(document) > MAX_DOCUMENT:
            raise ConfigurationError("seed() takes a certs document as bytes, of at most 64 KiB")
        if (
            isinstance(fetched_at, bool)
            or not isinstance(fetched_at, int | float)
            or not 0 <= fetched_at <= now.wall + MAX_CLOCK_SKEW
        ):
            raise ConfigurationError("fetched_at must be the time of the fetch: seconds since 1970, not ahead of now")
        try:
            return parse_jwks(document), max(0.0, now.wall - fetched_at)
        except JwksProblem as problem:
            raise ConfigurationError(f"seed() got no usable keys: {problem}") from None
