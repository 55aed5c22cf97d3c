"""The form of a record in a store: what is not exactly one of this team is refused."""

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.revocation_rig import NOW, SECRET, record

from fastapi_cloudflare_access._revocations.log import RecordFormat
from fastapi_cloudflare_access._revocations.record import (
    DAY,
    LONGEST_SESSION,
    MAX_NAME,
    MAX_RECORD,
    MICROSECONDS,
    RECORD_LIFETIME,
    Completion,
    Record,
    RecordProblem,
    decode,
    encode,
)
from fastapi_cloudflare_access.claims import MAX_TIME
from fastapi_cloudflare_access.stores._signing import Signer

ACME, OLD = "https://acme.cloudflareaccess.com", "https://old.cloudflareaccess.com"
AT = NOW * MICROSECONDS
GOOD: list[Any] = [
    record(),
    record("block", "email", "0" * 64, until=60),
    record("unblock", "client_id", "0123.access"),
    Record("block", "token", "0" * 64, AT, NOW + 60, "stream"),
    Completion("epoch", AT),
]


def decoded(**changes: Any) -> Record | Completion:
    members: dict[str, Any] = {"iss": ACME, "at": AT, "do": "block", "by": "sub", "key": "ada", "until": NOW + 60}
    members |= changes
    payload = json.dumps({name: value for name, value in members.items() if value is not ...}).encode()
    return decode(payload, issuers=frozenset({ACME, OLD}))


COMPLETE: dict[str, Any] = {"do": "complete", "by": ..., "key": ..., "until": ..., "epoch": "epoch"}
"""The changes that make the statement of a worker of the record."""


def test_the_limits_are_the_same_in_each_worker_of_a_fleet() -> None:
    assert (MAX_RECORD, MAX_NAME, MICROSECONDS) == (4096, 256, 1_000_000)
    assert (DAY, LONGEST_SESSION, RECORD_LIFETIME) == (86_400, 31 * 86_400, 31 * 86_400 + 3600)


@pytest.mark.parametrize("each", [GOOD[0], GOOD[-1]], ids=["record", "completion"])
def test_a_record_cannot_be_changed_and_has_no_dictionary_of_its_own(each: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        each.at = 0
    assert not hasattr(each, "__dict__")


def test_a_block_has_an_effect_until_its_end_and_others_for_the_longest_session_and_an_hour() -> None:
    block, log_out = decoded(until=NOW + 60), decoded(do="log_out", until=..., at=AT + 900_000)
    assert isinstance(block, Record)
    assert isinstance(log_out, Record)
    assert block.ends_at == NOW + 60
    assert (type(log_out.ends_at), log_out.ends_at) == (int, NOW + RECORD_LIFETIME)


@pytest.mark.parametrize("each", GOOD, ids=range(len(GOOD)))
def test_a_record_is_the_same_after_encoding_and_decoding(each: Record | Completion) -> None:
    assert decode(encode(each, issuer=OLD), issuers=frozenset({ACME, OLD})) == each


def test_the_form_of_a_record_is_fixed() -> None:
    assert GOOD[0] == Record("log_out", "sub", "ada", AT)
    assert encode(Record("log_out", "sub", "ada", AT), issuer=ACME) == (
        b'{"at":%d,"by":"sub","do":"log_out","iss":"https://acme.cloudflareaccess.com","key":"ada"}' % AT
    )


def test_every_record_fits_into_the_limit() -> None:
    longest = Record("block", "sub", "\U0001f600" * 256, AT, NOW + 60, "0" * 64)
    assert len(encode(longest, issuer="https://" + "a" * 63 + ".fed.cloudflareaccess.com")) <= MAX_RECORD


@pytest.mark.conformance(88)
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"iss": "https://evil.cloudflareaccess.com"}, "of another team"),
        ({"iss": [ACME]}, "of another team"),
        ({"iss": None}, "of another team"),
        ({"at": 0}, "time is out of range"),
        ({"at": -1}, "time is out of range"),
        ({"at": MAX_TIME * MICROSECONDS + 1}, "time is out of range"),
        ({"at": True}, "time is out of range"),
        ({"at": float(AT)}, "time is out of range"),
        ({"at": 10**30}, "time is out of range"),
        ({"at": ...}, "time is out of range"),
        ({"do": "forget"}, "form is not known"),
        ({"do": ["block"]}, "form is not known"),
        ({"do": ...}, "form is not known"),
        ({"by": "ip"}, "form is not known"),
        ({"by": {}}, "form is not known"),
        ({"key": ""}, "form is not known"),
        ({"key": 5}, "form is not known"),
        ({"stream": 5}, "form is not known"),
        ({"more": 1}, "form is not known"),
        ({"until": "later"}, "end is out of range"),
        ({"until": -1}, "end is out of range"),
        ({"until": 0}, "end is out of range"),
        ({"until": True}, "end is out of range"),
        ({"until": NOW + RECORD_LIFETIME + 1}, "end is out of range"),
        ({"until": 10**30}, "end is out of range"),
        ({"at": MAX_TIME * MICROSECONDS, "until": MAX_TIME + 1}, "end is out of range"),
        ({"do": "log_out"}, "end is out of range"),
        ({"do": "log_out", "until": 1}, "end is out of range"),
        ({"do": "complete"}, "form is not known"),
        ({"do": "complete", "epoch": "epoch"}, "form is not known"),
        ({**COMPLETE, "epoch": 5}, "form is not known"),
        ({**COMPLETE, "epoch": ...}, "form is not known"),
        ({**COMPLETE, "key": "ada"}, "form is not known"),
    ],
    ids=range(33),
)
def test_a_record_of_another_form_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordProblem, match=problem):
        decoded(**changes)


