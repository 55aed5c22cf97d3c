"""The rate limits of fetches: token bucket, negative cache, back-off and jitter. Pure: time is an argument.

All times are monotonic seconds. The simulation under `benchmarks/` runs this class.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from random import SystemRandom
from typing import NamedTuple

from fastapi_cloudflare_access.settings import JITTER, KeySettings

BACKOFF_BASE, BACKOFF_FLOOR = 1.0, 0.5
"""Seconds: upper bound of the first pause after a failed fetch, and lower bound of every pause."""
MAX_BACKOFF, MAX_BACKOFF_WITHOUT_KEYS = 60.0, 5.0
"""Seconds: longest pause after failed fetches, with usable keys and without."""
MAX_RETRY_AFTER, MAX_RETRY_AFTER_WITHOUT_KEYS = 300.0, 120.0
"""Seconds: longest pause that `Retry-After` of the certs endpoint can ask for, with usable keys and without.

A jitter of up to a tenth is added, so that workers do not fetch at the same time.
"""
FETCH_GAP = 1.0
"""Seconds between the starts of two fetches, at least."""
NEGATIVE_CACHE_TTLS = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds for which an unknown `kid` stays in the negative cache, after the first, second, … miss."""
MAX_NEGATIVE_CACHE_ENTRIES = 256
"""Number of unknown `kid`s in the negative cache, at most."""
SHORTEST_FRESHNESS = 60.0
"""Seconds to which `max-age` may shorten the pause between refreshes."""
FIRST_PAUSE = 0.5
"""Share of the interval that the first pause lasts at least; workers that start together then refresh apart."""

_UNIFORM = SystemRandom().uniform


