"""One fetch at a time, the start, the refresher, and what belongs to a loop or a process."""

import asyncio
import os
import re
import warnings
from itertools import pairwise
from typing import Any

import pytest
from support.key_rig import KeyRig, outcome

from fastapi_cloudflare_access._keys.cache import FetchOptions
from fastapi_cloudflare_access._keys.fetcher import LoopState
from fastapi_cloudflare_access.errors import ConfigurationError, KeysUnavailable
from fastapi_cloudflare_access.events import RefreshTaskCrashed
from fastapi_cloudflare_access.settings import KeySettings

pytestmark = pytest.mark.anyio


async def started(**options: Any) -> KeyRig:
    rig = KeyRig(**options)
    await rig.keys.start()
    return rig


# The start


async def test_the_start_fetches_the_keys_before_it_returns() -> None:
    rig = await started()
    assert rig.keys.get(rig.kid)
    assert rig.certs.fetches == 1
    await rig.keys.stop()


async def test_the_start_tries_three_times_and_goes_on_without_keys() -> None:
    rig = KeyRig()
    rig.certs.fail_with(503)
    starting = asyncio.ensure_future(rig.keys.start())
    await rig.clock.run_for(10)
    assert starting.done()
    assert rig.keys.health().state == "cold"
    assert rig.keys.health().refresher_alive
    assert rig.certs.fetches >= 3
    rig.certs.recover()
    await rig.clock.run_for(5)
    assert rig.keys.health().state == "ok", "and faster than every minute"
    await rig.keys.stop()


async def test_the_start_takes_ten_seconds_at_most() -> None:
    rig = KeyRig()
    rig.certs.hang()
    starting = asyncio.ensure_future(rig.keys.start())
    await rig.clock.run_for(9.9)
    assert not starting.done()
    await rig.clock.run_for(0.2)
    assert starting.done()
    await rig.keys.stop()


async def test_a_start_that_must_have_keys_refuses_without_and_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    rig = KeyRig(fail_fast=True)
    rig.certs.fail_with(500)
    starting = asyncio.ensure_future(rig.keys.start())
    await rig.clock.run_for(10)
    with pytest.raises(KeysUnavailable) as refused:
        await starting
    assert str(refused.value) == (
        "there are no keys from https://acme.cloudflareaccess.com/cdn-cgi/access/certs: a response with HTTP status 500"
    )
    await rig.clock.run_for(1)
    assert asyncio.all_tasks() == before
    assert not rig.keys.health().refresher_alive


async def test_a_start_with_fail_fast_fails_if_no_server_responds() -> None:
    rig = KeyRig(fail_fast=True, startup_timeout=2)
    rig.certs.hang()
    starting = asyncio.ensure_future(rig.keys.start())
    await rig.clock.run_for(2)
    with pytest.raises(KeysUnavailable, match="no response in time"):
        await starting


async def test_a_start_without_time_tries_nothing_itself() -> None:
    rig = await started(startup_timeout=0)
    assert rig.certs.fetches == 0
    await rig.clock.run_for(0)
    assert rig.certs.fetches == 1
    await rig.keys.stop()


def test_keys_at_the_start_and_no_time_for_them_do_not_go_together() -> None:
    with pytest.raises(ConfigurationError, match="startup_timeout must not be 0 if fail_fast is set"):
        KeySettings(fail_fast=True, startup_timeout=0)


async def test_a_start_with_keys_at_hand_does_not_wait() -> None:
    rig = KeyRig()
    rig.keys.seed(rig.team.certs_body(), fetched_at=rig.clock.now())
    rig.certs.hang()
    await rig.keys.start()
    await rig.clock.run_for(0)
    assert rig.certs.fetches == 1
    await rig.keys.stop()


async def test_started_twice_it_stops_with_the_second_stop() -> None:
    rig = await started()
    await rig.keys.start()
    await rig.keys.stop()
    assert rig.keys.health().refresher_alive
    await rig.keys.stop()
    assert not rig.keys.health().refresher_alive
    await rig.keys.stop()
    await rig.keys.start()
    assert rig.keys.health().refresher_alive
    await rig.keys.stop()


