"""`MemoryStore`, which shares keys between objects of one process, and in tests."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access.protocols import Secret
from fastapi_cloudflare_access.stores._problem import TeamName
from fastapi_cloudflare_access.stores._signing import MIN_SECRET, checked_secrets


class MemoryStore:
    """A [`SnapshotStore`][fastapi_cloudflare_access.protocols.SnapshotStore] in the memory of one process.

    It shares keys between several `CloudflareAccess` objects of one process. Several processes need a `FileStore` or a
    `RedisStore`.
    """

    def __init__(self, *, secret: Secret | None = None) -> None:
        """Create an empty store.

        Args:
            secret: Secret that signs the records; random by default.

        Raises:
            ConfigurationError: The secret is too short.
        """
        self.secret: Secret = secrets.token_bytes(MIN_SECRET) if secret is None else checked_secrets(secret)
        self._snapshots: dict[str, bytes] = {}
        self._locked_until: dict[str, float] = {}

    async def load(self, team: TeamName) -> bytes | None:
        """Return the snapshot of a team, or None."""
        return self._snapshots.get(team)

    async def save(self, team: TeamName, snapshot: bytes) -> None:
        """Replace the snapshot of a team."""
        self._snapshots[team] = snapshot

    @asynccontextmanager
    async def lock(self, team: TeamName, *, seconds: float) -> AsyncGenerator[bool]:
        """Lock a team for so many seconds at most; the context is False if it is locked already."""
        now = time.monotonic()
        if now < self._locked_until.get(team, now):
            yield False
            return
        mine = self._locked_until[team] = now + seconds
        try:
            yield True
        finally:
            if self._locked_until.get(team) == mine:
                del self._locked_until[team]


forbid_as_dependency(MemoryStore, "A store is not a dependency: write CloudflareAccess(snapshot_store=MemoryStore())")
