"""RS256 by cryptography alone: what `_verification/signature.py` becomes without python-jose.

This package itself checks shape, header, key choice, JSON and claims.
"""

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

from fastapi_cloudflare_access._verification.strict import decode_base64url

ALGORITHM = "RS256"
"""The one algorithm that Access signs with."""


class RS256Key:
    """A public RSA key that verifies RS256 signatures (RFC 7518 section 3.3)."""

    __slots__ = ("_material", "_size", "_verify")

    def __init__(self, *, n: str, e: str) -> None:
        """Build the key from the base64url members of a JWK (RFC 7518 section 6.3.1).

        Raises:
            Exception: The numbers are unusable; cryptography raises various classes.
        """
        key = RSAPublicNumbers(_integer(e), _integer(n)).public_key()
        self._verify: Callable[[bytes, bytes], object] = _verification(key)
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


def _integer(text: str) -> int:
    return int.from_bytes(decode_base64url(text.encode("ascii")))


def _verification(key: RSAPublicKey) -> Callable[[bytes, bytes], object]:
    padding, digest = PKCS1v15(), SHA256()

    def verify(signing_input: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, signing_input, padding, digest)
        except InvalidSignature:
            return False
        return True

    return verify
