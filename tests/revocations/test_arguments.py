"""The arguments of `access.revocations`, and the keys of callers: all spellings of an address are one."""

import json
from base64 import urlsafe_b64encode
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.revocation_rig import NOW, SECRET

from fastapi_cloudflare_access import ConfigurationError
from fastapi_cloudflare_access._revocations.arguments import caller_keys, revocation_of, seconds_of
from fastapi_cloudflare_access._revocations.record import LONGEST_SESSION, MICROSECONDS, RECORD_LIFETIME, Record
from fastapi_cloudflare_access._revocations.subjects import address_names, folded, keys_of_caller, keys_of_claims
from fastapi_cloudflare_access.claims import MAX_TIME, ServiceClaims, UserClaims
from fastapi_cloudflare_access.stores._signing import Signer
from fastapi_cloudflare_access.testing import FakeTeam

SIGNER = Signer(SECRET, purpose="revocation")
AT = NOW * MICROSECONDS


def names_of(email: str) -> tuple[str, ...]:
    return address_names(email, SIGNER)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@example.com", "ADA@Example.COM"),
        ("ada@example.com", " ada@example.com "),
        ("ada@example.com", "\uff21da@example.com"),  # a full-width A
        ("kelvin@example.com", "\u212aelvin@example.com"),  # the sign for Kelvin
        ("stra\u00dfe@example.com", "STRASSE@example.com"),
        ("am\u00e9lie@example.com", "AME\u0301LIE@example.com"),  # composed and decomposed
        ("ada@b\u00fccher.example", "ada@xn--bcher-kva.example"),
        ("ada@b\u00fccher.example", "Ada@B\u00dcCHER.example"),
        ("\u0130a@example.com", "i\u0307A@example.com"),
        ("ada@stra\u00dfe.example", "Ada@xn--strae-oqa.example"),
    ],
    ids=range(10),
)
def test_spellings_of_an_address_are_one(one: str, other: str) -> None:
    assert folded(one) == folded(other)
    assert address_names(one, SIGNER) == address_names(other, SIGNER)


@pytest.mark.parametrize("other", ["ada@example.org", "bob@example.com", "ada@example.com.evil.example", "ada"])
def test_other_addresses_are_others(other: str) -> None:
    assert folded(other) != folded("ada@example.com")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_every_text_has_a_key_which_does_not_change_when_folded_again(text: str) -> None:
    assert folded(folded(text)) == folded(text)
    assert address_names(text, SIGNER)


def test_an_address_is_kept_only_as_a_keyed_digest_of_each_secret() -> None:
    names = address_names("ada@example.com", Signer([SECRET, "former" * 6], purpose="revocation"))
    assert len(set(names)) == 2
    assert names[0] == address_names("ADA@example.com", SIGNER)[0]
    assert not any("ada@" in name or sha256(b"ada@example.com").hexdigest() in name for name in names)


def test_a_user_is_found_by_sub_and_address_and_a_service_by_its_client_id() -> None:
    team = FakeTeam()
    user, service = team.user("ada@example.com", claims={"common_name": "device"}), team.service("0123.access")
    assert isinstance(user, UserClaims)
    assert isinstance(service, ServiceClaims)
    address = address_names("ada@example.com", SIGNER)[0]
    assert keys_of_caller(user, names_of).names == (f"sub:{user.sub}", address)
    assert keys_of_caller(service, names_of).names == (f"client_id:{service.client_id}",)
    claims = {"sub": "s", "email": "ada@example.com", "common_name": "device", "iat": 5}
    assert keys_of_claims(claims, b"\0", names_of) == (("token:00", "sub:s", address), 5)
    assert keys_of_claims({"sub": "", "common_name": "c", "iat": 5}, b"\0", names_of)[0] == ("token:00", "client_id:c")
    assert keys_of_claims({"sub": "s", "iat": 5}, b"\0", names_of)[0] == ("token:00", "sub:s")
    assert keys_of_caller(user.model_copy(update={"email": None}), names_of).names == (f"sub:{user.sub}",)


# which caller


