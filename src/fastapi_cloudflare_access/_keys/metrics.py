"""Counters, events and log records of the key source."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi_cloudflare_access._keys.document import is_unexpected
from fastapi_cloudflare_access._keys.jwks import JwksProblem
from fastapi_cloudflare_access._keys.snapshot import ClockReading, Snapshot
from fastapi_cloudflare_access._logging import Throttle, emit, log, omitted, raised_at
from fastapi_cloudflare_access.events import (
    JwkIgnored,
    KeyAdded,
    KeyEvent,
    KeyFetchLimited,
    KeyRemoved,
    KeysRefreshed,
    KeysRefreshFailed,
    KeysStale,
    KeyUnpublished,
    LimitReason,
    RefreshTaskCrashed,
    SnapshotLoaded,
    SnapshotRejected,
    SnapshotStoreFailed,
    StoreOperation,
)
from fastapi_cloudflare_access.protocols import Listener

logger = logging.getLogger("fastapi_cloudflare_access.keys")

LIMITS: Mapping[LimitReason, str] = {
    "back_off": "the last fetch failed",
    "bucket": "too many tokens with unknown keys have arrived",
    "waiters": "too many requests wait for the keys",
}
"""The meaning of each reason of a limit."""


@dataclass(slots=True)
class KeyMetrics:
    """Counts, logs and emits each change of the keys and each fetch.

    Attributes:
        listeners: The functions that receive events.
        certs_url: The URL of the certs document.
        counts: The counters of [`KeysHealth`][fastapi_cloudflare_access.keys.KeysHealth].
        last_error: Why the last fetch failed, in words; None after a successful one.
        last_store_error: Why the store last failed, in words; None after keys were loaded or saved.
        stale_emitted: Whether `KeysStale` was emitted since the last successful fetch.
        failures: Selects the log records about failed fetches.
        limits: Selects the log records about requests that were allowed no fetch.
        stores: Selects the log records about the store.
    """

    listeners: Sequence[Listener]
    certs_url: str
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            (
                *("fetches", "fetch_failures", "parse_failures", "rate_limited", "unknown_kid_rejections"),
                *("snapshots_loaded", "snapshots_saved", "snapshots_rejected", "store_failures"),
            ),
            0,
        )
    )
    last_error: str | None = None
    last_store_error: str | None = None
    stale_emitted: bool = False
    failures: Throttle = field(default_factory=Throttle)
    limits: Throttle = field(default_factory=Throttle)
    stores: Throttle = field(default_factory=Throttle)

    def emit(self, event: KeyEvent) -> None:
        """Emit an event to the listeners."""
        emit(self.listeners, event, logger)

    def report_refresh(self, old: Snapshot, new: Snapshot, *, at: ClockReading, seconds: float, modified: bool) -> None:
        """Report a successful fetch and each key that it changed."""
        self.last_error, self.stale_emitted = None, False
        self.failures.clear()
        log(logger, logging.DEBUG, "cf-access fetched the keys: %d keys, generation %d", len(new.keys), new.generation)
        self.emit(
            KeysRefreshed(
                timestamp=at.wall, keys=len(new.keys), generation=new.generation, seconds=seconds, modified=modified
            )
        )
        self.report_changes(old, new, at=at)

    def report_changes(self, old: Snapshot, new: Snapshot, *, at: ClockReading) -> None:
        """Report each key that was added, removed or is no longer published, and each entry that was ignored."""
        self._report_exchange(old.keys, new.keys, at)
        for kid in new.pending_removal.keys() - old.pending_removal.keys():
            log(logger, logging.INFO, "cf-access found that key %s is no longer published", _shown(kid))
            self.emit(KeyUnpublished(timestamp=at.wall, kid=_shown(kid)))
        if new.published.skipped != old.published.skipped:
            for reason in new.published.skipped:
                log(logger, logging.WARNING, "cf-access ignores an entry of the certs document: %s", reason)
        for reason in new.published.skipped:
            self.emit(JwkIgnored(timestamp=at.wall, reason=reason))

    def _report_exchange(self, old: Mapping[str, Any], new: Mapping[str, Any], at: ClockReading) -> None:
        for kid in [kid for kid in old if new.get(kid) != old[kid]]:
            log(logger, logging.INFO, "cf-access no longer uses key %s", _shown(kid))
            self.emit(KeyRemoved(timestamp=at.wall, kid=_shown(kid)))
        for kid in [kid for kid in new if new[kid] != old.get(kid)]:
            log(logger, logging.INFO, "cf-access uses key %s from now on", _shown(kid))
            self.emit(KeyAdded(timestamp=at.wall, kid=_shown(kid)))

    def report_failure(
        self,
        problem: BaseException,
        cause: str,
        *,
        at: ClockReading,
        failures: int,
        retry_in: float,
        seconds: float = 0.0,
    ) -> None:
        """Report a failed fetch."""
        parsing = isinstance(problem, JwksProblem)
        self.counts["parse_failures" if parsing else "fetch_failures"] += 1
        self.last_error = cause
        if self.failures.repetitions(cause, at.monotonic) is not None:
            log(
                logger,
                logging.WARNING,
                "cf-access could not fetch %s (failure %d in a row, next attempt in %.1f s): %s",
                self.certs_url,
                failures,
                retry_in,
                f"{cause} at {raised_at(problem)}" if not parsing and is_unexpected(problem) else cause,
            )
        reason: Any = "parse_failed" if parsing else "fetch_failed"
        self.emit(
            KeysRefreshFailed(
                timestamp=at.wall,
                reason=reason,
                cause=cause,
                consecutive_failures=failures,
                retry_in=retry_in,
                seconds=seconds,
            )
        )

    def report_shared(self, old: Snapshot, new: Snapshot, *, age: float, at: ClockReading) -> None:
        """Report keys that another worker fetched, and each key that they changed."""
        self.counts["snapshots_loaded"] += 1
        self.last_store_error, self.stale_emitted = None, False
        log(logger, logging.DEBUG, "cf-access uses keys of another worker: %d keys, %.0f s old", len(new.keys), age)
        self.emit(SnapshotLoaded(timestamp=at.wall, age=age, keys=len(new.keys), generation=new.generation))
        self.report_changes(old, new, at=at)

    def report_saved(self) -> None:
        """Count that the keys were saved in the store."""
        self.counts["snapshots_saved"] += 1
        self.last_store_error = None

    def report_snapshot_rejected(self, reason: str, at: ClockReading) -> None:
        """Report that a snapshot of the store cannot be used."""
        self.counts["snapshots_rejected"] += 1
        if self.stores.repetitions(reason, at.monotonic) is not None:
            log(logger, logging.WARNING, "cf-access ignores the keys in the snapshot store: %s", reason)
        self.emit(SnapshotRejected(timestamp=at.wall, reason=reason))

    def report_store_failure(self, operation: StoreOperation, cause: str, at: ClockReading) -> None:
        """Report that the store could not be asked."""
        self.counts["store_failures"] += 1
        self.last_store_error = cause
        if self.stores.repetitions((operation, cause), at.monotonic) is not None:
            log(
                logger,
                logging.WARNING,
                "cf-access could not use the snapshot store (%s), so this worker goes on alone: %s",
                operation,
                cause,
            )
        self.emit(SnapshotStoreFailed(timestamp=at.wall, operation=operation, cause=cause))

    def report_stale(self, age: float, at: ClockReading) -> None:
        """Report that the keys are older than `degraded_after`, once until a fetch succeeds."""
        if not self.stale_emitted:
            self.stale_emitted = True
            log(
                logger,
                logging.WARNING,
                "cf-access uses keys that are %.0f s old; last error: %s",
                age,
                self.last_error or "none",
            )
            self.emit(KeysStale(timestamp=at.wall, age=age))

    def report_limited(self, reason: LimitReason, retry_after: float, at: ClockReading) -> None:
        """Report that a request got 503 because no fetch was allowed."""
        self.counts["rate_limited"] += 1
        repetitions = self.limits.repetitions(reason, at.monotonic)
        if repetitions is not None:
            log(
                logger,
                logging.WARNING,
                "cf-access may not fetch %s for an unknown key now: %s; next try in %.1f s%s",
                self.certs_url,
                LIMITS[reason],
                retry_after,
                omitted(repetitions),
            )
        self.emit(KeyFetchLimited(timestamp=at.wall, reason=reason, retry_after=retry_after))

    def report_crash(self, problem: BaseException, at: ClockReading) -> None:
        """Report that the refresh task crashed."""
        kind, place = type(problem).__name__, raised_at(problem)
        log(logger, logging.ERROR, "cf-access restarts its refresh task, which crashed with %s at %s", kind, place)
        self.emit(RefreshTaskCrashed(timestamp=at.wall, cause=kind))


def _shown(kid: str) -> str:
    return kid[:16]
