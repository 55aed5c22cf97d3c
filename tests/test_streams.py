"""`access.while_valid`: a WebSocket or a stream ends with the token of its caller, on the clock of the object."""

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio
import pytest
from support.stream_rig import EMAIL, LEEWAY, LIFETIME, Rig, timers, wait_forever

from fastapi_cloudflare_access import (
    AccessError,
    AccessWebSocketException,
    Claims,
    ConfigurationError,
    ServiceClaims,
    UserClaims,
)
from fastapi_cloudflare_access.errors import InvalidSignature, PolicyDenied, TokenExpired, TokenRevoked
from fastapi_cloudflare_access.events import StreamEnded
from fastapi_cloudflare_access.policies import Group
from fastapi_cloudflare_access.testing import override

pytestmark = pytest.mark.anyio

STREAMS, MAX_BYTES = 1000, 2048


@pytest.fixture
def rig() -> Rig:
    return Rig()


# the end


@pytest.mark.conformance(64)
async def test_a_stream_ends_without_an_exception_at_exp_plus_leeway(rig: Rig) -> None:
    caller, steps = await rig.caller(), list[str]()

    async def stream() -> str:
        async with rig.access.while_valid(caller) as lease:
            steps.append("open")
            await wait_forever()
            steps.append("not reached")
        return str(lease.ended)

    task = asyncio.create_task(stream())
    await rig.clock.run_for(LIFETIME + LEEWAY - 1)
    assert not task.done()
    await rig.clock.run_for(1)
    assert (await rig.finish(task), steps) == ("token_expired", ["open"])


@pytest.mark.conformance(64)
async def test_a_websocket_is_closed_with_1008_and_the_reason_code(rig: Rig) -> None:
    caller = await rig.caller(kind="websocket")

    async def handler() -> None:
        async with rig.access.while_valid(caller):
            await wait_forever()

    with pytest.raises(AccessWebSocketException) as closed:
        await rig.clock.run_until(handler())
    assert (closed.value.code, closed.value.reason) == (1008, "token_expired")
    assert isinstance(closed.value.error, TokenExpired)


async def test_the_generator_of_a_stream_ends(rig: Rig) -> None:
    caller = await rig.caller()

    async def generator() -> AsyncIterator[str]:
        async with rig.access.while_valid(caller) as lease:
            yield "first"
            await wait_forever()
        yield str(lease.ended)

    async def read() -> list[str]:
        return [item async for item in generator()]

    assert await rig.clock.run_until(read()) == ["first", "token_expired"]


async def test_a_generator_that_several_tasks_read_ends_with_the_task_of_its_request(rig: Rig) -> None:
    """As `asyncio.wait_for(anext(…))` reads one before Python 3.12, for messages that keep a connection alive."""
    read: list[str] = []

    async def generator(caller: UserClaims) -> AsyncIterator[str]:
        async with rig.access.while_valid(caller):
            yield "first"
            await wait_forever()

    async def request() -> None:
        events = generator(await rig.caller())
        with suppress(StopAsyncIteration):
            while True:
                read.append(await asyncio.create_task(next_of(events)))

    task = asyncio.create_task(request())
    await rig.clock.run_for(LIFETIME + LEEWAY)
    assert (read, task.done()) == (["first"], True)


async def next_of(events: AsyncIterator[str]) -> str:
    return await anext(events)


async def test_a_stream_that_cannot_be_ended_is_an_error_in_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async def enter() -> Any:
        lease = rig.access.while_valid(await rig.caller())
        return await lease.__aenter__()

    lease = await asyncio.create_task(enter())
    gc.collect()
    await rig.clock.run_for(LIFETIME + LEEWAY)
    assert "cf-access cannot end a stream, which outlives its token" in caplog.text
    await lease.__aexit__(None, None, None)


async def test_all_tasks_of_a_group_end(rig: Rig) -> None:
    caller, ended = await rig.caller(kind="websocket"), list[str]()

    async def work(name: str) -> None:
        try:
            await wait_forever()
        finally:
            ended.append(name)

    async def handler() -> None:
        async with rig.access.while_valid(caller), asyncio.TaskGroup() as group:
            group.create_task(work("a"))
            group.create_task(work("b"))

    async def handler_of_anyio() -> None:
        async with rig.access.while_valid(caller), anyio.create_task_group() as group:
            group.start_soon(work, "c")
            group.start_soon(work, "d")

    for each in (handler, handler_of_anyio):
        with pytest.raises(AccessWebSocketException):
            await rig.clock.run_until(each())
    assert sorted(ended) == ["a", "b", "c", "d"]


