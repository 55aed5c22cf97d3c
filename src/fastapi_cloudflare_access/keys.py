"""Where verification gets its keys: known ones at once, unknown ones by a shared fetch, all refreshed in time."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from weakref import WeakMethod

from pydantic import BaseModel, ConfigDict

from fastapi_cloudflare_access._clock import SystemClock, ends_within
from fastapi_cloudflare_access._keys.cache import KeyStore, State, Wish
from fastapi_cloudflare_access._keys.fetcher import RESTART, Flight, KeyFetching, Life
from fastapi_cloudflare_access._keys.http import default_fetch
from fastapi_cloudflare_access._keys.rate_limiter import Answer
from fastapi_cloudflare_access._keys.snapshot import Moment
from fastapi_cloudflare_access._not_a_dependency import NotADependency, forbid_as_dependency, never_a_dependency
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access.errors import ConfigurationError, KeysUnavailable, KeyUnconfirmed, UnknownKey
from fastapi_cloudflare_access.protocols import Clock, Fetch, Listener
from fastapi_cloudflare_access.settings import Settings

_KEY_SOURCE = NotADependency("A KeySource never comes from a request: it is access.keys")
_NO_DEPENDENCY = never_a_dependency("A method of access.keys lets everybody in: write Depends(access)")
_SEED = NotADependency("Keys never come from a request: call access.keys.seed(…) where the app is defined")

CROWD = 1000
"""How many requests may wait for unknown keys at once; the next are told to come back."""
A_MOMENT = 1.0
"""After how many seconds a request may come back at the earliest."""
ROUNDS = 4
"""How many fetches one request waits for at most: one that was under way, its own, and two that somebody cancelled."""


class KeysHealth(BaseModel):
    """The state of a key source at one moment. Durations are in seconds.

    Attributes:
        state: `cold`, `ok`, `degraded` or `expired`.
        ready: Whether tokens can be checked: `ok` or `degraded`.
        local: Whether the team is a loopback one.
        age: Since the last good fetch.
        generation: A number that grows whenever the keys change.
        kids: How many keys are used.
        missing: How many of them are no longer published, to be confirmed.
        skipped: How many entries of the last document cannot be used.
        last_error: Why the last fetch failed, in words; None once one succeeded.
        consecutive_failures: How many fetches failed since the last good one.
        next_refresh_in: Until the next fetch is due.
        refresher_alive: Whether the refreshing task runs; without a lifespan requests refresh the keys.
        fetching: Whether a fetch is under way.
        waiting: How many requests wait for one.
        remembered_unknown_keys: How many unknown keys are remembered as looked for.
        fetches: How many fetches were begun, tries again counted.
        fetch_failures: How many brought no document.
        parse_failures: How many brought a document that cannot be used.
        rate_limited: How many requests were told to come back because no fetch was allowed.
        key_absent: How many requests were refused for a key that was looked for.
    """

    model_config = ConfigDict(frozen=True)

    state: State
    ready: bool
    local: bool
    age: float | None
    generation: int
    kids: int
    missing: int
    skipped: int
    last_error: str | None
    consecutive_failures: int
    next_refresh_in: float
    refresher_alive: bool
    fetching: bool
    waiting: int
    remembered_unknown_keys: int
    fetches: int
    fetch_failures: int
    parse_failures: int
    rate_limited: int
    key_absent: int


@dataclass(frozen=True, slots=True)
class ExportedKeys:
    """What `export()` gives and `seed()` takes.

    Attributes:
        document: The certs document.
        fetched_at: When it was fetched, in seconds since 1970.
    """

    document: bytes
    fetched_at: float


for _kind in (KeysHealth, ExportedKeys):
    forbid_as_dependency(_kind, f"{_kind.__name__} never comes from a request: ask access.keys for it")


class KeySource:
    """The signing keys of the team: fetched, kept and given up by the policy of the settings.

    Nothing belongs to an event loop or a process until it is used there: it may be made at import, used from several
    loops, and forked.

    Attributes:
        settings: The settings in force.
        clock: Where time comes from, here and for whoever verifies with these keys.
    """

    def __init__(
        self,
        settings: Annotated[Settings, _KEY_SOURCE],
        *,
        fetch: Fetch | None = None,
        clock: Clock | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Begin without keys; nothing is fetched."""
        self.settings = settings
        self._listeners = listeners
        self.clock: Final[Clock] = clock or SystemClock()
        self._monotonic, self._wall = self.clock.monotonic, self.clock.now
        self._store = KeyStore(settings, listeners)
        self._fetching = KeyFetching(
            self._store, settings.certs_url, fetch=fetch or default_fetch(settings), clock=self.clock
        )

    def lookup(self, kid: Annotated[str, _SEED]) -> RS256Key | None:
        """Give a known key, or None: one read of a dictionary, no lock, no waiting.

        Keys that are due for a refresh are still given; a fetch is begun in the background.

        Raises:
            KeysUnavailable: There are no keys at all, or they are older than the hard limit.
        """
        store = self._store
        if self._monotonic() >= store.attend_at or self._wall() >= store.attend_wall:
            self._attend()
        return store.snapshot.keys.get(kid)

    def _attend(self) -> None:
        store, now = self._store, self._fetching.now()
        if not store.is_usable(now):
            raise self._undecided("no fetch has succeeded yet")
        store.postpone(now, max(now.monotonic + RESTART, store.policy.retry_at))
        store.check_age(now)
        try:
            life = self._fetching.life()
        except ConfigurationError:  # called in a thread that has no event loop
            return
        self._fetching.ensure_refresher(life)
        if life.flight is None and now.monotonic >= store.policy.retry_at:
            self._fetching.begin(life, Wish(may_finish=True))

    async def find(self, kid: Annotated[str, _SEED]) -> RS256Key:
        """Look for a key that `lookup` does not give, as far as it is worth a fetch.

        Call it only with the `kid` of a token that would pass if the key were there.

        Raises:
            UnknownKey: It was freshly looked for, and the team has none of that id.
            KeyUnconfirmed: It cannot be looked for right now.
            KeysUnavailable: There are no keys at all, or they are older than the hard limit.
        """
        deadline = self._monotonic() + self.settings.key_settings.key_wait_timeout
        try:
            life = self._fetching.life()
        except ConfigurationError as problem:
            raise self._undecided(str(problem)) from None
        for _ in range(ROUNDS):
            if key := self._usable_key(kid):
                return key
            flight = self._flight_for(kid, life)
            if not await self._wait(life, flight, deadline - self._monotonic()):
                break
        if key := self._usable_key(kid):
            return key
        raise self._undecided("the fetch takes longer than a request waits")

    def _usable_key(self, kid: str) -> RS256Key | None:
        try:
            return self.lookup(kid)
        except KeysUnavailable:
            return None

    def _flight_for(self, kid: str, life: Life) -> Flight:
        """Give the fetch to wait for, begun where there is none and it is allowed."""
        now = self._fetching.now()
        if self._store.is_usable(now):
            self._check_allowed(kid, life, now)
        elif now.monotonic < self._store.policy.retry_at and not life.flight:
            raise self._undecided("the last fetch failed", self._until_retry())
        if life.waiting >= CROWD:
            raise self._limited("crowd", A_MOMENT, now)
        return self._fetching.join_or_begin(life, Wish(no_cache=True, sought={kid}))

    def _check_allowed(self, kid: str, life: Life, now: Moment) -> None:
        verdict = self._store.policy.judge(kid, now.monotonic)
        if verdict.answer is Answer.ABSENT:
            self._store.report.counts["key_absent"] += 1
            raise UnknownKey("the team has no key of that id")
        if verdict.answer is not Answer.FETCH and not life.flight:
            raise self._limited(verdict.answer.value, verdict.retry_after, now)

    async def _wait(self, life: Life, flight: Flight, seconds: float) -> bool:
        life.waiting += 1
        try:
            return await ends_within(self.clock, seconds, flight.task)
        finally:
            life.waiting -= 1

    def _limited(self, reason: str, retry_after: float, now: Moment) -> KeysUnavailable | KeyUnconfirmed:
        self._store.report.limited(reason, retry_after, now)
        return self._undecided(f"unknown keys are not looked for now ({reason})", max(A_MOMENT, retry_after))

    def _undecided(self, why: str, retry_after: float = A_MOMENT) -> KeysUnavailable | KeyUnconfirmed:
        if self._store.is_usable(self._fetching.now()):
            return KeyUnconfirmed(f"the key of the token is not known: {why}", retry_after=retry_after)
        have = "the keys are too old" if self._store.snapshot.fetched else "there are no keys"
        return KeysUnavailable(f"{have}: {self._store.report.last_error or why}", retry_after=retry_after)

    def _until_retry(self) -> float:
        return max(A_MOMENT, self._store.policy.retry_at - self._monotonic())

    @_NO_DEPENDENCY
    async def refresh(self) -> None:
        """Fetch the keys now, past all caches; what is no longer published is dropped at once.

        Raises:
            KeysUnavailable: The fetch failed; the message says why. The keys stay.
        """
        life = self._fetching.life()
        while (flight := life.flight) and flight.errand.sequence:
            await asyncio.wait({flight.task})
        flight = self._fetching.join_or_begin(life, Wish(no_cache=True, at_once=True))
        await asyncio.wait({flight.task})
        if flight.errand.error is not None:
            raise KeysUnavailable(
                f"the keys could not be fetched: {flight.errand.error}", retry_after=self._until_retry()
            )

    @_NO_DEPENDENCY
    def health(self) -> KeysHealth:
        """Tell the state of the keys."""
        store, now = self._store, self._fetching.now()
        state, snapshot = store.state(now), store.snapshot
        lives = [life for _, life in self._fetching.lives()]
        return KeysHealth(
            state=state,
            ready=state in {"ok", "degraded"},
            local=self.settings.is_local,
            age=store.age(now),
            generation=snapshot.generation,
            kids=len(snapshot.keys),
            missing=len(snapshot.missing),
            skipped=len(snapshot.listed.skipped),
            last_error=store.report.last_error,
            consecutive_failures=store.policy.failures,
            next_refresh_in=store.due_in(now),
            refresher_alive=any(life.is_refreshing for life in lives),
            fetching=any(life.flight for life in lives),
            waiting=sum(life.waiting for life in lives),
            remembered_unknown_keys=store.policy.remembered,
            **store.report.counts,
        )

    def seed(self, document: Annotated[bytes, _SEED], *, fetched_at: float) -> None:
        """Begin with a certs document that was fetched before, and refresh it at the next occasion.

        It is as old as it is: `fetched_at` counts for every limit. One older than the keys at hand is ignored.

        Args:
            document: The certs document.
            fetched_at: When it was fetched, in seconds since 1970.

        Raises:
            ConfigurationError: It is no certs document, or its time is none.
        """
        self._store.seed(document, fetched_at, self._fetching.now())
        for loop, life in self._fetching.lives():
            loop.call_soon_threadsafe(life.changed.set)

    @_NO_DEPENDENCY
    def export(self) -> ExportedKeys | None:
        """Give the last certs document, for `seed()` in another process; None where there is none."""
        now = self._fetching.now()
        age = self._store.age(now)
        return None if age is None else ExportedKeys(self._store.snapshot.document, now.wall - age)

    @_NO_DEPENDENCY
    async def start(self) -> None:
        """Fetch the keys and begin to refresh them; called twice, it is counted.

        Raises:
            KeysUnavailable: There are none within `startup_timeout`, and `fail_fast` is set.
        """
        life = self._fetching.life()
        life.users += 1
        try:
            await self._fetching.first_keys(life)
        except BaseException:
            await self.stop()
            raise
        self._fetching.ensure_refresher(life)

    @_NO_DEPENDENCY
    async def stop(self) -> None:
        """Stop refreshing the keys, once called as often as `start`."""
        life = self._fetching.life()
        life.users = max(0, life.users - 1)
        if not life.users:
            await life.end()

    @_NO_DEPENDENCY
    async def fetch_if_unusable(self) -> None:
        """Fetch the keys if there are none that can be used, unless a fetch failed a moment ago.

        It waits for `key_wait_timeout` at most; `health()` then says how it went.
        """
        try:
            life = self._fetching.life()
        except ConfigurationError:
            return
        now = self._fetching.now()
        if self._store.is_usable(now):
            self.lookup("")  # a refresh that is due begins in the background
        elif (life.flight or now.monotonic >= self._store.policy.retry_at) and life.waiting < CROWD:
            flight = self._fetching.join_or_begin(life, Wish())
            await self._wait(life, flight, self.settings.key_settings.key_wait_timeout)

    def on_refresh(self, callback: Callable[[float], None]) -> None:
        """Call a bound method with the wall clock after each successful fetch, for as long as its object lives."""
        self._store.refreshed.append(WeakMethod(callback))
