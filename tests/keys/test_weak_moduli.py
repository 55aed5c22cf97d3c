"""Moduli that are easy to factor, of each class, and strong ones."""

import random
from collections.abc import Callable
from fractions import Fraction
from itertools import count
from math import gcd, isqrt, prod

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from fastapi_cloudflare_access._keys import jwks, weak_moduli
from fastapi_cloudflare_access._keys.jwks import JwksProblem, parse_jwks
from fastapi_cloudflare_access._keys.weak_moduli import FERMAT_ROUNDS, weakness
from fastapi_cloudflare_access.testing import FakeTeam
from fastapi_cloudflare_access.testing._issuer import base64url, compact_json

STRONG = rsa.generate_private_key(65537, 2048).private_numbers()
P, Q, N = STRONG.p, STRONG.q, STRONG.public_numbers.n

SMALL, MERSENNE, CLOSE = "a small factor", "a Mersenne number", "two close factors"
PRIME_POWER, ROCA = "a prime or a prime power", "the ROCA fingerprint"

PUBLISHED_ROCA = int(
    "944e13208a280c37efc31c3114485e590192adbb8e11c87cad60cdef0037ce99278330d3f471a2538fa667802ed2a3c44a8b7dea826e888d0aa341fd664f"
    "7fa7",
    16,
)
"""The 512-bit modulus that the authors of the attack published as an example of a weak key."""


def prime_of(bits: int) -> int:
    """A random prime of so many bits."""
    return rsa.generate_private_key(65537, 2 * bits).private_numbers().p


def next_prime(number: int) -> int:
    """The smallest prime above an odd number."""
    number += 2
    while gcd(number, weak_moduli._small_primorial()) > 1 or pow(2, number - 1, number) != 1:
        number += 2
    return number


def roca_modulus() -> int:
    """A modulus of two primes `k * M + (65537**a mod M)`, as the affected chips make them for 2048 bits."""
    chance, primorial = random.Random(0), prod(weak_moduli._primes()[:126])

    def prime() -> int:
        while True:
            factor, exponent = chance.getrandbits(53) | 1 << 53, chance.getrandbits(62)
            number = factor * primorial + pow(65537, exponent, primorial)
            if pow(2, number - 1, number) == 1:
                return number

    return prime() * prime()


VECTORS: dict[str, tuple[str, Callable[[], int]]] = {
    "even": (SMALL, lambda: 2 * N),
    "three times a number": (SMALL, lambda: 3 * N),
    "the largest small prime as a factor": (SMALL, lambda: 4093 * N),
    "a Mersenne prime": (MERSENNE, lambda: 2**2203 - 1),
    "a Mersenne number": (MERSENNE, lambda: 2**2053 - 1),
    "two Mersenne primes": (MERSENNE, lambda: (2**607 - 1) * (2**2203 - 1)),
    "a Mersenne prime and a strong one": (MERSENNE, lambda: (2**1279 - 1) * P),
    "the smallest Mersenne prime that is not small": (MERSENNE, lambda: 8191 * N),
    "the largest Mersenne prime that fits": (MERSENNE, lambda: (2**4423 - 1) * P),
    "above a power of two": (MERSENNE, lambda: 2**2048 + 21),
    "below a power of two": (MERSENNE, lambda: 2**2048 - 29),
    "a square": (CLOSE, lambda: P * P),
    "two primes that follow each other": (CLOSE, lambda: P * next_prime(P)),
    "the fourth power of a prime": (CLOSE, lambda: prime_of(520) ** 4),
    "a prime": (PRIME_POWER, lambda: prime_of(2048)),
    "the cube of a prime": (PRIME_POWER, lambda: prime_of(700) ** 3),
    "the fifth power of a prime": (PRIME_POWER, lambda: prime_of(512) ** 5),
    "the ROCA fingerprint": (ROCA, roca_modulus),
}
"""By its name: the class of a modulus, and what makes it."""


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_a_strong_modulus_passes(bits: int) -> None:
    assert weakness(rsa.generate_private_key(65537, bits).public_key().public_numbers().n) is None


@pytest.mark.parametrize("name", VECTORS)
def test_a_modulus_that_is_easy_to_factor_is_noticed_and_its_class_is_named(name: str) -> None:
    expected, make = VECTORS[name]
    with pytest.raises(JwksProblem, match=f"easy to factor: {expected}$"):
        parse_jwks(compact_json({"keys": [jwk(make())]}))


