"""Signatures over the records of a store: HMAC-SHA256 (RFC 2104) under keys that are derived from its secret."""

import hmac
import re
from collections.abc import Sequence
from typing import Any, cast

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import Secret

MIN_SECRET = 32
"""Number of bytes that each secret of a store must have."""
MAX_SECRETS = 8
"""Number of secrets that a store may have at once, during a rotation."""
FORMAT = b"cf-access-1"
"""Name and version of the format of a signed record; the signature covers it."""

_HEADER = re.compile(FORMAT + rb" ([0-9a-f]{64})\n")
_MAC_DIGITS = 64
OVERHEAD = len(FORMAT) + _MAC_DIGITS + 2
"""Number of bytes by which a signed record is longer than its payload."""

_MAKE_ONE = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


class SignatureProblem(ValueError):
    """The record is not signed with a secret of the store; the message never quotes it."""


class Signer:
    """Signs the records of one kind, and verifies them."""

    __slots__ = ("_keys",)

    def __init__(self, secret: Secret, *, purpose: str) -> None:
        """Derive a key from each secret.

        Args:
            secret: The secret, or several: the first one signs, and records of each are accepted.
            purpose: Kind of the records, such as `snapshot`; records of another kind are not accepted.

        Raises:
            ConfigurationError: A secret is missing, too short or not text or bytes.
        """
        label = FORMAT + b" " + purpose.encode()
        self._keys = tuple(hmac.digest(each, label, "sha256") for each in checked_secrets(secret))

    def sign(self, payload: bytes) -> bytes:
        """Return the signed record of a payload."""
        return FORMAT + b" " + self._mac(self._keys[0], payload) + b"\n" + payload

    def verify(self, record: bytes, *, limit: int) -> bytes:
        """Return the payload of a signed record.

        Args:
            record: What the store returned.
            limit: Number of bytes that the payload may have; a longer one is not hashed.

        Raises:
            SignatureProblem: The record is too long, or not signed with a secret of the store.
        """
        if len(record) > limit + OVERHEAD:
            raise SignatureProblem(f"it is longer than {limit} bytes")
        header = _HEADER.match(record)
        if header is None:
            raise SignatureProblem("it is not a signed record")
        payload = record[header.end() :]
        matches = [hmac.compare_digest(self._mac(key, payload), header[1]) for key in self._keys]
        if not any(matches):
            raise SignatureProblem("it is not signed with the secret of the store")
        return payload

    def digests(self, text: str) -> tuple[str, ...]:
        """Return keyed digests of a text, such as an address, that only the secret can link to it.

        There is one for each secret, since records of an earlier secret carry its digest. The first one is for new
        records.
        """
        return tuple(hmac.digest(key, b"digest " + text.encode(), "sha256").hex() for key in self._keys)

    @staticmethod
    def _mac(key: bytes, payload: bytes) -> bytes:
        return hmac.digest(key, FORMAT + b"\n" + payload, "sha256").hex().encode()


def checked_secrets(secret: Any) -> tuple[bytes, ...]:
    """Return the secrets of a store as bytes, the signing one first.

    Raises:
        ConfigurationError: A secret is missing, too short or not text or bytes.
    """
    several = isinstance(secret, Sequence) and not isinstance(secret, str | bytes)
    given: list[Any] = [*cast("Sequence[Any]", secret)] if several else [secret]
    if not 1 <= len(given) <= MAX_SECRETS:
        raise ConfigurationError(f"secret must be one secret, or a list of at most {MAX_SECRETS}; {_MAKE_ONE}")
    return tuple(_checked(each) for each in given)


def _checked(secret: Any) -> bytes:
    if not isinstance(secret, str | bytes):
        raise ConfigurationError(f"secret must be text or bytes, or a list of these; {_MAKE_ONE}")
    if isinstance(secret, str) and secret != secret.strip():
        raise ConfigurationError("secret must not begin or end with a blank or a line break: pass secret.strip()")
    encoded = secret.encode(errors="surrogatepass") if isinstance(secret, str) else secret
    if len(encoded) < MIN_SECRET:
        raise ConfigurationError(f"secret must have at least {MIN_SECRET} bytes, not {len(encoded)}; {_MAKE_ONE}")
    return encoded
