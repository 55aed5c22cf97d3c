"""The machine's clocks, and waiting that any `Clock` can drive."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi_cloudflare_access.protocols import Clock

T = TypeVar("T")


class SystemClock:
    """The default [`Clock`][fastapi_cloudflare_access.protocols.Clock]: the clocks of the machine."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        await asyncio.sleep(seconds)


def is_clock(value: object) -> bool:
    """Check whether an object, not a class, has the methods of a `Clock`."""
    methods = (getattr(value, name, None) for name in ("now", "monotonic", "sleep"))
    return not isinstance(value, type) and all(map(callable, methods))


async def ends_within(clock: Clock, seconds: float, task: "asyncio.Future[Any]") -> bool:
    """Wait for a task, for at most `seconds`; return whether it ended.

    The task goes on if the time is up or the caller is cancelled. Its result or exception is not looked at.
    """
    if task.done() or seconds <= 0:
        return task.done()
    alarm = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({task, alarm}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        alarm.cancel()
    return task.done()


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; if the time is up or the caller is cancelled, cancel it without waiting for its end.

    Raises:
        TimeoutError: `work` took longer, or was cancelled.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_retrieve)
    try:
        if not await ends_within(clock, seconds, task) or task.cancelled():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


def _retrieve(task: "asyncio.Future[Any]") -> None:
    """Read the exception of an abandoned task, so that asyncio does not report it as never retrieved."""
    if not task.cancelled():
        task.exception()
