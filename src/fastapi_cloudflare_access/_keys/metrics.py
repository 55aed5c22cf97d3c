"""Counters, events and log lines of the key source."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi_cloudflare_access._keys.jwks import JwksProblem
from fastapi_cloudflare_access._keys.snapshot import Moment, Snapshot
from fastapi_cloudflare_access._logging import log, tell
from fastapi_cloudflare_access.events import (
    KeyAdded,
    KeyEvent,
    KeyMissing,
    KeyRemoved,
    KeySkipped,
    KeysStale,
    RateLimited,
    Refreshed,
    RefresherDied,
    RefreshFailed,
)
from fastapi_cloudflare_access.protocols import Listener

logger = logging.getLogger("fastapi_cloudflare_access.keys")

QUIET = 60.0
"""Being rate-limited is logged once in so many seconds."""


@dataclass(slots=True)
class KeyReport:
    """What happened so far, and whom to tell.

    Attributes:
        listeners: The functions that receive events.
        counts: The counters of [`KeysHealth`][fastapi_cloudflare_access.keys.KeysHealth].
        last_error: Why the last fetch failed; None after a good one.
        stale_told: Whether it was told that the keys are stale.
        limited_told_at: When (monotonic) it was logged that requests are turned away.
    """

    listeners: Sequence[Listener]
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("fetches", "fetch_failures", "parse_failures", "rate_limited", "key_absent"), 0
        )
    )
    last_error: str | None = None
    stale_told: bool = False
    limited_told_at: float = float("-inf")

    def emit(self, event: KeyEvent) -> None:
        """Call the listeners."""
        tell(self.listeners, event, logger)

    def refreshed(self, old: Snapshot, new: Snapshot, *, at: Moment, seconds: float, modified: bool) -> None:
        """Tell of a good fetch and of each key it changed."""
        self.last_error, self.stale_told = None, False
        log(logger, logging.DEBUG, "the keys were fetched: %d keys, generation %d", len(new.keys), new.generation)
        self.emit(
            Refreshed(at=at.wall, kids=len(new.keys), generation=new.generation, seconds=seconds, modified=modified)
        )
        self.changed(old, new, at=at)

    def changed(self, old: Snapshot, new: Snapshot, *, at: Moment) -> None:
        """Tell of each key that came, went or is missing, and of each entry that cannot be used."""
        self._exchanged(old.keys, new.keys, at)
        for kid in new.missing.keys() - old.missing.keys():
            log(logger, logging.INFO, "key %s is no longer published", _shown(kid))
            self.emit(KeyMissing(at=at.wall, kid=_shown(kid)))
        if new.listed.skipped != old.listed.skipped:
            for reason in new.listed.skipped:
                log(logger, logging.WARNING, "an entry of the certs document is skipped: %s", reason)
        for reason in new.listed.skipped:
            self.emit(KeySkipped(at=at.wall, reason=reason))

    def _exchanged(self, old: Mapping[str, Any], new: Mapping[str, Any], at: Moment) -> None:
        for kid in [kid for kid in old if new.get(kid) != old[kid]]:
            log(logger, logging.INFO, "key %s is used no more", _shown(kid))
            self.emit(KeyRemoved(at=at.wall, kid=_shown(kid)))
        for kid in [kid for kid in new if new[kid] != old.get(kid)]:
            log(logger, logging.INFO, "key %s is used from now on", _shown(kid))
            self.emit(KeyAdded(at=at.wall, kid=_shown(kid)))

    def failed(self, problem: BaseException, cause: str, *, at: Moment, failures: int, retry_in: float) -> None:
        """Tell of a failed fetch."""
        parsing = isinstance(problem, JwksProblem)
        self.counts["parse_failures" if parsing else "fetch_failures"] += 1
        self.last_error = cause
        log(
            logger,
            logging.WARNING,
            "the keys could not be fetched (%d in a row, next try in %.1f s): %s",
            failures,
            retry_in,
            cause,
        )
        reason: Any = "parse_failed" if parsing else "fetch_failed"
        self.emit(
            RefreshFailed(at=at.wall, reason=reason, cause=cause, consecutive_failures=failures, retry_in=retry_in)
        )

    def stale(self, age: float, at: Moment) -> None:
        """Tell once that the keys are stale."""
        if not self.stale_told:
            self.stale_told = True
            log(logger, logging.WARNING, "the keys are %.0f s old; last error: %s", age, self.last_error or "none")
            self.emit(KeysStale(at=at.wall, age=age))

    def limited(self, reason: Any, retry_after: float, at: Moment) -> None:
        """Count and tell that a request was turned away."""
        self.counts["rate_limited"] += 1
        if at.monotonic - self.limited_told_at >= QUIET:
            self.limited_told_at = at.monotonic
            log(
                logger, logging.WARNING, "unknown keys are not looked for now (%s), next in %.1f s", reason, retry_after
            )
        self.emit(RateLimited(at=at.wall, reason=reason, retry_after=retry_after))

    def died(self, problem: BaseException, at: Moment) -> None:
        """Tell that the refresher died."""
        log(logger, logging.ERROR, "the refresher died of %s and is started again", type(problem).__name__)
        self.emit(RefresherDied(at=at.wall, cause=type(problem).__name__))


def _shown(kid: str) -> str:
    return kid[:16]
