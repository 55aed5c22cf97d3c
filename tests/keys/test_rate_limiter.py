"""When a fetch may start, number by number."""

from random import Random, SystemRandom
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.options import no_jitter

from fastapi_cloudflare_access._keys.rate_limiter import Decision, FetchRateLimiter
from fastapi_cloudflare_access.settings import DAY, KeySettings

NEW = "new-key"


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def policy(uniform: Any = middle, **options: Any) -> FetchRateLimiter:
    return FetchRateLimiter(KeySettings(**options), uniform=uniform)


def told(subject: FetchRateLimiter, now: float) -> tuple[Any, Any]:
    result = subject.check(NEW, now)
    return result.decision, result.retry_after


def test_three_fetches_at_once_then_one_every_five_seconds() -> None:
    subject = policy()
    for second in (100, 101, 102):
        assert subject.check(NEW, second).decision is Decision.FETCH
        assert subject.reserve(second, without_keys=False) == second
    assert told(subject, 103) == (Decision.RATE_LIMITED, pytest.approx(2))
    assert subject.check(NEW, 105).decision is Decision.FETCH
    subject.reserve(105, without_keys=False)
    assert told(subject, 106) == (Decision.RATE_LIMITED, pytest.approx(4))


def test_the_bucket_never_holds_more_than_three() -> None:
    subject = policy()
    subject.reserve(0, without_keys=False)
    for _ in range(3):
        subject.reserve(1e6, without_keys=False)
    assert subject.check(NEW, 1e6).decision is Decision.RATE_LIMITED


def test_a_second_lies_between_two_starts() -> None:
    subject = policy()
    assert subject.reserve(100, without_keys=False) == 100
    assert subject.reserve(100.4, without_keys=False) == 101
    assert subject.reserve(100.5, without_keys=True) == 102


def test_a_refresh_waits_for_its_token_as_well() -> None:
    subject = policy()
    for second in (100, 101, 102):
        subject.reserve(second, without_keys=False)
    assert subject.reserve(103, without_keys=False) == pytest.approx(105)


def test_without_keys_the_bucket_costs_nothing() -> None:
    subject = policy()
    starts = [subject.reserve(100, without_keys=True) for _ in range(6)]
    assert starts == [100, 101, 102, 103, 104, 105]
    assert subject.check(NEW, 106).decision is Decision.FETCH


def test_a_key_that_was_not_there_is_refused_for_1_2_5_15_60_and_again_60_seconds() -> None:
    subject, now = policy(), 100.0
    for pause in (1, 2, 5, 15, 60, 60):
        subject.record_miss(NEW, now)
        assert subject.check(NEW, now + pause - 0.01).decision is Decision.NOT_FOUND_CACHED
        now += pause
        assert subject.check(NEW, now).decision is Decision.FETCH


def test_each_unknown_key_has_a_schedule_of_its_own() -> None:
    subject = policy()
    subject.record_miss("other", 100)
    assert subject.check(NEW, 100).decision is Decision.FETCH


def test_a_key_that_appeared_begins_anew() -> None:
    subject = policy()
    for _ in range(5):
        subject.record_miss(NEW, 100)
    subject.forget_miss(NEW)
    subject.forget_miss("never-seen")
    assert subject.negative_cache_entries == 0
    subject.record_miss(NEW, 200)
    assert subject.check(NEW, 201).decision is Decision.FETCH


def test_256_unknown_keys_are_remembered_the_latest_ones() -> None:
    subject = policy()
    for number in range(300):
        subject.record_miss(f"kid-{number}", 100)
    assert subject.negative_cache_entries == 256
    assert subject.check("kid-43", 100).decision is Decision.FETCH
    assert subject.check("kid-44", 100).decision is Decision.NOT_FOUND_CACHED


def test_a_failed_fetch_gives_its_tokens_back() -> None:
    subject = policy()
    for second in range(20):
        subject.reserve(100 + second, without_keys=False)
        subject.failed(100 + second, usable_for=DAY, reserved=1)
    assert subject.check(NEW, 1000).decision is Decision.FETCH
    for second in (1000, 1001, 1002):
        subject.reserve(second, without_keys=False)
    assert subject.check(NEW, 1003).decision is Decision.RATE_LIMITED, "and no more than it had"


def test_after_a_failed_fetch_nothing_is_looked_for_until_the_pause_is_over() -> None:
    subject = policy()
    subject.failed(100, usable_for=DAY, reserved=0)
    assert told(subject, 100.25) == (Decision.BACKING_OFF, pytest.approx(0.5))
    assert subject.check(NEW, 100.75).decision is Decision.FETCH