async def test_started_three_times_it_runs_until_the_third_stop() -> None:
    rig = await started()
    await rig.keys.start()
    await rig.keys.start()
    for alive in (True, True, False):
        await rig.keys.stop()
        assert rig.keys.health().refresher_alive is alive


async def test_stopping_leaves_no_task_behind_in_the_middle_of_a_fetch() -> None:
    before = asyncio.all_tasks()
    rig = await started(jitter=False)
    rig.certs.hang()
    await rig.clock.run_for(602)
    assert rig.keys.health().fetching
    await rig.keys.stop()
    await rig.clock.run_for(0)
    assert asyncio.all_tasks() == before
    assert rig.clock.sleeping == 0


# The refresher


async def test_the_refresher_fetches_every_ten_minutes_give_or_take_a_tenth() -> None:
    rig = await started()
    await rig.clock.run_for(7200)
    starts = [request.at for request in rig.certs.requests]
    pauses = [late - early for early, late in pairwise(starts)]
    assert 300 <= pauses[0] <= 600
    assert all(540 <= pause <= 660 for pause in pauses[1:])
    assert len(set(pauses)) == len(pauses)
    await rig.keys.stop()


async def test_workers_that_start_together_drift_apart() -> None:
    rigs = [await started() for _ in range(20)]
    assert len({round(rig.keys.health().next_refresh_in, 3) for rig in rigs}) == 20
    for rig in rigs:
        await rig.keys.stop()


async def test_a_fetch_for_an_unknown_key_counts_as_a_refresh() -> None:
    rig = await started(jitter=False)
    await rig.clock.run_for(500)
    await rig.find("nobody's")
    await rig.clock.run_for(500)
    assert rig.certs.fetches == 2
    await rig.keys.stop()


async def test_a_removal_begun_by_an_unknown_key_is_confirmed_by_the_refresher_thirty_seconds_later() -> None:
    rig = await started(jitter=False)
    gone = rig.old_kid
    rig.team.withdraw()
    await rig.clock.run_for(100)
    await rig.find("nobody's")
    await rig.clock.run_for(29.9)
    assert rig.keys.get(gone)
    await rig.clock.run_for(0.2)
    assert rig.keys.get(gone) is None
    await rig.keys.stop()


async def test_a_removal_that_waits_for_its_confirmation_does_not_hurry_fetches_that_fail() -> None:
    rig = await started()
    rig.team.withdraw()
    await rig.clock.run_for(100)
    await rig.find("nobody's")
    rig.certs.fail_with(503)
    before = rig.certs.fetches
    await rig.clock.run_for(300)
    assert rig.keys.health().keys_pending_removal == 1
    assert rig.certs.fetches - before < 60
    await rig.keys.stop()


async def test_failing_refreshes_are_tried_again_within_a_minute_and_recover() -> None:
    rig = await started()
    rig.certs.fail_with(503)
    await rig.clock.run_for(3600)
    starts = [request.at for request in rig.certs.requests][2:]
    assert max(late - early for early, late in pairwise(starts)) <= 60
    rig.certs.recover()
    await rig.clock.run_for(60)
    assert rig.keys.health().consecutive_failures == 0
    await rig.keys.stop()


async def test_task_dies_and_health_says_so_and_it_lives_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig = await started()
    with monkeypatch.context() as broken:
        broken.setattr(rig.keys._cache, "due", lambda: 1 / 0)
        rig.keys._fetcher.current_loop_state().changed.set()
        await rig.clock.run_for(0)
    assert not rig.keys.health().refresher_alive
    assert RefreshTaskCrashed(timestamp=rig.clock.now(), cause="ZeroDivisionError") in rig.events
    assert re.search(
        r"restarts its refresh task, which crashed with ZeroDivisionError at \S+test_fetcher\.py:\d+", caplog.text
    )
    await rig.clock.run_for(1)
    assert rig.keys.health().refresher_alive
    await rig.clock.run_for(700)
    assert rig.certs.fetches == 2
    await rig.keys.stop()


