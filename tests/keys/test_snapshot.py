"""How a fetched set changes the keys: additions at once, removals once they are confirmed."""

from dataclasses import FrozenInstanceError
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cloudflare_access._keys.jwks import KeySet
from fastapi_cloudflare_access._keys.snapshot import ClockReading, ParsedDocument, Snapshot, confirmation_due, merge
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access.testing import FakeTeam

_JWKS = FakeTeam("acme").certs()["keys"]
FIRST, SECOND = (RS256Key(n=key["n"], e=key["e"]) for key in _JWKS)


def fetched(
    *kids: str, at: float = 0.0, conflicting_kids: tuple[str, ...] = (), key: RS256Key = FIRST
) -> ParsedDocument:
    key_set = KeySet(MappingProxyType(dict.fromkeys(kids, key)), conflicting_kids=frozenset(conflicting_kids))
    return ParsedDocument(ClockReading(at, at + 1e9), 1, b"{}", key_set, None)


def after(*steps: ParsedDocument, delay: float | None = 30, may_confirm_removals: bool = True) -> Snapshot:
    snapshot = Snapshot()
    for step in steps:
        snapshot = merge(snapshot, step, removal_grace=delay, may_confirm_removals=may_confirm_removals)
    return snapshot


def test_a_new_key_counts_at_once() -> None:
    assert set(after(fetched("a"), fetched("a", "b", at=1)).keys) == {"a", "b"}


def test_a_key_that_went_missing_is_used_until_the_delay_is_over_and_a_fetch_confirms_it() -> None:
    assert set(after(fetched("a", "b"), fetched("b", at=10)).keys) == {"a", "b"}
    assert set(after(fetched("a", "b"), fetched("b", at=10), fetched("b", at=39.9)).keys) == {"a", "b"}
    assert set(after(fetched("a", "b"), fetched("a", at=10), fetched("a", at=39.9)).keys) == {"a", "b"}
    for at in (40, 40.1, 4000):
        assert set(after(fetched("a", "b"), fetched("b", at=10), fetched("b", at=at)).keys) == {"b"}


def test_a_key_that_comes_back_is_as_before() -> None:
    snapshot = after(fetched("a", "b"), fetched("b", at=10), fetched("a", "b", at=20))
    assert not snapshot.pending_removal
    assert set(after(fetched("a", "b"), fetched("b", at=10), fetched("a", "b", at=20), fetched("b", at=45)).keys) == {
        "a",
        "b",
    }


def test_a_fetch_that_may_not_finish_a_removal_only_begins_one() -> None:
    snapshot = after(fetched("a", "b"), fetched("b", at=10), fetched("b", at=99), may_confirm_removals=False)
    assert set(snapshot.keys) == {"a", "b"}
    assert snapshot.pending_removal == {"a": 10}


def test_without_confirmation_a_key_goes_at_once() -> None:
    assert set(after(fetched("a", "b"), fetched("b", at=1), delay=None).keys) == {"b"}


def test_a_kid_with_two_different_keys_is_dropped_at_once() -> None:
    assert set(after(fetched("a", "b"), fetched("b", at=1, conflicting_kids=("a",))).keys) == {"b"}


def test_another_key_under_the_same_kid_takes_its_place_at_once() -> None:
    snapshot = after(fetched("a"), fetched("a", at=1, key=SECOND))
    assert snapshot.keys["a"] == SECOND
    assert snapshot.generation == 2


def test_the_generation_grows_with_every_change_and_only_then() -> None:
    assert after(fetched("a")).generation == 1
    assert after(fetched("a"), fetched("a", at=1)).generation == 1
    assert after(fetched("a"), fetched("a", "b", at=1)).generation == 2
    assert after(fetched("a", "b"), fetched("b", at=1)).generation == 1
    assert after(fetched("a", "b"), fetched("b", at=1), fetched("b", at=31)).generation == 2


def test_the_confirming_fetch_is_due_once_the_first_missing_key_has_waited() -> None:
    assert confirmation_due(after(fetched("a", "b")), 30) is None
    snapshot = after(fetched("a", "b", "c"), fetched("b", "c", at=10), fetched("c", at=20))
    assert confirmation_due(snapshot, 30) == 40


def test_an_age_is_the_longer_of_both_clocks_and_never_negative() -> None:
    start = ClockReading(100, 1000)
    assert start.until(ClockReading(105, 1005)) == 5
    assert start.until(ClockReading(105, 4000)) == 3000, "the machine slept"
    assert start.until(ClockReading(105, 10)) == 5, "the wall clock was set back"
    assert start.until(ClockReading(100, 10)) == 0
    assert start.until(ClockReading(305, 1000)) == 205
    assert start.until(ClockReading(100, 3200)) == 2200


def test_nothing_is_known_at_first_and_nothing_known_can_be_changed() -> None:
    snapshot, document = Snapshot(), fetched("a")
    assert (snapshot.generation, snapshot.sequence, snapshot.fetched, *snapshot.keys) == (0, 0, None)
    for each, name in ((snapshot, "keys"), (document, "key_set"), (document.at, "wall")):
        with pytest.raises(FrozenInstanceError):
            setattr(each, name, None)


@pytest.mark.parametrize("may_confirm_removals", [True, False])
@given(sets=st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=1, max_size=12))
def test_whatever_comes_published_keys_are_used_and_no_other_is_without_being_missing(
    *, may_confirm_removals: bool, sets: list[set[str]]
) -> None:
    snapshot = Snapshot()
    for number, kids in enumerate(sets):
        before = snapshot
        snapshot = merge(
            snapshot,
            fetched(*sorted(kids), at=number * 11),
            removal_grace=30,
            may_confirm_removals=may_confirm_removals,
        )
        assert kids <= snapshot.keys.keys()
        assert snapshot.keys.keys() - kids == snapshot.pending_removal.keys() <= before.keys.keys()
        assert snapshot.generation >= before.generation
