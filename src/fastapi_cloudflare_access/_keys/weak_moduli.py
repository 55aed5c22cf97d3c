"""RSA moduli that are easy to factor. Pure arithmetic; a modulus that passes is not proven to be strong."""

from functools import cache
from math import gcd, isqrt, prod

SMALL_PRIMES_BELOW = 1 << 12
"""Bound of the prime factors that are looked for."""
FERMAT_ROUNDS = 100
"""Number of steps of Fermat's method, which finds two factors that are close to each other."""
_MERSENNE_DISTANCE = 1 << 16
_ROCA_PRIMES = 39
"""Number of primes of the ROCA fingerprint (Nemec et al., CCS 2017): 3 to 167 and 65537 as the generator."""
_ROCA_GENERATOR = 65537


def is_easy_to_factor(modulus: int) -> bool:
    """Check whether a modulus is prime, has a small or a close pair of factors, or comes from a known weak generator.

    It detects even numbers, primes, factors below 4,096, squares and close factors, numbers next to a power of two,
    and keys with the ROCA fingerprint (CVE-2017-15361).
    """
    return (
        gcd(modulus, _small_primorial()) > 1
        or pow(2, modulus - 1, modulus) == 1
        or abs(modulus - (1 << modulus.bit_length())) < _MERSENNE_DISTANCE
        or modulus - (1 << (modulus.bit_length() - 1)) < _MERSENNE_DISTANCE
        or _has_close_factors(modulus)
        or _has_roca_fingerprint(modulus)
    )


def _has_close_factors(modulus: int) -> bool:
    root = isqrt(modulus)
    root += root * root < modulus
    for step in range(FERMAT_ROUNDS):
        rest = (root + step) ** 2 - modulus
        if isqrt(rest) ** 2 == rest:
            return True
    return False


def _has_roca_fingerprint(modulus: int) -> bool:
    return all(modulus % prime in residues for prime, residues in _roca_residues())


@cache
def _primes() -> tuple[int, ...]:
    return tuple(n for n in range(2, SMALL_PRIMES_BELOW) if all(n % d for d in range(2, isqrt(n) + 1)))


@cache
def _small_primorial() -> int:
    return prod(_primes())


@cache
def _roca_residues() -> tuple[tuple[int, frozenset[int]], ...]:
    """Return for each prime the powers of the generator modulo it; moduli of weak keys have no other residues."""
    return tuple(
        (prime, frozenset(pow(_ROCA_GENERATOR, exponent, prime) for exponent in range(prime)))
        for prime in _primes()[1:_ROCA_PRIMES]
    )
