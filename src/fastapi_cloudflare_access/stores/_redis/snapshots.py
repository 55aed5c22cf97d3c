"""Snapshots of keys in Redis or Valkey: one value and one lock for each team."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from secrets import token_hex
from typing import Any

from fastapi_cloudflare_access.protocols import MAX_SNAPSHOT
from fastapi_cloudflare_access.stores._redis.connection import RedisConnection

SNAPSHOT_TTL = 7 * 86_400
"""Seconds after which the server deletes a snapshot: no worker uses one that is older."""

_UNLOCK = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class RedisSnapshots:
    """Reads and writes snapshots, and locks a team."""

    def __init__(self, connection: RedisConnection) -> None:
        """Store the connection; nothing is connected."""
        self._connection = connection

    async def load(self, team: str) -> bytes | None:
        """Return the first `MAX_SNAPSHOT` + 1 bytes of the snapshot of a team, or None.

        Raises:
            Exception: As `RedisConnection.connect`.
        """
        async with self._connection.connect() as client:
            found: Any = await client.getrange(self._name(team, "snapshot"), 0, MAX_SNAPSHOT)
        return bytes(found) or None

    async def save(self, team: str, snapshot: bytes) -> None:
        """Replace the snapshot of a team.

        Raises:
            Exception: As `RedisConnection.connect`.
        """
        async with self._connection.connect() as client:
            await client.set(self._name(team, "snapshot"), snapshot, ex=SNAPSHOT_TTL)

    @asynccontextmanager
    async def lock(self, team: str, *, seconds: float) -> AsyncGenerator[bool]:
        """Lock a team for so many seconds at most; the context is False if it is locked already.

        Raises:
            Exception: As `RedisConnection.connect`.
        """
        name, mine = self._name(team, "lock"), token_hex(16)
        async with self._connection.connect() as client:
            locked = bool(await client.set(name, mine, nx=True, px=int(seconds * 1000)))
        try:
            yield locked
        finally:
            if locked:
                with suppress(Exception):  # it ends by itself
                    async with self._connection.connect() as client:
                        await client.eval(_UNLOCK, 1, name, mine)

    def _name(self, team: str, kind: str) -> str:
        return f"{self._connection.prefix}{{{team}}}:{kind}"