def test_a_record_may_last_as_long_as_records_are_kept() -> None:
    assert isinstance(decoded(until=NOW + RECORD_LIFETIME), Record)


def test_the_first_and_the_last_time_are_times() -> None:
    assert decoded(at=1, until=1) == Record("block", "sub", "ada", 1, 1)
    last = Record("block", "sub", "ada", MAX_TIME * MICROSECONDS, MAX_TIME)
    assert decoded(at=last.at, until=last.until) == last
    assert decoded(**COMPLETE) == Completion("epoch", AT)


@pytest.mark.conformance(88)
@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"\xff", b'{"at":1,"at":2}', b"[" * 5000, b'{"at":NaN}'])
def test_what_is_not_strict_json_is_refused(payload: bytes) -> None:
    with pytest.raises(RecordProblem, match="it is "):
        decode(payload, issuers=frozenset({ACME}))


# signatures


def record_format(secret: Any = SECRET, issuer: str = ACME, former: tuple[str, ...] = ()) -> RecordFormat:
    return RecordFormat(Signer(secret, purpose="revocation"), issuer, former)


def test_a_signed_record_is_read_by_every_worker_with_the_secret() -> None:
    assert record_format().read(record_format().sign(GOOD[0])) == GOOD[0]


def test_a_record_under_a_former_name_of_the_team_is_read() -> None:
    signed = record_format(issuer=OLD).sign(GOOD[0])
    assert record_format(former=(OLD,)).read(signed) == GOOD[0]
    with pytest.raises(RecordProblem, match="of another team"):
        record_format().read(signed)


def test_a_record_of_a_former_secret_is_read_as_long_as_the_store_has_that() -> None:
    signed = record_format("former" * 6).sign(GOOD[0])
    assert record_format([SECRET, "former" * 6]).read(signed) == GOOD[0]
    with pytest.raises(RecordProblem, match="not signed with the secret"):
        record_format().read(signed)


@pytest.mark.conformance(87)
def test_a_snapshot_of_keys_is_not_a_revocation() -> None:
    other = Signer(SECRET, purpose="snapshot").sign(encode(GOOD[0], issuer=ACME))
    with pytest.raises(RecordProblem, match="not signed with the secret"):
        record_format().read(other)


@pytest.mark.conformance(88)
def test_a_record_that_is_longer_than_the_limit_is_not_hashed() -> None:
    with pytest.raises(RecordProblem, match="longer than"):
        record_format().read(b"x" * 10_000_000)


@given(st.integers(0, 300), st.integers(0, 255))
def test_a_record_with_one_changed_byte_is_refused(place: int, byte: int) -> None:
    signed = bytearray(record_format().sign(GOOD[1]))
    place %= len(signed)
    changed = bytes(signed[:place]) + bytes([byte]) + bytes(signed[place + 1 :])
    if changed != bytes(signed):
        with pytest.raises(RecordProblem):
            record_format().read(changed)


@given(st.integers(0, 300))
def test_a_truncated_record_is_refused(length: int) -> None:
    signed = record_format().sign(GOOD[1])
    with pytest.raises(RecordProblem):
        record_format().read(signed[: length % len(signed)])