async def test_a_caller_whose_token_has_already_ended_has_a_stream_that_ends_at_its_first_await(rig: Rig) -> None:
    caller = await rig.caller()
    rig.clock.shift_wall(LIFETIME + LEEWAY)
    now = rig.clock.now()
    async with rig.access.while_valid(caller) as lease:
        await rig.clock.run_until(wait_forever())
    assert (lease.ended, rig.clock.now()) == ("token_expired", now)


@pytest.mark.conformance(64)
async def test_a_machine_that_slept_ends_the_stream_when_it_wakes(rig: Rig) -> None:
    """The monotonic clock stops while a machine sleeps."""
    caller = await rig.caller()

    async def stream() -> None:
        async with rig.access.while_valid(caller):
            await wait_forever()

    task = asyncio.create_task(stream())
    await rig.clock.run_for(5)
    rig.clock.shift_wall(LIFETIME + LEEWAY)
    await rig.clock.run_for(1)
    assert task.done()


async def test_streams_end_at_their_own_times(rig: Rig) -> None:
    order: list[int] = []

    async def stream(thirds: int) -> None:
        caller = await rig.caller(expires_in=20 * thirds)
        async with rig.access.while_valid(caller):
            await wait_forever()
        order.append(thirds)

    tasks = [asyncio.create_task(stream(thirds)) for thirds in (3, 1, 2)]
    await rig.clock.run_for(20 + LEEWAY)
    assert order == [1]
    await rig.clock.run_for(40)
    assert order == [1, 2, 3]
    assert all(task.done() for task in tasks)


async def test_each_end_is_logged_and_emitted_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastapi_cloudflare_access")

    async def handler() -> None:
        caller = await rig.caller(kind="websocket")
        async with rig.access.while_valid(caller), rig.access.while_valid(caller):
            await wait_forever()

    async with rig.access.while_valid(await rig.caller(expires_in=2 * LIFETIME)):
        with pytest.raises(AccessWebSocketException):
            await rig.clock.run_until(handler())
        assert rig.ended() == [
            StreamEnded(timestamp=rig.clock.now(), reason="token_expired", connection="websocket", open_streams=1)
        ]
    records = [record for record in caplog.records if "ended" in record.message]
    assert [(record.message, record.__dict__["reason"]) for record in records] == [
        ("cf-access ended a WebSocket: token_expired (the token has expired)", "token_expired")
    ]
    assert "ada@" not in caplog.text


async def test_an_override_never_ends_a_stream(rig: Rig) -> None:
    with override(rig.access, rig.team.user(EMAIL, expires_in=1)):
        caller = await rig.caller()
        async with rig.access.while_valid(caller) as lease:
            rig.clock.shift_wall(LIFETIME)
            await rig.clock.run_for(2)
            await lease.renew("any")
        assert lease.ended is None


# what else may happen in the body


async def test_a_stream_that_ends_by_itself_leaves_nothing_behind(rig: Rig) -> None:
    caller = await rig.caller()
    async with rig.access.while_valid(caller) as lease:
        await asyncio.sleep(0)
        assert len(timers()) == rig.clock.sleeping == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (lease.ended, timers(), rig.clock.sleeping) == (None, [], 0)


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_an_exception_of_the_body_passes_through(rig: Rig, kind: str) -> None:
    caller = await rig.caller(kind=kind)
    for raised in (ValueError, TimeoutError, GeneratorExit):
        with pytest.raises(raised):
            async with rig.access.while_valid(caller):
                raise raised


async def test_an_exception_of_the_body_at_the_end_passes_through(rig: Rig) -> None:
    caller = await rig.caller(kind="websocket")

    async def handler() -> None:
        async with rig.access.while_valid(caller):
            try:
                await wait_forever()
            finally:
                raise ValueError("of the app")

    with pytest.raises(ValueError, match="of the app"):
        await rig.clock.run_until(handler())


