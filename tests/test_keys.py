"""The policy of the keys, on a fake clock: who gets which key when, and what that costs in fetches."""

import asyncio
import time
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from support.key_rig import KeyRig, outcome

from fastapi_cloudflare_access._keys.cache import FetchOptions
from fastapi_cloudflare_access._keys.fetcher import WALL_CLOCK_POLL
from fastapi_cloudflare_access.errors import ConfigurationError, KeysUnavailable, KeyUnconfirmed, TemporarilyUnavailable
from fastapi_cloudflare_access.events import KeyFetchLimited, KeysRefreshFailed
from fastapi_cloudflare_access.keys import MAX_FETCHES_PER_REQUEST, MAX_WAITERS, ExportedKeys, KeySource

pytestmark = pytest.mark.anyio

NOBODYS = "0" * 64


async def warm(**options: Any) -> KeyRig:
    """A source that has its keys, and no lifespan."""
    rig = KeyRig(**options)
    assert await rig.find(rig.kid) == "ok"
    return rig


# Known keys


@pytest.mark.conformance(11)
async def test_a_known_key_is_given_at_once() -> None:
    rig = await warm()
    assert rig.keys.get(rig.kid) is rig.keys.get(rig.kid) is not None
    assert rig.keys.get(NOBODYS) is None
    assert rig.certs.fetches == 1


async def test_known_kid_latency_unaffected_by_slow_unknown_kid_refresh() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.hang()
    waiting = rig.ask(NOBODYS)
    await rig.clock.run_for(1)
    began = time.perf_counter()
    assert all(rig.keys.get(rig.kid) for _ in range(1000))
    assert time.perf_counter() - began < 0.1, "a thousand lookups, none of which waits"
    await rig.clock.run_for(10)
    assert await waiting == "key_unconfirmed"


@pytest.mark.conformance(23)
async def test_flood_of_unknown_kids_fetches_bounded_and_known_never_fail() -> None:
    rig = await warm()
    begun = rig.clock.monotonic()
    for second in range(60):
        asked = await rig.find_all(*(f"{second}-{number}" for number in range(20)))
        assert {*asked} <= {"unknown_key", "key_unconfirmed"}
        assert rig.keys.get(rig.kid)
        await rig.clock.run_for(1)
    assert rig.certs.fetches <= 1 + 3 + (rig.clock.monotonic() - begun) / 5
    assert rig.keys.health().negative_cache_entries <= 256
    assert rig.keys.health().state == "ok", "a flood is no outage"


@pytest.mark.conformance(22)
async def test_rotation_with_many_tasks_fetches_equal_rotations() -> None:
    rig = await warm()
    for _ in range(5):
        await rig.clock.run_for(20)
        kid = rig.rotate()
        asked = await rig.find_all(*[kid] * 50)
        assert Counter(asked) == {"ok": 50}
    assert rig.certs.fetches == 1 + 5


async def test_a_lookup_attends_to_keys_that_are_due_from_the_very_moment_on_either_clock() -> None:
    for monotonic, wall in ((600, -700), (0, 600)):
        rig = await warm(jitter=False)
        rig.clock.advance(monotonic)
        rig.clock.shift_wall(wall)
        assert rig.keys.get(rig.kid)
        await rig.clock.run_for(1)
        assert rig.certs.fetches == 2


async def test_a_lookup_fetches_from_the_very_end_of_a_back_off() -> None:
    rig = await warm(jitter=False)
    rig.keys._cache._limiter._uniform = lambda low, high: high
    rig.certs.fail_with(503)
    rig.clock.advance(600)
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(0)
    rig.clock.advance(1)
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(0)
    assert rig.certs.fetches == 3


async def test_a_lookup_begins_nothing_while_fetches_are_backed_off_from_though_the_wall_clock_leaps() -> None:
    rig = await warm(jitter=False)
    rig.certs.fail_with(503)
    rig.clock.advance(600)
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(0)
    rig.clock.shift_wall(3600)
    assert rig.keys.get(rig.kid)
    assert not rig.keys.health().fetching
    with pytest.raises(KeyUnconfirmed, match="no fetch is allowed now, since the last fetch failed"):
        await rig.keys.get_or_fetch(NOBODYS)


async def test_in_a_thread_without_a_loop_keys_that_are_due_are_attended_to_once_a_second() -> None:
    rig = await warm(jitter=False)
    rig.clock.advance(600)
    loop_states, attended = rig.keys._fetcher.current_loop_state, list[float]()

    def current_loop_state() -> Any:
        attended.append(rig.clock.monotonic() - 1600)
        return loop_states()

    rig.keys._fetcher.current_loop_state = current_loop_state  # type: ignore[method-assign]

    def look() -> None:
        for _ in range(9):
            assert rig.keys.get(rig.kid)
            rig.clock.advance(0.25)

    await asyncio.to_thread(look)
    assert attended == [0, 1, 2]


# Unknown keys, by the table of the contract


@pytest.mark.conformance(11, 21)
async def test_a_fresh_key_is_found_by_one_forced_fetch() -> None:
    rig = await warm(etag=True)
    await rig.clock.run_for(10)
    kid = rig.rotate()
    assert rig.keys.get(kid) is None
    assert await rig.find(kid) == "ok"
    last = rig.certs.requests[-1].headers
    assert last["cache-control"] == "no-cache"
    assert "if-none-match" not in last


