"""The exchange of keys with other workers: a look at the store before each fetch, and a save after it.

| situation | what a worker does |
|---|---|
| the snapshot is newer than the keys of the worker | uses it; if nothing is due then, makes no fetch |
| another worker fetches | waits for its snapshot for at most `STORE_WAIT`, then fetches too |
| the store fails, or takes longer than `STORE_WAIT` | fetches as if there were no store, for `STORE_PAUSE` |
| the snapshot is not signed, of another team, or too old | ignores it, and replaces it by its own keys |
| a fetch ended, and the keys are newer than the snapshot | saves them in the background |

A snapshot counts from the time of its fetch. So a store that replays one cannot delay a refresh beyond the refresh
interval. Only a newer snapshot replaces keys. Rate limits count a look at the store like a fetch.
"""

import asyncio
import math
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi_cloudflare_access._clock import run_with_timeout
from fastapi_cloudflare_access._keys.cache import KeySetCache, PendingFetch
from fastapi_cloudflare_access._keys.document import describe_store
from fastapi_cloudflare_access._keys.jwks import JwksProblem
from fastapi_cloudflare_access._keys.shared_snapshot import (
    SharedSnapshot,
    SnapshotFormat,
    SnapshotProblem,
    team_name,
)
from fastapi_cloudflare_access._keys.snapshot import ClockReading
from fastapi_cloudflare_access.events import StoreOperation
from fastapi_cloudflare_access.protocols import Clock, SnapshotStore
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.stores._signing import Signer

T = TypeVar("T")

STORE_WAIT = 1.0
"""Seconds that a fetch waits for the store, and for another worker that fetches."""
SAVE_TIMEOUT = 1.0
"""Seconds that a save may take, in the background."""
STORE_POLL = 0.1
"""Seconds before the next look at the store while another worker fetches; each further pause is twice as long."""
STORE_PAUSE = 5.0
"""Seconds for which fetches do not ask the store after it failed."""
LOCK_MARGIN = 2.0
"""Seconds that the lock outlasts a fetch, for the look and the save."""

SAVE_TASK = "cloudflare-access-save"
"""Name of the asyncio task."""


@dataclass(eq=False, slots=True)
class _Fleet:
    """The store, and what is the same in each fetch.

    Attributes:
        store: The store.
        team: The name of the team there.
        format: The format of the snapshots.
        lock_seconds: Seconds after which the lock of a worker ends that died.
        cache: The keys of this worker.
        clock: Source of time.
        paused_until: Monotonic time until which the store is not asked before a fetch, since it failed.
    """

    store: SnapshotStore
    team: str
    format: SnapshotFormat
    lock_seconds: float
    cache: KeySetCache
    clock: Clock
    paused_until: float = -math.inf

    def now(self) -> ClockReading:
        """Return the time on both clocks."""
        return ClockReading(self.clock.monotonic(), self.clock.now())


class KeySharing:
    """The keys that the workers of a fleet share through a store."""

    def __init__(self, store: SnapshotStore, settings: Settings, cache: KeySetCache, clock: Clock) -> None:
        """Check the secret of the store; nothing is read from it.

        Raises:
            ConfigurationError: The secret is too short.
        """
        issuer = settings.issuer
        form = SnapshotFormat(Signer(store.secret, purpose="snapshot"), issuer)
        lock_seconds = settings.key_settings.fetch_timeout + LOCK_MARGIN
        self._fleet = _Fleet(store, team_name(issuer), form, lock_seconds, cache, clock)

    def turn(self) -> "Turn":
        """Return the use of the store that belongs to one fetch."""
        return Turn(self._fleet)