def jwk(modulus: int) -> dict[str, str]:
    octets = modulus.to_bytes((modulus.bit_length() + 7) // 8)
    return {"kty": "RSA", "kid": "weak", "n": base64url(octets), "e": "AQAB"}


def test_each_class_has_a_vector_and_a_source() -> None:
    documented = [line for line in (weak_moduli.__doc__ or "").splitlines() if line.startswith("| ")]
    classes = [line.split("|")[1].strip() for line in documented[1:]]
    assert classes == [*weak_moduli._CLASSES]
    assert {*classes} == {expected for expected, _ in VECTORS.values()}


def test_factors_that_are_close_to_each_other_are_noticed() -> None:
    """Fermat's method finds p and p + 2d after about d² / 2p steps; here after none, and after as many as are made."""
    assert FERMAT_ROUNDS == 100
    close = P * (P + 2)
    assert weak_moduli._has_close_factors(close)
    root, rounds = isqrt(close) + 1, FERMAT_ROUNDS - 1
    distance = isqrt(2 * root * rounds)
    assert weak_moduli._has_close_factors((root - distance) * (root + distance))
    far = isqrt(2 * root * (FERMAT_ROUNDS + 2))
    assert not weak_moduli._has_close_factors((root - far) * (root + far))


def test_a_modulus_next_to_a_power_of_two_is_noticed_up_to_a_distance_of_65536() -> None:
    small = weak_moduli._small_primorial()

    def nearest(distance: int, sign: int) -> int:
        return next(n for n in count(distance) if gcd(2**2048 + sign * n, small) == 1)

    for sign in (1, -1):
        for distance, is_near in ((1, True), (32_768, True), (65_000, True), (65_537, False), (100_000, False)):
            assert (weakness(2**2048 + sign * nearest(distance, sign)) == MERSENNE) is is_near


def test_each_prime_and_each_of_its_odd_powers_is_noticed() -> None:
    chance = random.Random(0)
    for _ in range(8):
        prime = next_prime(chance.getrandbits(420) | 1 << 420 | 1)
        assert [weakness(prime**power) for power in (1, 3, 5)] == [PRIME_POWER] * 3


def test_the_roca_fingerprint_alone_is_noticed() -> None:
    assert weakness(PUBLISHED_ROCA) == ROCA
    assert not weak_moduli._has_roca_fingerprint(N)


def test_fewer_than_one_strong_modulus_in_100_million_has_the_roca_fingerprint() -> None:
    shares = [Fraction(len(residues), prime - 1) for prime, residues in weak_moduli._roca_residues()]
    assert prod(shares) < Fraction(1, 10**8)


def test_the_exponents_are_those_of_mersenne_primes() -> None:
    """By the test of Lucas and Lehmer, for each prime exponent of a number that a modulus could have as a factor."""
    small = [prime for prime in weak_moduli._primes() if 12 < prime < 1300]
    assert [exponent for exponent in small if is_mersenne_prime(exponent)] == [
        exponent for exponent in weak_moduli._MERSENNE_PRIMES if exponent < 1300
    ]
    assert all(map(is_mersenne_prime, (exponent for exponent in weak_moduli._MERSENNE_PRIMES if exponent > 1300)))


def test_the_small_primes_are_those_below_4096() -> None:
    sieve = [True] * 4096
    for factor in range(2, 64):
        sieve[2 * factor :: factor] = [False] * len(sieve[2 * factor :: factor])
    assert weak_moduli._primes() == tuple(number for number in range(2, 4096) if sieve[number])


def is_mersenne_prime(exponent: int) -> bool:
    number, residue = (1 << exponent) - 1, 4
    for _ in range(exponent - 2):
        residue = (residue * residue - 2) % number
    return residue == 0


def test_a_modulus_is_checked_once_however_often_its_key_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []

    def counted(modulus: int) -> str | None:
        checked.append(modulus)
        return weakness(modulus)

    monkeypatch.setattr(jwks, "weakness", counted)
    jwks._build_key.cache_clear()
    strong, weak = FakeTeam("acme").certs()["keys"], jwk(P * P)
    for kid in ("first", "second", "third"):
        document = compact_json({"keys": [*strong, {**weak, "kid": kid}]})
        assert parse_jwks(document).skipped == (f"a modulus that is easy to factor: {CLOSE}",)
    assert len(checked) == len(set(checked)) == len(strong) + 1
