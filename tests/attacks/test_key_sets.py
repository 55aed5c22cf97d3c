"""Poisoned certs documents: none of their bad keys is used, and none takes the place of good ones."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from attacks.workshop import SHA256_PREFIX
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._issuer import base64url, compact_json
from fastapi_cloudflare_access._jwks import (
    MAX_BITS,
    MAX_EXPONENT,
    MAX_KID,
    MIN_BITS,
    MIN_EXPONENT,
    JwksProblem,
    _build_key,
    is_kid,
    parse_jwks,
)
from fastapi_cloudflare_access.errors import AccessError, KeysUnavailable
from fastapi_cloudflare_access.testing import LocalTeam, MemoryFetch
from fastapi_cloudflare_access.testing.team import shared_key

TEAM = LocalTeam("acme")
EVIL = shared_key("stranger", 0)
PRIME = 2**2203 - 1
"""A prime modulus: whoever sees it knows the private exponent."""


def number(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwk(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**EVIL.jwk(), **changes}.items() if value is not ...}


N, E = EVIL.jwk()["n"], EVIL.jwk()["e"]
NO_ENTRIES: list[Any] = [None, True, 5, "RSA", [], {}, [EVIL.jwk()]]
POISON: dict[str, Any] = {
    "for encryption": jwk(use="enc"),
    "use null": jwk(use=None),
    "use in capitals": jwk(use="SIG"),
    "for encrypting": jwk(key_ops=["encrypt"]),
    "for signing": jwk(key_ops=["sign"]),
    "operations as text": jwk(key_ops="verify"),
    "operations empty": jwk(key_ops=[]),
    "operations null": jwk(key_ops=None),
    **{
        f"alg {alg}": jwk(alg=alg)
        for alg in ("RS512", "RS384", "PS256", "HS256", "RSA-OAEP", "none", "rs256", "", None)
    },
    **{f"kty {kty}": jwk(kty=kty) for kty in ("EC", "oct", "OKP", "rsa", "", None, ["RSA"])},
    **{f"with {name}": jwk(**{name: "AAAA"}) for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k")},
    "n with padding": jwk(n=N + "=="),
    "n in the standard alphabet": jwk(n=N.replace("-", "+").replace("_", "/") + "+"),
    "n with a space": jwk(n=f" {N}"),
    "n with a line break": jwk(n=f"{N}\n"),
    "n with leading zeros": jwk(
        n=base64url(bytes(1) + int.to_bytes(EVIL.private.public_key().public_numbers().n, 256))
    ),
    "n beyond ASCII": jwk(n=f"{N}ä"),
    **{f"n ({place})": jwk(n=n) for place, n in enumerate(("", "A", "AA", None, 5, [N], {"n": N}, ...))},
    **{
        f"e ({place})": jwk(e=e) for place, e in enumerate(("", "A", "AA", None, 65537, "AQAA", "AAEAAQ", E + "=", ...))
    },
    **{f"e {e}": jwk(e=number(e)) for e in (1, 2, 3, 5, 17, 257, 65_535, 65_536, 65_538, 65_540, 2**32, 2**32 + 1)},
    "e of 33 bits": jwk(e=number(2**32 + 1)),
    "e of 2048 bits": jwk(e=N),
    **{f"{bits} bits": jwk(n=number(2 ** (bits - 1) + 12_345)) for bits in (512, 768, 1024, 1536, 2047, 8193, 16_384)},
    "an even modulus": jwk(n=number(2**2047 + 2)),
    "a power of two": jwk(n=number(2**2047)),
    "a prime modulus": jwk(n=number(PRIME)),
    "a prime modulus of 2048 bits": jwk(n=number(2**2047 + 5061)),  # of which 2 is no square, other than above
    **{f"kid {kid!r:.20}": jwk(kid=kid) for kid in ("", None, 5, ["x"], "k" * 257, "a\nb", "ä", "\x7f", "a\0", ...)},
    **{f"entry {place}": entry for place, entry in enumerate(NO_ENTRIES)},
}


def document(*entries: Any) -> bytes:
    return compact_json({"keys": [*entries]})


@pytest.mark.conformance(14, 15, 16)
@pytest.mark.parametrize("entry", POISON.values(), ids=POISON)
def test_a_poisoned_entry_is_skipped_and_the_others_are_used(entry: Any) -> None:
    for entries in ((entry, *TEAM.certs()["keys"]), (*TEAM.certs()["keys"], entry)):
        keys = parse_jwks(document(*entries))
        assert set(keys.keys) == {key["kid"] for key in TEAM.certs()["keys"]}
        assert len(keys.skipped) == 1
    with pytest.raises(JwksProblem, match="no usable key"):
        parse_jwks(document(entry))


@pytest.mark.conformance(15)
def test_keys_from_2048_to_8192_bits_and_exponents_from_65537_are_used() -> None:
    assert (MIN_BITS, MAX_BITS, MIN_EXPONENT, MAX_EXPONENT, MAX_KID) == (2048, 8192, 65_537, 4_294_967_295, 256)
    for bits in (2048, 2049, 8191, 8192):
        modulus = 2 ** (bits - 1) + 2 ** (bits - 3) + 9  # divisible by nothing that matters here
        assert parse_jwks(document(jwk(n=number(modulus), e=number(65_537)))).keys
    for exponent in (65_537, 65_539, 65_541, 65_543, 2**32 - 1):
        assert parse_jwks(document(jwk(e=number(exponent)))).keys
    assert 64 <= (_build_key.cache_info().maxsize or 0) <= 1024


@pytest.mark.conformance(15)
@pytest.mark.parametrize("exponent", [1, 3, 65_536, 65_538, 65_540, 2**32, 2**32 + 1])
def test_an_exponent_is_refused_here_and_not_only_by_the_cryptography_library(exponent: int) -> None:
    with pytest.raises(JwksProblem, match="an unusable exponent"):
        parse_jwks(document(jwk(e=number(exponent))))


def test_a_key_set_cannot_be_changed() -> None:
    keys = parse_jwks(document(EVIL.jwk()))
    with pytest.raises(AttributeError):
        keys.keys = {}  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        keys.keys["x"] = keys.keys[EVIL.kid]  # type: ignore[index] # pyright: ignore[reportIndexIssue]
    assert not hasattr(keys, "__dict__")


def test_how_many_keys_a_document_may_have_is_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        parse_jwks(document(EVIL.jwk()), 5)  # type: ignore[call-arg, misc, unused-ignore] # pyright: ignore[reportCallIssue]


@pytest.mark.conformance(11)
def test_a_key_id_has_1_to_256_printable_ascii_characters() -> None:
    assert all(map(is_kid, ("x", " ", "~", "k" * 256, "../etc", '"')))
    assert not any(map(is_kid, ("", "k" * 257, "\x1f", "\x7f", "ä", b"x", 5, None, True)))


@pytest.mark.conformance(15)
def test_a_forgery_for_a_prime_modulus_is_possible_and_the_key_is_not_used() -> None:
    """Without the check, anybody who reads the certs document could sign."""
    claims = TEAM.user_claims("root@example.com")
    signed = f"{base64url(compact_json({'alg': 'RS256', 'kid': 'prime'}))}.{base64url(compact_json(claims))}".encode()
    from hashlib import sha256

    digest = SHA256_PREFIX + sha256(signed).digest()
    block = b"\x00\x01" + b"\xff" * (276 - 3 - len(digest)) + b"\x00" + digest
    forged = pow(int.from_bytes(block), pow(65_537, -1, PRIME - 1), PRIME)
    assert pow(forged, 65_537, PRIME).to_bytes(276) == block
    with pytest.raises(JwksProblem, match="anybody can factor"):
        parse_jwks(document(jwk(kid="prime", n=number(PRIME))))


@pytest.fixture
def access() -> CloudflareAccess[Any]:
    return CloudflareAccess(team_domain=TEAM.team_domain, audience=TEAM.audience)


@pytest.fixture
def certs(access: CloudflareAccess[Any]) -> Iterator[MemoryFetch]:
    with TEAM.serve(access) as certs:
        access.keys.seed(TEAM.certs_body(), fetched_at=TEAM.clock.now())
        yield certs


async def reason(access: CloudflareAccess[Any], token: str) -> str:
    try:
        await access._verifier.verify(token.encode())
    except AccessError as refusal:
        return refusal.reason
    return "let in"


SETS: dict[str, bytes] = {
    "empty": b"",
    "HTML": b"<!DOCTYPE html>",
    "no object": b"[]",
    "an error": b'{"success":false,"errors":[{"code":1000}]}',
    "keys null": b'{"keys":null}',
    "keys as object": compact_json({"keys": EVIL.jwk()}),
    "no keys": b'{"keys":[]}',
    "keys twice": b'{"keys":[],"keys":' + compact_json([EVIL.jwk()]) + b"}",
    "only public_cert": compact_json({"public_cert": {"kid": EVIL.kid, "cert": EVIL.certificate(0)}}),
    "one key without a set": compact_json(EVIL.jwk()),
    "a map of keys": compact_json({EVIL.kid: EVIL.jwk()}),
    "a byte order mark": b"\xef\xbb\xbf" + document(EVIL.jwk()),
    "rubbish behind": document(EVIL.jwk()) + b"x",
    "not closed": document(EVIL.jwk())[:-1],
    "NaN": b'{"x":NaN,' + document(EVIL.jwk())[1:],
    "nested deep": b'{"x":' + b"[" * 9000 + b"]" * 9000 + b"," + document(EVIL.jwk())[1:],
    "33 keys": document(*[jwk(kid=f"{number}") for number in range(33)]),
    "too long": document(EVIL.jwk()) + b" " * 65_536,
    "one kid with two keys": document(EVIL.jwk(), jwk(n=TEAM.current.jwk()["n"])),
    **{f"only {name}": document(entry) for name, entry in list(POISON.items())[::6]},
}


@pytest.mark.conformance(13, 14, 19)
@pytest.mark.parametrize("body", SETS.values(), ids=SETS)
def test_a_poisoned_set_takes_no_good_key_away_and_brings_none(
    body: bytes, access: CloudflareAccess[Any], certs: MemoryFetch
) -> None:
    async def scenario() -> list[str]:
        certs.answer_with(body)
        with pytest.raises(KeysUnavailable):
            await TEAM.clock.run_until(access.keys.refresh())
        good = TEAM.user_token("ada@example.com")
        claims = TEAM.user_claims("ada@example.com")
        under_ours = TEAM.sign(claims, header={"alg": "RS256", "kid": TEAM.current.kid}, key=EVIL)
        return [await reason(access, token) for token in (good, under_ours)]

    assert asyncio.run(scenario()) == ["let in", "invalid_signature"]


@pytest.mark.conformance(17)
def test_a_torn_kid_is_used_by_nobody_and_the_rest_of_the_set_is(
    access: CloudflareAccess[Any], certs: MemoryFetch
) -> None:
    async def scenario() -> list[str]:
        twin = jwk(kid=TEAM.current.kid)
        certs.answer_with(document(*TEAM.certs()["keys"], twin))
        await TEAM.clock.run_until(access.keys.refresh())
        assert TEAM.previous
        tokens = (TEAM.user_token("a@b.c"), TEAM.user_token("a@b.c", key=TEAM.previous))
        return [await reason(access, token) for token in tokens]

    assert asyncio.run(scenario()) == ["unknown_key", "let in"]


@pytest.mark.conformance(15)
@pytest.mark.parametrize(("bits", "exponent"), [(1024, 65_537), (2048, 3)])
def test_a_real_but_weak_key_signs_nothing_that_is_let_in(bits: int, exponent: int) -> None:
    weak = generate_private_key(exponent, bits).public_key().public_numbers()
    entry = json.loads(json.dumps(jwk(n=number(weak.n), e=number(weak.e))))
    with pytest.raises(JwksProblem):
        parse_jwks(document(entry))
