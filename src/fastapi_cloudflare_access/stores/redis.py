"""`RedisStore`, which shares keys between the workers of a fleet through Redis or Valkey (extra `redis`)."""

from contextlib import AbstractAsyncContextManager

from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access.protocols import Secret
from fastapi_cloudflare_access.stores._problem import TeamName
from fastapi_cloudflare_access.stores._redis.connection import RedisConnection
from fastapi_cloudflare_access.stores._redis.snapshots import RedisSnapshots
from fastapi_cloudflare_access.stores._signing import checked_secrets


class RedisStore:
    """A [`SnapshotStore`][fastapi_cloudflare_access.protocols.SnapshotStore] in Redis or Valkey.

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


forbid_as_dependency(RedisStore, "A store is not a dependency: write CloudflareAccess(snapshot_store=RedisStore(…))")
