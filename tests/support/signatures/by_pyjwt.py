"""RS256 by PyJWT: what `_verification/signature.py` becomes with PyJWT instead of python-jose.

This package itself checks shape, header, key choice, JSON and claims.
"""

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

ALGORITHM = "RS256"
"""The one algorithm that Access signs with."""

_RS256 = RSAAlgorithm(RSAAlgorithm.SHA256)


class RS256Key:
    """A public RSA key that verifies RS256 signatures (RFC 7518 section 3.3)."""

    __slots__ = ("_material", "_size", "_verify")

    def __init__(self, *, n: str, e: str) -> None:
        """Build the key from the base64url members of a JWK (RFC 7518 section 6.3.1).

        Raises:
            Exception: The numbers are unusable; PyJWT and cryptography raise various classes.
        """
        key = RSAAlgorithm.from_jwk({"kty": "RSA", "n": n, "e": e})
        if not isinstance(key, RSAPublicKey):
            raise TypeError("not a public key")
        self._verify: Callable[[bytes, bytes], object] = lambda signing_input, signature: _RS256.verify(
            signing_input, key, signature
        )
        self._material = (n, e)
        self._size = (key.key_size + 7) // 8

    def __eq__(self, other: object) -> bool:
        """Check whether modulus and exponent are equal."""
        return isinstance(other, RS256Key) and self._material == other._material

    def __hash__(self) -> int:
        """Return a hash of modulus and exponent."""
        return hash(self._material)

    def verifies(self, signature: bytes, signing_input: bytes) -> bool:
        """Check a signature over the signing input (RFC 7515 section 5.2); it must be as long as the modulus."""
        return len(signature) == self._size and self._verify(signing_input, signature) is True
