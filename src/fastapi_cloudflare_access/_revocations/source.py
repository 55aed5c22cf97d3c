"""The revocations of a team for its requests: the table, the tasks that follow the log, and what holds without them."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any
from weakref import WeakMethod

from fastapi_cloudflare_access._clock import run_with_timeout, wait_until_done
from fastapi_cloudflare_access._keys.document import describe_store
from fastapi_cloudflare_access._keys.shared_snapshot import team_name
from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access._revocations.following import MAX_SILENCE, READ_TIMEOUT, SETTLING, LogReader
from fastapi_cloudflare_access._revocations.log import RecordFormat
from fastapi_cloudflare_access._revocations.record import MICROSECONDS, Record
from fastapi_cloudflare_access._revocations.reporting import Report
from fastapi_cloudflare_access._revocations.subjects import (
    address_names,
    keys_of_caller,
    keys_of_claims,
    stream_of_caller,
)
from fastapi_cloudflare_access._revocations.table import MAX_RECORDS, Table
from fastapi_cloudflare_access._verification.token_cache import RevocationKeys
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, RevocationsUnavailable, TokenRevoked
from fastapi_cloudflare_access.protocols import Clock, Listener, RevocationStore
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.stores._signing import Signer

READ_INTERVAL = 1.0
"""Seconds between two reads of the store on the way of requests, if no lifespan runs."""
CATCH_UP_TIMEOUT = 1.0
"""Seconds that a request waits for such a read."""
READ_ALL_TIMEOUT = 60.0
"""Seconds that the read of a whole log may take, if no task follows it."""
MAX_CLOCK_SKEW = 300.0
"""Seconds by which the clock of the store may differ from that of a worker that adds a revocation."""
MAX_ADDRESSES = 4096
"""Number of addresses whose digests are remembered."""
START_POLL = 0.05
"""Seconds between two looks, at the start, whether the revocations are complete."""
FOLLOW_TASK, READ_TASK = "cloudflare-access-revocations", "cloudflare-access-read-revocations"
"""Names of the asyncio tasks."""

logger = logging.getLogger("fastapi_cloudflare_access")

_NEVER = float("-inf")


@dataclass(eq=False, slots=True)
class LoopState:
    """The readers and the tasks of one event loop.

    Attributes:
        readers: One for each name of the team; the first one is that of today.
        start_count: Number of `start` calls without a matching `stop`.
        tasks: The tasks that follow the logs.
        reading: The read for a request, in flight or the last one.
    """

    readers: list[LogReader]
    start_count: int = 0
    tasks: "list[asyncio.Task[None]]" = field(default_factory=list["asyncio.Task[None]"])
    reading: "asyncio.Task[None] | None" = None

    @property
    def is_following(self) -> bool:
        """Whether all tasks run."""
        return bool(self.tasks) and not any(task.done() for task in self.tasks)

    @property
    def is_complete(self) -> bool:
        """Whether the table has every revocation that other workers know, as far as this loop has read."""
        return all(reader.is_complete for reader in self.readers)

    @property
    def last_contact(self) -> float:
        """Monotonic time at which this loop had last read the ends of all logs."""
        return min(reader.last_contact for reader in self.readers)


class RevocationSource:
    """The revocations of a team: looked up for each token, read from a store, and added to it.

    It can be created at import, used in several event loops, and forked: tasks start where it is used.

    Attributes:
        signer: Makes the digests of addresses.
        report: The log records and events.
    """

    def __init__(
        self, store: RevocationStore, settings: Settings, *, clock: Clock, listeners: Sequence[Listener] = ()
    ) -> None:
        """Check the secret of the store; nothing is read.

        Raises:
            ConfigurationError: The secret is too short.
        """
        unavailable = settings.revocations_unavailable or "closed"
        self._store, self._clock, self._is_closed = store, clock, unavailable == "closed"
        self._monotonic = clock.monotonic
        self.signer = Signer(store.secret, purpose="revocation")
        self._address_names = lru_cache(MAX_ADDRESSES)(partial(address_names, signer=self.signer))
        self._records = RecordFormat(self.signer, settings.issuer, settings.former_team_domains)
        self._teams = [team_name(issuer) for issuer in (settings.issuer, *settings.former_team_domains)]
        self._startup_timeout = settings.key_settings.startup_timeout
        self.report = Report(clock, listeners, unavailable)
        self._table = Table()
        self._callbacks: list[WeakMethod[Callable[[], None]]] = []
        self._loops: dict[asyncio.AbstractEventLoop, LoopState] = {}
        self._pid = os.getpid()
        self._last_contact = self._current_until = self._next_read = _NEVER

    # for each request

    def keys_of(self, claims: dict[str, Any], token_digest: bytes) -> RevocationKeys:
        """Return the keys of a token whose claims have been checked; the digest is its SHA-256."""
        return keys_of_claims(claims, token_digest, self._address_names)

    def refusal(self, keys: RevocationKeys) -> AccessError | None:
        """Return why a verified token is refused, or None."""
        if self._table.refuses(keys, self._clock.now()):
            return TokenRevoked("the token was revoked")
        if self._monotonic() >= self._current_until:
            return self._refusal_when_unavailable()
        return None

    def _refusal_when_unavailable(self) -> AccessError | None:
        why = self.report.last_error or "its records may not be complete yet"
        self.report.unavailable(why)
        if not self._is_closed:
            return None
        return RevocationsUnavailable(f"the store of revocations cannot be used: {why}")

    def is_revoked(self, caller: UserClaims | ServiceClaims) -> bool:
        """Check whether the token of an open stream is revoked."""
        now = self._clock.now()
        if self._table.refuses(keys_of_caller(caller, self._address_names), now):
            return True
        return self._table.has_tokens and self._table.refuses_stream(stream_of_caller(caller), now)

    @property
    def is_read_due(self) -> bool:
        """Whether a request should call `catch_up` first."""
        return self._monotonic() >= self._next_read

    async def catch_up(self) -> None:
        """Read the store on the way of a request, unless a task follows the log; wait for a second at most."""
        try:
            loop_state = self._current_loop_state()
        except RuntimeError:  # no asyncio event loop runs
            return
        if not self._is_following_anywhere():
            if loop_state.reading is None or loop_state.reading.done():
                # An empty context, so that the task keeps nothing of the request that happens to start it.
                loop_state.reading = asyncio.create_task(self.read_all(), name=READ_TASK, context=Context())
            await wait_until_done(self._clock, loop_state.reading, timeout=CATCH_UP_TIMEOUT)
        self._next_read = max(self._next_read, self._monotonic() + READ_INTERVAL)

    async def read_all(self) -> None:
        """Read the log to its end; an error is reported."""
        try:
            for reader in self._current_loop_state().readers:
                await run_with_timeout(self._clock, reader.read(follow=False), timeout=READ_ALL_TIMEOUT)
        except Exception as problem:  # noqa: BLE001 - a store may raise anything
            self.report.failed(problem)

    # the lifespan

    async def start(self) -> None:
        """Read the log and begin to follow it. Calls are counted; the last `stop` ends the tasks.

        It waits until the revocations are known, unless the store cannot be reached.
        """
        loop_state = self._current_loop_state()
        loop_state.start_count += 1
        if not loop_state.is_following:
            self._follow(loop_state)
        deadline = self._monotonic() + min(self._startup_timeout, READ_TIMEOUT + SETTLING)
        try:
            while self._is_awaited(loop_state) and self._monotonic() < deadline:
                await self._clock.sleep(START_POLL)
        except BaseException:
            await self.stop()
            raise

    def _is_awaited(self, loop_state: LoopState) -> bool:
        """Check whether the start waits for the store."""
        if self.report.last_error is not None or self.is_current:
            return False
        has_read = all(reader.last_contact > _NEVER for reader in loop_state.readers)
        return self._is_closed or not has_read

    def _follow(self, loop_state: LoopState) -> None:
        for task in loop_state.tasks:
            task.cancel()
        loop_state.tasks = [asyncio.create_task(reader.follow(), name=FOLLOW_TASK) for reader in loop_state.readers]

    async def stop(self) -> None:
        """Stop following the log, after as many calls as of `start`."""
        loop_state = self._current_loop_state()
        loop_state.start_count = max(0, loop_state.start_count - 1)
        if loop_state.start_count:
            return
        tasks = [*loop_state.tasks, *([loop_state.reading] if loop_state.reading else [])]
        loop_state.tasks, loop_state.reading = [], None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _current_loop_state(self) -> LoopState:
        """Return the state of the running event loop, and remove those of closed ones.

        Raises:
            RuntimeError: No asyncio event loop runs in this thread.
        """
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._pid, self._loops = os.getpid(), {}
            self._table.reset_after_fork()
        if loop not in self._loops:
            for closed in [other for other in list(self._loops) if other.is_closed()]:
                self._loops.pop(closed, None)
            self._loops[loop] = LoopState([self._reader(team) for team in self._teams])
        return self._loops[loop]

    def _reader(self, team: str) -> LogReader:
        return LogReader(
            self._store,
            team,
            is_complete=self.is_current,
            table=self._table,
            records=self._records,
            clock=self._clock,
            report=self.report,
            changed=self._changed,
        )

    def _is_following_anywhere(self) -> bool:
        return any(state.is_following for loop, state in list(self._loops.items()) if not loop.is_closed())

    # what has been read

    def on_change(self, callback: Callable[[], None]) -> None:
        """Register a bound method that is called after revocations were added; only a weak reference is kept."""
        self._callbacks = [*filter(_is_alive, self._callbacks), WeakMethod(callback)]

    def _changed(self, *, revoked: bool) -> None:
        """Note that the end of a log was read, or that revocations were added."""
        if revoked:
            self._notify()
            return
        states = list(self._loops.values())
        self._last_contact = max((state.last_contact for state in states), default=_NEVER)
        # The readers of another loop may have been complete before a silence, and not know of it.
        complete_at = max((state.last_contact for state in states if state.is_complete), default=_NEVER)
        if complete_at > _NEVER:
            self._current_until = complete_at + MAX_SILENCE
            self._next_read = complete_at + (MAX_SILENCE if self._is_following_anywhere() else READ_INTERVAL)

    def _notify(self) -> None:
        for callback in [reference() for reference in self._callbacks]:
            try:
                if callback is not None:
                    callback()
            except Exception:  # noqa: BLE001 - the records count all the same
                log(logger, logging.ERROR, "cf-access could not end the streams of revoked callers", exc_info=True)

    # what operators do

    async def add(self, make: Callable[[int], list[Record]]) -> None:
        """Add the records that `make` returns for the time of the store.

        Raises:
            RevocationsUnavailable: They were not stored.
        """
        reader = self._current_loop_state().readers[0]
        try:
            at = await reader.time()
            self._check_time(at / MICROSECONDS)
            if not (records := make(at)):
                return
            for record in records:
                self._check_limit(record)
            await reader.append(records)
        except AccessError:
            raise
        except Exception as problem:  # noqa: BLE001 - a store may raise anything
            self.report.failed(problem)
            raise RevocationsUnavailable(f"nothing was stored: {describe_store(problem)}") from None
        self.apply(records)

    def apply(self, records: Sequence[Record]) -> None:
        """Apply records that this process has added."""
        now = self._clock.now()
        self.report.added(records[0].action, records[0].kind)
        changed = [self._table.add(record, now) for record in records]
        if any(changed):
            self._notify()

    def _check_time(self, now: float) -> None:
        skew = now - self._clock.now()
        if not abs(skew) <= MAX_CLOCK_SKEW:
            raise RevocationsUnavailable(
                f"nothing was stored: the clock of the store differs by {skew:.0f} seconds from that of this machine"
            )

    def _check_limit(self, record: Record) -> None:
        if self._table.can_add(record):
            return
        self._table.expire(self._clock.now())
        if not self._table.can_add(record):
            raise RevocationsUnavailable(f"nothing was stored: {MAX_RECORDS} revocations are in force, and no more fit")

    def records(self) -> list[Record]:
        """Return the log-outs and blocks in force."""
        now = self._clock.now()
        return [each for each in self._table.records() if each.action != "unblock" and each.ends_at > now]

    # health

    @property
    def is_current(self) -> bool:
        """Whether the revocations of all workers are known, up to the last seconds."""
        return self._monotonic() < self._current_until

    @property
    def is_ready(self) -> bool:
        """Whether requests get no 503 for the sake of revocations."""
        return self.is_current or not self._is_closed

    @property
    def is_following(self) -> bool:
        """Whether a task follows the log."""
        return self._is_following_anywhere()

    @property
    def age(self) -> float | None:
        """Seconds since the end of the log was last read; None if it never was."""
        return None if self._last_contact == _NEVER else self._monotonic() - self._last_contact

    @property
    def count(self) -> int:
        """Number of records in the table."""
        return len(self._table)


def _is_alive(reference: WeakMethod[Callable[[], None]]) -> bool:
    return reference() is not None