class Decision(Enum):
    """The answer to the question: may an unknown `kid` cause a fetch?"""

    FETCH = "fetch"
    NOT_FOUND_CACHED = "not_found_cached"
    RATE_LIMITED = "bucket"
    BACKING_OFF = "back_off"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A decision, and the seconds until a fetch may be allowed if it is not allowed now."""

    decision: Decision
    retry_after: float = 0.0


class _Miss(NamedTuple):
    """An entry of the negative cache.

    Attributes:
        times: Number of successful fetches that did not bring the `kid`.
        until: Monotonic time until which the `kid` is not looked for again.
    """

    times: int
    until: float


class FetchRateLimiter:
    """The rate limits of one process.

    Attributes:
        failures: Number of fetches that failed in a row.
        retry_at: Monotonic time until which the back-off lasts.
        refresh_at: Monotonic time of the next refresh.
    """

    def __init__(self, settings: KeySettings, *, uniform: Callable[[float, float], float] = _UNIFORM) -> None:
        """Create a limiter with a full bucket.

        Args:
            settings: The burst, the intervals and the jitter.
            uniform: Source of random numbers; the default has no state that forked workers could share.
        """
        self._settings = settings
        self._uniform = uniform
        self._level = float(settings.unknown_kid_burst)
        self._level_at = 0.0
        self._free_at = float("-inf")
        self._misses: OrderedDict[bytes, _Miss] = OrderedDict()
        self._first = True
        self.failures = 0
        self.retry_at = self.refresh_at = float("-inf")

    @property
    def negative_cache_entries(self) -> int:
        """Number of unknown `kid`s in the negative cache."""
        return len(self._misses)

    def check(self, kid: str, now: float) -> CheckResult:
        """Decide whether an unknown `kid` may cause a fetch, while other keys are usable."""
        miss = self._misses.get(_digest(kid))
        if miss and now < miss.until:
            return CheckResult(Decision.NOT_FOUND_CACHED)
        if now < self.retry_at:
            return CheckResult(Decision.BACKING_OFF, self.retry_at - now)
        if (level := self._refill(now)) < 1:
            return CheckResult(Decision.RATE_LIMITED, (1 - level) * self._settings.unknown_kid_interval)
        return CheckResult(Decision.FETCH)

    def reserve(self, now: float, *, without_keys: bool) -> float:
        """Remove a bucket token for one fetch and return when it may start.

        Without usable keys no bucket token is needed.
        """
        start = max(now, self._free_at)
        if not without_keys:
            level = self._refill(now)
            start = max(start, now + (1 - level) * self._settings.unknown_kid_interval)
            self._level -= 1
        self._free_at = start + FETCH_GAP
        return start

    def not_before(self, start: float) -> float:
        """Return a start that was reserved earlier, moved to the end of the back-off, one gap after another."""
        if start < self.retry_at:
            start = max(self.retry_at, self._free_at)
            self._free_at = start + FETCH_GAP
        return start

    def try_reserve_retry(self, now: float, *, without_keys: bool) -> bool:
        """Remove a bucket token for a second attempt; return False if there is none, or if the last fetch failed."""
        if self.failures or (not without_keys and self._refill(now) < 1):
            return False
        if not without_keys:
            self._level -= 1
        self._free_at = now + FETCH_GAP
        return True

    def succeeded(self, now: float, *, max_age: float | None) -> None:
        """Record a successful fetch and schedule the next refresh."""
        self.failures = 0
        self.retry_at = float("-inf")
        self.refresh_at = now + self._pause(max_age)

    def refreshed_elsewhere(self, fetched_at: float) -> None:
        """Schedule the next refresh after a fetch of another worker."""
        self.refresh_at = fetched_at + self._pause(None)

    def _pause(self, max_age: float | None) -> float:
        """Return the seconds from a fetch to the next refresh."""
        pause = self._settings.refresh_interval
        if max_age is not None:
            pause = min(pause, max(SHORTEST_FRESHNESS, max_age))
        low, high = (FIRST_PAUSE, 1) if self._first else (1 - JITTER, 1 + JITTER)
        self._first = False
        return pause * self._uniform(low, high)

    def failed(self, now: float, *, usable_for: float, reserved: int, retry_after: float = 0.0) -> None:
        """Record a failed fetch: return its bucket tokens, and back off exponentially with full jitter.

        Args:
            now: Monotonic time of the failure.
            usable_for: Seconds for which the keys stay usable; 0 without usable keys.
            reserved: Number of bucket tokens that the fetch had taken.
            retry_after: Seconds that the certs endpoint asks to wait; the pause is at least as long, within limits.
        """
        without_keys = usable_for <= 0
        if not without_keys:
            self._level = min(self._refill(now) + reserved, float(self._settings.unknown_kid_burst))
        cap = MAX_BACKOFF_WITHOUT_KEYS if without_keys else MAX_BACKOFF
        longest = min(cap, BACKOFF_BASE * 2.0 ** min(self.failures, 32))
        self.failures += 1
        pause = self._uniform(BACKOFF_FLOOR, longest)
        if retry_after:
            asked = min(retry_after, MAX_RETRY_AFTER, usable_for + MAX_RETRY_AFTER_WITHOUT_KEYS)
            pause = max(pause, asked * self._uniform(1, 1 + JITTER))
        self.retry_at = self.refresh_at = now + pause

    def record_miss(self, kid: str, now: float) -> None:
        """Add a `kid` to the negative cache (RFC 2308): a successful fetch made for it did not bring it."""
        digest = _digest(kid)
        earlier = self._misses.pop(digest, None)
        times = earlier.times if earlier else 0
        ttl = NEGATIVE_CACHE_TTLS[min(times, len(NEGATIVE_CACHE_TTLS) - 1)]
        self._misses[digest] = _Miss(times + 1, now + ttl)
        while len(self._misses) > MAX_NEGATIVE_CACHE_ENTRIES:
            self._misses.popitem(last=False)

    def forget_miss(self, kid: str) -> None:
        """Remove a `kid` from the negative cache."""
        self._misses.pop(_digest(kid), None)

    def due_now(self) -> None:
        """Schedule the next refresh for now."""
        self.refresh_at = float("-inf")

    def reset_after_fork(self, now: float) -> None:
        """Vary the time of the next refresh in a forked process, since other workers have the same."""
        if self.refresh_at > now:
            self.refresh_at = now + (self.refresh_at - now) * self._uniform(FIRST_PAUSE, 1)

    def _refill(self, now: float) -> float:
        """Add the bucket tokens that have been gained since the last call, and return their number."""
        gained = max(0.0, now - self._level_at) / self._settings.unknown_kid_interval
        self._level = min(float(self._settings.unknown_kid_burst), self._level + gained)
        self._level_at = max(now, self._level_at)
        return self._level


def _digest(kid: str) -> bytes:
    return blake2b(kid.encode(errors="surrogatepass"), digest_size=16).digest()
