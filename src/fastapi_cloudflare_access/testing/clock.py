"""A clock that moves when the test says so; nothing ever waits in real time."""

from asyncio import AbstractEventLoop, Future, ensure_future, get_running_loop, wait
from asyncio import sleep as give_way
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from threading import Event, Lock
from typing import TypeVar

T = TypeVar("T")

EPOCH = 1_767_225_600.0
"""What a new `FakeClock` shows: 2026-01-01T00:00:00Z."""

_MONOTONIC_START = 1_000.0
_TURNS = 50
_PATIENCE = 1.0
_MOST_STEPS = 1_000


class FakeClock:
    """A [`Clock`][fastapi_cloudflare_access.protocols.Clock] driven by hand.

    Whoever sleeps on it wakes when `advance` or `run_for` has moved it far enough. It may be moved from any thread, so
    it also drives an app behind Starlette's `TestClient`.
    """

    def __init__(self, now: float = EPOCH) -> None:
        """Start at the wall time `now`, in seconds since 1970.

        Raises:
            ValueError: It is no number of seconds.
        """
        self._offset = _finite(now) - _MONOTONIC_START
        self._monotonic = _MONOTONIC_START
        self._sleepers: list[_Sleeper] = []
        self._lock = Lock()

    def now(self) -> float:
        """The wall clock, in seconds since 1970."""
        return self._offset + self._monotonic

    def monotonic(self) -> float:
        """Seconds on a clock that is never set; far from the wall clock in value, so that mix-ups show."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been moved by that many seconds; after one turn of the loop for none or less."""
        if seconds <= 0:
            await give_way(0)
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
        """How many tasks sleep on this clock."""
        with self._lock:
            return len([sleeper for sleeper in self._sleepers if sleeper.is_waiting])

    def advance(self, seconds: float) -> None:
        """Move both clocks ahead and wake whoever is due.

        Where their event loop runs in another thread, as an app's does behind Starlette's `TestClient`, this goes from
        sleeper to sleeper, a thousand at most, and lets each run as far as it gets before time moves on. Those of the
        event loop that calls it run when that next turns, all at the later time: there, `run_for` does the same.

        Raises:
            ValueError: For a negative number, or one that has no end.
        """
        end = self._monotonic + _forward(seconds)
        for _ in range(_MOST_STEPS):
            loop = self._wake_elsewhere(end)
            if loop is None or not _let_run(loop):
                break
        self._move_to(end)

    async def run_for(self, seconds: float) -> None:
        """Move ahead from sleeper to sleeper, letting every task run as far as it gets before time moves on.

        What runs in other threads or waits for real sockets is not waited for.

        Raises:
            ValueError: For a negative number, or one that has no end.
        """
        end = self._monotonic + _forward(seconds)
        await _settle()
        while (due := self._next_due()) <= end:
            self._move_to(due)
            await _settle()
        self._move_to(end)

    async def run_until(self, work: Awaitable[T]) -> T:
        """Give the result of `work`, moving ahead from sleeper to sleeper as long as it waits, and no further."""
        task = ensure_future(work)
        try:
            await _settle()
            while not task.done():
                if (due := self._next_due()) < float("inf"):
                    self._move_to(due)
                    await _settle()
                else:
                    await wait({task})
            return task.result()
        finally:
            task.cancel()

    def shift_wall(self, seconds: float) -> None:
        """Set the wall clock ahead, or back for a negative number; the monotonic clock and the sleepers stay.

        Raises:
            ValueError: For a number that has no end.
        """
        self._offset += _finite(seconds)

    def _wake_elsewhere(self, end: float) -> AbstractEventLoop | None:
        """Move to the next sleeper of another thread's event loop that is due by then, and give that loop."""
        with self._lock:
            others = [sleeper for sleeper in self._sleepers if sleeper.due <= end and sleeper.is_elsewhere]
        if not others:
            return None
        sleeper = min(others, key=lambda sleeper: sleeper.due)
        self._move_to(sleeper.due)
        return sleeper.loop

    def _next_due(self) -> float:
        with self._lock:
            return min((sleeper.due for sleeper in self._sleepers if sleeper.is_waiting), default=float("inf"))

    def _move_to(self, moment: float) -> None:
        with self._lock:
            self._monotonic = max(self._monotonic, moment)
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
    def is_elsewhere(self) -> bool:
        """Whether it sleeps on an event loop that runs in another thread."""
        return self.is_waiting and self.loop.is_running() and self.loop is not _running_loop()

    def wake(self) -> None:
        with suppress(RuntimeError):  # the loop of a sleeper may have been closed over it
            self.loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


def _forward(seconds: float) -> float:
    if not _finite(seconds) >= 0:
        raise ValueError("time only goes forward; shift_wall() sets the wall clock back")
    return seconds


def _finite(seconds: object) -> float:
    if not isinstance(seconds, int | float) or not isfinite(seconds):
        raise ValueError(f"time moves by a number of seconds, not by {seconds!r}")
    return seconds


def _let_run(loop: AbstractEventLoop) -> bool:
    """Let the event loop of another thread take its turns; give up on one that waits for this thread."""
    settled = Event()

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            settled.set()

    with suppress(RuntimeError):  # it may have been closed meanwhile
        loop.call_soon_threadsafe(turn, _TURNS)
        return settled.wait(_PATIENCE)
    return False


def _running_loop() -> AbstractEventLoop | None:
    """Give the event loop of this thread, where one runs."""
    try:
        return get_running_loop()
    except RuntimeError:
        return None


async def _settle() -> None:
    for _ in range(_TURNS):
        await give_way(0)
