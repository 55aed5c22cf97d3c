"""How tokens are broken; `forgeries` gives each way its name."""

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
class Base:
    """What a forgery starts from: a good token and what it is made of.

    Attributes:
        team: The team whose token is forged.
        claims: Of the good token.
        stranger: A key that the team never published.
    """

    team: Issuer
    claims: dict[str, Any]
    stranger: SigningKey

    @property
    def kid(self) -> str:
        """The id of the key that signs."""
        return self.team.current.kid

    @property
    def header(self) -> dict[str, Any]:
        """Of the good token."""
        return {"alg": "RS256", "kid": self.kid}

    @property
    def token(self) -> str:
        """The good token."""
        return self.team.sign(self.claims)

    @property
    def previous(self) -> SigningKey:
        """A key of the team's past."""
        return self.team.previous or self.stranger


Make = Callable[[Base], str]


def claims(**changes: Any) -> Make:
    """Sign other claims."""
    return lambda base: base.team.sign({**base.claims, **changes})


def claim(name: str, edit: Callable[[Any], Any]) -> Make:
    """Sign one claim edited."""
    return lambda base: base.team.sign({**base.claims, name: edit(base.claims[name])})


def audience(edit: Callable[[tuple[str, ...]], list[Any]]) -> Make:
    """Sign another `aud`, made of the team's audiences."""
    return lambda base: base.team.sign({**base.claims, "aud": edit(base.team.audiences)})


def foreign_audience(own: tuple[str, ...]) -> list[str]:
    """An audience of somebody else."""
    return [next(tag for length in count(64) if (tag := "f" * length) not in own)]


def foreign_issuer(own: str) -> str:
    """The team domain of somebody else."""
    evil = "https://evil.cloudflareaccess.com"
    return evil if own != evil else "https://good.cloudflareaccess.com"


def without(missing: str) -> Make:
    """Sign all claims but one."""
    return lambda base: base.team.sign({name: value for name, value in base.claims.items() if name != missing})


def hours(number: int, name: str) -> Make:
    """Move a time."""
    return lambda base: base.team.sign({**base.claims, name: base.claims["iat"] + number * HOUR})


def header(**changes: Any) -> Make:
    """Sign under another header."""
    return lambda base: base.team.sign(base.claims, header={**base.header, **changes})


def header_without(missing: str) -> Make:
    """Sign under a header that lacks a member."""
    return lambda base: base.team.sign(
        base.claims, header={name: value for name, value in base.header.items() if name != missing}
    )


def header_bytes(edit: Callable[[bytes], bytes]) -> Make:
    """Sign under a header that need not be JSON."""
    return lambda base: base.team.sign(base.claims, header=edit(compact_json(base.header)))


def payload(edit: Callable[[bytes], bytes]) -> Make:
    """Sign a payload that need not be JSON."""
    return lambda base: base.team.sign(edit(compact_json(base.claims)))


def member(text: bytes) -> Make:
    """Sign with one more claim, written just so."""
    return payload(lambda whole: whole[:-1] + b"," + text + b"}")


def text(edit: Callable[[str], str]) -> Make:
    """Change the finished token."""
    return lambda base: edit(base.token)


def signature(sign: Callable[[SigningKey, bytes], bytes], **header: Any) -> Make:
    """Sign in another way."""

    def make(base: Base) -> str:
        signed = f"{base64url(compact_json({**base.header, **header}))}.{base64url(compact_json(base.claims))}"
        return f"{signed}.{base64url(sign(base.team.current, signed.encode()))}"

    return make


def stranger(**changes: Any) -> Make:
    """Have somebody else sign, under a key id of their own."""
    return lambda base: base.team.sign({**base.claims, **changes}, key=base.stranger)


def other_team(base: Base) -> str:
    """Have another team sign, in its own name."""
    return stranger(iss=foreign_issuer(base.team.issuer))(base)


def under_our_kid(key: Callable[[Base], SigningKey]) -> Make:
    """Have another key sign, under the id of the team's."""
    return lambda base: base.team.sign(base.claims, header=base.header, key=key(base))


def segment(number: int, other: Callable[[Base], str]) -> Make:
    """Put a segment of another token in."""

    def make(base: Base) -> str:
        segments = base.token.split(".")
        segments[number] = other(base).split(".")[number]
        return ".".join(segments)

    return make


def embedded_key(base: Base) -> str:
    """Let the header bring the key that verifies it."""
    key = base.stranger
    return base.team.sign(base.claims, header={"alg": "RS256", "kid": key.kid, "jwk": key.jwk()}, key=key)


def other_trailing_bits(token: str) -> str:
    """Write the same signature in another way: its last character carries bits that mean nothing."""
    return token[:-1] + chr(ord(token[-1]) + 1)


def nothing(_key: SigningKey, _data: bytes) -> bytes:
    """No signature."""
    return b""


def hmac_with_public_key(key: SigningKey, data: bytes) -> bytes:
    """HS256, the public key as the secret."""
    secret = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hmac.digest(secret, data, "sha256")


def pss(key: SigningKey, data: bytes) -> bytes:
    """PS256."""
    return key.private.sign(data, PSS(MGF1(hashes.SHA256()), PSS.DIGEST_LENGTH), hashes.SHA256())


def sha512(key: SigningKey, data: bytes) -> bytes:
    """RS512."""
    return key.private.sign(data, PKCS1v15(), hashes.SHA512())


def ecdsa(_: SigningKey, data: bytes) -> bytes:
    """ES256, by a key of no worth."""
    signature = ec.derive_private_key(7, ec.SECP256R1()).sign(data, ec.ECDSA(hashes.SHA256()))
    return b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(signature))


def nested(levels: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value
