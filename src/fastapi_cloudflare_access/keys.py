"""The signing keys of a team: known keys at once, unknown keys after a shared fetch; refreshed in the background."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from weakref import WeakMethod

from pydantic import BaseModel, ConfigDict

from fastapi_cloudflare_access._clock import SystemClock, wait_until_done
from fastapi_cloudflare_access._keys.cache import FetchOptions, KeySetCache, State
from fastapi_cloudflare_access._keys.fetcher import RECHECK_INTERVAL, FetchTask, KeyFetcher, LoopState
from fastapi_cloudflare_access._keys.http import default_fetch
from fastapi_cloudflare_access._keys.metrics import LIMITS
from fastapi_cloudflare_access._keys.rate_limiter import Decision
from fastapi_cloudflare_access._keys.sharing import KeySharing
from fastapi_cloudflare_access._keys.snapshot import ClockReading
from fastapi_cloudflare_access._not_a_dependency import NotADependency, forbid_as_dependency, never_a_dependency
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access.errors import ConfigurationError, KeysUnavailable, KeyUnconfirmed, UnknownKey
from fastapi_cloudflare_access.events import LimitReason
from fastapi_cloudflare_access.protocols import Clock, Fetch, Listener, SnapshotStore
from fastapi_cloudflare_access.settings import Settings

_KEY_SOURCE = NotADependency("A KeySource never comes from a request: it is access.keys")
_NO_DEPENDENCY = never_a_dependency("A method of access.keys admits every client: write Depends(access)")
_NOT_FROM_REQUEST = NotADependency("A kid never comes from a parameter of a request: write Depends(access)")
_SEED = NotADependency("Keys never come from a request: call access.keys.seed(…) where the app is defined")

MAX_WAITERS = 1000
"""Number of requests of one event loop that may wait for unknown keys at once; each further one gets 503."""
MIN_RETRY_AFTER = 1.0
"""Seconds in `Retry-After`, at least."""
MAX_FETCHES_PER_REQUEST = 4
"""Number of fetches that one request waits for, at most.

