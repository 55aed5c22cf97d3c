"""Several workers on one fake clock: key sources over the certs of one team in memory, and one store."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from support.key_rig import outcome
from support.options import load, no_jitter

from fastapi_cloudflare_access.events import AccessEvent
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.protocols import SnapshotStore
from fastapi_cloudflare_access.stores.memory import MemoryStore
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam, MemoryFetch

TEAM = "acme.cloudflareaccess.com"
"""The name of the team in the store."""
SECRET = "the secret of the fleet, for tests"


class WatchedStore:
    """A store in memory that counts its operations, and in which they can fail or hang.

    Attributes:
        secret: The secret.
        inner: The store that it watches.
        operations: The names of the operations so far.
        faults: For the name of an operation what happens first.
    """

    def __init__(self, secret: Any = SECRET) -> None:
        self.secret = secret
        self.inner = MemoryStore(secret=secret)
        self.operations: list[str] = []
        self.faults: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}

    @property
    def snapshot(self) -> bytes | None:
        """The snapshot of the team."""
        return self.inner._snapshots.get(TEAM)

    @snapshot.setter
    def snapshot(self, snapshot: bytes | None) -> None:
        self.inner._snapshots.pop(TEAM, None)
        if snapshot is not None:
            self.inner._snapshots[TEAM] = snapshot

    async def load(self, team: str) -> bytes | None:
        await self._enter("load")
        return await self.inner.load(team)

    async def save(self, team: str, snapshot: bytes) -> None:
        await self._enter("save")
        await self.inner.save(team, snapshot)

    @asynccontextmanager
    async def lock(self, team: str, *, seconds: float) -> AsyncGenerator[bool]:
        await self._enter("lock")
        async with self.inner.lock(team, seconds=seconds) as locked:
            yield locked

    async def _enter(self, operation: str) -> None:
        self.operations.append(operation)
        if fault := self.faults.get(operation):
            await fault()


class Fleet:
    """Workers that share a store.

    Attributes:
        clock: The clock of all.
        team: The team whose tokens they verify.
        certs: Its certs, with the number of fetches of all workers.
        store: The store, or None.
        events: The events of all workers.
    """

    def __init__(self, *, store: SnapshotStore | None = None, jitter: bool = False, **options: Any) -> None:
        self.clock = FakeClock()
        self.team = FakeTeam("acme", clock=self.clock)
        self.certs = MemoryFetch(self.team)
        self.store = store
        self.events: list[AccessEvent] = []
        self._jitter = jitter
        self._options = options

    @property
    def kid(self) -> str:
        """The id of the key that signs."""
        return self.team.current.kid

    def worker(self, *, store: SnapshotStore | None = None, team_domain: str = "acme", **options: Any) -> KeySource:
        """Return one more worker, not started."""
        settings = load(team_domain=team_domain, audience=self.team.audience, **{**self._options, **options})
        worker = KeySource(
            settings,
            fetch=self.certs,
            clock=self.clock,
            listeners=[self.events.append],
            snapshot_store=self.store if store is None else store,
        )
        if not self._jitter:
            worker._cache._limiter._uniform = no_jitter
        return worker

    async def started(self, **options: Any) -> KeySource:
        """Return one more worker, started, and let it save what it fetched."""
        worker = self.worker(**options)
        await self.clock.run_until(worker.start())
        await self.clock.run_for(0)
        return worker

    async def find(self, worker: KeySource, kid: str) -> str:
        """Look for a key, and return the reason code or `ok`."""
        return await self.clock.run_until(outcome(lambda: worker.get_or_fetch(kid)))

    def names(self) -> list[str]:
        """The names of the events so far."""
        return [event.name for event in self.events]
