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


async def wait_until_done(clock: Clock, future: "asyncio.Future[Any]", *, timeout: float) -> bool:  # noqa: ASYNC109 - on any clock
    """Wait for a future, for at most `timeout` seconds; return whether it is done.

    The future is not cancelled, neither if the time is up nor if the caller is cancelled. Its result or exception is
    not read.
    """
    if future.done() or timeout <= 0:
        return future.done()
    alarm = asyncio.ensure_future(clock.sleep(timeout))
    try:
        await asyncio.wait({future, alarm}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        alarm.cancel()
    return future.done()


async def run_with_timeout(clock: Clock, work: Coroutine[Any, Any, T], *, timeout: float) -> T:  # noqa: ASYNC109 - the same
    """Run a coroutine for at most `timeout` seconds, and return its result.

    If the time is up or the caller is cancelled, `work` is cancelled, and its end is not waited for.

    Raises:
        TimeoutError: `work` took longer, or was cancelled.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_retrieve)
    try:
        if not await wait_until_done(clock, task, timeout=timeout) or task.cancelled():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


def _retrieve(task: "asyncio.Future[Any]") -> None:
    """Read the exception of an abandoned task, so that asyncio does not report it as never retrieved."""
    if not task.cancelled():
        task.exception()