@pytest.mark.conformance(67)
@pytest.mark.parametrize("too", [False, True], ids=["alone", "at the end of the token too"])
async def test_a_cancellation_from_outside_is_never_swallowed(rig: Rig, *, too: bool) -> None:
    caller = await rig.caller()

    async def stream() -> str:
        async with rig.access.while_valid(caller):
            await wait_forever()
        return "went on"

    task = asyncio.create_task(stream())
    await rig.clock.run_for(1)
    if too:
        rig.access._authenticator.open_streams.end_streams_of(lambda _: True)
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rig.finish(task)


@pytest.mark.parametrize("taken_back", [0, 1], ids=["as it is", "taken back by the body"])
async def test_a_stream_of_a_task_that_is_being_cancelled_ends_alone(rig: Rig, taken_back: int) -> None:
    caller = await rig.caller()

    async def stream() -> tuple[str | None, int]:
        task = asyncio.current_task()
        assert task is not None
        with suppress(asyncio.CancelledError):
            task.cancel()
            await wait_forever()
        async with rig.access.while_valid(caller) as lease:
            try:
                await wait_forever()
            finally:
                for _ in range(taken_back):
                    task.uncancel()
        return lease.ended, task.cancelling()

    ended = await rig.clock.run_until(asyncio.create_task(stream()))
    assert ended == ("token_expired", 1 - taken_back)


async def test_a_stream_that_is_left_as_it_ends_cancels_nothing_later(rig: Rig) -> None:
    async with rig.access.while_valid(await rig.caller()) as lease:
        rig.access._authenticator.open_streams.end_streams_of(lambda _: True)
    await asyncio.sleep(0)
    assert lease.ended == "token_revoked"


async def test_a_timeout_of_the_app_works_inside_and_outside(rig: Rig) -> None:
    caller = await rig.caller()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), rig.access.while_valid(caller):
            await wait_forever()
    async with rig.access.while_valid(caller) as lease:
        with anyio.move_on_after(0):
            await wait_forever()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await wait_forever()
    assert lease.ended is None


async def test_nested_blocks_end_the_outer_one(rig: Rig) -> None:
    caller = await rig.caller()
    outer, inner = rig.access.while_valid(caller), rig.access.while_valid(caller)
    async with outer:
        async with inner:
            await rig.clock.run_until(wait_forever())
        pytest.fail("the inner block ended alone")
    assert outer.ended == inner.ended == "token_expired"


async def test_a_nested_block_of_another_caller_ends_alone(rig: Rig) -> None:
    caller = await rig.caller()
    other = await rig.access.verify(rig.token("bob@example.com", expires_in=20))
    outer, inner = rig.access.while_valid(caller), rig.access.while_valid(other)
    async with outer, inner:
        await rig.clock.run_until(wait_forever())
    assert (outer.ended, inner.ended) == (None, "token_expired")


@pytest.mark.conformance(66)
async def test_a_body_that_suppresses_the_end_of_a_websocket_is_closed(rig: Rig) -> None:
    caller = await rig.caller(kind="websocket")

    async def handler() -> None:
        async with rig.access.while_valid(caller):
            with suppress(asyncio.CancelledError):
                await wait_forever()

    with pytest.raises(AccessWebSocketException):
        await rig.clock.run_until(handler())


# renewal


async def test_a_fresh_token_of_the_same_caller_renews_the_lease(rig: Rig) -> None:
    caller = await rig.caller()
    async with rig.access.while_valid(caller) as lease:
        assert lease.caller is caller
        await rig.clock.run_for(LIFETIME)
        renewed = await lease.renew(rig.token())
        assert lease.caller is renewed
        assert renewed.exp == caller.exp + LIFETIME
        await rig.clock.run_for(LIFETIME)
        async with rig.access.while_valid(caller), rig.access.while_valid(renewed):
            await rig.clock.run_for(LEEWAY - 1)
        await rig.clock.run_until(wait_forever())
    assert lease.ended == "token_expired"


async def test_a_renewal_from_a_task_of_the_group_renews_all_blocks_of_the_connection(rig: Rig) -> None:
    caller = await rig.caller(kind="websocket")
    async with rig.access.while_valid(caller) as outer, rig.access.while_valid(caller) as inner:
        async with asyncio.TaskGroup() as group:
            group.create_task(inner.renew(rig.token(expires_in=2 * LIFETIME)))
        await rig.clock.run_for(LIFETIME + LEEWAY)
    assert outer.ended is inner.ended is None


