"""When a fetch may start: the bucket, the schedule of each unknown key, back-off and jitter; pure, time is an argument.

All times are monotonic seconds. The simulation under `benchmarks/` drives this very object.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from random import SystemRandom

from fastapi_cloudflare_access.settings import JITTER, KeySettings

BACKOFF_BASE, BACKOFF_FLOOR = 1.0, 0.5
"""The upper bound of the first pause after a failed fetch, and the least pause, in seconds."""
MAX_BACKOFF, MAX_COLD_BACKOFF = 60.0, 5.0
"""The longest pause after failed fetches, in seconds, with usable keys and without."""
FETCH_GAP = 1.0
"""The least seconds between the starts of two fetches."""
NEGATIVE_CACHE_TTLS = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds for which an unknown `kid` is refused without a fetch, after the first, second, … miss."""
MAX_NEGATIVE_CACHE_ENTRIES = 256
"""The number of unknown `kid`s that are kept."""
SHORTEST_FRESHNESS = 60.0
"""`max-age` may shorten the pause between refreshes to this, in seconds."""
FIRST_PAUSE = 0.5
"""The first pause is this share of the interval at least, so that workers that started together drift apart."""

_UNIFORM = SystemRandom().uniform


class Answer(Enum):
    """What to do about an unknown key."""

    FETCH = "fetch"
    ABSENT = "absent"
    BUCKET = "bucket"
    BACK_OFF = "back_off"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about an unknown key, and where it is nothing: after how many seconds to come back."""

    answer: Answer
    retry_after: float = 0.0


class KeyPolicy:
    """The state of one process: what was fetched, what failed, and which unknown keys were looked for.

    Attributes:
        failures: How many fetches failed in a row.
        retry_at: Before then no fetch starts, after a failed one.
        refresh_at: When the next refresh is due.
    """

    def __init__(self, settings: KeySettings, *, uniform: Callable[[float, float], float] = _UNIFORM) -> None:
        """Begin with a full bucket.

        Args:
            settings: The numbers.
            uniform: Where chance comes from; the default has no state that forked workers could share.
        """
        self._settings = settings
        self._uniform = uniform
        self._level = float(settings.unknown_kid_burst)
        self._level_at = 0.0
        self._free_at = float("-inf")
        self._absent: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._first = True
        self.failures = 0
        self.retry_at = self.refresh_at = float("-inf")

    @property
    def remembered(self) -> int:
        """How many unknown keys are remembered as looked for."""
        return len(self._absent)

    def judge(self, kid: str, now: float) -> Verdict:
        """Say what to do about a key that is not known, while others are."""
        _, until = self._absent.get(_digest(kid), (0, now))
        if now < until:
            return Verdict(Answer.ABSENT)
        if now < self.retry_at:
            return Verdict(Answer.BACK_OFF, self.retry_at - now)
        if (level := self._fill(now)) < 1:
            return Verdict(Answer.BUCKET, (1 - level) * self._settings.unknown_kid_interval)
        return Verdict(Answer.FETCH)

    def book(self, now: float, *, cold: bool) -> float:
        """Take what one fetch costs and give the time from which it may start; without keys it costs nothing."""
        start = max(now, self._free_at)
        if not cold:
            level = self._fill(now)
            start = max(start, now + (1 - level) * self._settings.unknown_kid_interval)
            self._level -= 1
        self._free_at = start + FETCH_GAP
        return start

    def not_before(self, start: float) -> float:
        """Put off a start that was given before fetches failed: to the end of the back-off, one gap after another."""
        if start < self.retry_at:
            start = max(self.retry_at, self._free_at)
            self._free_at = start + FETCH_GAP
        return start

    def book_retry(self, now: float, *, cold: bool) -> bool:
        """Take what a second try costs, and tell whether there was enough; after a failed fetch there is none."""
        if self.failures or (not cold and self._fill(now) < 1):
            return False
        if not cold:
            self._level -= 1
        self._free_at = now + FETCH_GAP
        return True

    def succeeded(self, now: float, *, max_age: float | None) -> None:
        """Note a good fetch: the next refresh is due an interval later."""
        pause = self._settings.refresh_interval
        if max_age is not None:
            pause = min(pause, max(SHORTEST_FRESHNESS, max_age))
        low, high = (FIRST_PAUSE, 1) if self._first else (1 - JITTER, 1 + JITTER)
        pause *= self._uniform(low, high)
        self._first = False
        self.failures = 0
        self.retry_at = float("-inf")
        self.refresh_at = now + pause

    def failed(self, now: float, *, cold: bool, booked: int) -> None:
        """Note a failed fetch: give back what it booked, and pause by exponential back-off with full jitter."""
        if not cold:
            self._level = min(self._fill(now) + booked, float(self._settings.unknown_kid_burst))
        cap = MAX_COLD_BACKOFF if cold else MAX_BACKOFF
        longest = min(cap, BACKOFF_BASE * 2.0 ** min(self.failures, 32))
        self.failures += 1
        self.retry_at = self.refresh_at = now + self._uniform(BACKOFF_FLOOR, longest)

    def absent(self, kid: str, now: float) -> None:
        """Note that a good fetch that began for this key did not bring it."""
        digest = _digest(kid)
        times, _ = self._absent.pop(digest, (0, now))
        self._absent[digest] = (times + 1, now + NEGATIVE_CACHE_TTLS[min(times, len(NEGATIVE_CACHE_TTLS) - 1)])
        while len(self._absent) > MAX_NEGATIVE_CACHE_ENTRIES:
            self._absent.popitem(last=False)

    def appeared(self, kid: str) -> None:
        """Forget that a key was not there."""
        self._absent.pop(_digest(kid), None)

    def due_now(self) -> None:
        """Have the next refresh made at once."""
        self.refresh_at = float("-inf")

    def forked(self, now: float) -> None:
        """Let a process that was forked drift apart from its siblings, which inherit the same time."""
        if self.refresh_at > now:
            self.refresh_at = now + (self.refresh_at - now) * self._uniform(FIRST_PAUSE, 1)

    def _fill(self, now: float) -> float:
        gained = max(0.0, now - self._level_at) / self._settings.unknown_kid_interval
        self._level = min(float(self._settings.unknown_kid_burst), self._level + gained)
        self._level_at = max(now, self._level_at)
        return self._level


def _digest(kid: str) -> bytes:
    return blake2b(kid.encode(errors="surrogatepass"), digest_size=16).digest()