@pytest.mark.conformance(11, 23)
async def test_a_key_that_is_not_there_is_unknown_and_for_a_second_without_another_fetch() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    assert await rig.find(NOBODYS) == "unknown_key"
    assert await rig.find(NOBODYS) == "unknown_key"
    assert rig.certs.fetches == 2
    await rig.clock.run_for(1)
    assert await rig.find(NOBODYS) == "unknown_key"
    assert rig.certs.fetches == 3
    assert rig.keys.health().unknown_kid_rejections == 3


async def test_with_an_empty_bucket_a_key_is_unconfirmed_and_the_error_says_when_to_retry() -> None:
    rig = await warm(unknown_kid_burst=1)
    await rig.clock.run_for(2)
    assert await rig.find("a") == "unknown_key"
    await rig.clock.run_for(1)
    with pytest.raises(KeyUnconfirmed) as refusal:
        await rig.keys.get_or_fetch("b")
    assert refusal.value.retry_after == pytest.approx(4)
    event = rig.events[-1]
    assert isinstance(event, KeyFetchLimited)
    assert event.reason == "bucket"
    assert event.retry_after == pytest.approx(4)
    assert rig.keys.health().rate_limited == 1


async def test_within_a_second_of_a_start_the_next_fetch_waits_its_turn_and_serves_all() -> None:
    rig = await warm()
    kid = rig.rotate()
    asked = [rig.ask(kid), rig.ask(NOBODYS)]
    await rig.clock.run_for(0.9)
    assert rig.certs.fetches == 1
    await rig.clock.run_for(0.2)
    assert [await task for task in asked] == ["ok", "unknown_key"]
    assert rig.certs.fetches == 2


async def test_a_fetch_that_was_under_way_already_says_nothing_about_a_key_that_came_later() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.slow(1.5, times=1)
    first = rig.ask(NOBODYS)
    await rig.clock.run_for(0)
    kid = rig.rotate()
    second = rig.ask(kid)
    await rig.clock.run_for(2)
    assert [await first, await second] == ["unknown_key", "ok"]


async def test_failed_fetch_does_not_consume_limiter() -> None:
    rig = await warm()
    rig.keys._cache._limiter._uniform = min  # the shortest pauses, so that a fetch fails each time
    await rig.clock.run_for(20)
    rig.certs.fail_with(503)
    for _ in range(10):
        assert await rig.find(NOBODYS) == "key_unconfirmed"
        await rig.clock.run_for(2)
    rig.certs.recover()
    for number in range(3):
        assert await rig.find(f"kid-{number}") == "unknown_key"
        await rig.clock.run_for(1)


async def test_during_back_off_an_unknown_key_is_unconfirmed_and_costs_no_fetch() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.fail_with(503, times=1)
    assert await rig.find(NOBODYS) == "key_unconfirmed"
    failed = rig.events[-2]
    assert isinstance(failed, KeysRefreshFailed)
    fetches = rig.certs.fetches
    await rig.clock.run_for(failed.retry_in / 2)
    assert await rig.find(rig.rotate()) == "key_unconfirmed"
    assert rig.certs.fetches == fetches
    await rig.clock.run_for(failed.retry_in)
    assert await rig.find(rig.kid) == "ok"


async def test_a_request_waits_three_seconds_and_the_fetch_goes_on() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.slow(4)
    kid = rig.rotate()
    asked = asyncio.ensure_future(rig.keys.get_or_fetch(kid))
    await rig.clock.run_for(2.9)
    assert not asked.done()
    assert rig.keys.health().waiters == 1
    await rig.clock.run_for(0.2)
    with pytest.raises(KeyUnconfirmed) as refusal:
        await asked
    assert refusal.value.retry_after == 1
    await rig.clock.run_for(1)
    assert rig.keys.get(kid)
    assert rig.keys.health().waiters == 0


async def test_without_a_key_wait_timeout_a_request_never_waits_and_the_fetch_is_made_all_the_same() -> None:
    rig = KeyRig(key_wait_timeout=0)
    assert await rig.find(rig.kid) == "keys_unavailable"
    await rig.clock.run_for(0)
    assert await rig.find(rig.kid) == "ok"


@pytest.mark.conformance(22)
async def test_cancelled_waiter_does_not_cancel_fetch_and_engages_the_limiter() -> None:
    rig = await warm(unknown_kid_burst=1)
    await rig.clock.run_for(2)
    rig.certs.slow(1)
    kid = rig.rotate()
    impatient, patient = (rig.ask(kid) for _ in range(2))
    await rig.clock.run_for(0.5)
    impatient.cancel()
    await rig.clock.run_for(1)
    assert impatient.cancelled()
    assert await patient == "ok"
    assert await rig.find(NOBODYS) == "key_unconfirmed", "the token of the bucket is spent"


async def test_a_cancelled_fetch_is_started_again() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.hang(times=1)
    asked = rig.ask(rig.rotate())
    await rig.clock.run_for(0)
    flight = rig.keys._fetcher.current_loop_state().in_flight
    assert flight
    flight.task.cancel()
    await rig.clock.run_for(1)
    assert await asked == "ok"