async def test_a_token_that_ends_earlier_changes_nothing(rig: Rig) -> None:
    caller = await rig.caller()
    async with rig.access.while_valid(caller) as lease:
        assert (await lease.renew(rig.token(expires_in=20))).exp < caller.exp
        assert lease.caller is caller
        await rig.clock.run_for(LIFETIME)
    assert lease.ended is None


async def test_a_token_that_ends_at_the_same_time_changes_nothing(rig: Rig) -> None:
    caller = await rig.caller()
    async with rig.access.while_valid(caller) as lease:
        assert await lease.renew(rig.token(custom={"groups": ["a"]})) is not caller
        assert lease.caller is caller


@pytest.mark.conformance(65)
@pytest.mark.parametrize("other", ["another user", "a service", "a service of the same id"])
async def test_a_token_of_another_caller_is_refused(rig: Rig, other: str, caplog: pytest.LogCaptureFixture) -> None:
    caller = await rig.caller()
    fresh = {
        "another user": rig.token("eve@example.com"),
        "a service": rig.team.service_token("backup"),
        "a service of the same id": rig.team.service_token("backup", claims={"common_name": caller.sub}),
    }[other]
    async with rig.access.while_valid(caller) as lease:
        with pytest.raises(PolicyDenied, match="another caller"):
            await lease.renew(fresh)
        assert lease.caller is caller
    assert "refused a token in a call of verify: forbidden" in caplog.text


@pytest.mark.conformance(65)
async def test_a_bad_token_renews_nothing(rig: Rig) -> None:
    caller = await rig.caller()
    async with rig.access.while_valid(caller) as lease:
        with pytest.raises(InvalidSignature):
            await lease.renew(rig.team.forge("tampered_signature"))
        with pytest.raises(TokenExpired):
            await lease.renew(rig.team.forge("expired"))
        await rig.clock.run_until(wait_forever())
    assert lease.ended == "token_expired"


@pytest.mark.conformance(65)
async def test_the_policies_of_the_request_decide_on_a_fresh_token(rig: Rig) -> None:
    admins = rig.access.require_user(Group("admins"))
    token = rig.token(custom={"groups": ["admins"]})
    caller = await admins(connection=rig.connection(token))
    async with rig.access.while_valid(caller) as lease:
        with pytest.raises(PolicyDenied) as refused:
            await lease.renew(rig.token(expires_in=2 * LIFETIME, custom={"groups": ["users"]}))
        assert refused.value.policy == "Group('admins')"
        await lease.renew(rig.token(expires_in=2 * LIFETIME, custom={"groups": ["admins"]}))
        await rig.clock.run_for(LIFETIME + LEEWAY)
    assert lease.ended is None


async def test_a_policy_that_is_asked_for_each_message_is_asked_once_at_a_renewal(rig: Rig) -> None:
    asked: list[object] = []

    def known(caller: object) -> bool:
        asked.append(caller)
        return True

    policy, connection = rig.access.require(known), rig.connection(rig.token(), kind="websocket")
    caller, *_ = [await policy(connection=connection) for _ in range(100)]
    asked.clear()
    async with rig.access.while_valid(caller) as lease:
        await lease.renew(rig.token(expires_in=2 * LIFETIME))
    assert len(asked) == 1


@pytest.mark.conformance(65)
@pytest.mark.parametrize("source", ["header", "cookie"])
async def test_a_policy_that_needs_the_identity_asks_with_the_fresh_token(source: str) -> None:
    rig = Rig(token_sources=source)
    with rig.team.patch(rig.access):
        rig.team.set_identity(EMAIL, groups=["admins"])
        caller = await rig.access.require_user(Group("admins"))(connection=rig.connection(rig.token(), source=source))
        async with rig.access.while_valid(caller) as lease:
            renewed = await lease.renew(rig.token(expires_in=2 * LIFETIME))
            rig.team.set_identity(EMAIL, groups=["users"])
            with pytest.raises(PolicyDenied):
                await lease.renew(rig.token(expires_in=3 * LIFETIME))
            assert lease.caller is renewed


