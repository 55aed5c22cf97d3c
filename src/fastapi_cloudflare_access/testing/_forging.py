"""Functions that make invalid tokens; `forgeries` names each kind."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fastapi_cloudflare_access.testing._issuer import Issuer, SigningKey, base64url, compact_json

HOUR = 3600


@dataclass(frozen=True, slots=True)
class ForgeryBase:
    """A valid token and its parts, from which a forgery is made.

    Attributes:
        team: The team whose token is forged.
        claims: The claims of the valid token.
        unpublished_key: A key that the team never published.
    """

    team: Issuer
    claims: dict[str, Any]
    unpublished_key: SigningKey

    @property
    def kid(self) -> str:
        """The `kid` of the current key."""
        return self.team.current.kid

    @property
    def header(self) -> dict[str, Any]:
        """The header of the valid token."""
        return {"alg": "RS256", "kid": self.kid}

    @property
    def token(self) -> str:
        """The valid token."""
        return self.team.sign(self.claims)

    @property
    def previous(self) -> SigningKey:
        """The previous key of the team, or an unpublished key without one."""
        return self.team.previous or self.unpublished_key


Make = Callable[[ForgeryBase], str]
"""A function that makes the invalid token from a valid one."""


def claims(**changes: Any) -> Make:
    """Sign with some claims replaced."""
    return lambda base: base.team.sign({**base.claims, **changes})


def claim(name: str, edit: Callable[[Any], Any]) -> Make:
    """Sign with one claim edited."""
    return lambda base: base.team.sign({**base.claims, name: edit(base.claims[name])})


def audience(edit: Callable[[tuple[str, ...]], list[Any]]) -> Make:
    """Sign with an `aud` computed from the team's audiences."""
    return lambda base: base.team.sign({**base.claims, "aud": edit(base.team.audiences)})


def foreign_audience(own: tuple[str, ...]) -> list[str]:
    """Return an audience that the team does not have."""
    return [next(tag for length in count(64) if (tag := "f" * length) not in own)]


def foreign_issuer(own: str) -> str:
    """Return the team domain of another team."""
    evil = "https://evil.cloudflareaccess.com"
    return evil if own != evil else "https://good.cloudflareaccess.com"


def without(missing: str) -> Make:
    """Sign without one claim."""
    return lambda base: base.team.sign({name: value for name, value in base.claims.items() if name != missing})


def shifted(name: str, hours: int) -> Make:
    """Sign with one time set to `iat` plus this many hours."""
    return lambda base: base.team.sign({**base.claims, name: base.claims["iat"] + hours * HOUR})


def header(**changes: Any) -> Make:
    """Sign with some header members replaced."""
    return lambda base: base.team.sign(base.claims, header={**base.header, **changes})


def header_without(missing: str) -> Make:
    """Sign without one header member."""
    return lambda base: base.team.sign(
        base.claims, header={name: value for name, value in base.header.items() if name != missing}
    )


def header_bytes(edit: Callable[[bytes], bytes]) -> Make:
    """Sign with the bytes of the header edited."""
    return lambda base: base.team.sign(base.claims, header=edit(compact_json(base.header)))


def payload(edit: Callable[[bytes], bytes]) -> Make:
    """Sign with the bytes of the payload edited."""
    return lambda base: base.team.sign(edit(compact_json(base.claims)))


def extra_member(text: bytes) -> Make:
    """Sign with one more claim, given as JSON text."""
    return payload(lambda whole: whole[:-1] + b"," + text + b"}")


def text(edit: Callable[[str], str]) -> Make:
    """Edit the finished token."""
    return lambda base: edit(base.token)


def signature(sign: Callable[[SigningKey, bytes], bytes], **header: Any) -> Make:
    """Sign with another signature function, and with some header members replaced."""

    def make(base: ForgeryBase) -> str:
        signed = f"{base64url(compact_json({**base.header, **header}))}.{base64url(compact_json(base.claims))}"
        return f"{signed}.{base64url(sign(base.team.current, signed.encode()))}"

    return make


def unpublished_key(**changes: Any) -> Make:
    """Sign with an unpublished key under its own `kid`."""
    return lambda base: base.team.sign({**base.claims, **changes}, key=base.unpublished_key)


def other_team(base: ForgeryBase) -> str:
    """Sign with the issuer and the key of another team."""
    return unpublished_key(iss=foreign_issuer(base.team.issuer))(base)


def under_published_kid(key: Callable[[ForgeryBase], SigningKey]) -> Make:
    """Sign with another key under the `kid` of the current key."""
    return lambda base: base.team.sign(base.claims, header=base.header, key=key(base))


def other_segment(number: int, other: Callable[[ForgeryBase], str]) -> Make:
    """Replace one segment with that of another token."""

    def make(base: ForgeryBase) -> str:
        segments = base.token.split(".")
        segments[number] = other(base).split(".")[number]
        return ".".join(segments)

    return make


def embedded_key(base: ForgeryBase) -> str:
    """Sign with an unpublished key that the header contains as `jwk`."""
    key = base.unpublished_key
    return base.team.sign(base.claims, header={"alg": "RS256", "kid": key.kid, "jwk": key.jwk()}, key=key)


def other_trailing_bits(token: str) -> str:
    """Encode the same signature with other trailing bits, which a lenient decoder ignores."""
    return token[:-1] + chr(ord(token[-1]) + 1)


def no_signature(_key: SigningKey, _data: bytes) -> bytes:
    """Return an empty signature."""
    return b""


def hmac_with_public_key(key: SigningKey, data: bytes) -> bytes:
    """Sign with HS256 and the public key as the secret."""
    secret = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hmac.digest(secret, data, "sha256")


def pss(key: SigningKey, data: bytes) -> bytes:
    """Sign with PS256."""
    return key.private.sign(data, PSS(MGF1(hashes.SHA256()), PSS.DIGEST_LENGTH), hashes.SHA256())


def sha512(key: SigningKey, data: bytes) -> bytes:
    """Sign with RS512."""
    return key.private.sign(data, PKCS1v15(), hashes.SHA512())


def ecdsa(_: SigningKey, data: bytes) -> bytes:
    """Sign with ES256 and a fixed test key."""
    signature = ec.derive_private_key(7, ec.SECP256R1()).sign(data, ec.ECDSA(hashes.SHA256()))
    return b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(signature))


def nested(levels: int) -> list[Any]:
    """Return nested lists of this depth."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value