class OtherText(str):
    """A text of another type, such as those that libraries make of what is safe to show."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("given", "kind", "key"),
    [
        ({"sub": "7335d417"}, "sub", "7335d417"),
        ({"sub": "a" * 256}, "sub", "a" * 256),
        ({"sub": OtherText("7335d417")}, "sub", "7335d417"),
        ({"sub": "cf-access-client-id"}, "sub", "cf-access-client-id"),
        ({"client_id": "device@acme.example"}, "client_id", "device@acme.example"),
        ({"client_id": "0123.access"}, "client_id", "0123.access"),
        ({"email": "Ada@Example.com"}, "email", address_names("ada@example.com", SIGNER)[0].removeprefix("email:")),
        (
            {"email": "a" * 308 + "@example.com"},
            "email",
            names_of("a" * 308 + "@example.com")[0].removeprefix("email:"),
        ),
    ],
    ids=[
        "sub",
        "longest sub",
        "kind of text",
        "name of a header",
        "common name",
        "client_id",
        "email",
        "longest email",
    ],
)
def test_one_caller_is_given(given: dict[str, str], kind: str, key: str) -> None:
    assert caller_keys(SIGNER, "log_out", **{"sub": None, "email": None, **given}) == [(kind, key)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "log_out takes one of sub=…, email=… and client_id=…"),
        ({"sub": "a", "email": "b@c"}, "log_out takes one of"),
        ({"sub": ""}, "sub must be text that is not blank"),
        ({"sub": " robin"}, "has no blanks around it"),
        ({"sub": "robin "}, "has no blanks around it"),
        ({"sub": 5}, "sub must be text"),
        ({"sub": ["robin"]}, "sub must be text"),
        ({"client_id": b"0123"}, "client_id must be text"),
        ({"sub": "a\nb"}, "no control characters"),
        ({"email": "robin\u202e@example.com"}, "no control characters"),
        ({"email": "\ud800@example.com"}, "no control characters"),
        ({"sub": "a" * 257}, "at most 256 characters"),
        ({"client_id": "a" * 257}, "at most 256 characters"),
        ({"email": "a" * 320 + "@"}, "at most 320 characters"),
        ({"email": "robin"}, "must be one address alone"),
        ({"email": "Robin <robin@example.com>"}, "must be one address alone"),
        ({"email": "robin@example.com,bob@example.com"}, "must be one address alone"),
        ({"email": "mailto:robin@example.com"}, "must be one address alone"),
        ({"sub": "robin@example.com"}, "pass the address as email=…"),
        ({"client_id": "CF-Access-Client-Id: robin.access"}, "is the Client ID alone"),
        ({"client_id": "cf-access-client-secret: robin"}, "is the Client ID alone"),
    ],
    ids=range(21),
)
def test_another_caller_is_an_error_that_says_what_to_write(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as wrong:
        caller_keys(SIGNER, "log_out", **given)
    assert "robin" not in str(wrong.value).lower()


# for how long


def test_a_duration_is_rounded_up_to_seconds() -> None:
    assert [seconds_of(timedelta(seconds=one)) for one in (1, 1.001, 0.000001)] == [1, 2, 1]
    assert seconds_of(timedelta(days=31)) == LONGEST_SESSION


@pytest.mark.parametrize("for_", [timedelta(), timedelta(seconds=-1), timedelta.max, timedelta.min, timedelta(days=32)])
def test_a_duration_is_positive_and_at_most_31_days(for_: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="positive and at most 31 days"):
        seconds_of(for_)


@pytest.mark.parametrize("for_", [60, float("nan"), "1h", None])
def test_a_duration_is_a_timedelta(for_: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a timedelta, such as"):
        seconds_of(for_)


# which token


def token_with(payload: Any) -> str:
    parts = [{"alg": "RS256", "kid": "k"}, payload, "signature"]
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize("form", [str, str.encode])
def test_a_token_is_revoked_by_its_digest_until_it_expires(form: Any) -> None:
    token = token_with({"sub": "robin", "iat": NOW, "exp": NOW + 60})
    (record,) = revocation_of(form(token))(AT)
    assert isinstance(record, Record)
    assert (record.action, record.kind, record.key) == ("block", "token", sha256(token.encode()).hexdigest())
    assert record.until == NOW + 60 + 3600
    assert "robin" not in str(record)


def test_the_longest_token_is_refused_until_it_expires() -> None:
    (record,) = revocation_of(token_with({"sub": "ada", "iat": NOW, "exp": NOW + LONGEST_SESSION}))(AT)
    assert record.until == NOW + RECORD_LIFETIME


@pytest.mark.parametrize("exp", [NOW - 3600, NOW - 3601, 0])
def test_an_expired_token_needs_no_record(exp: int) -> None:
    assert revocation_of(token_with({"sub": "ada", "iat": 0, "exp": exp}))(AT) == []


@pytest.mark.parametrize("exp", [NOW + LONGEST_SESSION + 1, MAX_TIME])
def test_a_token_that_outlives_every_record_is_an_error(exp: int) -> None:
    with pytest.raises(ConfigurationError, match="expires within 31 days"):
        revocation_of(token_with({"exp": exp}))(AT)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b.c",
        b"\xff" * 9,
        "e" * 20_000,
        None,
        5,
        "\ud800.\ud800.\ud800",
        token_with([]),
        token_with({"sub": "ada"}),
        token_with({"exp": True}),
        token_with({"exp": 1e300}),
        token_with({"exp": -1}),
        token_with({"exp": MAX_TIME + 1}),
    ],
    ids=range(13),
)
def test_what_is_no_token_is_an_error_that_does_not_quote_it(token: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="revoke takes a token of Cloudflare Access, as text or bytes"
    ) as wrong:
        revocation_of(token)(AT)
    assert wrong.value.__cause__ is None