Two are enough: the one in flight, and one that is made for its `kid`. The others replace fetches that were cancelled.
"""


class KeysHealth(BaseModel):
    """The state of a key source. Durations are in seconds.

    Attributes:
        state: `cold`, `ok`, `degraded` or `expired`.
        ready: Whether tokens can be verified: `state` is `ok` or `degraded`.
        local: Whether the team domain is a loopback origin.
        age: Seconds since the last successful fetch; None if there was none.
        generation: Number that grows whenever the keys change.
        keys: Number of keys in use.
        keys_pending_removal: Number of those that are no longer published; a second fetch confirms it.
        skipped: Number of entries of the last certs document that were ignored.
        last_error: Why the last fetch failed, in words; None after a successful one.
        consecutive_failures: Number of failed fetches since the last successful one.
        next_refresh_in: Seconds until the next refresh.
        refresher_alive: Whether the refresh task runs; without a lifespan requests refresh the keys.
        fetching: Whether a fetch is in flight.
        waiters: Number of requests that wait for one.
        negative_cache_entries: Number of unknown `kid`s in the negative cache.
        fetches: Number of fetches, second attempts included.
        fetch_failures: Number of fetches that brought no document.
        parse_failures: Number of fetches that brought an unusable document.
        rate_limited: Number of requests that got 503 because no fetch was allowed; without usable keys, those during a
            back-off are not counted.
        unknown_kid_rejections: Number of requests that were rejected for a `kid` in the negative cache.
        snapshots_loaded: Number of times that keys of another worker, from the snapshot store, replaced older keys.
        snapshots_saved: Number of times that this worker saved its keys there.
        snapshots_rejected: Number of snapshots of the store that were rejected, such as forged ones.
        store_failures: Number of operations of the store that failed.
        last_store_error: Why an operation last failed, in words; None after keys were loaded or saved.
    """

    model_config = ConfigDict(frozen=True)

    state: State
    ready: bool
    local: bool
    age: float | None
    generation: int
    keys: int
    keys_pending_removal: int
    skipped: int
    last_error: str | None
    consecutive_failures: int
    next_refresh_in: float
    refresher_alive: bool
    fetching: bool
    waiters: int
    negative_cache_entries: int
    fetches: int
    fetch_failures: int
    parse_failures: int
    rate_limited: int
    unknown_kid_rejections: int
    snapshots_loaded: int
    snapshots_saved: int
    snapshots_rejected: int
    store_failures: int
    last_store_error: str | None


@dataclass(frozen=True, slots=True)
class ExportedKeys:
    """The result of `export()`, for `seed()`.

    Attributes:
        document: The certs document.
        fetched_at: Time of its fetch, in seconds since 1970.
    """

    document: bytes
    fetched_at: float


for _kind in (KeysHealth, ExportedKeys):
    forbid_as_dependency(_kind, f"{_kind.__name__} never comes from a request: ask access.keys for it")


class KeySource:
    """The signing keys of the team: fetched, cached and removed.

    It can be created at import, used in several event loops, and forked: tasks start where it is used.

    Attributes:
        settings: The settings.
        clock: Source of time, for the keys and for verification.
    """

    def __init__(
        self,
        settings: Annotated[Settings, _KEY_SOURCE],
        *,
        fetch: Fetch | None = None,
        clock: Clock | None = None,
        listeners: Sequence[Listener] = (),
        snapshot_store: SnapshotStore | None = None,
    ) -> None:
        """Create a source without keys; nothing is fetched."""
        self.settings = settings
        self._listeners = listeners
        self.clock: Final[Clock] = clock or SystemClock()
        self._monotonic, self._wall = self.clock.monotonic, self.clock.now
        self._cache = KeySetCache(settings, listeners)
        sharing = None
        if snapshot_store is not None:
            sharing = KeySharing(snapshot_store, settings, self._cache, self.clock)
        self._fetcher = KeyFetcher(
            self._cache,
            settings.certs_url,
            fetch=fetch or default_fetch(settings),
            clock=self.clock,
            sharing=sharing,
        )

    def get(self, kid: Annotated[str, _NOT_FROM_REQUEST]) -> RS256Key | None:
        """Return a known key, or None, without a lock and without waiting.

        A key that is due for a refresh is still returned; the fetch runs in the background.

        Raises:
            KeysUnavailable: There are no keys, or they are older than `max_staleness`.
        """
        self._check_freshness_if_due()
        return self._cache.snapshot.keys.get(kid)

    def _check_freshness_if_due(self) -> None:
        """Start a refresh in the background if one is due.

        Raises:
            KeysUnavailable: There are no keys, or they are older than `max_staleness`.
        """
        cache = self._cache
        if self._monotonic() >= cache.next_check_at or self._wall() >= cache.next_check_wall:
            self._check_freshness()

    def _check_freshness(self) -> None:
        """Start a refresh in the background, if a fetch is possible here and now.

        Raises:
            KeysUnavailable: There are no keys, or they are older than `max_staleness`.
        """
        cache, now = self._cache, self._fetcher.now()
        if not cache.is_usable(now):
            raise self._temporarily_unavailable("no fetch has succeeded yet")
        cache.schedule_next_check(now, max(now.monotonic + RECHECK_INTERVAL, cache.retry_at))
        cache.check_age(now)
        try:
            loop_state = self._fetcher.current_loop_state()
        except ConfigurationError:  # called in a thread that has no event loop
            return
        self._fetcher.ensure_refresher(loop_state)
        if loop_state.in_flight is None and not cache.is_backing_off(now):
            self._fetcher.schedule_fetch(loop_state, FetchOptions(may_confirm_removals=True))

    def get_if_usable(self, kid: Annotated[str, _NOT_FROM_REQUEST]) -> RS256Key | None:
        """Return a known key, or None, also if the keys are not usable."""
        try:
            return self.get(kid)
        except KeysUnavailable:
            return None

    async def get_or_fetch(self, kid: Annotated[str, _NOT_FROM_REQUEST]) -> RS256Key:
        """Return a known key; for an unknown `kid`, join or start a fetch and wait for it.

        `_keys/__init__.py` lists the limits of such fetches. Call it only with the `kid` of a token whose unverified
        claims could pass: each other call would let a client cause fetches at no cost.

        Raises:
            UnknownKey: A fetch for this `kid` did not bring it, now or lately.
            KeyUnconfirmed: The `kid` is unknown, and no fetch is allowed right now or it takes too long.
            KeysUnavailable: There are no keys, or they are older than `max_staleness`, and they cannot be fetched.
        """
        deadline = self._monotonic() + self.settings.key_settings.key_wait_timeout
        try:
            loop_state = self._fetcher.current_loop_state()
        except ConfigurationError as problem:
            raise self._temporarily_unavailable(str(problem)) from None
        for _ in range(MAX_FETCHES_PER_REQUEST):
            if key := self.get_if_usable(kid):
                return key
            in_flight = self._fetch_for(kid, loop_state)
            if not await self._wait(loop_state, in_flight, deadline - self._monotonic()):
                why = "the fetch takes longer than a request waits"
                break
        else:
            why = f"{MAX_FETCHES_PER_REQUEST} fetches ended without a result"
        if key := self.get_if_usable(kid):
            return key
        raise self._temporarily_unavailable(why)

    def _fetch_for(self, kid: str, loop_state: LoopState) -> FetchTask:
        """Return the fetch to wait for; start one if none is in flight and the limits allow it."""
        cache, now = self._cache, self._fetcher.now()
        if cache.is_usable(now):
            result = cache.may_fetch(kid, now)
            # A fetch did not bring the `kid`: the one that this request waited for, or an earlier one.
            if result.decision is Decision.NOT_FOUND_CACHED:
                raise UnknownKey("the team has no key of that id")
            # The last fetch failed, or the bucket is empty.
            if result.decision is not Decision.FETCH and not loop_state.in_flight:
                raise self._limited(result.decision.value, result.retry_after, now)
        # Without usable keys only the back-off counts.
        elif cache.is_backing_off(now) and not loop_state.in_flight:
            raise self._temporarily_unavailable("the last fetch failed", self._until_retry())
        # Too many requests wait.
        if loop_state.waiters >= MAX_WAITERS:
            raise self._limited("waiters", MIN_RETRY_AFTER, now)
        return self._fetcher.join_or_schedule(loop_state, FetchOptions(no_cache=True, requested_kids={kid}))

    async def _wait(self, loop_state: LoopState, in_flight: FetchTask, seconds: float) -> bool:
        loop_state.waiters += 1
        try:
            return await wait_until_done(self.clock, in_flight.task, timeout=seconds)
        finally:
            loop_state.waiters -= 1

    def _limited(self, reason: LimitReason, retry_after: float, now: ClockReading) -> KeysUnavailable | KeyUnconfirmed:
        self._cache.record_limited(reason, retry_after, now)
        return self._temporarily_unavailable(
            f"no fetch is allowed now, since {LIMITS[reason]}", max(MIN_RETRY_AFTER, retry_after)
        )

    def _temporarily_unavailable(
        self, why: str, retry_after: float = MIN_RETRY_AFTER
    ) -> KeysUnavailable | KeyUnconfirmed:
        if self._cache.is_usable(self._fetcher.now()):
            return KeyUnconfirmed(f"the key of the token is not known: {why}", retry_after=retry_after)
        have = "the keys are too old" if self._cache.snapshot.fetched else "there are no keys"
        return KeysUnavailable(f"{have}: {self._cache.last_error or why}", retry_after=retry_after)

    @property
    def ready(self) -> bool:
        """Whether there are keys that are not older than `max_staleness`."""
        return self._cache.is_usable(self._fetcher.now())

    def _until_retry(self) -> float:
        return max(MIN_RETRY_AFTER, self._cache.retry_at - self._monotonic())

    @_NO_DEPENDENCY
    async def refresh(self) -> None:
        """Fetch the keys now, past all caches; keys that are no longer published are removed at once.

        Raises:
            KeysUnavailable: The fetch failed; the message says why. The keys stay.
        """
        loop_state = self._fetcher.current_loop_state()
        while (in_flight := loop_state.in_flight) and in_flight.is_sent:
            await asyncio.wait({in_flight.task})
        in_flight = self._fetcher.join_or_schedule(loop_state, FetchOptions(no_cache=True, force=True))
        await asyncio.wait({in_flight.task})
        if in_flight.error is not None:
            raise KeysUnavailable(f"the keys could not be fetched: {in_flight.error}", retry_after=self._until_retry())

    @_NO_DEPENDENCY
    def health(self) -> KeysHealth:
        """Return the state of the keys."""
        cache, now = self._cache, self._fetcher.now()
        state, snapshot = cache.state(now), cache.snapshot
        loop_states = [loop_state for _, loop_state in self._fetcher.loop_states()]
        return KeysHealth(
            state=state,
            ready=state in {"ok", "degraded"},
            local=self.settings.is_local,
            age=cache.age(now),
            generation=snapshot.generation,
            keys=len(snapshot.keys),
            keys_pending_removal=len(snapshot.pending_removal),
            skipped=len(snapshot.published.skipped),
            last_error=cache.last_error,
            last_store_error=cache.last_store_error,
            next_refresh_in=cache.due_in(now),
            refresher_alive=any(loop_state.is_refreshing for loop_state in loop_states),
            fetching=any(loop_state.in_flight for loop_state in loop_states),
            waiters=sum(loop_state.waiters for loop_state in loop_states),
            **cache.counts,
        )

    def seed(self, document: Annotated[bytes, _SEED], *, fetched_at: float) -> None:
        """Use a certs document that was fetched earlier; the next refresh follows at once.

        Its age counts from `fetched_at`. A document older than the current keys is ignored.

        Args:
            document: The certs document.
            fetched_at: Time of its fetch, in seconds since 1970.

        Raises:
            ConfigurationError: The document is not a valid certs document, or the time is not valid.
        """
        self._cache.seed(document, fetched_at, self._fetcher.now())
        for loop, loop_state in self._fetcher.loop_states():
            loop.call_soon_threadsafe(loop_state.changed.set)

    @_NO_DEPENDENCY
    def export(self) -> ExportedKeys | None:
        """Return the last certs document, for `seed()` in another process; None if there is none."""
        now = self._fetcher.now()
        age = self._cache.age(now)
        return None if age is None else ExportedKeys(self._cache.snapshot.document, now.wall - age)

    @_NO_DEPENDENCY
    async def start(self) -> None:
        """Fetch the keys and start the refresh task. Calls are counted; the last `stop` ends the task.

        Raises:
            KeysUnavailable: `fail_fast` is set, and no fetch succeeded within `startup_timeout`.
        """
        loop_state = self._fetcher.current_loop_state()
        loop_state.start_count += 1
        try:
            await self._fetcher.fetch_at_startup(loop_state)
        except BaseException:
            await self.stop()
            raise
        self._fetcher.ensure_refresher(loop_state)

    @_NO_DEPENDENCY
    async def stop(self) -> None:
        """Stop the refresh task, after as many calls as of `start`."""
        loop_state = self._fetcher.current_loop_state()
        loop_state.start_count = max(0, loop_state.start_count - 1)
        if not loop_state.start_count:
            await loop_state.cancel_tasks()

    @_NO_DEPENDENCY
    async def fetch_if_unusable(self) -> None:
        """Fetch the keys if none are usable, unless fetches are backing off.

        It waits for `key_wait_timeout` at most; `health()` then shows the result.
        """
        try:
            loop_state = self._fetcher.current_loop_state()
        except ConfigurationError:
            return
        now = self._fetcher.now()
        if self._cache.is_usable(now):
            self._check_freshness_if_due()
        elif (loop_state.in_flight or not self._cache.is_backing_off(now)) and loop_state.waiters < MAX_WAITERS:
            in_flight = self._fetcher.join_or_schedule(loop_state, FetchOptions())
            await self._wait(loop_state, in_flight, self.settings.key_settings.key_wait_timeout)

    def on_refresh(self, callback: Callable[[float], None]) -> None:
        """Register a bound method.

        Each successful fetch calls it with the time; the source keeps only a weak reference.
        """
        self._cache.refreshed.append(WeakMethod(callback))
