"""Attacks on the signature, under an irreproachable header."""

from collections.abc import Callable, Iterator

from attacks.workshop import Attack, Workshop, blocks, ecdsa, eddsa, hmac_of, hmac_secrets, pss, rsa
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fastapi_cloudflare_access.testing._issuer import base64url, compact_json

INFINITE = b'{"exp":1e400}'

Sign = Callable[[bytes], bytes]


def signatures(shop: Workshop) -> Iterator[Attack]:
    made: dict[str, Sign] = dict(other_ways(shop)) | dict(numbers(shop))
    for name, block in blocks(shop.digest_of(shop.header)):
        made[f"padding: {name}"] = shop.padded(block)
    for name, sign in made.items():
        yield Attack(f"signature: {name}", shop.under(shop.header, sign), "invalid_signature")
    for name, token in exchanged(shop):
        yield Attack(f"signature: {name}", token, "invalid_signature")


def other_ways(shop: Workshop) -> Iterator[tuple[str, Sign]]:
    for digest in (hashes.SHA1(), hashes.MD5(), hashes.SHA224(), hashes.SHA384(), hashes.SHA512(), hashes.SHA3_256()):  # noqa: S303 - a forgery
        yield f"{digest.name} in place of SHA-256", rsa(shop.key, digest)
    yield "PSS in place of PKCS 1", pss(shop.key, hashes.SHA256())
    yield "by a stranger", rsa(shop.stranger, hashes.SHA256())
    yield "ECDSA", ecdsa(ec.SECP256R1(), hashes.SHA256())
    yield "EdDSA", eddsa
    for name, secret in hmac_secrets(shop.key):
        yield f"HMAC with {name} as the secret", hmac_of(secret, "sha256")
    if previous := shop.team.previous:
        yield "by the previous key", rsa(previous, hashes.SHA256())


def numbers(shop: Workshop) -> Iterator[tuple[str, Sign]]:
    """Signatures as numbers: the edges of the modulus, and its equivalents."""
    n = shop.key.private.public_key().public_numbers().n
    right = int.from_bytes(shop.key.sign(f"{shop.segments[0]}.{shop.segments[1]}".encode()))
    for name, value in {"0": 0, "1": 1, "2": 2, "n - 1": n - 1, "n": n, "n + 1": n + 1}.items():
        yield name, always(value.to_bytes(256))
    yield "the largest of 256 octets", lambda _: b"\xff" * 256
    yield "the right one plus n, in 257 octets", lambda _: (right + n).to_bytes(257)
    yield "the right one with a zero before", lambda _: right.to_bytes(257)
    yield "the right one with a zero behind", lambda _: right.to_bytes(256) + b"\0"
    yield "the right one without its last octet", lambda _: right.to_bytes(256)[:-1]
    yield "the right one without its first octet", lambda _: right.to_bytes(256)[1:]
    yield "the right one backwards", lambda _: right.to_bytes(256)[::-1]
    yield "the right one, negated", lambda _: (n - right).to_bytes(256)
    yield "one octet", lambda _: b"\0"
    yield "the digest alone", lambda _: shop.digest_of(shop.header)
    yield "8 KB", lambda _: b"\1" * 8192
    for bit in range(0, 2048, 128):
        yield f"bit {bit} flipped", always((right ^ (1 << bit)).to_bytes(256))


def always(signature: bytes) -> Sign:
    return lambda _: signature


def exchanged(shop: Workshop) -> Iterator[tuple[str, bytes]]:
    h, p, s = shop.segments
    for name, value in {"sub": "root", "email": "mallory@example.com", "exp": 9_999_999_999, "aud": ["x"]}.items():
        payload = base64url(compact_json({**shop.claims, name: value}))
        yield f"over another {name}", f"{h}.{payload}.{s}".encode()
    typed = base64url(compact_json({**shop.header, "typ": "JWT"}))
    yield "over another header", f"{typed}.{p}.{s}".encode()
    spaced = base64url(compact_json(shop.header).replace(b",", b", "))
    yield "over the same header with a space", f"{spaced}.{p}.{s}".encode()
    yield "over the payload alone", f"{h}.{p}.{base64url(shop.key.sign(p.encode()))}".encode()
    yield "over the decoded text", shop.under(shop.header, lambda _: shop.key.sign(compact_json(shop.claims)))
    yield "no claims at all", f"{h}.{base64url(b'{}')}.{s}".encode()
    yield "a payload nested deep", f"{h}.{base64url(b'[' * 6000)}.{s}".encode()
    yield "a payload that is no JSON", f"{h}.{base64url(b'x')}.{s}".encode()
    yield "1e400 for exp", f"{h}.{base64url(INFINITE)}.{s}".encode()
