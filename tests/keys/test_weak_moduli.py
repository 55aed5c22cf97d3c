"""Moduli that are easy to factor, of each kind, and strong ones."""

from math import isqrt

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from fastapi_cloudflare_access._keys import weak_moduli
from fastapi_cloudflare_access._keys.weak_moduli import FERMAT_ROUNDS, is_easy_to_factor

STRONG = rsa.generate_private_key(65537, 2048).private_numbers()
P = STRONG.p

ROCA = int(
    "944e13208a280c37efc31c3114485e590192adbb8e11c87cad60cdef0037ce99278330d3f471a2538fa667802ed2a3c44a8b7dea826e888d0aa341fd664f"
    "7fa7",
    16,
)
"""The 512-bit modulus that the authors of the attack published as an example of a weak key."""


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_a_strong_modulus_passes(bits: int) -> None:
    assert not is_easy_to_factor(rsa.generate_private_key(65537, bits).public_key().public_numbers().n)


@pytest.mark.parametrize(
    ("about", "modulus"),
    [
        ("even", STRONG.public_numbers.n - 1),
        ("a prime", P),
        ("a square", P * P),
        ("three times a number", 3 * P * STRONG.q),
        ("the largest small prime as a factor", 4093 * P * STRONG.q),
        ("a Mersenne prime", 2**2203 - 1),
        ("a Mersenne number", 2**2053 - 1),
        ("next to a power of two", 2**2048 + 21),
        ("below a power of two", 2**2048 - 29),
        ("the ROCA fingerprint", ROCA),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_modulus_that_is_easy_to_factor_is_noticed(about: str, modulus: int) -> None:
    assert is_easy_to_factor(modulus), about


def test_factors_that_are_close_to_each_other_are_noticed() -> None:
    """Fermat's method finds p and p + 2d after about d² / 2p steps; here after none, and after as many as are made."""
    close = P * (P + 2)
    assert weak_moduli._has_close_factors(close)
    root, rounds = isqrt(close) + 1, FERMAT_ROUNDS - 1
    distance = isqrt(2 * root * rounds)
    assert weak_moduli._has_close_factors((root - distance) * (root + distance))
    far = isqrt(2 * root * (FERMAT_ROUNDS + 2))
    assert not weak_moduli._has_close_factors((root - far) * (root + far))


def test_the_roca_fingerprint_alone_is_noticed() -> None:
    assert weak_moduli._has_roca_fingerprint(ROCA)
    assert not weak_moduli._has_roca_fingerprint(STRONG.public_numbers.n)
