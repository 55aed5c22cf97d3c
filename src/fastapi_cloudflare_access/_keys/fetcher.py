"""Fetches, one at a time for each event loop, and the task that refreshes the keys."""

import asyncio
import os
from dataclasses import dataclass, field

from fastapi_cloudflare_access._clock import ends_within, within
from fastapi_cloudflare_access._keys.cache import Errand, KeyStore, Wish
from fastapi_cloudflare_access._keys.http import Document, read_document
from fastapi_cloudflare_access._keys.snapshot import Moment
from fastapi_cloudflare_access.errors import ConfigurationError, KeysUnavailable
from fastapi_cloudflare_access.protocols import Clock, Fetch

STARTUP_ATTEMPTS = 3
"""How often the lifespan tries to fetch the keys within `startup_timeout`."""
RESTART = 1.0
"""After how many seconds a refresher that died is started again."""
LOOK_UP = 30.0
"""How often a sleeping refresher looks at the wall clock: the other one stands still while a machine sleeps."""

_ENDS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""What ends a task or the process, and is no failure of a fetch."""


@dataclass(eq=False, slots=True)
class Flight:
    """An errand under way, and its task."""

    errand: Errand
    task: "asyncio.Task[None]"


@dataclass(eq=False, slots=True)
class Life:
    """What belongs to one event loop of one process.

    Attributes:
        users: How many have started and not stopped.
        waiting: How many requests wait for a fetch.
        last_flight: The fetch under way, or the last one.
        refresher: The task that refreshes the keys.
        alive: Whether that task does its work.
        changed: Set when the refresher must look again at what is due.
    """

    users: int = 0
    waiting: int = 0
    last_flight: Flight | None = None
    refresher: "asyncio.Task[None] | None" = None
    alive: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def flight(self) -> Flight | None:
        """The fetch under way."""
        return self.last_flight if self.last_flight and not self.last_flight.task.done() else None

    @property
    def is_refreshing(self) -> bool:
        """Whether the refresher runs."""
        return self.alive and self.refresher is not None and not self.refresher.done()

    async def end(self) -> None:
        """Cancel what runs, and wait until it is gone."""
        tasks = [task for task in (self.refresher, self.last_flight and self.last_flight.task) if task]
        for task in tasks:
            task.cancel()
        self.refresher, self.alive = None, False
        await asyncio.gather(*tasks, return_exceptions=True)


class KeyFetching:
    """Runs the fetches of a key store."""

    def __init__(self, store: KeyStore, certs_url: str, *, fetch: Fetch, clock: Clock) -> None:
        """Begin with nothing under way."""
        self._store = store
        self._settings = store.settings
        self._certs_url = certs_url
        self._fetch = fetch
        self._clock = clock
        self._lives: dict[asyncio.AbstractEventLoop, Life] = {}
        self._pid = os.getpid()

    def now(self) -> Moment:
        """The time on both clocks."""
        return Moment(self._clock.monotonic(), self._clock.now())

    def lives(self) -> list[tuple[asyncio.AbstractEventLoop, Life]]:
        """Give what belongs to the open event loops of this process."""
        self._forget_other_process()
        return [(loop, life) for loop, life in list(self._lives.items()) if not loop.is_closed()]

    def life(self) -> Life:
        """Give what belongs to the running event loop, and drop what belongs to closed ones.

        Raises:
            ConfigurationError: No asyncio event loop runs in this thread.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError("the keys are fetched on an asyncio event loop, and none runs here") from None
        self._forget_other_process()
        if loop not in self._lives:
            for closed in [other for other in list(self._lives) if other.is_closed()]:
                self._lives.pop(closed, None)
        return self._lives.setdefault(loop, Life())

    def _forget_other_process(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._lives = os.getpid(), {}
            self._store.forked(self.now())

    def begin(self, life: Life, wish: Wish) -> Flight:
        """Start a fetch, as soon as the policy lets it."""
        store, now = self._store, self.now()
        cold = not store.is_usable(now)
        errand = Errand(wish, start=store.policy.book(now.monotonic, cold=cold), booked=not cold)
        store.postpone(now, errand.start + self._settings.fetch_timeout + RESTART)
        flight = life.last_flight = Flight(errand, asyncio.ensure_future(self._run(life, errand)))
        return flight

    def join_or_begin(self, life: Life, wish: Wish) -> Flight:
        """Join the fetch under way, which does what is wished unless it has begun; else start one."""
        if (flight := life.flight) is None:
            return self.begin(life, wish)
        if not flight.errand.sequence:
            flight.errand.wish.add(wish)
        return flight

    async def _run(self, life: Life, errand: Errand) -> None:
        store = self._store
        try:
            while (pause := self._start_of(errand) - self._clock.monotonic()) > 0:
                await self._clock.sleep(pause)
            began = self._clock.monotonic()
            store.begin(errand)
            document = await within(self._clock, self._settings.fetch_timeout, self._fetch_document(errand))
            at = self.now()
            store.accept(errand, document, at=at, seconds=at.monotonic - began)
        except _ENDS:
            raise
        except BaseException as problem:  # noqa: BLE001 - whatever a fetch raises, it failed
            store.reject(errand, problem, at=self.now())
        finally:
            life.changed.set()

    def _start_of(self, errand: Errand) -> float:
        """When an errand may begin: not while fetches of other loops fail, unless somebody asked for it in person."""
        if not errand.wish.at_once:
            errand.start = self._store.policy.not_before(errand.start)
        return errand.start

    async def _fetch_document(self, errand: Errand) -> Document:
        try:
            return await self._read(errand)
        except ConnectionError:
            if not self._store.book_retry(errand, self._clock.monotonic()):
                raise
        return await self._read(errand)

    async def _read(self, errand: Errand) -> Document:
        errand.known = self._store.snapshot
        return await read_document(
            self._fetch,
            self._certs_url,
            etag=None if errand.wish.no_cache else errand.known.etag,
            no_cache=errand.wish.no_cache,
        )

    async def first_keys(self, life: Life) -> None:
        """Try to get keys within `startup_timeout`.

        Raises:
            KeysUnavailable: There are none, and `fail_fast` is set.
        """
        store, deadline = self._store, self._clock.monotonic() + self._settings.startup_timeout
        for attempt in range(STARTUP_ATTEMPTS):
            if attempt:
                await self._clock.sleep(min(store.policy.retry_at, deadline) - self._clock.monotonic())
            left = deadline - self._clock.monotonic()
            if store.is_usable(self.now()) or left <= 0:
                break
            await ends_within(self._clock, left, self.join_or_begin(life, Wish()).task)
        if self._settings.fail_fast and not store.is_usable(self.now()):
            cause = store.report.last_error or "no answer in time"
            raise KeysUnavailable(f"there are no keys from {self._certs_url}: {cause}")

    def ensure_refresher(self, life: Life) -> None:
        """Start the refresher where somebody wants it and it does not run."""
        if life.users and (life.refresher is None or life.refresher.done()):
            life.alive = True
            life.refresher = asyncio.ensure_future(self._supervise(life))

    async def _supervise(self, life: Life) -> None:
        while True:
            try:
                life.alive = True
                await self._keep_fresh(life)
            except Exception as problem:  # noqa: BLE001 - whatever it died of, it lives again
                life.alive = False
                self._store.report.died(problem, self.now())
                await self._clock.sleep(RESTART)

    async def _keep_fresh(self, life: Life) -> None:
        while True:
            life.changed.clear()
            if (pause := self._store.due_in(self.now())) > 0:
                await self._sleep_unless_changed(life, min(pause, LOOK_UP))
                continue
            await asyncio.wait({self.join_or_begin(life, Wish(may_finish=True)).task})

    async def _sleep_unless_changed(self, life: Life, seconds: float) -> None:
        changed = asyncio.ensure_future(life.changed.wait())
        try:
            await ends_within(self._clock, seconds, changed)
        finally:
            changed.cancel()
