"""A clock that only the test advances, so that nothing waits in real time."""

from asyncio import AbstractEventLoop, Future, ensure_future, get_running_loop, wait
from asyncio import sleep as async_sleep
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from threading import Event, Lock
from typing import TypeVar

T = TypeVar("T")

EPOCH = 1_767_225_600.0
"""Initial wall time of a `FakeClock`: 2026-01-01T00:00:00Z, in seconds since 1970."""

_MONOTONIC_START = 1_000.0
_LOOP_ITERATIONS = 50
_OTHER_LOOP_TIMEOUT = 1.0
_MAX_STEPS = 1_000


class FakeClock:
    """A [`Clock`][fastapi_cloudflare_access.protocols.Clock] that the test advances.

    A task that sleeps on it wakes when `advance` or `run_for` reaches its time. Any thread may advance it, so it also
    works with Starlette's `TestClient`.
    """

    def __init__(self, now: float = EPOCH) -> None:
        """Start at the wall time `now`, in seconds since 1970.

        Raises:
            ValueError: The time is not finite.
        """
        self._offset = _finite(now) - _MONOTONIC_START
        self._monotonic = _MONOTONIC_START
        self._sleepers: list[_Sleeper] = []
        self._lock = Lock()

    def now(self) -> float:
        """Return the wall time in seconds since 1970."""
        return self._offset + self._monotonic

    def monotonic(self) -> float:
        """Return the monotonic time in seconds; its value is far from the wall time, to reveal confusion."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has advanced by this many seconds; wait one loop iteration for zero or less."""
        if seconds <= 0:
            await async_sleep(0)
            return
        loop = get_running_loop()
        with self._lock:
            sleeper = _Sleeper(self._monotonic + seconds, loop.create_future(), loop)
            self._sleepers.append(sleeper)
        try:
            await sleeper.woken
        finally:
            with self._lock:
                self._sleepers.remove(sleeper)

    @property
    def sleeping(self) -> int:
        """The number of tasks that sleep on this clock."""
        with self._lock:
            return len([sleeper for sleeper in self._sleepers if sleeper.is_waiting])

    def advance(self, seconds: float) -> None:
        """Advance both clocks and wake the tasks that are due.

        Tasks on an event loop in another thread, as with `TestClient`, wake one by one, each at its own time. After a
        thousand wake-ups, the rest wake at the end. Tasks on the calling event loop wake together at the end: for them
        use `run_for`.

        Raises:
            ValueError: The seconds are negative or not finite.
        """
        end = self._monotonic + _not_negative(seconds)
        for _ in range(_MAX_STEPS):
            loop = self._wake_next_on_other_loop(end)
            if loop is None or not _run_pending_callbacks(loop):
                break
        self._move_to(end)

    async def run_for(self, seconds: float) -> None:
        """Advance both clocks and wake each task at its own time.

        It does not wait for other threads or real sockets.

        Raises:
            ValueError: The seconds are negative or not finite.
        """
        end = self._monotonic + _not_negative(seconds)
        await _run_pending_tasks()
        while (due := self._next_due()) <= end:
            self._move_to(due)
            await _run_pending_tasks()
        self._move_to(end)

    async def run_until(self, work: Awaitable[T]) -> T:
        """Return the result of `work`; advance the clocks only as far as it waits."""
        task = ensure_future(work)
        try:
            await _run_pending_tasks()
            while not task.done():
                if (due := self._next_due()) < float("inf"):
                    self._move_to(due)
                    await _run_pending_tasks()
                else:
                    await wait({task})
            return task.result()
        finally:
            task.cancel()

    def shift_wall(self, seconds: float) -> None:
        """Shift the wall clock alone, back for negative seconds; no sleeping task wakes.

        Raises:
            ValueError: The seconds are not finite.
        """
        self._offset += _finite(seconds)

    def _wake_next_on_other_loop(self, end: float) -> AbstractEventLoop | None:
        """Wake the next task that is due by `end` on another thread's event loop, and return that loop."""
        with self._lock:
            others = [sleeper for sleeper in self._sleepers if sleeper.due <= end and sleeper.is_on_other_loop]
        if not others:
            return None
        sleeper = min(others, key=lambda sleeper: sleeper.due)
        self._move_to(sleeper.due)
        return sleeper.loop

    def _next_due(self) -> float:
        with self._lock:
            return min((sleeper.due for sleeper in self._sleepers if sleeper.is_waiting), default=float("inf"))

    def _move_to(self, time: float) -> None:
        with self._lock:
            self._monotonic = max(self._monotonic, time)
            due = [sleeper for sleeper in self._sleepers if sleeper.due <= self._monotonic]
        for sleeper in sorted(due, key=lambda sleeper: sleeper.due):
            sleeper.wake()


@dataclass(eq=False, slots=True)
class _Sleeper:
    due: float
    woken: Future[None]
    loop: AbstractEventLoop

    @property
    def is_waiting(self) -> bool:
        return not self.woken.done() and not self.loop.is_closed()

    @property
    def is_on_other_loop(self) -> bool:
        """Whether its event loop runs in another thread."""
        return self.is_waiting and self.loop.is_running() and self.loop is not _running_loop()

    def wake(self) -> None:
        with suppress(RuntimeError):  # its event loop may be closed
            self.loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


def _not_negative(seconds: float) -> float:
    if not _finite(seconds) >= 0:
        raise ValueError("seconds must not be negative; shift_wall() sets the wall clock back")
    return seconds


def _finite(seconds: float) -> float:
    if not isfinite(seconds):
        raise ValueError(f"seconds must be finite, not {seconds!r}")
    return seconds


def _run_pending_callbacks(loop: AbstractEventLoop) -> bool:
    """Wait until another thread's event loop has run its pending callbacks; return False on a timeout."""
    done = Event()

    def iterate(left: int) -> None:
        if left:
            loop.call_soon(iterate, left - 1)
        else:
            done.set()

    with suppress(RuntimeError):  # the loop may be closed
        loop.call_soon_threadsafe(iterate, _LOOP_ITERATIONS)
        return done.wait(_OTHER_LOOP_TIMEOUT)
    return False


def _running_loop() -> AbstractEventLoop | None:
    """Return the running event loop of this thread, or None."""
    try:
        return get_running_loop()
    except RuntimeError:
        return None


async def _run_pending_tasks() -> None:
    for _ in range(_LOOP_ITERATIONS):
        await async_sleep(0)
