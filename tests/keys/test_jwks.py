"""From a certs document to a key set."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from fastapi_cloudflare_access._keys.jwks import JwksProblem, parse_jwks
from fastapi_cloudflare_access._keys.weak_moduli import weakness
from fastapi_cloudflare_access.testing import FakeTeam
from fastapi_cloudflare_access.testing._issuer import base64url


@pytest.fixture(scope="module")
def jwks() -> tuple[dict[str, Any], dict[str, Any]]:
    first, second = FakeTeam("acme").certs()["keys"]
    return first, second


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def number(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def test_the_documented_certs_document_gives_both_keys() -> None:
    certs = FakeTeam("acme").certs()
    keys = parse_jwks(json.dumps(certs).encode())
    assert set(keys.keys) == {key["kid"] for key in certs["keys"]}
    assert keys.skipped == ()


@pytest.mark.conformance(13)
def test_only_the_keys_member_counts() -> None:
    certs = FakeTeam("acme").certs()
    with pytest.raises(JwksProblem, match="no list of keys"):
        parse_jwks(json.dumps({name: certs[name] for name in ("public_cert", "public_certs")}).encode())


MODULUS_OF_PRIME = 2**2203 - 1  # a Mersenne prime

BAD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "null": lambda _: None,
    "a list": lambda _: [],
    "empty": lambda _: {},
    "elliptic curve": lambda _: {"kty": "EC", "kid": "x", "crv": "P-256", "x": "AA", "y": "AA"},
    "symmetric": lambda key: {"kty": "oct", "kid": key["kid"], "k": "AAAA"},
    "edwards curve": lambda _: {"kty": "OKP", "kid": "x", "crv": "Ed25519", "x": "AA"},
    "no kid": lambda key: key | {"kid": None},
    "an empty kid": lambda key: key | {"kid": ""},
    "a long kid": lambda key: key | {"kid": "k" * 257},
    "a kid with a line break": lambda key: key | {"kid": "a\nb"},
    "a kid beyond ASCII": lambda key: key | {"kid": "ä"},
    "RS512": lambda key: key | {"alg": "RS512"},
    "RSA-OAEP": lambda key: key | {"alg": "RSA-OAEP"},
    "alg null": lambda key: key | {"alg": None},
    "for encryption": lambda key: key | {"use": "enc"},
    "use as a list": lambda key: key | {"use": ["sig"]},
    "operations without verify": lambda key: key | {"key_ops": ["encrypt"]},
    "operations null": lambda key: key | {"key_ops": None},
    "operations as text": lambda key: key | {"key_ops": "verify"},
    "private exponent": lambda key: key | {"d": "AQAB"},
    "symmetric member": lambda key: key | {"k": "AQAB"},
    "no modulus": lambda key: {name: key[name] for name in key if name != "n"},
    "modulus as number": lambda key: key | {"n": 5},
    "exponent null": lambda key: key | {"e": None},
    "modulus padded": lambda key: key | {"n": key["n"] + "=="},
    "modulus with a space": lambda key: key | {"n": key["n"] + " "},
    "modulus beyond ASCII": lambda key: key | {"n": "ä" + key["n"]},
    "modulus empty": lambda key: key | {"n": ""},
    "modulus with leading zeros": lambda key: key | {"n": "AAAA" + key["n"]},
    "512 bits": lambda key: key | {"n": number(2**511 + 1)},
    "1024 bits": lambda key: key | {"n": number(2**1023 + 1)},
    "2047 bits": lambda key: key | {"n": number(2**2046 + 1)},
    "8193 bits": lambda key: key | {"n": number(2**8192 + 1)},
    "an even modulus": lambda key: key | {"n": number(2**2047 + 2)},
    "a prime modulus": lambda key: key | {"n": number(MODULUS_OF_PRIME)},
    "exponent 1": lambda key: key | {"e": number(1)},
    "exponent 2": lambda key: key | {"e": number(2)},
    "exponent 3": lambda key: key | {"e": number(3)},
    "exponent even": lambda key: key | {"e": number(65538)},
    "exponent beyond 32 bits": lambda key: key | {"e": number(2**32 + 1)},
}


@pytest.mark.parametrize("bits", [2047, 8193, 16384])
def test_a_modulus_of_another_size_is_refused_for_its_size(
    bits: int, jwks: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    good, other = jwks
    (reason,) = parse_jwks(document(good, other | {"n": number(2 ** (bits - 1) + 1)})).skipped
    assert "not of 2048 to 8192 bits" in str(reason)


@pytest.mark.conformance(14, 15, 16)
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("bad_first", [True, False])
def test_an_unusable_key_is_skipped_alone(
    bad: Callable[[dict[str, Any]], Any], *, bad_first: bool, jwks: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    good, other = jwks
    entries = [bad(other), good] if bad_first else [good, bad(other)]
    keys = parse_jwks(document(*entries))
    assert list(keys.keys) == [good["kid"]]
    assert len(keys.skipped) == 1


@pytest.mark.conformance(14, 15)
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_set_without_a_usable_key_is_refused(
    bad: Callable[[dict[str, Any]], Any], jwks: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    with pytest.raises(JwksProblem, match="no usable key; "):
        parse_jwks(document(bad(jwks[0])))


@pytest.mark.conformance(14)
@pytest.mark.parametrize("lacking", ["alg", "use"])
def test_alg_and_use_may_be_absent_and_key_ops_may_hold_verify(lacking: str, jwks: tuple[dict[str, Any], Any]) -> None:
    key = {name: value for name, value in jwks[0].items() if name != lacking} | {"key_ops": ["verify"]}
    assert len(parse_jwks(document(key)).keys) == 1


def test_a_symmetric_key_does_not_shadow_the_rsa_key_of_the_same_kid(jwks: tuple[dict[str, Any], Any]) -> None:
    keys = parse_jwks(document({"kty": "oct", "kid": jwks[0]["kid"], "k": "AAAA"}, jwks[0]))
    assert list(keys.keys) == [jwks[0]["kid"]]


@pytest.mark.conformance(17)
def test_the_same_key_twice_is_one(jwks: tuple[dict[str, Any], Any]) -> None:
    assert parse_jwks(document(jwks[0], jwks[0])) == parse_jwks(document(jwks[0]))


@pytest.mark.conformance(17)
def test_of_two_keys_with_one_kid_neither_is_used(jwks: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = jwks
    clash = second | {"kid": first["kid"]}
    keys = parse_jwks(document(first, clash, second, clash))
    assert list(keys.keys) == [second["kid"]]
    assert keys.skipped == ("two different keys with one kid",)


@pytest.mark.conformance(19)
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"keys":null}', b'{"keys":{}}', b'{"keys":[]}', b'{"keys":[],"keys":[]}']
)
def test_what_is_no_key_set_is_refused(body: bytes) -> None:
    with pytest.raises(JwksProblem):
        parse_jwks(body)


def test_a_set_with_too_many_entries_is_refused_and_one_at_the_limit_is_not(jwks: tuple[dict[str, Any], Any]) -> None:
    assert len(parse_jwks(document(*[{}] * 31, jwks[0])).keys) == 1
    with pytest.raises(JwksProblem, match="33 keys, more than 32"):
        parse_jwks(document(*[{}] * 32, jwks[0]))


def test_what_the_cryptography_library_refuses_is_skipped(
    jwks: tuple[dict[str, Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: str) -> None:
        raise RuntimeError

    monkeypatch.setattr("fastapi_cloudflare_access._keys.jwks.RS256Key", refuse)
    with pytest.raises(JwksProblem, match="refused by the cryptography library"):
        parse_jwks(
            document(
                jwks[0]
                | {"n": number(next(n for n in count(0xBEEF << 2040 | 0xF00D << 1024 | 1, 2) if not weakness(n)))}
            )
        )
