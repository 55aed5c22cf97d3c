"""`RedisStore`: keys and revocations that the workers of a fleet share through Redis or Valkey (extra `redis`)."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager

from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access.protocols import LogPage, Secret
from fastapi_cloudflare_access.stores._problem import TeamName
from fastapi_cloudflare_access.stores._redis.connection import RedisConnection
from fastapi_cloudflare_access.stores._redis.revocations import RedisRevocations
from fastapi_cloudflare_access.stores._redis.snapshots import RedisSnapshots
from fastapi_cloudflare_access.stores._signing import checked_secrets


class RedisStore:
    """A store in Redis or Valkey.

    It is a [`SnapshotStore`][fastapi_cloudflare_access.protocols.SnapshotStore] and a
    [`RevocationStore`][fastapi_cloudflare_access.protocols.RevocationStore]; one object can be both.

    Create it once, where the app is defined. It connects when it is used, so it can be created at import and forked.

    ```python
    import os

    from fastapi_cloudflare_access import CloudflareAccess
    from fastapi_cloudflare_access.stores.redis import RedisStore

    store = RedisStore("redis://localhost:6379/0", secret=os.environ["STORE_SECRET"])
    access = CloudflareAccess(snapshot_store=store)
    ```
    """

    def __init__(
        self,
        url: str,
        *,
        secret: Secret,
        prefix: str = "cf-access:",
    ) -> None:
        """Check the arguments; nothing is connected.

        Args:
            url: URL of the server: `redis://`, `rediss://` (TLS) or `unix://`.
            secret: Secret of at least 32 bytes that signs the records, the same in every worker. A list rotates it:
                the first one signs, and records of each are accepted.
            prefix: Beginning of the names of all keys in the server.

        Raises:
            ConfigurationError: An argument is wrong, or the package `redis` is not installed.
        """
        self.secret: Secret = checked_secrets(secret)
        self._connection = RedisConnection(url, prefix=prefix)
        self._snapshots = RedisSnapshots(self._connection)
        self._revocations = RedisRevocations(self._connection)

    def __repr__(self) -> str:
        return f"<RedisStore {self._connection.shown_url}>"

    async def load(self, team: TeamName) -> bytes | None:
        """Return the snapshot of a team, or None."""
        return await self._snapshots.load(team)

    async def save(self, team: TeamName, snapshot: bytes) -> None:
        """Replace the snapshot of a team."""
        await self._snapshots.save(team, snapshot)

    def lock(self, team: TeamName, *, seconds: float) -> AbstractAsyncContextManager[bool]:
        """Lock a team for so many seconds at most; the context is False if it is locked already."""
        return self._snapshots.lock(team, seconds=seconds)

    async def time(self) -> float:
        """Return the time of the server, in seconds since 1970."""
        return await self._revocations.time()

    async def append(self, team: TeamName, records: Sequence[bytes], *, keep: float) -> None:
        """Add records to the log of a team, and remove those that are older than so many seconds."""
        await self._revocations.append(team, records, keep=keep)

    def read(self, team: TeamName, *, after: str | None) -> AsyncGenerator[LogPage]:
        """Yield pages of the log of a team, and then each new record, until the generator is closed."""
        return self._revocations.read(team, after=after)


forbid_as_dependency(RedisStore, "A store is not a dependency: write CloudflareAccess(snapshot_store=RedisStore(…))")