async def test_a_cancelled_refresh_task_is_replaced_by_a_get_that_finds_the_keys_due() -> None:
    rig = await started()
    task = rig.keys._fetcher.current_loop_state().refresher
    assert task
    task.cancel()
    await rig.clock.run_for(700)
    assert not rig.keys.health().refresher_alive
    assert rig.certs.fetches == 1
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(1)
    assert rig.keys.health().refresher_alive
    assert rig.certs.fetches == 2
    await rig.keys.stop()


async def test_the_tasks_have_names() -> None:
    rig = await started()
    rig.certs.hang()
    asked = rig.ask("unknown")
    await rig.clock.run_for(1)
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert {"cloudflare-access-refresh", "cloudflare-access-fetch"} <= names
    asked.cancel()
    await rig.keys.stop()


async def test_the_refresher_joins_a_fetch_that_waits_for_its_turn_and_may_then_finish_a_removal() -> None:
    rig = await started(jitter=False, unknown_kid_burst=1, unknown_kid_interval=60)
    gone = rig.old_kid
    rig.team.withdraw()
    await rig.clock.run_for(60)
    await rig.find("first")
    await rig.clock.run_for(20)
    flight = rig.keys._fetcher.schedule_fetch(rig.keys._fetcher.current_loop_state(), FetchOptions())
    assert not flight.pending.options.may_confirm_removals
    await rig.clock.run_for(60)
    assert flight.task.done()
    assert flight.pending.options.may_confirm_removals
    assert rig.keys.get(gone) is None
    await rig.keys.stop()


async def test_the_refresh_task_reports_stale_keys_without_a_request() -> None:
    rig = await started(jitter=False)
    rig.certs.fail_with(503)
    await rig.clock.run_for(1800)
    assert rig.count("keys_stale") == 0
    await rig.clock.run_for(120)
    assert rig.count("keys_stale") == 1
    await rig.keys.stop()


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="tasks start eagerly from Python 3.12 on")
@pytest.mark.parametrize("call", ["find", "refresh"])
async def test_what_a_fetch_is_for_is_known_when_it_starts_however_early(call: str) -> None:
    rig = await started(jitter=False)
    await rig.clock.run_for(60)
    kid = rig.rotate()
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - new in 3.12
    try:
        assert await (rig.find(kid) if call == "find" else outcome(rig.keys.refresh)) == "ok"
    finally:
        asyncio.get_running_loop().set_task_factory(None)
    assert [request.headers.get("cache-control") for request in rig.certs.requests] == [None, "no-cache"]
    await rig.keys.stop()


async def test_loops_that_wait_for_their_turn_wait_for_the_back_off_of_the_others_too() -> None:
    rig = KeyRig()
    rig.certs.fail_with(503)
    rig.keys._cache._limiter._uniform = lambda low, high: high
    fetching = rig.keys._fetcher
    for _ in range(4):
        fetching.schedule_fetch(LoopState(), FetchOptions())
    await rig.clock.run_for(20)
    pauses = [late.at - early.at for early, late in pairwise(rig.certs.requests)]
    assert pauses == [1, 2, 4], "and not one gap of a second after another"


@pytest.mark.conformance(23)
async def test_under_any_flood_an_hour_sees_at_most_740_starts() -> None:
    """Unknown keys, edges that disagree, and refreshes every minute together."""
    rig = await started(refresh_interval=60)
    rig.certs.flap()
    rig.team.withdraw()
    for number in range(3600 * 2):
        _ = rig.ask(f"kid-{number}")
        await _step(rig, 0.5)
    await rig.keys.stop()
    assert 600 <= rig.certs.fetches <= 740


async def _step(rig: KeyRig, seconds: float) -> None:
    rig.clock.advance(seconds)
    for _ in range(8):
        await asyncio.sleep(0)


# Loops and processes


@pytest.mark.conformance(56)
def test_second_event_loop_works() -> None:
    rig = KeyRig()

    async def use() -> tuple[bool, int]:
        await rig.keys.start()
        key = rig.keys.get(rig.kid)
        await rig.keys.stop()
        return key is not None, rig.certs.fetches

    assert asyncio.run(use()) == (True, 1)
    assert asyncio.run(use()) == (True, 1), "the keys are kept"


