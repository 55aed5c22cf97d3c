"""Signatures over the records of a store, and the secrets that a store accepts."""

import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.stores._signing import OVERHEAD, SignatureProblem, Signer, checked_secrets

SECRET, NEW = "a" * 32, "b" * 32
MAKE_ONE = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


@given(st.binary(max_size=200))
def test_a_record_gives_its_payload_again(payload: bytes) -> None:
    record = Signer(SECRET, purpose="test").sign(payload)
    assert len(record) == len(payload) + OVERHEAD
    assert Signer(SECRET, purpose="test").verify(record, limit=200) == payload


@pytest.mark.conformance(87)
@given(st.binary(max_size=60), st.data())
def test_no_changed_byte_is_accepted(payload: bytes, data: st.DataObject) -> None:
    signer = Signer(SECRET, purpose="test")
    record = bytearray(signer.sign(payload))
    record[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SignatureProblem):
        signer.verify(bytes(record), limit=100)


@pytest.mark.conformance(87)
@given(st.binary(max_size=300))
def test_no_other_bytes_are_accepted(record: bytes) -> None:
    with pytest.raises(SignatureProblem):
        Signer(SECRET, purpose="test").verify(record, limit=100)


@pytest.mark.parametrize("cut", range(OVERHEAD + 4))
def test_no_beginning_of_a_record_is_accepted(cut: int) -> None:
    signer = Signer(SECRET, purpose="test")
    with pytest.raises(SignatureProblem):
        signer.verify(signer.sign(b"four")[:cut], limit=100)


@pytest.mark.conformance(87)
def test_a_record_of_another_purpose_or_secret_is_not_accepted() -> None:
    record = Signer(SECRET, purpose="test").sign(b"payload")
    for other in (Signer(SECRET, purpose="other"), Signer(NEW, purpose="test")):
        with pytest.raises(SignatureProblem, match="not signed with the secret of the store"):
            other.verify(record, limit=100)


@pytest.mark.conformance(88)
def test_a_record_above_the_limit_is_not_accepted() -> None:
    signer = Signer(SECRET, purpose="test")
    assert signer.verify(signer.sign(b"x" * 100), limit=100)
    with pytest.raises(SignatureProblem, match="longer than 100 bytes"):
        signer.verify(signer.sign(b"x" * 101), limit=100)


def test_the_first_secret_signs_and_records_of_each_are_accepted() -> None:
    rotating = Signer([NEW, SECRET.encode()], purpose="test")
    assert rotating.verify(Signer(SECRET, purpose="test").sign(b"old"), limit=9) == b"old"
    assert Signer(NEW, purpose="test").verify(rotating.sign(b"new"), limit=9) == b"new"


def test_the_format_is_the_documented_one() -> None:
    key = hmac.digest(SECRET.encode(), b"cf-access-1 snapshot", "sha256")
    mac = hmac.digest(key, b"cf-access-1\npayload", "sha256").hex()
    assert Signer(SECRET, purpose="snapshot").sign(b"payload") == f"cf-access-1 {mac}\npayload".encode()


def test_digests_need_the_secret_and_differ_from_signatures() -> None:
    signer = Signer([NEW, SECRET], purpose="test")
    assert signer.digests("ada@example.com") == (
        *Signer(NEW, purpose="test").digests("ada@example.com"),
        *Signer(SECRET, purpose="test").digests("ada@example.com"),
    )
    assert signer.digests("ada@example.com") != signer.digests("bob@example.com")
    assert signer.digests("x")[0].encode() not in signer.sign(b"x")


@pytest.mark.parametrize(
    "secret",
    [SECRET, SECRET.encode(), [SECRET], (SECRET, NEW.encode()), "\udcff" * 32],
    ids=["text", "bytes", "list", "tuple", "surrogates"],
)
def test_a_secret_is_text_or_bytes_or_several(secret: Any) -> None:
    assert all(len(each) >= 32 for each in checked_secrets(secret))


WRONG: dict[str, tuple[Any, str]] = {
    "short": ("a" * 31, f"secret must have at least 32 bytes, not 31; {MAKE_ONE}"),
    "empty": ("", f"secret must have at least 32 bytes, not 0; {MAKE_ONE}"),
    "short bytes": (b"a" * 31, f"secret must have at least 32 bytes, not 31; {MAKE_ONE}"),
    "second short": ([SECRET, "b"], f"secret must have at least 32 bytes, not 1; {MAKE_ONE}"),
    "none": (None, f"secret must be text or bytes, or a list of these; {MAKE_ONE}"),
    "number": (7, f"secret must be text or bytes, or a list of these; {MAKE_ONE}"),
    "list of numbers": ([7], f"secret must be text or bytes, or a list of these; {MAKE_ONE}"),
    "empty list": ([], f"secret must be one secret, or a list of at most 8; {MAKE_ONE}"),
    "many": ([SECRET] * 9, f"secret must be one secret, or a list of at most 8; {MAKE_ONE}"),
    "line break": (SECRET + "\n", "secret must not begin or end with a blank or a line break: pass secret.strip()"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_secret_is_an_error_that_says_how_to_make_one(case: str) -> None:
    secret, sentence = WRONG[case]
    with pytest.raises(ConfigurationError) as wrong:
        Signer(secret, purpose="test")
    assert str(wrong.value) == sentence
