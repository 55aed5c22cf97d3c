"""Types of stores: never executed, read by mypy and pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.protocols import SnapshotStore
from fastapi_cloudflare_access.stores.file import FileStore
from fastapi_cloudflare_access.stores.memory import MemoryStore
from fastapi_cloudflare_access.stores.redis import RedisStore


class OwnStore:
    """A store of an app."""

    secret = "a secret of 32 bytes or more ..."

    async def load(self, team: str) -> bytes | None:
        """Load."""
        return team.encode()

    async def save(self, team: str, snapshot: bytes) -> None:
        """Save."""

    @asynccontextmanager
    async def lock(self, team: str, *, seconds: float) -> AsyncGenerator[bool]:
        """Lock."""
        yield bool(team and seconds)


class WithoutLock:
    """A store that lacks a method."""

    secret = b"a secret of 32 bytes or more ..."

    async def load(self, team: str) -> bytes | None:
        """Load."""

    async def save(self, team: str, snapshot: bytes) -> None:
        """Save."""


stores: list[SnapshotStore] = [
    MemoryStore(),
    FileStore("keys", secret=b"secret"),
    RedisStore("redis://localhost", secret=["new", b"old"], prefix="app:"),
    OwnStore(),
]
CloudflareAccess(snapshot_store=OwnStore())
CloudflareAccess(snapshot_store=None)
CloudflareAccess(snapshot_store=WithoutLock())  # type: ignore[arg-type]
CloudflareAccess(snapshot_store="redis://localhost")  # type: ignore[arg-type]
RedisStore("redis://localhost")  # type: ignore[call-arg]
