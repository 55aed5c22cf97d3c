"""The limits of the questions to get-identity."""

from collections import OrderedDict

MAX_IN_FLIGHT = 64
"""Number of fetches at once."""
USER_BURST, USER_INTERVAL = 10, 1.0
"""Number of fetches in a row for one user, and seconds after which the user may cause one more."""
MAX_USERS = 4096
"""Number of users whose fetches are counted."""
FAILURES = 3
"""Number of users whose fetches fail in a row, after which all fetches pause."""
PAUSE, MAX_PAUSE = 1.0, 30.0
"""Seconds of the first pause; each further failure doubles it, up to the second number."""


class Limiter:
    """Decides whether a fetch may start now. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        """Create a limiter that has seen no fetch."""
        self._failed_users: set[str] = set()
        self._pause = 0.0
        self._paused_until = float("-inf")
        self._users: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, user_id: str, now: float, *, in_flight: int) -> tuple[float, str] | None:
        """Return None and count a fetch for this user if it may start; else the seconds to wait, and why.

        After a pause one fetch at a time tries whether the endpoint answers again.
        """
        if now < self._paused_until:
            return self._paused_until - now, "the last fetches failed"
        if self._pause and in_flight:
            return PAUSE, "the last fetches failed"
        if in_flight >= MAX_IN_FLIGHT:
            return USER_INTERVAL, "too many fetches are in flight"
        level, at = self._users.pop(user_id, (float(USER_BURST), now))
        level = min(float(USER_BURST), level + (now - at) / USER_INTERVAL)
        allowed = level >= 1
        self._users[user_id] = (level - 1 if allowed else level), now
        if len(self._users) > MAX_USERS:
            self._users.popitem(last=False)
        if not allowed:
            return (1 - level) * USER_INTERVAL, "too many fetches for this user"
        return None

    def record_answer(self) -> None:
        """Record that the endpoint answered; a pause ends."""
        self._failed_users.clear()
        self._pause, self._paused_until = 0.0, float("-inf")

    def record_failure(self, user_id: str, now: float) -> None:
        """Record that the endpoint did not answer for this user.

        Fetches that began before a pause do not prolong it. The failures of one user alone pause nothing.
        """
        if now < self._paused_until:
            return
        self._failed_users.add(user_id)
        if self._pause or len(self._failed_users) >= FAILURES:
            self._pause = min(MAX_PAUSE, self._pause * 2 or PAUSE)
            self._paused_until = now + self._pause
