"""Revocations in Redis or Valkey: one stream for each team."""

from collections.abc import AsyncGenerator, Sequence
from hashlib import sha256
from typing import Any

from fastapi_cloudflare_access.protocols import LogPage
from fastapi_cloudflare_access.stores._redis.connection import RedisConnection

HEARTBEAT = 0.5
"""Seconds that the server waits for a record before it answers that there is none."""
PAGE = 500
"""Number of records that are read at once."""
COMMAND_TIMEOUT = 4.0
"""Seconds that a command may take: a revocation waits longer for a slow server than a key does."""

_FIELD = b"r"
_BEGINNING = "0-0"


class RedisRevocations:
    """Reads and writes the logs of revocations."""

    def __init__(self, connection: RedisConnection) -> None:
        """Store the connection; nothing is connected."""
        self._connection = connection

    async def time(self) -> float:
        """Return the time of the server, in seconds since 1970.

        Raises:
            StoreProblem: The server cannot be asked.
        """
        async with self._connection.connect(command_timeout=COMMAND_TIMEOUT) as client:
            return await _time(client)

    async def append(self, team: str, records: Sequence[bytes], *, keep: float) -> None:
        """Add records to the stream of a team, and trim it.

        Raises:
            StoreProblem: The server cannot be asked, or cannot write.
        """
        async with self._connection.connect(command_timeout=COMMAND_TIMEOUT) as client:
            oldest = f"{int((await _time(client) - keep) * 1000)}-0"
            pipeline = client.pipeline(transaction=False)
            for record in records:
                _ = pipeline.xadd(self._name(team), {_FIELD: record}, minid=oldest, approximate=True)
            await pipeline.execute()

    async def read(self, team: str, *, after: str | None) -> AsyncGenerator[LogPage]:
        """Yield pages of the stream of a team, and then each new record, until the generator is closed.

        A page has a gap if the record before it is no longer in the stream.

        Raises:
            StoreProblem: The server cannot be asked.
        """
        position, block = after, None
        async with self._connection.connect(command_timeout=HEARTBEAT + COMMAND_TIMEOUT) as client:
            epoch = await _epoch(client)
            while True:
                page = await _page(client, self._name(team), position, block=block, epoch=epoch)
                yield page
                position, block = page.position, int(HEARTBEAT * 1000) if page.is_end else None

    def _name(self, team: str) -> str:
        return f"{self._connection.prefix}{{{team}}}:revocations"


async def _page(client: Any, name: str, after: str | None, *, block: int | None, epoch: str) -> LogPage:
    found = await client.xread({name: after or _BEGINNING}, count=PAGE, block=block)
    entries: list[tuple[bytes, dict[bytes, bytes]]] = found[0][1] if found else []
    has_gap = after is not None and not await client.xrange(name, after, after, count=1)
    return LogPage(
        records=[fields.get(_FIELD, b"") for _, fields in entries],
        position=entries[-1][0].decode() if entries else after,
        is_end=len(entries) < PAGE,
        has_gap=has_gap,
        epoch=epoch,
    )


async def _time(client: Any) -> float:
    seconds, microseconds = await client.time()
    return float(seconds + microseconds / 1_000_000)


async def _epoch(client: Any) -> str:
    """Return a text that differs after a restart or a fail-over of the server.

    A user of the server that may not ask for it always gets the same text. A lost stream is noticed nevertheless.
    """
    from redis.exceptions import ResponseError  # noqa: PLC0415 - of an extra

    try:
        server, replication = await client.info("server"), await client.info("replication")
    except ResponseError:
        return "unknown"
    told = f"{server.get('run_id')} {replication.get('master_replid')}"
    return sha256(told.encode()).hexdigest()[:32]
