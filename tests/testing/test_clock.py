"""Only the test advances the fake clock, and tasks that sleep on it wake at their times."""

from asyncio import (
    AbstractEventLoop,
    CancelledError,
    Event,
    Task,
    create_task,
    gather,
    new_event_loop,
    run_coroutine_threadsafe,
    to_thread,
)
from asyncio import sleep as async_sleep
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from threading import Thread

import pytest

from fastapi_cloudflare_access.protocols import Clock
from fastapi_cloudflare_access.testing import FakeClock
from fastapi_cloudflare_access.testing import clock as clock_module
from fastapi_cloudflare_access.testing.clock import EPOCH

pytestmark = pytest.mark.anyio


async def _turns(count: int = 5) -> None:
    for _ in range(count):
        await async_sleep(0)


async def test_it_does_not_move_by_itself() -> None:
    clock = FakeClock()
    assert (clock.now(), clock.now()) == (EPOCH, EPOCH)


async def test_it_is_a_clock_of_the_package() -> None:
    clock: Clock = FakeClock(now=5.0)
    assert clock.now() == 5.0


async def test_advance_moves_both_clocks_by_the_same_amount() -> None:
    clock = FakeClock()
    before = clock.monotonic()
    clock.advance(2.5)
    assert (clock.now() - EPOCH, clock.monotonic() - before) == (2.5, 2.5)


async def test_the_two_clocks_differ_so_that_mixing_them_up_shows() -> None:
    assert abs(FakeClock().now() - FakeClock().monotonic()) > 1e6


@pytest.mark.parametrize("seconds", [60.0, -3600.0])
async def test_shifting_the_wall_leaves_the_monotonic_clock_alone(seconds: float) -> None:
    clock = FakeClock()
    before = clock.monotonic()
    clock.shift_wall(seconds)
    assert (clock.now() - EPOCH, clock.monotonic() - before) == (seconds, 0)


async def test_a_sleeper_wakes_when_its_time_has_come_and_not_before() -> None:
    clock = FakeClock()
    task = create_task(clock.sleep(10))
    await _turns()
    clock.advance(9.999)
    await _turns()
    early = task.done()
    clock.advance(0.001)
    await _turns()
    assert (early, task.done()) == (False, True)


@pytest.mark.parametrize("seconds", [0, -1])
async def test_a_sleep_of_zero_returns_after_one_loop_iteration(seconds: float) -> None:
    clock = FakeClock()
    task = create_task(clock.sleep(seconds))
    await _turns()
    assert task.done()


async def test_run_for_wakes_sleepers_in_order_each_at_its_own_time() -> None:
    clock = FakeClock()
    start = clock.monotonic()
    seen: list[tuple[str, float]] = []

    async def tick(name: str, pause: float) -> None:
        for _ in range(3):
            await clock.sleep(pause)
            seen.append((name, clock.monotonic() - start))

    tasks = [create_task(tick("slow", 2.5)), create_task(tick("quick", 1))]
    await clock.run_for(10)
    assert seen == [("quick", 1), ("quick", 2), ("slow", 2.5), ("quick", 3), ("slow", 5), ("slow", 7.5)]
    assert all(task.done() for task in tasks)
    assert clock.monotonic() - start == 10


async def test_run_for_stops_short_of_later_sleepers() -> None:
    clock = FakeClock()
    task = create_task(clock.sleep(10))
    await clock.run_for(9)
    assert (task.done(), clock.sleeping) == (False, 1)
    await clock.run_for(1)
    assert (task.done(), clock.sleeping) == (True, 0)


