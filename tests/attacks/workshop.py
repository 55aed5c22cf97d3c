"""What attackers have at hand: a real token, the public keys, and keys of their own."""

import hmac
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import md5, new
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fastapi_cloudflare_access.testing._issuer import Issuer, SigningKey, base64url, compact_json
from fastapi_cloudflare_access.testing.team import shared_key

SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
"""The DigestInfo of SHA-256 (RFC 8017 section 9.2), as it has to stand before the digest."""


NO_CHANGES: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Attack:
    """One attempt to be let in, or to break something.

    Attributes:
        name: What it tries.
        token: The value of the assertion header.
        reason: The reason code it must meet.
    """

    name: str
    token: bytes
    reason: str


class Workshop:
    """Makes forged tokens for one team.

    Attributes:
        team: The team whose apps are attacked.
        trap: A URL of the attacker, which must never be fetched.
    """

    def __init__(self, team: Issuer, trap: str = "https://evil.example/certs") -> None:
        self.team = team
        self.trap = trap
        self.key = team.current
        self.stranger = shared_key("stranger", 0)
        self.header: dict[str, Any] = {"alg": "RS256", "kid": self.key.kid}
        self.claims = team.user_claims("ada@example.com")
        self.good = team.sign(self.claims)
        self.service = team.service_claims("deploy-bot")

    @cached_property
    def now(self) -> int:
        return int(self.claims["iat"])

    @cached_property
    def segments(self) -> tuple[str, str, str]:
        header, payload, signature = self.good.split(".")
        return header, payload, signature

    def signed(
        self,
        *,
        key: SigningKey | None = None,
        header: Any = None,
        changes: Mapping[str, Any] = NO_CHANGES,
        **claims: Any,
    ) -> bytes:
        """Sign other claims; a claim that is `...` is left out."""
        merged = {**self.claims, **claims, **changes}
        kept = {name: value for name, value in merged.items() if value is not ...}
        return self.team.sign(kept, header=header, key=key).encode()

    def service_token(self, **claims: Any) -> bytes:
        """The same for a service."""
        kept = {name: value for name, value in {**self.service, **claims}.items() if value is not ...}
        return self.team.sign(kept).encode()

    def payload(self, data: bytes) -> bytes:
        """Sign a payload byte for byte."""
        return self.team.sign(data).encode()

    def member(self, text: bytes) -> bytes:
        """Sign the right claims and one more, byte for byte."""
        return self.payload(compact_json(self.claims)[:-1] + b"," + text + b"}")

    def headed(self, header: Mapping[str, Any] | bytes, key: SigningKey | None = None) -> bytes:
        """Sign the right claims under this header."""
        return self.team.sign(self.claims, header=header, key=key or self.key).encode()

    def under(self, header: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> bytes:
        """Sign the right claims in another way."""
        text = f"{base64url(compact_json(header))}.{base64url(compact_json(self.claims))}"
        return f"{text}.{base64url(sign(text.encode()))}".encode()

    def padded(self, block: bytes) -> Callable[[bytes], bytes]:
        """Sign with the real key, but with this padding block in place of the right one."""
        numbers = self.key.private.private_numbers()
        n = numbers.public_numbers.n

        def sign(_: bytes) -> bytes:
            return pow(int.from_bytes(block), numbers.d, n).to_bytes(256)

        return sign

    def digest_of(self, header: Mapping[str, Any], algorithm: str = "sha256") -> bytes:
        """The digest of what `under` signs."""
        text = f"{base64url(compact_json(header))}.{base64url(compact_json(self.claims))}"
        return new(algorithm, text.encode()).digest()


def hmac_secrets(key: SigningKey) -> Iterator[tuple[str, bytes]]:
    """Every spelling of a public key that a verifier ever took for an HMAC secret."""
    public = key.private.public_key()
    spki, pkcs1 = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1
    pem = public.public_bytes(Encoding.PEM, spki)
    yield "PEM", pem
    yield "PEM without its last line break", pem.rstrip()
    yield "PEM without its markers", b"".join(pem.splitlines()[1:-1])
    yield "PEM of PKCS 1", public.public_bytes(Encoding.PEM, pkcs1)
    yield "DER", public.public_bytes(Encoding.DER, spki)
    yield "DER of PKCS 1", public.public_bytes(Encoding.DER, pkcs1)
    yield "OpenSSH", public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    yield "JWK", compact_json(key.jwk())
    yield "the modulus in base64url", key.jwk()["n"].encode()
    yield "the modulus", public.public_numbers().n.to_bytes(256)
    yield "the certificate", key.certificate(0).encode()
    yield "the key id", key.kid.encode()
    yield "nothing", b""
    yield "one zero", b"\0"


def hmac_of(secret: bytes, algorithm: str) -> Callable[[bytes], bytes]:
    return lambda data: hmac.digest(secret, data, algorithm)


def rsa(key: SigningKey, algorithm: hashes.HashAlgorithm) -> Callable[[bytes], bytes]:
    return lambda data: key.private.sign(data, PKCS1v15(), algorithm)


def pss(key: SigningKey, algorithm: hashes.HashAlgorithm) -> Callable[[bytes], bytes]:
    return lambda data: key.private.sign(data, PSS(MGF1(algorithm), PSS.DIGEST_LENGTH), algorithm)


def ecdsa(curve: ec.EllipticCurve, algorithm: hashes.HashAlgorithm) -> Callable[[bytes], bytes]:
    return lambda data: ec.derive_private_key(7, curve).sign(data, ec.ECDSA(algorithm))


def eddsa(data: bytes) -> bytes:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).sign(data)


def blocks(digest: bytes) -> Iterator[tuple[str, bytes]]:
    """Padding blocks that are nearly right: each has fooled a verifier that parsed instead of comparing."""
    info = SHA256_PREFIX + digest

    def block(tail: bytes, start: bytes = b"\x00\x01", fill: bytes = b"\xff") -> bytes:
        return start + fill * (256 - len(start) - 1 - len(tail)) + b"\x00" + tail

    short = b"\x00\x01" + b"\xff" * 8 + b"\x00"
    yield "no DigestInfo", block(digest)
    yield "no NULL parameter", block(bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + digest)
    yield "BER length", block(bytes.fromhex("308131300d060960864801650304020105000420") + digest)
    yield "SHA-1 named over a SHA-256 digest", block(bytes.fromhex("302d300906052b0e03021a05000420") + digest)
    yield "MD5 named", block(bytes.fromhex("3020300c06082a864886f70d020505000410") + md5(digest).digest())  # noqa: S324 - a forgery
    yield "rubbish behind the digest", short + info + b"\xaa" * (256 - len(short) - len(info))
    yield "rubbish in the padding", block(info, fill=b"\xfe")
    yield "block type 2", block(info, start=b"\x00\x02")
    yield "block type 0", block(info, start=b"\x00\x00", fill=b"\x00")
    yield "a zero in the padding", block(info, start=b"\x00\x01\xff\xff\x00")
    yield "a digest cut short", block(SHA256_PREFIX + digest[:-1])
    yield "a longer digest", block(SHA256_PREFIX + digest + b"\0")
    yield "zeros", bytes(255) + b"\x02"
