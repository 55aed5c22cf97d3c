"""The timer of the streams: one for each event loop, which runs only while streams are open, and never fails open."""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator
from contextvars import ContextVar
from threading import Event, Thread
from typing import Any

import pytest
from support.stream_rig import LEEWAY, LIFETIME, BoundedClock, Rig, timers, wait_forever

from fastapi_cloudflare_access import AccessWebSocketException
from fastapi_cloudflare_access._requests.open_streams import LoopStreams, OpenStream, OpenStreams, Validity
from fastapi_cloudflare_access.errors import AccessError, TokenExpired, TokenRevoked
from fastapi_cloudflare_access.events import AccessEvent, StreamEnded
from fastapi_cloudflare_access.testing import FakeClock

pytestmark = pytest.mark.anyio

PATIENCE = 20.0


@pytest.fixture
def rig() -> Rig:
    return Rig()


class Ending(OpenStream):
    """A stream that keeps why it ended."""

    def __init__(self, ends_at: float, caller: Any = None) -> None:
        self.validity = Validity(caller, is_websocket=False)
        self.error: AccessError | None = None
        self._ends_at = ends_at

    @property
    def ends_at(self) -> float:
        return self._ends_at

    def end(self, error: AccessError) -> bool:
        self.error = error
        return True


async def until_ended(lease: Any) -> None:
    async with lease:
        await wait_forever()


def opened(rig: Rig) -> Any:
    return rig.access._authenticator.open_streams


async def test_the_timer_wakes_for_a_stream_that_ends_earlier_than_the_others() -> None:
    clock = FakeClock()
    streams = OpenStreams(()).of_running_loop(clock)
    late, soon = Ending(clock.now() + 100), Ending(clock.now() + 0.5)
    streams.add(late)
    await clock.run_for(0)
    streams.add(soon)
    await clock.run_for(0.5)
    assert isinstance(soon.error, TokenExpired)
    assert (late.error, len(timers()), len(streams)) == (None, 1, 1)
    streams.discard(late)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (timers(), clock.sleeping) == ([], 0)


async def test_a_stream_that_ends_when_the_timer_wakes_leaves_it_as_it_is() -> None:
    clock = FakeClock()
    streams = OpenStreams(()).of_running_loop(clock)
    both = [Ending(clock.now() + 0.5) for _ in range(2)]
    streams.add(both[0])
    await clock.run_for(0)
    before = timers()
    streams.add(both[1])
    assert timers() == before
    await clock.run_for(0.5)
    assert [type(stream.error) for stream in both] == [TokenExpired] * 2


@pytest.mark.conformance(64)
async def test_the_wall_clock_is_read_every_second() -> None:
    clock = FakeClock()
    streams = OpenStreams(()).of_running_loop(clock)
    stream = Ending(clock.now() + 1000)
    streams.add(stream)
    await clock.run_for(4.5)
    clock.shift_wall(1000)
    await clock.run_for(0.4)
    assert stream.error is None
    await clock.run_for(0.1)
    assert isinstance(stream.error, TokenExpired)


async def test_the_timer_ends_with_the_last_stream_and_starts_with_the_next() -> None:
    clock = FakeClock()
    streams = OpenStreams(()).of_running_loop(clock)
    for _ in range(2):
        stream = Ending(clock.now() + 5)
        streams.add(stream)
        await clock.run_for(5)
        assert (type(stream.error), timers(), len(streams)) == (TokenExpired, [], 0)


@pytest.mark.conformance(66)
async def test_streams_go_on_to_end_if_something_cancels_the_timer(rig: Rig) -> None:
    caller = await rig.caller()
    async with rig.access.while_valid(caller) as lease:
        await asyncio.sleep(0)
        for timer in timers():
            timer.cancel()
        await asyncio.sleep(0)
        await rig.clock.run_until(wait_forever())
    assert lease.ended == "token_expired"


@pytest.mark.conformance(66)
async def test_all_streams_end_if_the_clock_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(BoundedClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            raise OSError("no clock")

    clock = Failing()
    rig = Rig(clock=clock)
    rig.team.clock.shift_wall(clock.now() - rig.team.clock.now())
    caller = await rig.caller(kind="websocket")
    with pytest.raises(AccessWebSocketException) as closed:
        async with rig.access.while_valid(caller):
            await clock.run_until(wait_forever())
    assert (closed.value.code, closed.value.reason) == (1013, "cannot_decide")
    assert "cf-access ends the open streams, since the clock failed" in caplog.text
    assert "Traceback" in caplog.text
    await asyncio.sleep(0)
    assert timers() == []


async def test_the_timer_keeps_nothing_of_the_request_that_started_it(rig: Rig) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="empty")
    seen: list[str] = []

    def listen(event: AccessEvent) -> None:
        if isinstance(event, StreamEnded):
            seen.append(variable.get())

    rig.access._authenticator.open_streams = OpenStreams([listen])
    caller = await rig.caller()
    variable.set("of the request")
    async with rig.access.while_valid(caller):
        await rig.clock.run_until(wait_forever())
    assert seen == ["empty"]