async def test_one_big_step_still_wakes_the_earliest_first() -> None:
    clock = FakeClock()
    woken: list[int] = []

    async def sleep(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [create_task(sleep(seconds)) for seconds in (3, 1, 2)]
    await _turns()
    clock.advance(10)
    await gather(*tasks)
    assert woken == [1, 2, 3]


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = FakeClock()
    task = create_task(clock.sleep(10))
    await _turns()
    task.cancel()
    with suppress(CancelledError):
        await task
    assert clock.sleeping == 0
    clock.advance(10)


async def test_a_sleeper_cancelled_as_it_is_woken_does_no_harm() -> None:
    clock = FakeClock()
    task = create_task(clock.sleep(10))
    await _turns()
    clock.advance(10)
    task.cancel()
    with pytest.raises(CancelledError):
        await task
    assert clock.sleeping == 0


async def test_it_may_be_moved_from_another_thread() -> None:
    clock = FakeClock()
    task = create_task(clock.sleep(10))
    await _turns()
    await to_thread(clock.advance, 10)
    await _turns()
    assert task.done()


async def test_a_sleeper_on_a_closed_loop_is_no_longer_counted_or_waited_for() -> None:
    clock = FakeClock()
    loop = new_event_loop()

    def leave_one_sleeping() -> Task[None]:
        task = loop.create_task(clock.sleep(10))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task

    task = await to_thread(leave_one_sleeping)
    assert (task.done(), clock.sleeping) == (False, 0)
    await clock.run_for(20)


@pytest.mark.parametrize("seconds", [float("inf"), float("-inf"), float("nan")])
async def test_seconds_must_be_finite(seconds: float) -> None:
    clock = FakeClock()
    for move in (clock.advance, clock.shift_wall, FakeClock):
        with pytest.raises(ValueError, match=f"seconds must be finite, not {seconds}"):
            move(seconds)
    with pytest.raises(ValueError, match=f"seconds must be finite, not {seconds}"):
        await clock.run_for(seconds)
    assert clock.now() == EPOCH


@pytest.mark.parametrize("seconds", [-1.0, -1e9])
async def test_time_does_not_go_backwards(seconds: float) -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="shift_wall"):
        clock.advance(seconds)
    with pytest.raises(ValueError, match="shift_wall"):
        await clock.run_for(seconds)


async def test_run_until_advances_only_as_far_as_the_work_waits() -> None:
    clock = FakeClock()

    async def work() -> str:
        await clock.sleep(1)
        await clock.sleep(2)
        return "done"

    later = create_task(clock.sleep(600))
    assert await clock.run_until(work()) == "done"
    assert (clock.now() - EPOCH, later.done()) == (3, False)
    later.cancel()


async def test_run_until_waits_for_what_does_not_wait_on_the_clock() -> None:
    clock = FakeClock()
    assert await clock.run_until(to_thread(clock.now)) == EPOCH


async def test_run_until_raises_the_exception_of_the_work() -> None:
    async def work() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await FakeClock().run_until(work())


async def test_cancelling_run_until_cancels_the_work() -> None:
    clock = FakeClock()
    work = create_task(Event().wait())
    outer = create_task(clock.run_until(work))
    await _turns(60)
    outer.cancel()
    with suppress(CancelledError):
        await outer
    await _turns()
    assert work.cancelled()


@contextmanager
def loop_in_another_thread() -> Iterator[AbstractEventLoop]:
    """Run an event loop in another thread, as `TestClient` does for an app."""
    loop = new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def ticking(clock: FakeClock, seen: list[float]) -> None:
    start = clock.monotonic()
    while True:
        await clock.sleep(2)
        seen.append(clock.monotonic() - start)


def started(loop: AbstractEventLoop, clock: FakeClock, seen: list[float]) -> "Future[None]":
    work = run_coroutine_threadsafe(ticking(clock, seen), loop)
    run_coroutine_threadsafe(_turns(), loop).result()
    return work


def ended(loop: AbstractEventLoop, work: "Future[None]") -> None:
    work.cancel()
    run_coroutine_threadsafe(_turns(), loop).result()


def test_advance_wakes_the_tasks_of_another_event_loop_one_by_one() -> None:
    clock, seen = FakeClock(), list[float]()
    with loop_in_another_thread() as loop:
        work = started(loop, clock, seen)
        clock.advance(7)
        assert (seen, clock.now() - EPOCH) == ([2, 4, 6], 7)
        ended(loop, work)


def test_after_many_tasks_advance_goes_to_the_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "_MAX_STEPS", 3)
    clock, seen = FakeClock(), list[float]()
    with loop_in_another_thread() as loop:
        work = started(loop, clock, seen)
        clock.advance(1e9)
        run_coroutine_threadsafe(_turns(), loop).result()
        assert (seen, clock.now() - EPOCH) == ([2, 4, 6, 1e9], 1e9)
        ended(loop, work)


async def test_advance_does_not_wait_for_an_event_loop_that_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock_module, "_OTHER_LOOP_TIMEOUT", 0.01)
    clock = FakeClock()
    tasks = [create_task(clock.sleep(seconds)) for seconds in (1, 2)]
    await _turns()
    mover = Thread(target=clock.advance, args=(10,))
    mover.start()
    mover.join()
    assert clock.now() - EPOCH == 10
    await gather(*tasks)


def test_an_event_loop_that_is_closed_meanwhile_is_not_waited_for() -> None:
    loop = new_event_loop()
    loop.close()
    assert clock_module._run_pending_callbacks(loop) is False
