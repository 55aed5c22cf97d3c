"""The log records and events about revocations, and what health reports."""

import logging
from collections.abc import Sequence
from typing import Literal

from fastapi_cloudflare_access._keys.document import describe_store
from fastapi_cloudflare_access._logging import Throttle, emit, log, omitted
from fastapi_cloudflare_access._revocations.record import Action, Kind
from fastapi_cloudflare_access.events import (
    AccessEvent,
    RevocationAdded,
    RevocationIgnored,
    RevocationsRead,
    RevocationsUnreachable,
)
from fastapi_cloudflare_access.protocols import Clock, Listener

logger = logging.getLogger("fastapi_cloudflare_access")

WhenUnavailable = Literal["open", "closed"]


class Report:
    """Reports about the revocations of one object; equal ones once a minute.

    Attributes:
        ignored: Number of records of the store that were ignored.
        has_read_own: Whether a record of the store was of this team, and signed with a secret of the store.
        last_error: Why the store could last not be used, in words; None after it could.
    """

    def __init__(self, clock: Clock, listeners: Sequence[Listener], unavailable: WhenUnavailable) -> None:
        """Create a report with nothing to say."""
        self._clock, self._listeners = clock, listeners
        self._unavailable: WhenUnavailable = unavailable
        self._throttle = Throttle()
        self.ignored = 0
        self.has_read_own = False
        self.last_error: str | None = None

    def added(self, action: Action, kind: Kind) -> None:
        """Report that this process added a revocation."""
        log(logger, logging.INFO, "cf-access added a revocation: %s by %s", action, kind)
        self._emit(RevocationAdded(timestamp=self._clock.now(), action=action, by=kind))

    def read_all(self, records: int, written_back: int) -> None:
        """Report that the whole log was read."""
        self._emit(RevocationsRead(timestamp=self._clock.now(), records=records, written_back=written_back))

    def ignore(self, reason: str) -> None:
        """Report that a record of the store was ignored."""
        self.ignored += 1
        if (left_out := self._throttle.repetitions(reason, self._clock.monotonic())) is not None:
            log(logger, logging.WARNING, "cf-access ignored a revocation: %s%s", reason, omitted(left_out))
            self._emit(RevocationIgnored(timestamp=self._clock.now(), reason=reason))

    def failed(self, problem: BaseException) -> None:
        """Report that the store could not be used."""
        self.last_error = describe_store(problem)
        self.unavailable(self.last_error)

    def succeeded(self) -> None:
        """Note that the store could be read."""
        self.last_error = None

    def unavailable(self, cause: str) -> None:
        """Report that revocations may be unknown."""
        if (left_out := self._throttle.repetitions(cause, self._clock.monotonic())) is None:
            return
        then = "tokens are still accepted" if self._unavailable == "open" else "valid tokens get 503 after a while"
        message = "cf-access cannot use the store of revocations: %s; %s%s"
        log(logger, logging.WARNING, message, cause, then, omitted(left_out))
        self._emit(RevocationsUnreachable(timestamp=self._clock.now(), cause=cause, unavailable=self._unavailable))

    def _emit(self, event: AccessEvent) -> None:
        emit(self._listeners, event, logger)
