"""The limits of the questions to get-identity: so many at once, so many for one user, and pauses after failures."""

import pytest

from fastapi_cloudflare_access._identity import limits
from fastapi_cloudflare_access._identity.limits import Limiter

FAILED = "the last fetches failed"
FOR_THIS_USER = "too many fetches for this user"


def paused(*, users: int = 3, at: float = 0.0) -> Limiter:
    """A limiter after failures of so many users."""
    limiter = Limiter()
    for number in range(users):
        limiter.record_failure(f"user{number}", at)
    return limiter


# fetches at once


def test_sixty_four_fetches_are_in_flight_at_most() -> None:
    assert Limiter().wait("ada", 0, in_flight=63) is None
    for in_flight in (64, 65, 1000):
        assert Limiter().wait("ada", 0, in_flight=in_flight) == (1, "too many fetches are in flight")


def test_a_fetch_that_has_no_place_is_not_counted_for_its_user() -> None:
    limiter = Limiter()
    for _ in range(100):
        limiter.wait("ada", 0, in_flight=64)
    assert [limiter.wait("ada", 0, in_flight=0) for _ in range(10)] == [None] * 10


# fetches of one user


def test_a_user_has_ten_fetches_in_a_row_and_then_one_each_second() -> None:
    limiter = Limiter()
    assert [limiter.wait("eve", 5, in_flight=0) for _ in range(12)] == [None] * 10 + [(1, FOR_THIS_USER)] * 2
    assert limiter.wait("eve", 5.25, in_flight=0) == (0.75, FOR_THIS_USER)
    assert [limiter.wait("eve", 6, in_flight=0) for _ in range(2)] == [None, (1, FOR_THIS_USER)]
    assert [limiter.wait("eve", 8, in_flight=0) for _ in range(3)] == [None, None, (1, FOR_THIS_USER)]


def test_a_user_who_has_waited_for_long_has_ten_fetches_and_no_more() -> None:
    limiter = Limiter()
    limiter.wait("eve", 0, in_flight=0)
    answers = [limiter.wait("eve", 86_400, in_flight=0) for _ in range(11)]
    assert answers == [None] * 10 + [(1, FOR_THIS_USER)]


def test_a_user_waits_for_the_rest_of_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "USER_INTERVAL", 4.0)
    limiter = Limiter()
    for _ in range(10):
        limiter.wait("eve", 0, in_flight=0)
    assert limiter.wait("eve", 0, in_flight=0) == (4, FOR_THIS_USER)
    assert limiter.wait("eve", 3, in_flight=0) == (1, FOR_THIS_USER)
    assert limiter.wait("eve", 4, in_flight=0) is None


def test_the_fetches_of_one_user_limit_no_other() -> None:
    limiter = Limiter()
    for _ in range(20):
        limiter.wait("eve", 0, in_flight=0)
    assert limiter.wait("ada", 0, in_flight=0) is None


def test_the_fetches_of_4096_users_are_counted_and_the_one_seen_longest_ago_is_forgotten() -> None:
    limiter = Limiter()
    for number in range(4096):
        limiter.wait(f"user{number}", 0, in_flight=0)
    limiter.wait("user0", 0, in_flight=0)
    assert len(limiter._users) == 4096
    assert limiter.wait("another", 0, in_flight=0) is None
    assert len(limiter._users) == 4096
    assert "user1" not in limiter._users
    assert "user0" in limiter._users


# pauses


def test_the_failures_of_two_users_pause_nothing_and_those_of_three_pause_all() -> None:
    assert paused(users=2).wait("ada", 0, in_flight=0) is None
    assert paused(users=3).wait("ada", 0, in_flight=0) == (1, FAILED)
    assert paused(users=3, at=70).wait("ada", 70.25, in_flight=0) == (0.75, FAILED)


def test_failures_of_one_user_pause_no_other() -> None:
    limiter = Limiter()
    for _ in range(30):
        limiter.record_failure("eve", 0)
    assert limiter.wait("ada", 0, in_flight=0) is None


def test_an_answer_makes_the_failures_before_it_count_no_more() -> None:
    limiter = paused(users=2)
    limiter.record_answer()
    limiter.record_failure("user2", 0)
    assert limiter.wait("ada", 0, in_flight=0) is None


def test_each_failure_after_a_pause_doubles_it_up_to_half_a_minute() -> None:
    limiter, now, pauses = paused(), 0.0, list[float]()
    for _ in range(40):
        pause, why = limiter.wait("ada", now, in_flight=0) or (0.0, "")
        assert why == FAILED
        pauses.append(pause)
        now += pause
        limiter.record_failure("ada", now)
    assert pauses == [1, 2, 4, 8, 16] + [30] * 35


def test_a_pause_is_bounded_however_often_the_endpoint_failed() -> None:
    limiter = paused()
    for number in range(1, 1100):
        limiter.record_failure("ada", 30.0 * number)
    assert limiter.wait("ada", 30.0 * 1099, in_flight=0) == (30, FAILED)


def test_many_fetches_that_fail_at_once_pause_as_one() -> None:
    assert paused(users=64).wait("ada", 0, in_flight=0) == (1, FAILED)


def test_a_pause_ends_when_its_time_is_over_and_not_before() -> None:
    limiter = paused()
    assert limiter.wait("ada", 0.5, in_flight=0) == (0.5, FAILED)
    assert limiter.wait("ada", 1, in_flight=0) is None


def test_after_a_pause_one_fetch_at_a_time_tries_again() -> None:
    limiter = paused()
    assert limiter.wait("ada", 1, in_flight=0) is None
    for in_flight in (1, 2, 63):
        assert limiter.wait("bob", 1, in_flight=in_flight) == (1, FAILED)
    limiter.record_answer()
    assert limiter.wait("bob", 1, in_flight=1) is None


def test_an_answer_during_a_pause_ends_it_and_the_next_pause_is_short_again() -> None:
    limiter = paused()
    limiter.record_failure("ada", 1)
    limiter.record_answer()
    assert limiter.wait("ada", 1, in_flight=0) is None
    for number in range(3):
        limiter.record_failure(f"user{number}", 1)
    assert limiter.wait("ada", 1, in_flight=0) == (1, FAILED)