@pytest.mark.parametrize("of", [0, 1])
async def test_a_lease_of_several_objects_is_that_of_the_one_that_verified(of: int) -> None:
    rigs = [Rig(), Rig(team_domain="partner")]
    either = rigs[0].access | rigs[1].access
    rig, other = rigs[of], rigs[1 - of]
    admins = either.require(Group("admins"))
    caller: Any = await admins(connection=rig.connection(rig.token(custom={"groups": ["admins"]}), kind="websocket"))
    with pytest.raises(ConfigurationError, match="did not verify"):
        other.access.while_valid(caller)
    lease, ended = either.while_valid(caller), list[float]()

    async def handler() -> None:
        async with lease:
            await lease.renew(rig.token(expires_in=2 * LIFETIME, custom={"groups": ["admins"]}))
            for refused in (other.token(custom={"groups": ["admins"]}), rig.token(custom={"groups": []})):
                with pytest.raises(AccessError):
                    await lease.renew(refused)
            try:
                await wait_forever()
            finally:
                ended.append(rig.clock.now())

    with pytest.raises(AccessWebSocketException):
        await rig.clock.run_until(handler())
    assert ended == [caller.exp + LIFETIME + LEEWAY]


@pytest.mark.conformance(65)
async def test_a_renewal_that_comes_after_the_end_is_refused(rig: Rig) -> None:
    caller = await rig.caller()
    async with rig.access.while_valid(caller) as lease:
        rig.access._authenticator.open_streams.end_streams_of(lambda _: True)
        with pytest.raises(TokenRevoked, match="the token was revoked") as refused:
            await lease.renew(rig.token())
        assert refused.value is not lease._block.error, "all streams that ended together share that one"
        await rig.clock.run_until(wait_forever())
    assert lease.ended == "token_revoked"


async def test_a_renewal_that_waits_for_keys_at_the_end_does_not_survive_it(rig: Rig) -> None:
    caller = await rig.caller(expires_in=20)

    async def slow_renewal() -> str | None:
        async with rig.access.while_valid(caller) as lease, asyncio.TaskGroup() as group:
            await asyncio.sleep(0)
            rig.team.rotate()
            rig.certs.lag(5)
            group.create_task(lease.renew(rig.token()))
            rig.clock.shift_wall(20 + LEEWAY)
            await wait_forever()
        return lease.ended

    assert await rig.clock.run_until(slow_renewal()) == "token_expired"


async def test_a_renewal_of_another_task_that_verifies_a_token_after_the_end_is_refused(rig: Rig) -> None:
    caller = await rig.caller(expires_in=20)
    renewals: list[asyncio.Task[Any]] = []

    async def stream() -> None:
        async with rig.access.while_valid(caller) as lease:
            rig.team.rotate()
            rig.certs.lag(3)
            renewals.append(asyncio.create_task(lease.renew(rig.token())))
            await asyncio.sleep(0)
            rig.clock.shift_wall(20 + LEEWAY)
            await wait_forever()

    await rig.clock.run_until(stream())
    with pytest.raises(TokenExpired):
        await rig.clock.run_until(renewals[0])


async def test_a_lease_is_renewed_inside_its_block_only(rig: Rig) -> None:
    caller = await rig.caller()
    lease = rig.access.while_valid(caller)
    with pytest.raises(ConfigurationError, match="a lease is renewed inside its block"):
        await lease.renew(rig.token())
    async with lease:
        pass
    with pytest.raises(ConfigurationError, match="a lease is renewed inside its block"):
        await lease.renew(rig.token())


# wrong uses


async def test_a_wrong_caller_is_refused_in_one_sentence(rig: Rig) -> None:
    caller = await rig.caller()
    claims: Any = rig.team.user(EMAIL)
    wrong: dict[str, list[Any]] = {
        "access.optional returns without a token": [None],
        "pass the claims that a dependency of access returned": [EMAIL, UserClaims, rig.access.user, {"sub": "1"}],
        "did not verify for this connection": [claims, caller.model_copy(), ServiceClaims.model_construct()],
    }
    for sentence, values in wrong.items():
        for value in values:
            with pytest.raises(ConfigurationError, match=sentence):
                rig.access.while_valid(value)


async def test_a_caller_of_another_object_or_connection_is_refused(rig: Rig) -> None:
    caller: Any = await rig.caller()
    other = Rig()
    await other.caller()
    for access in (other.access, rig.access.with_audience(rig.team.audience)):
        with pytest.raises(ConfigurationError, match="did not verify for this connection"):
            access.while_valid(caller)
    await rig.caller(email="bob@example.com")
    with pytest.raises(ConfigurationError, match="did not verify for this connection"):
        rig.access.while_valid(caller)


