"""The table of revocations: records merge in any order, the maximum decides, and nothing lowers a `not_before`."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.revocation_rig import NOW, record

from fastapi_cloudflare_access._revocations import table as module
from fastapi_cloudflare_access._revocations.record import (
    LONGEST_SESSION,
    MICROSECONDS,
    RECORD_LIFETIME,
    Record,
    decode,
    encode,
)
from fastapi_cloudflare_access._revocations.table import MAX_RECORDS, Table
from fastapi_cloudflare_access._verification.token_cache import RevocationKeys

ISSUER = "https://acme.cloudflareaccess.com"


def refuses(table: Table, *, iat: float = 0, now: float = 0, name: str = "sub:ada") -> bool:
    return table.refuses(RevocationKeys((name,), int(NOW + iat)), NOW + now)


def table_of(*records: Record, now: float = 0) -> Table:
    table = Table()
    for each in records:
        table.add(each, NOW + now)
    return table


def as_stored(each: Record) -> Record:
    """Return the record as another worker reads it, with texts of its own."""
    read = decode(encode(each, issuer=ISSUER), issuers=frozenset({ISSUER}))
    assert isinstance(read, Record)
    return read


def test_records_that_a_store_returned_count_as_those_of_this_worker() -> None:
    block, unblock, log_out = record("block", at=1, until=60), record("unblock", at=2), record(at=3)
    table = table_of(as_stored(block), as_stored(log_out))
    assert [refuses(table, iat=iat, now=5) for iat in (3, 4)] == [True, True]
    table.add(as_stored(unblock), NOW)
    assert [refuses(table, iat=iat, now=5) for iat in (3, 4)] == [True, False]
    assert {each.action for each in table.records()} == {"log_out", "unblock"}
    assert not any(table.would_change(as_stored(each)) for each in (block, unblock, log_out))
    assert table.would_change(as_stored(record(at=4)))


def test_a_block_that_has_ended_refuses_no_token_of_whatever_time_of_issue() -> None:
    table = table_of(record("block", at=1, until=60))
    assert not table.refuses(RevocationKeys(("sub:ada",), 0), NOW + 60)


def test_an_empty_table_refuses_nothing() -> None:
    assert not refuses(Table())
    assert Table().records() == []


def test_a_log_out_refuses_tokens_issued_at_or_before_it() -> None:
    table = table_of(record(at=10.9))
    assert [refuses(table, iat=iat) for iat in (9, 10, 11)] == [True, True, False]


def test_a_block_refuses_every_token_until_its_end() -> None:
    table = table_of(record("block", at=1, until=60))
    assert [refuses(table, iat=iat, now=now) for iat, now in [(0, 1), (50, 59.9), (0, 60), (59, 60)]] == [
        True,
        True,
        False,
        False,
    ]


def test_other_callers_are_accepted() -> None:
    table = table_of(record(at=10), record("block", "email", "digest", at=1, until=60))
    assert not refuses(table, name="sub:bob")
    assert not refuses(table, name="client_id:ada")
    assert refuses(table, name="email:digest", iat=20)


@pytest.mark.parametrize("order", [*permutations([5, 30, 12])], ids=range(6))
def test_the_latest_of_several_log_outs_counts_in_any_order(order: tuple[int, ...]) -> None:
    table = table_of(*(record(at=at) for at in order))
    assert [refuses(table, iat=iat) for iat in (30, 31)] == [True, False]
    assert len(table) == 1


def test_an_older_log_out_never_lowers_not_before() -> None:
    table = table_of(record(at=30))
    assert not table.add(record(at=5), NOW)
    assert refuses(table, iat=30)


@pytest.mark.parametrize(
    "order", [*permutations([record("block", at=1, until=60), record("block", at=2, until=30)])], ids=range(2)
)
def test_of_several_blocks_the_one_that_ends_last_counts(order: tuple[Record, ...]) -> None:
    assert refuses(table_of(*order), now=59)


@pytest.mark.parametrize(
    "order",
    [*permutations([record("block", at=1, until=100), record("unblock", at=3), record("block", at=5, until=50)])],
    ids=range(6),
)
def test_an_unblock_ends_earlier_blocks_and_no_later_one(order: tuple[Record, ...]) -> None:
    table = table_of(*order)
    assert [refuses(table, now=now) for now in (49, 51)] == [True, False]


def test_a_block_of_the_same_moment_outlives_an_unblock() -> None:
    assert refuses(table_of(record("block", at=3, until=60), record("unblock", at=3)))


def test_an_unblock_leaves_a_log_out() -> None:
    assert refuses(table_of(record(at=10), record("unblock", at=20)), iat=10)


def test_a_repetition_changes_nothing() -> None:
    records = [record(at=1), record("block", at=2, until=9), record("unblock", at=1)]
    table = table_of(*records)
    assert [table.add(each, NOW) for each in records] == [False, False, False]
    assert len(table) == 3


def test_a_record_that_has_no_effect_any_more_is_not_kept() -> None:
    old = [record(at=-RECORD_LIFETIME), record("unblock", at=-RECORD_LIFETIME), record("block", at=-9, until=0)]
    assert [Table().add(each, NOW + later) for each in old for later in (0, 60)] == [False] * 6


def test_records_leave_after_the_longest_session_and_an_hour() -> None:
    table = table_of(record(at=1), record("block", "email", "x", at=1, until=60), record("unblock", "email", "x", at=0))
    table.expire(NOW + LONGEST_SESSION + 60)
    assert len(table) == 3
    table.expire(NOW + RECORD_LIFETIME)
    assert {each.kind for each in table.records()} == {"sub"}
    table.expire(NOW + RECORD_LIFETIME + 9)
    assert (len(table), table.records()) == (0, [])


def test_a_long_table_is_returned_whole_and_in_pieces_that_do_not_block_an_event_loop() -> None:
    table = table_of(*(record(key=str(number)) for number in range(4001)))
    assert [len(piece) for piece in table.pieces()] == [2000, 2000, 1]
    assert len({each.key for each in table.records()}) == 4001


def test_open_streams_of_a_token_are_found_by_its_caller_and_times_until_it_leaves() -> None:
    token = Record("block", "token", "digest", NOW * MICROSECONDS, NOW + 60, "stream")
    table = table_of(token)
    assert [table.refuses_stream("stream", NOW + now) for now in (59, 60, 61)] == [True, False, False]
    assert not table.refuses_stream("other", NOW)
    table.expire(NOW + 60)
    assert not table._streams
    table.expire(NOW + 61)


# the limit


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setattr(module, "MAX_RECORDS", 3)
    blocks = [record("block", key="ada", at=1, until=60), record("block", key="bob", at=1, until=60)]
    return table_of(*blocks, record(key="ada", at=1))


def test_there_is_space_for_a_hundred_thousand_records() -> None:
    assert MAX_RECORDS >= 100_000


def test_a_table_that_is_not_full_can_add_a_caller_and_one_that_is_too_full_cannot(full: Table) -> None:
    assert Table().can_add(record(key="eve", at=5))
    full.add(record(key="eve", at=5), NOW)
    assert not full.can_add(record(key="dan", at=5))


def test_a_full_table_does_not_admit_one_more(full: Table) -> None:
    assert not full.can_add(record(key="eve", at=5))
    assert not full.can_add(record(key="bob", at=5))
    assert not full.can_add(record("block", key="ada", at=5, until=30))
    assert not full.can_add(record("unblock", key="eve", at=5))


def test_a_full_table_can_add_what_replaces_a_record(full: Table) -> None:
    assert full.can_add(record(key="ada", at=5))
    assert full.can_add(record(key="ada", at=0))
    assert full.can_add(record("block", key="ada", at=5, until=90))
    assert full.can_add(record("block", key="ada", at=0, until=30))


def test_a_full_table_can_add_the_unblock_of_a_blocked_caller(full: Table) -> None:
    assert full.can_add(as_stored(record("unblock", key="bob", at=5)))


def test_a_record_that_another_worker_added_is_never_dropped(full: Table) -> None:
    assert full.add(record(key="eve", at=5), NOW)
    assert refuses(full, name="sub:eve")


# a model


RECORDS = st.builds(
    record,
    st.sampled_from(["log_out", "block", "unblock"]),
    st.just("sub"),
    st.sampled_from(["ada", "bob"]),
    st.integers(1, 12),
    st.integers(13, 30),
).map(as_stored)


def model(records: list[Record], *, key: str, iat: int, now: int) -> bool:
    """Decide by all records at once, as the contract says."""
    mine = [each for each in records if each.key == key]
    unblocked = max((each.at for each in mine if each.action == "unblock"), default=-1)
    blocks = [each.until for each in mine if each.action == "block" and each.at >= unblocked]
    log_outs = [each.at // MICROSECONDS for each in mine if each.action == "log_out"]
    return iat <= max(log_outs, default=-1) or now < max(blocks, default=-1)


@pytest.mark.conformance(91)
@given(st.lists(RECORDS, max_size=12), st.randoms(use_true_random=False), st.integers(0, 31), st.integers(0, 31))
def test_the_table_decides_as_all_records_together_in_any_order(
    records: list[Record], chance: Any, iat: int, now: int
) -> None:
    again = [*records, *chance.choices(records, k=3)] if records else []
    chance.shuffle(again)
    table, same = table_of(*records), table_of(*again)
    for key in ("ada", "bob"):
        expected = model(records, key=key, iat=NOW + iat, now=NOW + now)
        assert refuses(table, iat=iat, now=now, name=f"sub:{key}") == expected
        assert refuses(same, iat=iat, now=now, name=f"sub:{key}") == expected


@given(st.lists(RECORDS, max_size=12))
def test_what_a_table_returns_makes_an_equal_table(records: list[Record]) -> None:
    table = table_of(*records)
    copy = table_of(*table.records())
    assert not any(copy.would_change(each) for each in records)
    assert len(copy) == len(table) == len(table.records())


@pytest.mark.conformance(92)
@given(st.lists(RECORDS, max_size=12))
def test_not_before_never_goes_down(records: list[Record]) -> None:
    table, highest = Table(), -1
    for each in records:
        table.add(each, NOW)
        entry = table._entries.get("sub:ada")
        lowered = entry is not None and entry.not_before < highest
        assert not lowered
        highest = entry.not_before if entry is not None else highest
