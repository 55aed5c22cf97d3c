"""Poisoned certs documents over real sockets, on uvicorn with h11; in scripts/soak also on two other servers."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attacks.conftest import KINDS, SECONDS, serving
from attacks.odd import header
from attacks.poison import EVIL, POISON, PRIME, SETS, document, forged_for_prime, jwk, number
from attacks.wire import Connection, request
from attacks.workshop import Workshop, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from support.soaking import in_full

from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

Answer = tuple[int, str]
IN, UNCONFIRMED = (200, ""), (503, "key_unconfirmed")
UNKNOWN = (401, "token_expired, unverified")
"""What an expired token of an unknown key gets; if the key were known, the signature would be verified first."""
POISONED = {name: entry for name, entry in POISON.items() if isinstance(entry, dict) and entry.get("kid") == EVIL.kid}
"""The entries that are addressed by a good kid; here each has one of its own."""
OTHERS = [entry for name, entry in POISON.items() if name not in POISONED]


@pytest.fixture
def certs() -> Iterator[CertsServer]:
    with CertsServer(FakeTeam("acme", clock=SystemClock())) as certs:
        yield certs


def answer(connection: Connection, token: bytes) -> Answer:
    found = connection.ask(request(header(token)))
    unverified = found.field(b"x-unverified") == b"True"
    return found.status, found.reason + (", unverified" if unverified else "")


def signing(private: RSAPrivateKey) -> Callable[[bytes], bytes]:
    return lambda data: private.sign(data, PKCS1v15(), SHA256())


def weak_keys() -> Iterator[tuple[str, dict[str, Any], Callable[[bytes], bytes]]]:
    """Keys that are easy to break, each with the private key that signs for it."""
    for name, bits, exponent in (("1024 bits", 1024, 65_537), ("exponent 3", 2048, 3)):
        private = generate_private_key(exponent, bits)
        numbers = private.public_key().public_numbers()
        entry = jwk(n=number(numbers.n), e=number(numbers.e))
        yield name, entry, signing(private)
    yield "prime modulus", jwk(n=number(PRIME)), forged_for_prime
    for name in ("for encryption", "alg RS512", "with d"):
        yield name, POISON[name], rsa(EVIL, SHA256())


@pytest.mark.conformance(14, 15, 16)
@pytest.mark.parametrize("kind", in_full(KINDS, KINDS[:1]))
def test_a_token_signed_by_a_poisoned_key_is_of_an_unknown_key(kind: str, certs: CertsServer, tmp_path: Path) -> None:
    shop, weak = Workshop(certs.team), [*weak_keys()]
    poisoned = [{**entry, "kid": f"poisoned-{place}"} for place, entry in enumerate(POISONED.values())]
    poisoned += [{**entry, "kid": f"weak-{place}"} for place, (_, entry, _) in enumerate(weak)]
    certs.answer_with(document(*certs.team.certs()["keys"], *poisoned, *OTHERS, jwk(kid="sound")))
    wide = {"_keys.jwks.MAX_KEYS": 256, "_keys.document.MAX_DOCUMENT": 1_048_576, "_keys.rate_limiter.FETCH_GAP": 0.1}
    with serving(kind, certs, tmp_path / "log", constants=wide, unknown_kid_burst="10") as connection:
        assert answer(connection, shop.good.encode()) == IN
        assert answer(connection, by_evil(shop, "sound")) == IN
        assert answer(connection, by_evil(shop, "sound", exp=1)) == (401, "token_expired")
        wrong = {name: answer(connection, token) for name, token in tokens(shop, weak)}
        assert {name: found for name, found in wrong.items() if found not in (UNKNOWN, (401, "unknown_key"))} == {}
    assert len(wrong) > 70
    assert certs.fetches == 1 + len(weak)


def tokens(shop: Workshop, weak: list[tuple[str, Any, Callable[[bytes], bytes]]]) -> Iterator[tuple[str, bytes]]:
    """Sign by each; those that would be let in have the certs fetched again, so most have expired."""
    for place, name in enumerate(POISONED):
        yield name, by_evil(shop, f"poisoned-{place}", exp=1)
    for place, (name, _, sign) in enumerate(weak):
        yield f"in force, {name}", shop.under({"alg": "RS256", "kid": f"weak-{place}"}, sign)


def by_evil(shop: Workshop, kid: str, **claims: Any) -> bytes:
    return shop.signed(key=EVIL, header={"alg": "RS256", "kid": kid}, **claims)


@pytest.mark.conformance(13, 14, 19)
@pytest.mark.parametrize("kind", in_full(KINDS, KINDS[:1]))
def test_a_poisoned_set_takes_no_good_key_away_and_brings_none_to_a_server(
    kind: str, certs: CertsServer, tmp_path: Path
) -> None:
    shop = Workshop(certs.team)
    good, ours_by_evil = shop.good.encode(), by_evil(shop, shop.key.kid)
    wrong: dict[str, list[Answer]] = {}
    quick = {"_keys.rate_limiter.MAX_BACKOFF": 1.0, "_keys.rate_limiter.FETCH_GAP": 0.1}
    with serving(kind, certs, tmp_path / "log", constants=quick, unknown_kid_burst="10") as connection:
        for name, body in SETS.items():
            if name.removeprefix("only ") in POISON:
                continue  # the test above has its keys
            certs.answer_with(body)
            found = [fetched(connection, certs, by_evil(shop, f"looked for, {name}"))]
            found += [answer(connection, token) for token in (good, ours_by_evil)]
            if found != [UNCONFIRMED, IN, (401, "invalid_signature")]:
                wrong[name] = found
    assert wrong == {}
    assert b"Traceback" not in (tmp_path / "log").read_bytes()


def fetched(connection: Connection, certs: CertsServer, token: bytes) -> Answer:
    """Ask until that has the certs fetched, which is put off after each failure; give the last answer."""
    before, began = certs.fetches, time.monotonic()
    while True:
        found = answer(connection, token)
        if certs.fetches > before or found != UNCONFIRMED:
            return found
        assert time.monotonic() - began < SECONDS
        time.sleep(0.05)
