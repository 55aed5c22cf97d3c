"""RS256 by python-jose with a prebuilt key; no other module imports python-jose.

This package itself checks shape, header, key choice, JSON and claims.
"""

from collections.abc import Callable

from jose import jwk
from jose.backends.cryptography_backend import CryptographyRSAKey

ALGORITHM = "RS256"
"""The one algorithm that Access signs with."""

if jwk.get_key(ALGORITHM) is not CryptographyRSAKey:  # pragma: no cover - tested in another process
    msg = "python-jose is not using pyca/cryptography; install python-jose[cryptography]"
    raise RuntimeError(msg)


class RS256Key:
    """A public RSA key that verifies RS256 signatures (RFC 7518 section 3.3)."""

    __slots__ = ("_key", "_material", "_size", "_verify")

    def __init__(self, *, n: str, e: str) -> None:
        """Build the key from the base64url members of a JWK (RFC 7518 section 6.3.1).

        Raises:
            Exception: The numbers are unusable; python-jose and cryptography raise various classes.
        """
        self._key = CryptographyRSAKey({"kty": "RSA", "n": n, "e": e}, ALGORITHM)
        self._verify: Callable[[bytes, bytes], object] = getattr(self._key, "verify")  # noqa: B009 - has no types
        self._material = (n, e)
        self._size = (self._key.prepared_key.key_size + 7) // 8

    def __eq__(self, other: object) -> bool:
        """Check whether modulus and exponent are equal."""
        return isinstance(other, RS256Key) and self._material == other._material

    def __hash__(self) -> int:
        """Return a hash of modulus and exponent."""
        return hash(self._material)

    def verifies(self, signature: bytes, signing_input: bytes) -> bool:
        """Check a signature over the signing input (RFC 7515 section 5.2); it must be as long as the modulus."""
        return len(signature) == self._size and self._verify(signing_input, signature) is True