def test_a_loop_that_was_closed_over_a_running_source_is_forgotten() -> None:
    rig = KeyRig(jitter=False)

    async def use() -> None:
        await rig.keys.start()
        rig.certs.hang()
        await rig.clock.run_for(602)
        assert rig.keys.health().fetching

    asyncio.run(use())
    assert not rig.keys.health().refresher_alive
    rig.certs.recover()

    async def again() -> int:
        assert rig.keys.get(rig.kid)
        await rig.keys.start()
        await rig.clock.run_for(700)
        await rig.keys.stop()
        return len(rig.keys._fetcher.loop_states())

    assert asyncio.run(again()) == 1
    assert rig.keys.health().age is not None


@pytest.mark.conformance(22, 56)
async def test_two_live_loops_each_have_their_own_fetch_over_the_same_keys() -> None:
    rig = KeyRig()
    rig.certs.hang(times=1)
    mine = rig.ask(rig.kid)
    await rig.clock.run_for(1.5)

    def other_thread() -> str:
        return asyncio.run(outcome(lambda: rig.keys.get_or_fetch(rig.kid)))

    assert await asyncio.to_thread(other_thread) == "ok"
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(10)
    assert await mine == "ok", "either fetch may bring the key"


@pytest.mark.conformance(56)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_a_forked_process_keeps_the_keys_and_begins_its_own_tasks() -> None:
    rig = KeyRig()
    asyncio.run(rig.keys.start())
    inherited = rig.keys._fetcher
    others = asyncio.new_event_loop()
    inherited._loop_states[others] = LoopState()

    async def use() -> bool:
        known = rig.keys.get(rig.kid) is not None
        await rig.keys.start()
        await rig.clock.run_for(0)
        alive = rig.keys.health().refresher_alive
        await rig.keys.stop()
        return known and alive and len(inherited._loop_states) == 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads; the child only runs a loop
        child = os.fork()
    if not child:
        os._exit(0 if asyncio.run(use()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    inherited._pid -= 1
    assert inherited.loop_states() == [], "and so it would be here, if this were the child"
    others.close()


# Retry-After


@pytest.mark.parametrize(("has_keys", "most"), [(False, 30), (True, 14)])
@pytest.mark.parametrize("started", [False, True], ids=["without a lifespan", "with a lifespan"])
async def test_an_hour_of_429_with_retry_after_costs_few_fetches(
    has_keys: bool,  # noqa: FBT001 - a parameter of the table
    most: int,
    started: bool,  # noqa: FBT001 - the same
) -> None:
    rig = KeyRig()
    if has_keys:
        assert await rig.find(rig.kid) == "ok"
    rig.certs.answer_with(b"", status=429, headers={"retry-after": "600"})
    before = rig.certs.fetches
    asking: set[asyncio.Task[str]] = set()
    starting = asyncio.ensure_future(rig.keys.start()) if started else None
    for _ in range(1800):
        if has_keys:
            assert rig.keys.get(rig.kid), "a known key is never refused for it"
        asked = [rig.ask(rig.kid), rig.ask("unknown")]
        await rig.clock.run_for(2)
        asking.update(one for one in asked if not one.done())
    if starting:
        await starting
        await rig.keys.stop()
    assert asking == set(), "no request waits for longer than it may"
    assert 10 <= rig.certs.fetches - before <= most


async def test_after_retry_after_a_request_gets_how_long_to_wait() -> None:
    rig = KeyRig(jitter=False)
    rig.certs.answer_with(b"", status=503, headers={"retry-after": "40"})
    await rig.find(rig.kid)
    with pytest.raises(KeysUnavailable) as unavailable:
        await rig.keys.get_or_fetch(rig.kid)
    assert 40 <= unavailable.value.retry_after <= 44
    await rig.clock.run_for(45)
    rig.certs.recover()
    assert await rig.find(rig.kid) == "ok"


async def test_the_start_does_not_wait_for_a_fetch_that_retry_after_forbids() -> None:
    rig = KeyRig()
    rig.certs.answer_with(b"", status=503, headers={"retry-after": "3600"})
    before = rig.clock.monotonic()
    await rig.clock.run_until(rig.keys.start())
    assert rig.clock.monotonic() - before < 1
    await rig.keys.stop()
