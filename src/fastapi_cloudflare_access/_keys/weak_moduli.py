"""RSA moduli that are easy to factor. Pure arithmetic; a modulus that passes is not proven to be strong.

| class | source |
|---|---|
| a small factor | Lenstra et al., "Ron was wrong, Whit is right", 2012; NIST SP 800-89 section 5.3.3 |
| a Mersenne number | Brillhart et al., "Factorizations of bⁿ ± 1", 1983 |
| two close factors | Böck, "Fermat Factorization in the Wild", 2023 (CVE-2022-26320) |
| a prime or a prime power | Cohen, "A Course in Computational Algebraic Number Theory", 1993, section 1.7 |
| the ROCA fingerprint | Nemec et al., "The Return of Coppersmith's Attack", 2017 (CVE-2017-15361) |
"""

from collections.abc import Callable
from functools import cache
from math import gcd, isqrt, prod

SMALL_PRIMES_BELOW = 1 << 12
"""Bound of the prime factors that are looked for."""
FERMAT_ROUNDS = 100
"""Number of steps of Fermat's method, which finds two factors that are close to each other."""
_MERSENNE_DISTANCE = 1 << 16
"""Distance from a power of two below which a modulus counts as a Mersenne number."""
_MERSENNE_PRIMES = (13, 17, 19, 31, 61, 89, 107, 127, 521, 607, 1279, 2203, 2281, 3217, 4253, 4423)
"""Exponents of the Mersenne primes from 4,096 to the largest modulus (sequence A000043 of the OEIS)."""
_ROCA_PRIMES = 39
"""Number of primes of the ROCA fingerprint: 3 to 167; the generator is 65537."""
_ROCA_GENERATOR = 65537


def weakness(modulus: int) -> str | None:
    """Return the class of a modulus that is easy to factor, or None.

    The first class that fits is returned, in the order of the table above. Two factors are close if Fermat's method
    finds them in 100 steps. A Mersenne number is next to a power of two, or has a Mersenne prime as a factor.
    """
    return next((name for name, fits in _CLASSES.items() if fits(modulus)), None)


def _has_small_factor(modulus: int) -> bool:
    return gcd(modulus, _small_primorial()) > 1


def _is_prime_power(modulus: int) -> bool:
    """Check by Fermat's little theorem: a prime `p` divides `2**(p**k - 1) - 1`, for each power `k`.

    The same step finds other factors that an attacker finds in it, such as a `p` where `p - 1` divides `q - 1`.
    """
    return gcd(pow(2, modulus - 1, modulus) - 1, modulus) > 1


def _is_mersenne_number(modulus: int) -> bool:
    above = modulus - (1 << (modulus.bit_length() - 1))
    below = (1 << modulus.bit_length()) - modulus
    return min(above, below) < _MERSENNE_DISTANCE or gcd(modulus, _mersenne_product()) > 1


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
def _mersenne_product() -> int:
    return prod((1 << exponent) - 1 for exponent in _MERSENNE_PRIMES)


@cache
def _roca_residues() -> tuple[tuple[int, frozenset[int]], ...]:
    """Return for each prime the powers of the generator modulo it; moduli of weak keys have no other residues."""
    return tuple(
        (prime, frozenset(pow(_ROCA_GENERATOR, exponent, prime) for exponent in range(prime)))
        for prime in _primes()[1:_ROCA_PRIMES]
    )


_CLASSES: dict[str, Callable[[int], bool]] = {
    "a small factor": _has_small_factor,
    "a Mersenne number": _is_mersenne_number,
    "two close factors": _has_close_factors,
    "a prime or a prime power": _is_prime_power,
    "the ROCA fingerprint": _has_roca_fingerprint,
}
