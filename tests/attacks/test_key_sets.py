"""Poisoned certs documents: none of their bad keys is used, and none takes the place of good ones."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from attacks.poison import EVIL, POISON, PRIME, SETS, document, forged_for_prime, jwk, number
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._keys import jwks
from fastapi_cloudflare_access._keys.jwks import (
    MAX_BITS,
    MAX_EXPONENT,
    MIN_BITS,
    MIN_EXPONENT,
    JwksProblem,
    _build_key,
    parse_jwks,
)
from fastapi_cloudflare_access._verification.strict import MAX_KID, is_kid
from fastapi_cloudflare_access.errors import AccessError, KeysUnavailable
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch
from fastapi_cloudflare_access.testing._issuer import base64url, compact_json

TEAM = FakeTeam("acme")


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
def test_keys_from_2048_to_8192_bits_and_exponents_from_65537_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the search for weak moduli, which takes seconds for the largest and has tests of its own."""
    monkeypatch.setattr(jwks, "weakness", lambda modulus: None)
    assert (MIN_BITS, MAX_BITS, MIN_EXPONENT, MAX_EXPONENT, MAX_KID) == (2048, 8192, 65_537, 4_294_967_295, 256)
    for bits in (2048, 2049, 8191, 8192):
        modulus = 2 ** (bits - 1) + 2 ** (bits - 3) + 9
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
    """Without the check, every client that reads the certs document could sign."""
    claims = TEAM.user_claims("root@example.com")
    signed = f"{base64url(compact_json({'alg': 'RS256', 'kid': 'prime'}))}.{base64url(compact_json(claims))}".encode()
    assert len(forged_for_prime(signed)) == 276
    with pytest.raises(JwksProblem, match="easy to factor"):
        parse_jwks(document(jwk(kid="prime", n=number(PRIME))))


@pytest.fixture
def access() -> CloudflareAccess[Any]:
    return CloudflareAccess(team_domain=TEAM.team_domain, audience=TEAM.audience)


@pytest.fixture
def certs(access: CloudflareAccess[Any]) -> Iterator[MemoryFetch]:
    with TEAM.patch(access) as certs:
        access.keys.seed(TEAM.certs_body(), fetched_at=TEAM.clock.now())
        yield certs


async def reason(access: CloudflareAccess[Any], token: str) -> str:
    try:
        await access._authenticator.verifier.verify(token.encode())
    except AccessError as refusal:
        return refusal.reason
    return "let in"


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


@pytest.mark.conformance(16)
@pytest.mark.parametrize(
    ("entry", "said"),
    [(jwk(d="AAAA"), "a private key"), ({"kty": "oct", "kid": "secret", "k": "AAAA"}, "not an RSA key")],
    ids=["private", "symmetric"],
)
def test_a_private_key_among_the_keys_is_a_warning_that_does_not_repeat_it(
    entry: Any, said: str, access: CloudflareAccess[Any], certs: MemoryFetch, caplog: pytest.LogCaptureFixture
) -> None:
    certs.answer_with(document(*TEAM.certs()["keys"], entry))
    asyncio.run(TEAM.clock.run_until(access.keys.refresh()))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"cf-access ignores an entry of the certs document: {said}"]


@pytest.mark.conformance(17)
def test_a_conflicting_kid_is_not_used_and_the_other_keys_are(
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
