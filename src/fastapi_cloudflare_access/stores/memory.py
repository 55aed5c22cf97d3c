"""`MemoryStore`, which shares keys and revocations between objects of one process, and in tests."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

from fastapi_cloudflare_access._clock import SystemClock, wait_until_done
from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access.protocols import Clock, LogPage, Secret
from fastapi_cloudflare_access.stores._problem import TeamName
from fastapi_cloudflare_access.stores._signing import MIN_SECRET, checked_secrets

HEARTBEAT = 0.5
"""Seconds after which a reader gets a page although there is no new record."""
PAGE = 500
"""Number of records of a page, at most."""


class MemoryStore:
    """A store in the memory of one process.

    It is a [`SnapshotStore`][fastapi_cloudflare_access.protocols.SnapshotStore] and a
    [`RevocationStore`][fastapi_cloudflare_access.protocols.RevocationStore]. It shares keys and revocations between
    several `CloudflareAccess` objects of one process, and loses them when the process ends. Several processes need a
    `FileStore` for keys, or a `RedisStore`.
    """

    def __init__(self, *, secret: Secret | None = None, clock: Clock | None = None) -> None:
        """Create an empty store.

        Args:
            secret: Secret that signs the records; random by default.
            clock: The source of the store's time; by default the machine's clocks.

        Raises:
            ConfigurationError: The secret is too short.
        """
        self.secret: Secret = secrets.token_bytes(MIN_SECRET) if secret is None else checked_secrets(secret)
        self._snapshots: dict[str, bytes] = {}
        self._locked_until: dict[str, float] = {}
        self._clock: Clock = clock or SystemClock()
        self._logs: dict[str, list[bytes]] = {}
        self._readers: set[asyncio.Future[None]] = set()

    async def load(self, team: TeamName) -> bytes | None:
        """Return the snapshot of a team, or None."""
        return self._snapshots.get(team)

    async def save(self, team: TeamName, snapshot: bytes) -> None:
        """Replace the snapshot of a team."""
        self._snapshots[team] = snapshot

    @asynccontextmanager
    async def lock(self, team: TeamName, *, seconds: float) -> AsyncGenerator[bool]:
        """Lock a team for so many seconds at most; the context is False if it is locked already."""
        now = self._clock.monotonic()
        if now < self._locked_until.get(team, now):
            yield False
            return
        mine = self._locked_until[team] = now + seconds
        try:
            yield True
        finally:
            if self._locked_until.get(team) == mine:
                del self._locked_until[team]

    async def time(self) -> float:
        """Return the time, in seconds since 1970."""
        return self._clock.now()

    async def append(self, team: TeamName, records: Sequence[bytes], *, keep: float) -> None:  # noqa: ARG002 - few
        """Add records to the log of a team; they stay as long as the process."""
        self._logs.setdefault(team, []).extend(records)
        for reader in [*self._readers]:
            with suppress(RuntimeError):  # its event loop is closed
                reader.get_loop().call_soon_threadsafe(_wake, reader)

    async def read(self, team: TeamName, *, after: str | None) -> AsyncGenerator[LogPage]:
        """Yield pages of the log of a team, and then each new record, until the generator is closed."""
        log, position = self._logs.setdefault(team, []), int(after or 0)
        while True:
            records = log[position : position + PAGE]
            position += len(records)
            yield LogPage(records, str(position), is_end=position >= len(log))
            if position >= len(log):
                await self._wait()

    async def _wait(self) -> None:
        """Wait for a new record, for a heartbeat at most."""
        reader = asyncio.get_running_loop().create_future()
        self._readers.add(reader)
        try:
            await wait_until_done(self._clock, reader, timeout=HEARTBEAT)
        finally:
            self._readers.discard(reader)


def _wake(reader: "asyncio.Future[None]") -> None:
    if not reader.done():
        reader.set_result(None)


forbid_as_dependency(MemoryStore, "A store is not a dependency: write CloudflareAccess(snapshot_store=MemoryStore())")
