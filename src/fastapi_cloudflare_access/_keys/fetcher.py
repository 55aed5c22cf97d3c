"""The fetches of the keys, one at a time for each event loop, and the task that refreshes the keys."""

import asyncio
import os
from dataclasses import dataclass, field

from fastapi_cloudflare_access._clock import run_with_timeout, wait_until_done
from fastapi_cloudflare_access._keys.cache import FetchOptions, KeySetCache, PendingFetch
from fastapi_cloudflare_access._keys.document import Document, read_document
from fastapi_cloudflare_access._keys.http import prepare
from fastapi_cloudflare_access._keys.sharing import STORE_WAIT, KeySharing
from fastapi_cloudflare_access._keys.snapshot import ClockReading
from fastapi_cloudflare_access.errors import ConfigurationError, KeysUnavailable
from fastapi_cloudflare_access.protocols import Clock, Fetch

STARTUP_ATTEMPTS = 3
"""Number of fetches that the lifespan tries within `startup_timeout`."""
RESTART_DELAY = 1.0
"""Seconds after which a refresh task that crashed is started again."""
RECHECK_INTERVAL = 1.0
"""Seconds after which a lookup checks the freshness of the keys again, if the due refresh has not succeeded."""
WALL_CLOCK_POLL = 30.0
"""Seconds after which a waiting refresh task reads the wall clock: the monotonic one stops while a machine sleeps."""

FETCH_TASK, REFRESH_TASK = "cloudflare-access-fetch", "cloudflare-access-refresh"
"""Names of the asyncio tasks, as debuggers and asyncio's own log records show them."""

