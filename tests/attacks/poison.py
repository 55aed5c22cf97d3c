"""Poisoned certs documents: bad keys, each with what makes it bad, and documents without a good one."""

from hashlib import sha256
from typing import Any

from attacks.workshop import SHA256_PREFIX

from fastapi_cloudflare_access.testing._issuer import base64url, compact_json
from fastapi_cloudflare_access.testing.team import shared_key

EVIL = shared_key("stranger", 0)
PRIME = 2**2203 - 1
"""A prime modulus: from it follows the private exponent."""


def number(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwk(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**EVIL.jwk(), **changes}.items() if value is not ...}


N, E = EVIL.jwk()["n"], EVIL.jwk()["e"]
NO_ENTRIES: list[Any] = [None, True, 5, "RSA", [], {}, [EVIL.jwk()]]
POISON: dict[str, Any] = {
    "for encryption": jwk(use="enc"),
    "use null": jwk(use=None),
    "use in capitals": jwk(use="SIG"),
    "for encrypting": jwk(key_ops=["encrypt"]),
    "for signing": jwk(key_ops=["sign"]),
    "operations as text": jwk(key_ops="verify"),
    "operations empty": jwk(key_ops=[]),
    "operations null": jwk(key_ops=None),
    **{
        f"alg {alg}": jwk(alg=alg)
        for alg in ("RS512", "RS384", "PS256", "HS256", "RSA-OAEP", "none", "rs256", "", None)
    },
    **{f"kty {kty}": jwk(kty=kty) for kty in ("EC", "oct", "OKP", "rsa", "", None, ["RSA"])},
    **{f"with {name}": jwk(**{name: "AAAA"}) for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k")},
    "n with padding": jwk(n=N + "=="),
    "n in the standard alphabet": jwk(n=N.replace("-", "+").replace("_", "/") + "+"),
    "n with a space": jwk(n=f" {N}"),
    "n with a line break": jwk(n=f"{N}\n"),
    "n with leading zeros": jwk(
        n=base64url(bytes(1) + int.to_bytes(EVIL.private.public_key().public_numbers().n, 256))
    ),
    "n beyond ASCII": jwk(n=f"{N}ä"),
    **{f"n ({place})": jwk(n=n) for place, n in enumerate(("", "A", "AA", None, 5, [N], {"n": N}, ...))},
    **{
        f"e ({place})": jwk(e=e) for place, e in enumerate(("", "A", "AA", None, 65537, "AQAA", "AAEAAQ", E + "=", ...))
    },
    **{f"e {e}": jwk(e=number(e)) for e in (1, 2, 3, 5, 17, 257, 65_535, 65_536, 65_538, 65_540, 2**32, 2**32 + 1)},
    "e of 33 bits": jwk(e=number(2**32 + 1)),
    "e of 2048 bits": jwk(e=N),
    **{f"{bits} bits": jwk(n=number(2 ** (bits - 1) + 12_345)) for bits in (512, 768, 1024, 1536, 2047, 8193, 16_384)},
    "an even modulus": jwk(n=number(2**2047 + 2)),
    "a power of two": jwk(n=number(2**2047)),
    "a prime modulus": jwk(n=number(PRIME)),
    "a prime modulus of 2048 bits": jwk(n=number(2**2047 + 5061)),  # of which 2 is no square, other than above
    **{f"kid {kid!r:.20}": jwk(kid=kid) for kid in ("", None, 5, ["x"], "k" * 257, "a\nb", "ä", "\x7f", "a\0", ...)},
    **{f"entry {place}": entry for place, entry in enumerate(NO_ENTRIES)},
}


def document(*entries: Any) -> bytes:
    return compact_json({"keys": [*entries]})


def forged_for_prime(signed: bytes) -> bytes:
    """Sign for the prime modulus without having been told a private key."""
    digest = SHA256_PREFIX + sha256(signed).digest()
    block = b"\x00\x01" + b"\xff" * (276 - 3 - len(digest)) + b"\x00" + digest
    forged = pow(int.from_bytes(block), pow(65_537, -1, PRIME - 1), PRIME)
    assert pow(forged, 65_537, PRIME).to_bytes(276) == block
    return forged.to_bytes(276)


SETS: dict[str, bytes] = {
    "empty": b"",
    "HTML": b"<!DOCTYPE html>",
    "no object": b"[]",
    "an error": b'{"success":false,"errors":[{"code":1000}]}',
    "keys null": b'{"keys":null}',
    "keys as object": compact_json({"keys": EVIL.jwk()}),
    "no keys": b'{"keys":[]}',
    "keys twice": b'{"keys":[],"keys":' + compact_json([EVIL.jwk()]) + b"}",
    "only public_cert": compact_json({"public_cert": {"kid": EVIL.kid, "cert": EVIL.certificate(0)}}),
    "one key without a set": compact_json(EVIL.jwk()),
    "a map of keys": compact_json({EVIL.kid: EVIL.jwk()}),
    "a byte order mark": b"\xef\xbb\xbf" + document(EVIL.jwk()),
    "rubbish behind": document(EVIL.jwk()) + b"x",
    "not closed": document(EVIL.jwk())[:-1],
    "NaN": b'{"x":NaN,' + document(EVIL.jwk())[1:],
    "nested deep": b'{"x":' + b"[" * 9000 + b"]" * 9000 + b"," + document(EVIL.jwk())[1:],
    "33 keys": document(*[jwk(kid=f"{number}") for number in range(33)]),
    "too long": document(EVIL.jwk()) + b" " * 65_536,
    "one kid with two keys": document(EVIL.jwk(), jwk(n=shared_key("stranger", 1).jwk()["n"])),
    **{f"only {name}": document(entry) for name, entry in list(POISON.items())[::6]},
}