async def test_a_refused_or_anonymous_connection_has_no_caller(rig: Rig) -> None:
    claims: Any = rig.team.user(EMAIL)
    for token in (None, rig.team.forge("expired")):
        with suppress(Exception):
            await rig.access.authenticate(rig.connection(token))
        with pytest.raises(ConfigurationError, match="did not verify"):
            rig.access.while_valid(claims)


async def test_a_token_sent_over_an_anonymous_websocket_has_a_lease_too(rig: Rig) -> None:
    assert await rig.access.authenticate(rig.connection(None, kind="websocket")) is None
    caller = await rig.access.verify(rig.token())
    with pytest.raises(AccessWebSocketException):
        async with rig.access.while_valid(caller):
            await rig.clock.run_until(wait_forever())


async def test_tokens_that_are_verified_meanwhile_do_not_hide_the_caller_of_the_connection(rig: Rig) -> None:
    caller = await rig.caller(kind="websocket")
    for _ in range(3):
        await rig.access.verify(rig.token("bob@example.com"))
    with pytest.raises(AccessWebSocketException):
        async with rig.access.while_valid(caller):
            await rig.clock.run_until(wait_forever())


async def test_a_caller_of_verify_has_a_lease_without_a_connection(rig: Rig) -> None:
    caller: Claims = await rig.access.verify(rig.token())
    async with rig.access.while_valid(caller) as lease:
        await rig.clock.run_until(wait_forever())
    assert lease.ended == "token_expired"


async def test_a_second_dependency_of_the_same_request_finds_the_same_caller(rig: Rig) -> None:
    connection = rig.connection(rig.token())
    first, second = await rig.access(connection=connection), await rig.access.user(connection=connection)
    async with rig.access.while_valid(first), rig.access.while_valid(second):
        pass


async def test_a_lease_is_entered_once(rig: Rig) -> None:
    caller = await rig.caller()
    async with rig.access.while_valid(caller) as lease:
        with pytest.raises(ConfigurationError, match=r"a lease is entered once: call access.while_valid\(caller\)"):
            await lease.__aenter__()
    with pytest.raises(ConfigurationError, match="a lease was left without being entered"):
        await rig.access.while_valid(caller).__aexit__(None, None, None)


async def test_without_an_asyncio_task_there_is_one_sentence(rig: Rig) -> None:
    caller = await rig.caller()
    with pytest.raises(ConfigurationError, match="ends an asyncio task, and none runs here"):
        await outside_a_task(rig.access.while_valid(caller))


async def outside_a_task(lease: Any) -> None:
    """Drive a coroutine by a callback, as servers with a scheduler of their own do."""
    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def drive() -> None:
        try:
            lease.__aenter__().send(None)
        except ConfigurationError as error:
            outcome.set_exception(error)

    asyncio.get_running_loop().call_soon(drive)
    await outcome


def test_without_an_event_loop_there_is_one_sentence(rig: Rig) -> None:
    caller = rig.team.user(EMAIL)
    with override(rig.access, caller) as fixed:
        rig.access._authenticator._validity.set(None)
        with pytest.raises(ConfigurationError, match="did not verify"):
            rig.access.while_valid(fixed)
        lease = asyncio.run(make_lease(rig))
        with pytest.raises(ConfigurationError, match="ends an asyncio task, and none runs here"):
            lease.__aenter__().send(None)


async def make_lease(rig: Rig) -> Any:
    return rig.access.while_valid(await rig.caller())


# what it costs


async def test_a_thousand_open_streams_cost_at_most_two_kibibytes_each_and_one_timer(rig: Rig) -> None:
    connections = [rig.connection(rig.token(), kind="websocket") for _ in range(STREAMS)]
    async with AsyncExitStack() as stack:
        callers = [await rig.access.authenticate(connection) for connection in connections]
        assert callers
        gc.collect()
        tracemalloc.start()
        try:
            for connection in connections:
                caller: Any = await rig.access.authenticate(connection)
                await stack.enter_async_context(rig.access.while_valid(caller))
            gc.collect()
            used = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        await asyncio.sleep(0)
        assert len(timers()) == rig.clock.sleeping == 1
    assert used / STREAMS <= MAX_BYTES
