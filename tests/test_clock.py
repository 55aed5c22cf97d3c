"""Waiting that any clock can drive."""

import asyncio

import pytest

from fastapi_cloudflare_access._clock import SystemClock, run_with_timeout, wait_until_done
from fastapi_cloudflare_access.testing import FakeClock

pytestmark = pytest.mark.anyio


async def test_the_system_clock_shows_the_time_of_the_machine_and_sleeps() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0.001)
    assert clock.monotonic() - before >= 0.001
    assert clock.now() > 1_700_000_000


async def test_work_that_ends_in_time_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert await run_with_timeout(FakeClock(), work(), timeout=5) == 7


async def test_what_the_work_raises_is_raised() -> None:
    async def work() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await run_with_timeout(FakeClock(), work(), timeout=5)


async def test_work_that_takes_too_long_is_cancelled() -> None:
    clock, ended = FakeClock(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(run_with_timeout(clock, work(), timeout=5))
    await clock.run_for(4.9)
    assert not task.done()
    await clock.run_for(0.2)
    with pytest.raises(TimeoutError):
        await task
    assert ended.is_set()


async def test_work_that_ignores_cancellation_is_not_waited_for() -> None:
    clock, release = FakeClock(), asyncio.Event()

    async def work() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        raise LookupError

    task = asyncio.ensure_future(run_with_timeout(clock, work(), timeout=5))
    await clock.run_for(6)
    with pytest.raises(TimeoutError):
        await task
    release.set()
    await clock.run_for(0)


async def test_work_that_another_task_cancelled_counts_as_timed_out() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(TimeoutError):
        await run_with_timeout(FakeClock(), work(), timeout=5)


async def test_cancelling_the_one_who_waits_cancels_the_work() -> None:
    clock, ended = FakeClock(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(run_with_timeout(clock, work(), timeout=5))
    await clock.run_for(1)
    task.cancel()
    await clock.run_for(1)
    assert task.cancelled()
    assert ended.is_set()
    assert clock.sleeping == 0


async def test_waiting_for_a_task_leaves_the_task_alone() -> None:
    clock, release = FakeClock(), asyncio.Event()
    task = asyncio.ensure_future(release.wait())
    waiter = asyncio.ensure_future(wait_until_done(clock, task, timeout=3))
    await clock.run_for(4)
    assert await waiter is False
    assert not task.done()
    release.set()
    assert await wait_until_done(clock, task, timeout=3) is True
    assert await wait_until_done(clock, task, timeout=0) is True
    assert clock.sleeping == 0


async def test_no_time_is_no_waiting() -> None:
    task = asyncio.ensure_future(asyncio.Event().wait())
    assert await wait_until_done(FakeClock(), task, timeout=0) is False
    task.cancel()