@dataclass(eq=False, slots=True)
class Turn:
    """The use of the store that belongs to one fetch: `look` or `is_served` before it, and `end` after it.

    Attributes:
        fleet: The store, and what is the same in each fetch.
        lock: The lock, once this worker has it.
        stored_at: Time of the fetch of the snapshot in the store, in seconds since 1970.
        operation: The operation that runs; None between two.
        is_used: Whether the snapshot replaced the keys of this worker.
        reported: The problems of snapshots that were reported.
    """

    fleet: _Fleet
    lock: AsyncExitStack = field(default_factory=AsyncExitStack)
    stored_at: float = -math.inf
    operation: StoreOperation | None = None
    is_used: bool = False
    reported: set[str] = field(default_factory=set[str])

    async def look(self, *, seconds: float) -> None:
        """Use the snapshot of the store if it is newer than the keys, and wait for so many seconds at most."""
        await self._limited(self._load(may_confirm_removals=False), seconds)

    async def is_served(self, pending: PendingFetch) -> bool:
        """Use the snapshot of the store, or lock the team for a fetch; return whether the snapshot replaces the fetch.

        Wait for `STORE_WAIT` at most, also for another worker that fetches.
        """
        if self.fleet.clock.monotonic() < self.fleet.paused_until:
            return False
        return await self._limited(self._wait_for_turn(pending), STORE_WAIT) is True

    async def _limited(self, work: Coroutine[Any, Any, T], seconds: float) -> T | None:
        """Return the result; None if the store failed, or if the time is up."""
        try:
            return await run_with_timeout(self.fleet.clock, work, timeout=seconds)
        except Exception as problem:  # noqa: BLE001 - a store may raise anything; the worker goes on alone
            self._report(problem)
            return None

    async def _wait_for_turn(self, pending: PendingFetch) -> bool:
        pause, end = STORE_POLL, self.fleet.clock.monotonic() + STORE_WAIT
        served = self.fleet.cache.is_usable(self.fleet.now()) and await self._load_for(pending)
        # In Python 3.11 `asyncio.wait_for`, which redis uses, can lose the cancellation at the end of the time.
        while not served and not pending.options.force and self.fleet.clock.monotonic() < end:
            if await self._try_lock():
                return await self._load_for(pending)  # another worker may have saved one before it unlocked
            await self.fleet.clock.sleep(pause)
            pause *= 2
            served = await self._load_for(pending)
        return served

    async def _load_for(self, pending: PendingFetch) -> bool:
        await self._load(may_confirm_removals=pending.options.may_confirm_removals)
        return self.is_used and self.fleet.cache.is_served(pending.options, self.fleet.now())

    async def _load(self, *, may_confirm_removals: bool) -> bool:
        self.operation = "load"
        record = await self.fleet.store.load(self.fleet.team)
        if record is not None:  # a store of the app may return anything, which is a failed load
            self._use(record, may_confirm_removals=may_confirm_removals)
        self.operation = None
        return self.is_used

    def _use(self, record: bytes, *, may_confirm_removals: bool) -> None:
        cache, now = self.fleet.cache, self.fleet.now()
        try:
            snapshot = self.fleet.format.read(record, now=now.wall)
            used = cache.share(
                snapshot.document, snapshot.fetched_at, may_confirm_removals=may_confirm_removals, now=now
            )
        except (SnapshotProblem, JwksProblem) as problem:
            if (reason := str(problem)) not in self.reported:
                self.reported.add(reason)
                cache.record_snapshot_rejected(reason, now)
            return
        self.stored_at = snapshot.fetched_at
        self.is_used |= used

    async def _try_lock(self) -> bool:
        self.operation = "lock"
        locked = await self.lock.enter_async_context(
            self.fleet.store.lock(self.fleet.team, seconds=self.fleet.lock_seconds)
        )
        self.operation = None
        return locked

    def _report(self, problem: BaseException) -> None:
        """Report a failed operation; the time that another worker's fetch takes is no failure."""
        if self.operation is not None:
            now = self.fleet.now()
            self.fleet.cache.record_store_failure(self.operation, describe_store(problem), now)
            self.fleet.paused_until = now.monotonic + STORE_PAUSE
            self.operation = None

    def end(self) -> "asyncio.Task[None]":
        """Save the keys in the background if they are newer than the snapshot, and unlock; return the task."""
        return asyncio.create_task(self._finish(), name=SAVE_TASK)

    async def release(self) -> None:
        """Unlock, after the fetch was cancelled."""
        await self._limited(self.lock.aclose(), SAVE_TIMEOUT)

    async def _finish(self) -> None:
        await self._limited(self._save_and_unlock(), SAVE_TIMEOUT)

    async def _save_and_unlock(self) -> None:
        try:
            if shared := self.fleet.cache.to_share(self.fleet.now(), newer_than=self.stored_at):
                self.operation = "save"
                await self.fleet.store.save(self.fleet.team, self.fleet.format.sign(SharedSnapshot(*shared)))
                self.operation = None
                self.fleet.cache.record_saved()
        finally:
            await self.lock.aclose()
