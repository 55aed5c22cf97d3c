"""The reading of one log: all of it at first, then each new record, and again all of it after a gap.

| situation | what a worker does |
|---|---|
| the log has a record that the worker does not know | adds it to its table |
| the log lacks a record of the table, after a flush or a fail-over | writes it back |
| the log is a new one, its last known record is gone, or the store restarted | reads all of it |
| a new worker, or one after a silence, reads a log that no worker has completed since then | waits for `SETTLING` |
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Protocol

from fastapi_cloudflare_access._clock import run_with_timeout
from fastapi_cloudflare_access._revocations.log import RecordFormat
from fastapi_cloudflare_access._revocations.record import (
    DAY,
    MICROSECONDS,
    RECORD_LIFETIME,
    Completion,
    Record,
    RecordProblem,
)
from fastapi_cloudflare_access._revocations.reporting import Report
from fastapi_cloudflare_access._revocations.table import Table
from fastapi_cloudflare_access.protocols import Clock, LogPage, RevocationStore

READ_TIMEOUT = 8.0
"""Seconds that a store may take for one page of records, and for an addition."""
RESYNC_INTERVAL = 600.0
"""Seconds after which the whole log is read again, since single records can get lost."""
SETTLING = 5.0
"""Seconds for which a new worker waits for other workers to write back what the store has lost."""
MAX_SILENCE = 10.0
"""Seconds without a response of the store after which it cannot be reached, and `revocations_unavailable` applies."""
SPREAD = 0.5
"""Seconds over which workers spread what they write back, so that each record is written back once."""
MAX_WRITTEN = 2000
"""Number of records that are written back at once."""
COMPLETION_LIFETIME = float(DAY)
"""Seconds after which the statement that the log is complete is renewed."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds after which a store that failed is read again, at first and at most."""


class Changed(Protocol):
    """A function that learns what was read."""

    def __call__(self, *, revoked: bool) -> None:
        """Note that revocations were added, or else that the end of the log was read."""