async def test_a_fetch_that_is_cancelled_again_and_again_ends_the_waiting() -> None:
    rig = await warm(unknown_kid_burst=10)
    rig.certs.hang()
    asked = asyncio.ensure_future(rig.keys.get_or_fetch(NOBODYS))
    for _ in range(4):
        await rig.clock.run_for(0)
        for _, life in rig.keys._fetcher.loop_states():
            if life.in_flight:
                life.in_flight.task.cancel()
    await rig.clock.run_for(0)
    assert asked.done()
    with pytest.raises(KeyUnconfirmed, match="4 fetches ended without a result"):
        await asked


async def test_a_thousand_requests_wait_and_the_next_get_retry_after() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.slow(1)
    kid = rig.rotate()
    waiting = [rig.ask(kid) for _ in range(MAX_WAITERS + 5)]
    await rig.clock.run_for(2)
    assert Counter([await one for one in waiting]) == {"ok": MAX_WAITERS, "key_unconfirmed": 5}
    assert rig.keys.health().waiters == 0


async def test_a_probe_does_not_wait_when_as_many_requests_wait_as_may() -> None:
    rig = KeyRig()
    rig.certs.hang()
    requests = [rig.ask(rig.kid) for _ in range(MAX_WAITERS - 1)]
    await rig.clock.run_for(0)
    last, refused = (asyncio.ensure_future(rig.keys.fetch_if_unusable()) for _ in range(2))
    await rig.clock.run_for(0)
    assert (last.done(), refused.done(), rig.keys.health().waiters) == (False, True, MAX_WAITERS)
    await rig.clock.run_for(10)
    await asyncio.gather(last, *requests)
    assert rig.keys.health().waiters == 0


async def test_a_request_beyond_the_waiters_leaves_nothing_behind() -> None:
    rig = await warm()
    refreshing = asyncio.ensure_future(rig.keys.refresh())
    await rig.clock.run_for(0)
    flight = rig.keys._fetcher.current_loop_state().in_flight
    assert flight
    assert not flight.pending.sequence, "it waits for its turn"
    asked = [rig.ask(f"kid-{number}") for number in range(MAX_WAITERS + 100)]
    await rig.clock.run_for(0)
    assert len(flight.pending.options.requested_kids) == MAX_WAITERS
    await rig.clock.run_for(5)
    await refreshing
    assert {await one for one in asked} == {"unknown_key", "key_unconfirmed"}


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1.0), (2, 2.0), (3, 4.0)])
async def test_a_failed_refresh_says_when_the_back_off_ends(failures: int, seconds: float) -> None:
    rig = KeyRig()
    rig.keys._cache._limiter._uniform = lambda low, high: high if failures > 1 else low
    rig.certs.fail_with(503)
    told: list[float] = []
    for _ in range(failures):
        await rig.clock.run_for(10)
        with pytest.raises(KeysUnavailable) as refused:
            await rig.clock.run_until(rig.keys.refresh())
        told.append(refused.value.retry_after)
    assert told[-1] == seconds


async def test_a_request_that_waited_in_vain_or_could_not_wait_may_retry_in_a_second() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.hang()
    asked = [asyncio.ensure_future(rig.keys.get_or_fetch(f"kid-{number}")) for number in range(MAX_WAITERS + 1)]
    await rig.clock.run_for(4)
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert {getattr(one, "retry_after", None) for one in ended} == {1.0}
    assert [event.retry_after for event in rig.events if isinstance(event, KeyFetchLimited)] == [1.0]