@pytest.mark.parametrize(
    ("without_keys", "longest"), [(False, [1, 2, 4, 8, 16, 32, 60, 60]), (True, [1, 2, 4, 5, 5, 5, 5, 5])]
)
def test_pauses_after_failures_double_to_60_seconds_and_without_keys_to_5(
    *, without_keys: bool, longest: list[float]
) -> None:
    asked: list[tuple[float, float]] = []

    def highest(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    subject = policy(highest)
    pauses: list[float] = []
    for _ in longest:
        subject.failed(100, usable_for=0 if without_keys else DAY, reserved=0)
        pauses.append(subject.retry_at - 100)
    assert pauses == longest
    assert asked == [(0.5, high) for high in longest], "full jitter above half a second"
    assert subject.failures == len(longest)


def test_a_hundred_thousand_failures_do_no_harm() -> None:
    subject = policy()
    subject.failures = 100_000
    subject.failed(100, usable_for=DAY, reserved=0)
    assert subject.retry_at < 100 + 60


def test_a_good_fetch_ends_the_pause() -> None:
    subject = policy()
    subject.failed(100, usable_for=DAY, reserved=0)
    subject.succeeded(100.1, max_age=None)
    assert subject.failures == 0
    assert subject.check(NEW, 100.1).decision is Decision.FETCH


def test_the_first_refresh_comes_after_half_to_a_whole_interval_the_next_within_a_tenth_of_it() -> None:
    asked: list[tuple[float, float]] = []

    def lowest(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    subject = policy(lowest)
    subject.succeeded(0, max_age=None)
    assert subject.refresh_at == 300
    subject.succeeded(1000, max_age=None)
    assert subject.refresh_at == 1540
    assert asked == [(0.5, 1), (0.9, 1.1)]


def test_without_jitter_every_pause_is_the_interval() -> None:
    subject = policy(no_jitter)
    for start in (0, 1000):
        subject.succeeded(start, max_age=None)
        assert subject.refresh_at == start + 600


@pytest.mark.parametrize(("max_age", "pause"), [(None, 600), (300, 300), (3, 60), (0, 60), (86_400, 600)])
def test_max_age_may_only_shorten_and_not_below_a_minute(max_age: float | None, pause: float) -> None:
    subject = policy(no_jitter)
    subject.succeeded(0, max_age=max_age)
    assert subject.refresh_at == pause


def test_a_second_try_takes_a_token_and_there_is_none_after_a_failed_fetch() -> None:
    subject = policy()
    assert [subject.try_reserve_retry(100, without_keys=False) for _ in range(4)] == [True, True, True, False]
    assert subject.try_reserve_retry(100, without_keys=True)
    subject.failed(101, usable_for=0, reserved=0)
    assert not subject.try_reserve_retry(200, without_keys=True)


def test_chance_has_no_state_that_forked_workers_could_share() -> None:
    assert isinstance(FetchRateLimiter(KeySettings())._uniform.__self__, SystemRandom)  # type: ignore[attr-defined]


@settings(deadline=None)
@given(pauses=st.lists(st.floats(0, 30), min_size=50, max_size=120), seed=st.integers(0, 1000))
def test_an_hour_has_at_most_723_starts_whenever_requests_come(pauses: list[float], seed: int) -> None:
    """Refreshes, second tries and unknown keys together; 3 of the bucket, and one for each 5 s."""
    chance, subject, now = Random(seed), policy(), 1000.0
    starts: list[float] = []
    for pause in pauses:
        now += pause
        if chance.random() < 0.2 or subject.check(NEW, now).decision is Decision.FETCH:
            now = subject.reserve(now, without_keys=False)
            starts.append(now)
            if subject.try_reserve_retry(now, without_keys=False):
                starts.append(now)
            subject.succeeded(now, max_age=None)
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            assert last - first + 1 <= 3 + (starts[last] - starts[first]) / 5 + 1e-6


def test_starts_given_before_a_failure_are_put_off_to_the_end_of_the_back_off_one_gap_after_another() -> None:
    subject = policy()
    starts = [subject.reserve(0, without_keys=True) for _ in range(4)]
    subject.failed(0, usable_for=0, reserved=0)
    subject.retry_at = 10
    assert [subject.not_before(start) for start in starts[1:]] == [10, 11, 12]
    assert subject.not_before(10) == 10, "one that was put off already has its turn"


@pytest.mark.parametrize(
    ("without_keys", "asked", "pause"),
    [(False, 100, 105), (False, 600, 315), (False, 1e18, 315), (True, 100, 105), (True, 600, 126), (True, 0.1, 0.75)],
)
def test_retry_after_is_the_shortest_pause_within_limits(*, without_keys: bool, asked: float, pause: float) -> None:
    subject = policy()
    subject.failed(1000, usable_for=0 if without_keys else DAY, reserved=0, retry_after=asked)
    assert subject.retry_at == subject.refresh_at == pytest.approx(1000 + pause)


def test_retry_after_keeps_a_worker_whose_keys_expire_meanwhile_no_longer_than_one_without_keys() -> None:
    subject = policy()
    subject.failed(1000, usable_for=6, reserved=0, retry_after=600)
    assert subject.retry_at == pytest.approx(1000 + 1.05 * (6 + 120))