class LogReader:
    """Reads the log of one name of the team into the table.

    Attributes:
        team: The name of the log.
        is_complete: Whether the table has every revocation that other workers know.
        last_contact: Monotonic time at which the end of the log was last read.
    """

    def __init__(
        self,
        store: RevocationStore,
        team: str,
        *,
        is_complete: bool,
        table: Table,
        records: RecordFormat,
        clock: Clock,
        report: Report,
        changed: Changed,
    ) -> None:
        """Create a reader that has read nothing.

        Args:
            store: The store.
            team: The name of the log.
            is_complete: Whether this process has relied on the log before.
            table: Receives the records.
            records: Checks and signs records.
            clock: The source of time.
            report: Receives what happens.
            changed: Called after revocations were added to the table, and each time the end of the log was read.
        """
        self._store, self.team, self._table, self._records = store, team, table, records
        self._clock, self._report, self._changed = clock, report, changed
        self.is_complete = is_complete
        self.last_contact = float("-inf")
        self._begin()

    def _begin(self) -> None:
        """Begin to read the whole log."""
        self._position: str | None = None
        self._epoch: str | None = None
        self._completed: dict[str, int] = {}
        self._log: Table | None = Table()
        self._read_at = self._write_at = float("inf")
        self._written = 0

    async def follow(self) -> None:
        """Read the log for ever."""
        failures = 0
        while True:
            try:
                await self.read(follow=True)
                await self._clock.sleep(FIRST_PAUSE * _between(0.5, 1.0))
            except Exception as problem:  # noqa: BLE001 - a store may raise anything
                self._report.failed(problem)
                failures = 0 if self._clock.monotonic() - self.last_contact < LONGEST_PAUSE else failures + 1
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10))
                await self._clock.sleep(pause * _between(0.5, 1.0))

    async def read(self, *, follow: bool) -> None:
        """Read the log to its end; with `follow`, go on until it has to be read from the beginning.

        Raises:
            Exception: The store cannot be read.
        """
        for _ in range(1 if follow else 3):  # a gap shows only when the log is read
            pages = self._store.read(self.team, after=self._position)
            try:
                if await self._read_pages(pages, follow=follow):
                    return
            finally:
                with suppress(Exception):  # it may be still busy, or fail once more
                    await run_with_timeout(self._clock, pages.aclose(), timeout=1.0)

    async def _read_pages(self, pages: AsyncGenerator[LogPage], *, follow: bool) -> bool:
        """Read pages to the end of the log; return False if the log has to be read from the beginning."""
        while True:
            page = await run_with_timeout(self._clock, _next_of(pages), timeout=READ_TIMEOUT)
            if page.has_gap or self._epoch not in (None, page.epoch):
                # After a silence, other workers may know revocations of which this one has never read.
                self.is_complete = self.is_complete and self._clock.monotonic() - self.last_contact <= MAX_SILENCE
                self._begin()
                return False
            self._epoch = page.epoch
            self._accept(page)
            if page.is_end:
                await self._at_end(follow=follow)
                if not follow:
                    return True
                if self._clock.monotonic() >= self._read_at:
                    self._begin()
                    return False

    def _accept(self, page: LogPage) -> None:
        now, changed = self._clock.now(), False
        for signed in page.records:
            try:
                record = self._records.read(signed)
            except RecordProblem as problem:
                self._report.ignore(str(problem))
                continue
            self._report.has_read_own = True
            if isinstance(record, Completion):
                self._completed[record.epoch] = max(record.at, self._completed.get(record.epoch, 0))
                continue
            if self._log is not None:
                self._log.add(record, now)
            changed |= self._table.add(record, now)
        self._position = page.position
        if changed:
            self._changed(revoked=True)

    async def _at_end(self, *, follow: bool) -> None:
        now = self._clock.monotonic()
        self.last_contact = now
        self._report.succeeded()
        is_first = self._read_at == float("inf")
        if is_first:
            self._table.expire(self._clock.now())
            self._read_at = now + RESYNC_INTERVAL * _between(0.9, 1.1)
            self._write_at = now
            self._settled_at = now + (SETTLING if self._epoch else 0.0)
        if not self.is_complete and (self._epoch in self._completed or now >= self._settled_at):
            self.is_complete = True
            self._write_at = min(self._write_at, now)
        self._changed(revoked=False)
        if is_first and follow:
            await self._clock.sleep(_between(0, SPREAD))
        elif not is_first and now >= self._write_at:
            try:
                await self._write_back()
            except Exception as problem:  # noqa: BLE001 - a store may raise anything; the records stay here
                self._report.failed(problem)
                self._write_at = now + SETTLING

    async def _write_back(self) -> None:
        """Write records that the log lacks, some at a time; then the statement that the log is complete."""
        lacking = await self._lacking()
        if lacking:
            written = random.sample(lacking, min(MAX_WRITTEN, len(lacking)))
            await self.append(written)
            self._written += len(written)
            return
        if self._log is not None:
            self._report.read_all(len(self._table), self._written)
            self._log = None
        if self._needs_completion():
            await self.append([Completion(self._epoch or "", await self.time())])
        self._write_at = float("inf")

    async def _lacking(self) -> list[Record]:
        """Return the records in force that the log did not have when it was read."""
        log, now, lacking = self._log, self._clock.now(), list[Record]()
        if log is None:
            return lacking
        for piece in self._table.pieces():
            lacking += [record for record in piece if record.ends_at > now and log.would_change(record)]
            await asyncio.sleep(0)
        return lacking

    def _needs_completion(self) -> bool:
        if not self._epoch or not self.is_complete:
            return False
        completed_at = self._completed.get(self._epoch, 0) / MICROSECONDS
        return self._clock.now() - completed_at > COMPLETION_LIFETIME

    async def append(self, records: Sequence[Record | Completion]) -> None:
        """Sign records, and add them to the log.

        Raises:
            Exception: The store cannot be written.
        """
        signed = [self._records.sign(record) for record in records]
        work = self._store.append(self.team, signed, keep=RECORD_LIFETIME)
        await run_with_timeout(self._clock, work, timeout=READ_TIMEOUT)

    async def time(self) -> int:
        """Return the time of the store, in microseconds since 1970.

        Raises:
            Exception: The store cannot be asked.
        """
        seconds = await run_with_timeout(self._clock, self._store.time(), timeout=READ_TIMEOUT)
        return round(seconds * MICROSECONDS)


def _between(low: float, high: float) -> float:
    """Return a random number, so that the workers of a fleet do not act at the same moment."""
    return random.uniform(low, high)  # noqa: S311 - no secret


async def _next_of(pages: AsyncGenerator[LogPage]) -> LogPage:
    try:
        return await anext(pages)
    except StopAsyncIteration:
        raise ConnectionError from None
