"""Revocations in Redis or Valkey: one stream for each team."""

import time
from collections.abc import AsyncGenerator, Sequence
from hashlib import sha256
from typing import Any

from fastapi_cloudflare_access.protocols import LogPage
from fastapi_cloudflare_access.stores._redis.connection import RedisConnection

HEARTBEAT = 0.5
"""Seconds that the server waits for a record before it answers that there is none."""
PAGE = 200
"""Number of records that are read at once; the client parses them in one go, which delays other requests."""
COMMAND_TIMEOUT = 5.0
"""Seconds that a command may take: a revocation waits longer for a slow server than a key does."""

_FIELD = b"r"
_BEGINNING = "0-0"


class RedisRevocations:
    """Reads and writes the logs of revocations."""

    def __init__(self, connection: RedisConnection) -> None:
        """Store the connection; nothing is connected."""
        self._connection = connection
        self._offset: float | None = None  # of the server's clock to the monotonic one

    async def time(self) -> float:
        """Return the time of the server, in seconds since 1970.

        Raises:
            StoreProblem: The server cannot be asked.
        """
        async with self._connection.connect(command_timeout=COMMAND_TIMEOUT) as client:
            return await self._time(client)

    async def append(self, team: str, records: Sequence[bytes], *, keep: float) -> None:
        """Add records to the stream of a team, and trim it.

        Raises:
            StoreProblem: The server cannot be asked, or cannot write.
        """
        async with self._connection.connect(command_timeout=COMMAND_TIMEOUT) as client:
            now = await self._time(client) if self._offset is None else time.monotonic() + self._offset
            pipeline: Any = client.pipeline(transaction=False)
            for record in records:
                pipeline.xadd(self._name(team), {_FIELD: record}, minid=f"{int((now - keep) * 1000)}-0")
            _checked(await pipeline.execute(raise_on_error=False))

    async def read(self, team: str, *, after: str | None) -> AsyncGenerator[LogPage]:
        """Yield pages of the stream of a team, and then each new record, until the generator is closed.

        A page has a gap if the record before it is no longer in the stream.

        Raises:
            StoreProblem: The server cannot be asked.
        """
        async with self._connection.connect(command_timeout=HEARTBEAT + COMMAND_TIMEOUT) as client:
            page = await _first_page(client, self._name(team), after)
            while True:
                yield page
                page = await _next_page(client, self._name(team), page)

    async def _time(self, client: Any) -> float:
        seconds, microseconds = await client.time()
        now = float(seconds + microseconds / 1_000_000)
        self._offset = now - time.monotonic()
        return now

    def _name(self, team: str) -> str:
        return f"{self._connection.prefix}{{{team}}}:revocations"


async def _first_page(client: Any, name: str, after: str | None) -> LogPage:
    pipeline = client.pipeline(transaction=False)  # a slow server is asked once
    pipeline.info("server")
    pipeline.info("replication")
    _ask(pipeline, name, after, block=None)
    server, replication, *answers = await pipeline.execute(raise_on_error=False)  # the first two may be forbidden
    return _page(_checked(answers), after, _epoch(server, replication))


async def _next_page(client: Any, name: str, page: LogPage) -> LogPage:
    pipeline = client.pipeline(transaction=False)
    _ask(pipeline, name, page.position, block=int(HEARTBEAT * 1000) if page.is_end else None)
    return _page(_checked(await pipeline.execute(raise_on_error=False)), page.position, page.epoch)


def _checked(answers: Sequence[Any]) -> Sequence[Any]:
    """Return the answers, or raise the first error as the server sent it; the pipeline would write words before it."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _ask(pipeline: Any, name: str, after: str | None, *, block: int | None) -> None:
    pipeline.xread({name: after or _BEGINNING}, count=PAGE, block=block)
    if after is not None:
        pipeline.xrange(name, after, after, count=1)


def _page(answers: Sequence[Any], after: str | None, epoch: str) -> LogPage:
    entries: list[tuple[bytes, dict[bytes, bytes]]] = answers[0][0][1] if answers[0] else []
    return LogPage(
        records=[fields.get(_FIELD, b"") for _, fields in entries],
        position=entries[-1][0].decode() if entries else after,
        is_end=len(entries) < PAGE,
        has_gap=after is not None and not answers[1],
        epoch=epoch,
    )


def _epoch(server: Any, replication: Any) -> str:
    """Return a text that differs after a restart or a fail-over of the server.

    A user of the server that may not ask for it always gets the same text. A lost stream is noticed nevertheless.
    """
    if isinstance(server, Exception) or isinstance(replication, Exception):
        return "unknown"
    told = f"{server.get('run_id')} {replication.get('master_replid')}"
    return sha256(told.encode()).hexdigest()[:32]