def test_the_fetch_and_the_time_of_a_seed_must_be_named() -> None:

    rig = KeyRig()
    assert rig.keys.clock is rig.clock
    with pytest.raises(TypeError):
        rig.keys.seed(rig.team.certs_body(), 0.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        KeySource(rig.settings, rig.certs)  # type: ignore[call-arg]


async def test_who_refreshes_in_person_does_not_wait_for_the_back_off() -> None:
    rig = await warm()
    rig.keys._cache._limiter._uniform = lambda low, high: high
    rig.certs.fail_with(503)
    for _ in range(6):
        await rig.clock.run_for(1)
        with pytest.raises(KeysUnavailable):
            await rig.clock.run_until(rig.keys.refresh())
    rig.certs.recover()
    before = rig.clock.monotonic()
    assert rig.keys.health().next_refresh_in > 10
    await rig.clock.run_until(rig.keys.refresh())
    assert rig.clock.monotonic() - before <= 1


async def test_a_probe_with_usable_keys_starts_a_refresh_only_if_one_is_due() -> None:
    rig = await warm()
    for seconds, fetches in ((1, 1), (700, 2)):
        await rig.clock.run_for(seconds)
        await rig.keys.fetch_if_unusable()
        await rig.clock.run_for(0)
        assert rig.certs.fetches == fetches


async def test_any_text_at_all_may_be_asked_for() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    for kid in ("", "\ud800", "x" * 100_000):
        assert await rig.find(kid) in {"unknown_key", "key_unconfirmed"}


# No keys


async def test_without_keys_the_first_request_fetches_them_and_all_others_wait_for_that() -> None:
    rig = KeyRig()
    with pytest.raises(KeysUnavailable):
        rig.keys.get(rig.kid)
    assert rig.certs.fetches == 0, "a lookup alone fetches nothing while there is nothing to serve"
    assert await rig.find_all(rig.kid, rig.old_kid, NOBODYS) == ["ok", "ok", "unknown_key"]
    assert rig.certs.fetches == 1


async def test_without_keys_and_with_a_failing_endpoint_every_request_is_503_at_once() -> None:
    rig = KeyRig()
    rig.certs.fail_with(503)
    with pytest.raises(KeysUnavailable, match="no keys: a response with HTTP status 503") as refusal:
        await rig.keys.get_or_fetch(rig.kid)
    assert refusal.value.retry_after >= 1
    assert await rig.find(rig.kid) == "keys_unavailable"
    assert rig.certs.fetches == 1


async def test_no_keys_backoff_caps_at_5s_and_starts_one_fetch_in_two_and_a_half_seconds_at_most() -> None:
    rig = KeyRig()
    rig.certs.refuse()
    for _ in range(7200):
        assert await rig.find(rig.kid) == "keys_unavailable"
        rig.clock.advance(0.25)
    assert rig.certs.fetches <= 1800 / 2.5
    starts = [request.at for request in rig.certs.requests]
    assert max(late - early for early, late in pairwise(starts)) <= 5.3


async def test_waiting_requests_without_keys_get_keys_unavailable() -> None:
    rig = KeyRig()
    rig.certs.hang()
    waiting = [rig.ask(rig.kid) for _ in range(MAX_WAITERS + 1)]
    await rig.clock.run_for(4)
    assert {await one for one in waiting} == {"keys_unavailable"}


# Ages


async def test_keys_past_the_interval_are_served_at_once_while_one_fetch_renews_them() -> None:
    rig = await warm()
    await rig.clock.run_for(700)
    assert rig.certs.fetches == 1, "without a lifespan nothing runs in the background"
    for _ in range(100):
        assert rig.keys.get(rig.kid)
    await rig.clock.run_for(0)
    assert rig.certs.fetches == 2
    assert rig.keys.health().age == 0
    assert not rig.keys.health().refresher_alive


async def test_without_a_lifespan_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    rig = await warm()
    await rig.clock.run_for(700)
    rig.keys.get(rig.kid)
    await rig.clock.run_for(10)
    assert asyncio.all_tasks() == before


async def test_a_lookup_in_a_thread_without_an_event_loop_gives_the_key() -> None:
    rig = await warm()
    await rig.clock.run_for(700)
    assert await asyncio.to_thread(rig.keys.get, rig.kid)
    assert rig.certs.fetches == 1


@pytest.mark.conformance(19, 24)
async def test_failed_refresh_keeps_keys() -> None:
    rig = await warm()
    rig.certs.fail_with(503)
    for _ in range(200):
        await rig.clock.run_for(30)
        assert rig.keys.get(rig.kid)
    assert rig.keys.health().state == "degraded"
    assert rig.keys.health().last_error == "a response with HTTP status 503"


async def test_an_unknown_key_during_an_outage_is_unconfirmed_not_unknown() -> None:
    rig = await warm()
    await rig.clock.run_for(60)
    rig.certs.refuse()
    assert await rig.find(NOBODYS) == "key_unconfirmed"


@pytest.mark.conformance(24, 44)
async def test_expired_key_set_is_503_not_401() -> None:
    rig = await warm()
    rig.certs.fail_with(503)
    await rig.clock.run_for(86_400)
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(6)
    with pytest.raises(KeysUnavailable, match="too old"):
        rig.keys.get(rig.kid)
    assert await rig.find(rig.kid) == "keys_unavailable"
    assert rig.keys.health().state == "expired"
    assert not rig.keys.health().ready


async def test_outage_longer_than_max_staleness_ends_with_the_first_good_fetch() -> None:
    rig = await warm(max_staleness=3600)
    rig.certs.fail_with(503)
    await rig.clock.run_for(4000)
    assert await rig.find(rig.kid) == "keys_unavailable"
    rig.certs.recover()
    await rig.clock.run_for(5)
    assert await rig.find(rig.kid) == "ok"
    assert rig.keys.health().state == "ok"


async def test_keys_are_ready_from_their_first_fetch_until_a_day_after_the_last_one() -> None:
    rig = KeyRig()
    assert rig.keys.ready is False
    await rig.clock.run_until(rig.keys.refresh())
    rig.certs.fail_with(503)
    for seconds, ready in ((86_400, True), (1, False)):
        rig.clock.advance(seconds)
        assert rig.keys.ready is ready


async def test_after_30_minutes_health_reports_degraded_and_one_event_is_emitted() -> None:
    rig = await warm()
    rig.certs.fail_with(503)
    await rig.clock.run_for(1799)
    rig.keys.get(rig.kid)
    assert rig.keys.health().state == "ok"
    for _ in range(10):
        await rig.clock.run_for(90)
        rig.keys.get(rig.kid)
    assert rig.keys.health().state == "degraded"
    assert rig.keys.health().ready
    assert rig.count("keys_stale") == 1
    rig.certs.recover()
    await rig.clock.run_for(90)
    rig.keys.get(rig.kid)
    await rig.clock.run_for(0)
    assert rig.keys.health().state == "ok"


async def test_a_machine_that_slept_refreshes_its_keys_at_the_first_lookup() -> None:
    rig = await warm()
    rig.clock.shift_wall(3600)
    assert rig.keys.health().age == 3600
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(2)
    assert rig.keys.health().age == pytest.approx(1, abs=1.1)
    rig.clock.shift_wall(90_000)
    with pytest.raises(KeysUnavailable):
        rig.keys.get(rig.kid)


async def test_a_machine_that_slept_refreshes_its_keys_without_a_request() -> None:
    """A readiness probe keeps requests away from an app whose keys are too old."""
    rig = KeyRig(jitter=False)
    await rig.keys.start()
    await rig.clock.run_for(60)
    rig.clock.shift_wall(90_000)
    assert rig.keys.health().state == "expired"
    await rig.clock.run_for(WALL_CLOCK_POLL)
    assert rig.keys.health().state == "ok"
    assert rig.certs.fetches == 2
    await rig.clock.run_for(500)
    assert rig.certs.fetches == 2, "once, and then as always"
    await rig.keys.stop()


async def test_after_a_sleep_fetches_that_fail_are_backed_off_from() -> None:
    rig = KeyRig(jitter=False)
    await rig.keys.start()
    rig.certs.fail_with(503)
    rig.clock.shift_wall(90_000)
    await rig.clock.run_for(600)
    assert 600 / 5 <= rig.certs.fetches <= 240
    assert rig.keys.health().next_refresh_in > 0
    await rig.keys.stop()


@pytest.mark.conformance(55)
async def test_a_wall_clock_set_back_neither_ages_nor_renews_the_keys() -> None:
    rig = await warm()
    rig.clock.shift_wall(-10_000)
    await rig.clock.run_for(100)
    assert rig.keys.health().age == 100
    await rig.clock.run_for(600)
    rig.keys.get(rig.kid)
    await rig.clock.run_for(0)
    assert rig.certs.fetches == 2


async def test_a_wall_clock_set_ahead_during_an_outage_does_not_break_the_back_off() -> None:
    rig = await warm()
    rig.certs.fail_with(503)
    policy = rig.keys._cache._limiter
    while policy.retry_at - rig.clock.monotonic() < 20:
        await rig.clock.run_for(30)
        rig.keys.get(rig.kid)
        await rig.clock.run_for(0)
    fetches = rig.certs.fetches
    rig.clock.shift_wall(3600)
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(10)
    assert rig.certs.fetches == fetches


# Sets of keys


async def test_a_withdrawn_key_is_used_until_a_fetch_30_seconds_later_confirms_it() -> None:
    rig = await warm()
    gone = rig.old_kid
    rig.team.withdraw()
    await rig.clock.run_for(700)
    rig.keys.get(gone)
    await rig.clock.run_for(29)
    assert rig.keys.get(gone)
    assert rig.keys.health().keys_pending_removal == 1
    await rig.clock.run_for(1)
    rig.keys.get(gone)
    await rig.clock.run_for(0)
    assert rig.keys.get(gone) is None
    assert rig.names()[-4:] == ["keys_refreshed", "key_unpublished", "keys_refreshed", "key_removed"]


async def test_unknown_keys_can_begin_a_removal_but_never_finish_one() -> None:
    rig = await warm(refresh_interval=3600, degraded_after=7200)
    gone = rig.old_kid
    rig.team.withdraw()
    await rig.clock.run_for(2)
    assert await rig.find(NOBODYS) == "unknown_key"
    assert rig.keys.health().keys_pending_removal == 1
    for number in range(5):
        await rig.clock.run_for(5)
        assert await rig.find(f"kid-{number}") == "unknown_key"
    assert rig.keys.get(gone)


async def test_flapping_edge_does_not_drop_key() -> None:
    rig = await warm()
    both = rig.old_kid
    rig.certs.flap()
    rig.team.withdraw()
    await rig.keys.start()
    for _ in range(120):
        await rig.clock.run_for(60)
        assert rig.keys.get(both)
    assert rig.count("key_unpublished") > 1
    await rig.keys.stop()


async def test_revoked_key_gone_within_interval_plus_35s() -> None:
    for _ in range(20):
        rig = KeyRig()
        await rig.keys.start()
        await rig.clock.run_for(700)
        gone = rig.old_kid
        rig.team.withdraw()
        rig.certs.slow(1)
        await rig.clock.run_for(1.1 * 600 + 35)
        assert rig.keys.get(gone) is None
        await rig.keys.stop()


async def test_without_confirmation_a_withdrawn_key_goes_with_the_next_fetch() -> None:
    rig = await warm(removal_grace=0)
    gone = rig.old_kid
    rig.team.withdraw()
    await rig.clock.run_for(700)
    rig.keys.get(gone)
    await rig.clock.run_for(0)
    assert rig.keys.get(gone) is None


async def test_an_unchanged_document_confirms_a_removal() -> None:
    rig = await warm(etag=True)
    gone = rig.old_kid
    rig.team.withdraw()
    await rig.keys.start()
    await rig.clock.run_for(700)
    assert rig.keys.get(gone) is None
    assert rig.certs.requests[-1].headers["if-none-match"]
    await rig.keys.stop()


@pytest.mark.conformance(19)
@pytest.mark.parametrize(
    "fault", ["html", "empty", "no_keys", "garbage", "oversize", "truncate", "gzip_bomb", "hang", "stall"]
)
async def test_whatever_the_endpoint_answers_known_keys_stay(fault: str) -> None:
    rig = await warm()
    getattr(rig.certs, fault)()
    await rig.clock.run_for(700)
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(6)
    assert rig.keys.get(rig.kid)
    health = rig.keys.health()
    assert health.consecutive_failures >= 1
    assert health.last_error
    assert health.fetch_failures + health.parse_failures >= 1


async def test_a_document_that_cannot_be_used_is_counted_apart_from_one_that_did_not_come() -> None:
    rig = await warm()
    rig.certs.html(times=1)
    await rig.clock.run_for(700)
    rig.keys.get(rig.kid)
    await rig.clock.run_for(0)
    assert (rig.keys.health().fetch_failures, rig.keys.health().parse_failures) == (0, 1)


@pytest.mark.conformance(20)
async def test_a_drip_of_bytes_ends_with_the_deadline_of_the_whole_fetch() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.drip(0.5)
    asked = rig.ask(rig.rotate())
    await rig.clock.run_for(4.9)
    assert rig.keys.health().fetching
    await rig.clock.run_for(0.2)
    assert not rig.keys.health().fetching
    assert rig.keys.health().last_error == "no response in time"
    assert await asked == "key_unconfirmed"


class Panic(BaseException):
    """What extensions written in Rust raise."""


@pytest.mark.parametrize(
    "raised", [ValueError("x"), OSError(), Panic(), BaseExceptionGroup("x", [KeyboardInterrupt()])], ids=repr
)
async def test_whatever_a_fetch_raises_is_a_failed_fetch_and_backed_off_from(raised: BaseException) -> None:
    def fetch(url: str, *, headers: object) -> Any:
        raise raised

    rig = KeyRig()
    rig.keys = KeySource(rig.settings, fetch=fetch, clock=rig.clock)
    assert await rig.find(rig.kid) == "keys_unavailable"
    assert rig.keys.health().fetch_failures == rig.keys.health().consecutive_failures == 1
    starting = asyncio.ensure_future(rig.keys.start())
    await rig.clock.run_for(600)
    await starting
    await rig.keys.stop()
    assert rig.keys.health().fetches <= 240


async def test_a_fetch_that_ends_the_process_ends_it() -> None:
    """And is no failure of the endpoint."""

    def fetch(url: str, *, headers: object) -> Any:
        raise asyncio.CancelledError

    rig = KeyRig()
    rig.keys = KeySource(rig.settings, fetch=fetch, clock=rig.clock)
    flight = rig.keys._fetcher.schedule_fetch(rig.keys._fetcher.current_loop_state(), FetchOptions())
    flight.task.cancel()
    await rig.clock.run_for(1)
    assert flight.task.cancelled()
    assert rig.keys.health().fetch_failures == 0


# Freshness over HTTP


async def test_304_renews_the_age_and_nothing_else() -> None:
    rig = await warm(etag=True)
    generation = rig.keys.health().generation
    await rig.clock.run_for(700)
    rig.keys.get(rig.kid)
    await rig.clock.run_for(0)
    assert rig.keys.health().age == 0
    assert rig.keys.health().generation == generation
    assert rig.keys.get(rig.kid)
    assert "if-none-match" not in rig.certs.requests[0].headers
    assert rig.certs.requests[1].headers["if-none-match"]


@pytest.mark.parametrize("control", ["max-age=0", "no-cache", "no-store, max-age=1", "max-age=0, must-revalidate"])
async def test_max_age_zero_does_not_loop(control: str) -> None:
    rig = await warm(headers={"cache-control": control})
    await rig.keys.start()
    await rig.clock.run_for(3600)
    assert rig.certs.fetches <= 1 + 3600 / 540 + 1
    await rig.keys.stop()


async def test_max_age_shortens_the_interval_to_a_minute_at_least() -> None:
    rig = await warm(headers={"cache-control": "max-age=5"})
    await rig.keys.start()
    await rig.clock.run_for(3600)
    assert 3600 / 66 <= rig.certs.fetches <= 3600 / 54 + 2
    await rig.keys.stop()


# Second tries


async def test_a_lost_connection_is_tried_again_once_at_once() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.refuse(times=1)
    assert await rig.find(rig.rotate()) == "ok"
    assert rig.certs.fetches == 3
    assert rig.keys.health().fetches == 3
    assert rig.keys.health().fetch_failures == 0


async def test_a_second_lost_connection_is_a_failed_fetch() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.reset()
    assert await rig.find(rig.rotate()) == "key_unconfirmed"
    assert rig.certs.fetches == 3
    await rig.clock.run_for(2)
    assert await rig.find(rig.kid) == "key_unconfirmed"
    assert rig.certs.fetches == 4, "no second try after a failed fetch"


async def test_an_answer_that_is_no_good_is_not_tried_again() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.fail_with(503)
    await rig.find(NOBODYS)
    assert rig.certs.fetches == 2


# Refreshing by hand


async def test_a_lookup_that_finds_a_fetch_under_way_begins_no_other() -> None:
    rig = await warm()
    rig.certs.slow(1)
    await rig.clock.run_for(700)
    asked = rig.ask(NOBODYS)
    await rig.clock.run_for(0)
    rig.clock.shift_wall(3600)
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(2)
    assert await asked == "unknown_key"
    assert rig.certs.fetches == 2


async def test_refresh_drops_what_is_no_longer_published_at_once() -> None:
    rig = await warm()
    gone = rig.old_kid
    rig.team.withdraw()
    await rig.clock.run_for(2)
    await rig.keys.refresh()
    assert rig.keys.get(gone) is None
    assert rig.certs.requests[-1].headers["cache-control"] == "no-cache"


async def test_refresh_waits_for_the_fetch_under_way_and_makes_its_own() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.slow(2, times=1)
    asked = rig.ask(NOBODYS)
    await rig.clock.run_for(0.5)
    gone = rig.old_kid
    rig.team.withdraw()
    refreshed = asyncio.ensure_future(rig.keys.refresh())
    await rig.clock.run_for(3)
    await refreshed
    assert rig.keys.get(gone) is None
    assert await asked == "unknown_key"
    assert rig.certs.fetches == 3


async def test_refresh_joins_a_fetch_that_has_not_begun() -> None:
    rig = await warm()
    asked = rig.ask(rig.rotate())
    await rig.clock.run_for(0)
    refreshed = asyncio.ensure_future(rig.keys.refresh())
    await rig.clock.run_for(1)
    await refreshed
    assert await asked == "ok"
    assert rig.certs.fetches == 2


async def test_refresh_does_not_wait_for_the_back_off() -> None:
    rig = await warm()
    rig.certs.refuse()
    await rig.clock.run_for(100)
    assert await outcome(rig.keys.refresh) == "keys_unavailable"
    rig.certs.recover()
    refreshed = asyncio.ensure_future(rig.keys.refresh())
    await rig.clock.run_for(1)
    await refreshed
    assert rig.keys.health().last_error is None


async def test_refresh_that_fails_says_why_and_keeps_the_keys() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.redirect("https://evil.example/")
    with pytest.raises(KeysUnavailable, match="HTTP status 302; redirects are not followed") as refusal:
        await rig.keys.refresh()
    assert refusal.value.retry_after >= 1
    assert rig.keys.get(rig.kid)


async def test_a_cancelled_refresh_says_so() -> None:
    rig = await warm()
    await rig.clock.run_for(2)
    rig.certs.hang()
    refreshed = asyncio.ensure_future(rig.keys.refresh())
    await rig.clock.run_for(0)
    flight = rig.keys._fetcher.current_loop_state().in_flight
    assert flight
    flight.task.cancel()
    with pytest.raises(KeysUnavailable, match="cancelled"):
        await refreshed


# Seeds


async def test_an_exported_set_is_a_seed_for_another_source() -> None:
    rig = await warm()
    await rig.clock.run_for(100)
    exported = rig.keys.export()
    assert exported is not None
    assert exported == ExportedKeys(rig.team.certs_body(), rig.clock.now() - 100)
    other = KeyRig()
    other.clock.shift_wall(rig.clock.now() - other.clock.now())
    other.keys.seed(exported.document, fetched_at=exported.fetched_at)
    assert other.keys.health().age == pytest.approx(100)
    assert other.keys.get(rig.kid)
    assert other.keys.export() == exported


async def test_an_exported_set_cannot_be_changed() -> None:
    exported: Any = ExportedKeys(b"{}", 0.0)
    with pytest.raises(AttributeError):
        exported.fetched_at = 1.0
    assert not hasattr(exported, "__dict__")


async def test_without_keys_a_fetch_is_made_from_the_very_end_of_a_back_off() -> None:
    rig = KeyRig()
    rig.keys._cache._limiter._uniform = lambda low, high: high
    rig.certs.fail_with(503)
    assert await rig.find(rig.kid) == "keys_unavailable"
    before = rig.certs.fetches
    rig.certs.recover()
    rig.clock.advance(rig.keys._cache._limiter.retry_at - rig.clock.monotonic())
    assert await rig.find(rig.kid) == "ok"
    assert rig.certs.fetches == before + 1


async def test_nothing_is_exported_where_there_is_nothing() -> None:
    assert KeyRig().keys.export() is None


async def test_a_seed_is_refreshed_at_the_first_lookup() -> None:
    rig = KeyRig()
    rig.keys.seed(rig.team.certs_body(), fetched_at=rig.clock.now())
    assert rig.certs.fetches == 0
    assert rig.keys.get(rig.kid)
    await rig.clock.run_for(0)
    assert rig.certs.fetches == 1


async def test_a_seed_is_refreshed_by_the_refresher_at_once() -> None:
    rig = await warm()
    await rig.keys.start()
    await rig.clock.run_for(10)
    rig.keys.seed(rig.team.certs_body(), fetched_at=rig.clock.now())
    await rig.clock.run_for(0)
    assert rig.certs.fetches == 2
    await rig.keys.stop()


async def test_a_seed_as_old_as_the_hard_limit_is_no_key() -> None:
    rig = KeyRig()
    rig.keys.seed(rig.team.certs_body(), fetched_at=rig.clock.now() - 86_401)
    assert rig.keys.health().state == "expired"
    with pytest.raises(KeysUnavailable):
        rig.keys.get(rig.kid)


async def test_a_fetch_under_way_replaces_a_seed_that_came_while_it_ran() -> None:
    rig = KeyRig()
    former = rig.team.certs_body()
    rig.rotate()
    rig.certs.slow(1)
    asked = rig.ask(rig.kid)
    await rig.clock.run_for(0.5)
    rig.keys.seed(former, fetched_at=rig.clock.now() - 3600)
    await rig.clock.run_for(1)
    assert await asked == "ok"
    assert rig.keys.health().age == 0.5


async def test_a_seed_that_comes_while_a_withdrawn_key_is_given_up_does_not_keep_it() -> None:
    rig = await warm()
    former, gone = rig.team.certs_body(), rig.old_kid
    await rig.clock.run_for(60)
    rig.team.withdraw()
    rig.certs.slow(1)
    refreshing = asyncio.ensure_future(rig.keys.refresh())
    await rig.clock.run_for(0.5)
    rig.keys.seed(former, fetched_at=rig.clock.now() - 1)
    await rig.clock.run_for(1)
    await refreshing
    assert rig.keys.get(gone) is None


async def test_a_seed_is_no_fetch_and_forgets_no_error_of_one() -> None:
    rig = KeyRig()
    rig.certs.fail_with(503)
    await rig.find(rig.kid)
    rig.keys.seed(rig.team.certs_body(), fetched_at=rig.clock.now())
    assert rig.keys.health().last_error == "a response with HTTP status 503"
    assert rig.count("keys_refreshed") == 0
    assert rig.count("key_added") == 2


async def test_a_seed_older_than_the_keys_is_ignored() -> None:
    rig = await warm()
    former = rig.team.certs_body()
    await rig.clock.run_for(10)
    rig.rotate()
    assert await rig.find(rig.kid) == "ok"
    rig.keys.seed(former, fetched_at=rig.clock.now() - 10)
    assert rig.keys.get(rig.kid)


@pytest.mark.parametrize(
    ("document", "fetched_at"),
    [
        ("text", 0.0),
        (None, 0.0),
        (b"{}", 0.0),
        (b"<html>", 0.0),
        (b" " * 100_000, 0.0),
        ("certs", float("nan")),
        ("certs", float("inf")),
        ("certs", -1.0),
        ("certs", True),
        ("certs", "now"),
        ("certs", 1e12),
    ],
    ids=str,
)
async def test_a_seed_that_is_none_is_refused_in_words(document: Any, fetched_at: Any) -> None:
    rig = KeyRig()
    with pytest.raises(ConfigurationError, match=r"seed\(\)|fetched_at"):
        rig.keys.seed(rig.team.certs_body() if document == "certs" else document, fetched_at=fetched_at)
    assert rig.keys.health().state == "cold"


# Fresh keys in time


@pytest.mark.conformance(21)
@pytest.mark.parametrize("noise", [0, 1, 20])
@pytest.mark.parametrize("lag", [0, 3])
async def test_fresh_kid_accepted_within_10s_for_each_noise_x_lag(noise: int, lag: float) -> None:
    """Five requests a second with the new key, beside `noise` random ones."""
    rig = await warm()
    for second in range(40):
        for number in range(noise):
            await _ask(rig, f"{second}-{number}")
        await rig.clock.run_for(1)
    rig.certs.lag(lag)
    kid, rotated = rig.rotate(), rig.clock.monotonic()
    accepted: float | None = None
    for step in range(60):
        for number in range(noise // 5):
            await _ask(rig, f"{rotated}-{step}-{number}")
        if await _ask(rig, kid) == "ok":
            accepted = rig.clock.monotonic() - rotated
            break
        await rig.clock.run_for(0.2)
    assert accepted is not None
    assert accepted <= 9
    assert accepted < 0.2 or noise or lag


async def _ask(rig: KeyRig, kid: str) -> str | None:
    """Begin to look for a key, and say what came of it where that was at once."""
    task = rig.ask(kid)
    await rig.clock.run_for(0)
    return task.result() if task.done() else None


# The edges of what is allowed


def test_a_thousand_requests_may_wait_and_one_waits_for_four_fetches_at_most() -> None:
    assert (MAX_WAITERS, MAX_FETCHES_PER_REQUEST) == (1000, 4)


@pytest.mark.parametrize("seeded", [True, False], ids=["keys", "no keys"])
def test_without_an_event_loop_of_asyncio_an_unknown_key_is_503_and_nothing_worse(*, seeded: bool) -> None:
    rig = KeyRig()
    if seeded:
        rig.keys.seed(rig.team.certs_body(), fetched_at=rig.clock.now())
    with pytest.raises(TemporarilyUnavailable, match="asyncio") as caught:
        rig.keys.get_or_fetch(NOBODYS).send(None)
    assert caught.value.reason == ("key_unconfirmed" if seeded else "keys_unavailable")
    assert caught.value.retry_after == 1


def test_without_an_event_loop_of_asyncio_nothing_can_be_started_or_refreshed() -> None:
    keys = KeyRig().keys
    for call in (keys.start, keys.stop, keys.refresh):
        with pytest.raises(ConfigurationError, match="asyncio event loop"):
            call().send(None)


def test_a_lookup_without_keys_says_to_come_back_in_a_second() -> None:
    with pytest.raises(KeysUnavailable, match="no fetch has succeeded yet") as caught:
        KeyRig().keys.get(NOBODYS)
    assert caught.value.retry_after == 1