_CANCELLATIONS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""Exceptions that end a task or the process, and are not a failed fetch."""


@dataclass(eq=False, slots=True)
class FetchTask:
    """A fetch and its task: scheduled, running or ended."""

    pending: PendingFetch
    task: "asyncio.Task[None]"

    @property
    def is_sent(self) -> bool:
        """Whether the request was sent; callers can then no longer add options."""
        return self.pending.sequence > 0

    @property
    def error(self) -> str | None:
        """Why it failed, in words; None after it succeeded."""
        return self.pending.error


@dataclass(eq=False, slots=True)
class LoopState:
    """The tasks and counters of one event loop of one process.

    Attributes:
        start_count: Number of `start` calls without a matching `stop`.
        waiters: Number of requests that wait for a fetch.
        last_fetch: The in-flight fetch, or the last one.
        refresher: The task that refreshes the keys.
        alive: False between a crash of that task and its restart.
        changed: Set when the time of the next refresh may have changed.
        background_tasks: The tasks that save keys to a store.
    """

    start_count: int = 0
    waiters: int = 0
    last_fetch: FetchTask | None = None
    refresher: "asyncio.Task[None] | None" = None
    alive: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    background_tasks: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])

    @property
    def in_flight(self) -> FetchTask | None:
        """The in-flight fetch, or None."""
        return self.last_fetch if self.last_fetch and not self.last_fetch.task.done() else None

    @property
    def is_refreshing(self) -> bool:
        """Whether the refresh task runs."""
        return self.alive and self.refresher is not None and not self.refresher.done()

    def add_background_task(self, task: "asyncio.Task[None]") -> None:
        """Keep a task until it ends."""
        self.background_tasks.add(task)
        task.add_done_callback(self.background_tasks.discard)

    async def cancel_tasks(self) -> None:
        """Cancel the tasks and wait until they have ended."""
        fetch = self.last_fetch and self.last_fetch.task
        tasks = [task for task in (self.refresher, fetch, *self.background_tasks) if task]
        for task in tasks:
            task.cancel()
        self.refresher, self.alive = None, False
        await asyncio.gather(*tasks, return_exceptions=True)


class KeyFetcher:
    """Fetches the keys into a `KeySetCache`."""

    def __init__(
        self,
        cache: KeySetCache,
        certs_url: str,
        *,
        fetch: Fetch,
        clock: Clock,
        sharing: KeySharing | None = None,
    ) -> None:
        """Create a fetcher; nothing is fetched yet."""
        self._cache = cache
        self._settings = cache.settings
        self._certs_url = certs_url
        self._fetch = fetch
        self._clock = clock
        self._sharing = sharing
        self._loop_states: dict[asyncio.AbstractEventLoop, LoopState] = {}
        self._pid = os.getpid()

    def now(self) -> ClockReading:
        """Return the time on both clocks."""
        return ClockReading(self._clock.monotonic(), self._clock.now())

    def loop_states(self) -> list[tuple[asyncio.AbstractEventLoop, LoopState]]:
        """Return the states of the open event loops of this process."""
        self._detect_fork()
        return [(loop, loop_state) for loop, loop_state in list(self._loop_states.items()) if not loop.is_closed()]

    def current_loop_state(self) -> LoopState:
        """Return the state of the running event loop, and remove those of closed ones.

        Raises:
            ConfigurationError: No asyncio event loop runs in this thread.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError("the keys are fetched on an asyncio event loop, and none runs here") from None
        self._detect_fork()
        if loop not in self._loop_states:
            for closed in [other for other in list(self._loop_states) if other.is_closed()]:
                self._loop_states.pop(closed, None)
        return self._loop_states.setdefault(loop, LoopState())

    def _detect_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._loop_states = os.getpid(), {}
            self._cache.reset_after_fork(self.now())

    def schedule_fetch(self, loop_state: LoopState, options: FetchOptions) -> FetchTask:
        """Start the task of a fetch, which sends the request as soon as the rate limits allow."""
        cache, now = self._cache, self.now()
        pending = cache.reserve(options, now)
        cache.schedule_next_check(now, pending.earliest_start + self._settings.fetch_timeout + RECHECK_INTERVAL)
        task = asyncio.create_task(self._run(loop_state, pending), name=FETCH_TASK)
        loop_state.last_fetch = FetchTask(pending, task)
        return loop_state.last_fetch

    def join_or_schedule(self, loop_state: LoopState, options: FetchOptions) -> FetchTask:
        """Return the in-flight fetch, or schedule one.

        The options are added to an in-flight fetch whose request is not sent yet. A later caller gets the result of the
        request as it was sent.
        """
        if (in_flight := loop_state.in_flight) is None:
            return self.schedule_fetch(loop_state, options)
        if not in_flight.is_sent:
            in_flight.pending.options.add(options)
        return in_flight

    async def _run(self, loop_state: LoopState, pending: PendingFetch) -> None:
        turn = self._sharing.turn() if self._sharing else None
        try:
            while (pause := self._postpone_by_backoff(pending) - self._clock.monotonic()) > 0:
                await self._clock.sleep(pause)
            if turn and await turn.is_served(pending):
                pending.error = None
            else:
                await self._fetch_into_cache(pending)
        except _CANCELLATIONS as ending:
            if turn and isinstance(ending, asyncio.CancelledError):
                await turn.release()
            raise
        except BaseException as problem:  # noqa: BLE001 - a fetch may raise anything; the keys stay
            self._cache.reject(pending, problem, at=self.now())
        finally:
            loop_state.changed.set()
        if turn:
            loop_state.add_background_task(turn.end())

    async def _fetch_into_cache(self, pending: PendingFetch) -> None:
        started_at = self._clock.monotonic()
        self._cache.record_start(pending)
        work = self._fetch_document(pending)
        document = await run_with_timeout(self._clock, work, timeout=self._settings.fetch_timeout)
        at = self.now()
        self._cache.accept(pending, document, at=at, seconds=at.monotonic - started_at)

    def _postpone_by_backoff(self, pending: PendingFetch) -> float:
        """Move the start of a fetch to the end of the back-off, unless the fetch is forced; return the start."""
        if not pending.options.force:
            pending.earliest_start = self._cache.not_before(pending.earliest_start)
        return pending.earliest_start

    async def _fetch_document(self, pending: PendingFetch) -> Document:
        try:
            return await self._read(pending)
        except ConnectionError:
            if not self._cache.try_reserve_retry(pending, self._clock.monotonic()):
                raise
        return await self._read(pending)

    async def _read(self, pending: PendingFetch) -> Document:
        pending.base = self._cache.snapshot
        return await read_document(
            self._fetch,
            self._certs_url,
            etag=None if pending.options.no_cache else pending.base.etag,
            no_cache=pending.options.no_cache,
        )

    async def fetch_at_startup(self, loop_state: LoopState) -> None:
        """Fetch the keys, within `startup_timeout` and `STARTUP_ATTEMPTS`.

        Raises:
            KeysUnavailable: There are none, and `fail_fast` is set.
        """
        cache, deadline = self._cache, self._clock.monotonic() + self._settings.startup_timeout
        if self._sharing and self._settings.startup_timeout:
            await self._look_at_store(self._sharing)
        for attempt in range(STARTUP_ATTEMPTS):
            if attempt and cache.retry_at > deadline:
                break
            if attempt:
                await self._clock.sleep(cache.retry_at - self._clock.monotonic())
            left = deadline - self._clock.monotonic()
            if cache.is_usable(self.now()) or left <= 0:
                break
            fetch = self.join_or_schedule(loop_state, FetchOptions())
            await wait_until_done(self._clock, fetch.task, timeout=left)
        if self._settings.fail_fast and not cache.is_usable(self.now()):
            cause = cache.last_error or "no response in time"
            raise KeysUnavailable(f"there are no keys from {self._certs_url}: {cause}")

    async def _look_at_store(self, sharing: KeySharing) -> None:
        """Use the keys of the fleet; without any, load httpx now, so that the lock is held for the fetch alone."""
        await sharing.turn().look(seconds=min(STORE_WAIT, self._settings.startup_timeout))
        if not self._cache.is_usable(self.now()):
            await prepare(self._fetch, self._certs_url)

    def ensure_refresher(self, loop_state: LoopState) -> None:
        """Start the refresh task if `start` was called and the task does not run."""
        if loop_state.start_count and (loop_state.refresher is None or loop_state.refresher.done()):
            loop_state.alive = True
            loop_state.refresher = asyncio.create_task(self._supervise(loop_state), name=REFRESH_TASK)

    async def _supervise(self, loop_state: LoopState) -> None:
        while True:
            try:
                loop_state.alive = True
                await self._keep_fresh(loop_state)
            except Exception as problem:  # noqa: BLE001 - after any error the task goes on
                loop_state.alive = False
                self._cache.record_crash(problem, self.now())
                await self._clock.sleep(RESTART_DELAY)

    async def _keep_fresh(self, loop_state: LoopState) -> None:
        while True:
            loop_state.changed.clear()
            if (pause := self._cache.due_in(self.now())) > 0:
                await self._sleep_unless_changed(loop_state, min(pause, WALL_CLOCK_POLL))
                continue
            await asyncio.wait({self.join_or_schedule(loop_state, FetchOptions(may_confirm_removals=True)).task})

    async def _sleep_unless_changed(self, loop_state: LoopState, seconds: float) -> None:
        changed = asyncio.ensure_future(loop_state.changed.wait())
        try:
            await wait_until_done(self._clock, changed, timeout=seconds)
        finally:
            changed.cancel()