async def test_a_listener_that_fails_stops_no_end(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def listen(event: AccessEvent) -> None:
        raise ValueError("of the listener")

    rig.access._authenticator.open_streams = OpenStreams([listen])
    caller = await rig.caller()
    async with rig.access.while_valid(caller) as lease:
        await rig.clock.run_until(wait_forever())
    assert lease.ended == "token_expired"
    assert "called a listener that failed at the event stream_ended" in caplog.text


async def test_each_clock_of_a_loop_has_a_timer(rig: Rig) -> None:
    """The testing kit replaces the clock of an object."""
    caller = await rig.caller()
    async with rig.access.while_valid(caller) as lease:
        clock = FakeClock()
        other = Ending(clock.now() + 1)
        opened(rig).of_running_loop(clock).add(other)
        await clock.run_for(1)
        assert other.error is not None
        opened(rig).of_running_loop(FakeClock())
        assert [len(streams) for streams in opened(rig)._loops.values()] == [1, 0]
        assert len(opened(rig).of_running_loop(rig.clock)) == 1  # the clock before is found again
    assert lease.ended is None


async def test_clocks_that_are_equal_have_a_timer_each() -> None:
    """A clock of an app may be a value, such as a dataclass."""

    class Equal(FakeClock):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None  # type: ignore[assignment]

    streams = OpenStreams(())
    first, second = streams.of_running_loop(Equal()), streams.of_running_loop(Equal())
    assert first is not second


# a revocation


async def test_streams_of_some_callers_end_at_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """What a revocation needs."""
    caplog.set_level(logging.INFO, "fastapi_cloudflare_access")
    ended: list[tuple[str, str | None]] = []

    async def stream(email: str) -> None:
        lease = rig.access.while_valid(await rig.caller(email=email, kind="websocket"))
        with pytest.raises(AccessWebSocketException) as closed:
            await until_ended(lease)
        assert (closed.value.code, closed.value.reason) == (1008, "token_revoked")
        ended.append((email, lease.ended))

    tasks = [asyncio.create_task(stream(f"{name}@example.com")) for name in ("ada", "bob")]
    await rig.clock.run_for(1)
    opened(rig).end_streams_of(lambda claims: claims.email == "ada@example.com")
    await rig.clock.run_for(0)
    assert ended == [("ada@example.com", "token_revoked")]
    assert [(event.reason, event.open_streams) for event in rig.ended()] == [("token_revoked", 1)]
    assert "ended a WebSocket: token_revoked (the token was revoked)" in caplog.text
    opened(rig).end_streams_of(lambda _: True)
    await rig.clock.run_for(0)
    assert len(ended) == 2
    assert all(task.done() for task in tasks)


@pytest.mark.conformance(64)
async def test_streams_that_a_revocation_spares_end_with_their_tokens() -> None:
    clock = FakeClock()
    streams = OpenStreams(()).of_running_loop(clock)
    ada, bob = (Ending(clock.now() + 5, name) for name in ("ada", "bob"))
    streams.add(ada)
    streams.add(bob)
    await clock.run_for(1)
    streams.end_matching(lambda caller: caller == "ada", TokenRevoked("the token was revoked"))
    await clock.run_for(3)
    assert (type(ada.error), bob.error) == (TokenRevoked, None)
    await clock.run_for(1)
    assert isinstance(bob.error, TokenExpired)


async def test_a_revocation_of_all_streams_stops_the_timer() -> None:
    clock = FakeClock()
    streams = OpenStreams(()).of_running_loop(clock)
    streams.add(Ending(clock.now() + 5))
    await clock.run_for(1)
    streams.end_matching(lambda _: True, TokenRevoked("the token was revoked"))
    await clock.run_for(0)
    assert (timers(), clock.sleeping) == ([], 0)


def test_streams_of_every_event_loop_end(rig: Rig) -> None:
    ready, outcomes = [Event(), Event()], list[str | None]()

    async def stream(number: int) -> None:
        caller = await rig.caller()
        async with rig.access.while_valid(caller) as lease:
            ready[number].set()
            await wait_forever()
        outcomes.append(lease.ended)

    threads = [Thread(target=asyncio.run, args=[stream(number)], daemon=True) for number in range(2)]
    for thread, event in zip(threads, ready, strict=True):
        thread.start()
        assert event.wait(PATIENCE)
    opened(rig).end_streams_of(lambda _: True)
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert outcomes == ["token_revoked", "token_revoked"]
    opened(rig).end_streams_of(lambda _: True)  # the loops are closed


# loops and processes


def test_a_caller_that_is_verified_without_an_event_loop_of_asyncio_has_no_task() -> None:
    """As in a server on Trio."""
    assert Validity("ada", is_websocket=False).task is None


async def abandon(rig: Rig) -> None:
    """Leave a stream open on a loop that ends."""
    opened(rig).of_running_loop(rig.clock).add(Ending(rig.clock.now() + LIFETIME))


@pytest.fixture
def without_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no timer, which a loop would be closed over."""
    monkeypatch.setattr(LoopStreams, "_start_timer", lambda _: None)


@pytest.mark.usefixtures("without_timer")
def test_streams_of_closed_loops_are_forgotten(rig: Rig) -> None:
    asyncio.run(abandon(rig))
    asyncio.run(abandon(rig))
    assert len(opened(rig)._loops) == 1


@pytest.mark.usefixtures("without_timer")
@pytest.mark.parametrize("distance", [1, -1])
def test_a_forked_process_forgets_the_streams_of_its_parent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, distance: int
) -> None:
    async def open_one() -> int:
        await abandon(rig)
        parent = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + distance)
        opened(rig).of_running_loop(FakeClock())
        return sum(len(streams) for streams in opened(rig)._loops.values())

    assert asyncio.run(open_one()) == 0


async def test_a_generator_that_is_not_read_to_its_end_keeps_no_stream(rig: Rig) -> None:
    caller = await rig.caller()

    async def generator() -> AsyncIterator[str]:
        async with rig.access.while_valid(caller):
            yield "first"

    async for _ in generator():
        break
    gc.collect()
    await rig.clock.run_for(LIFETIME + LEEWAY)
    assert (timers(), rig.ended()) == ([], [])
