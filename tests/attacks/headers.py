"""Attacks by the JOSE header: what is asked for, with what it is signed, and how it is written."""

from collections.abc import Iterator
from typing import Any

from attacks.workshop import Attack, Workshop, ecdsa, eddsa, hmac_of, hmac_secrets, pss, rsa
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fastapi_cloudflare_access.testing._issuer import compact_json

REGISTERED = (
    *(family + size for family in ("HS", "ES", "PS") for size in ("256", "384", "512")),
    *("RS384", "RS512", "ES256K", "EdDSA", "Ed25519", "Ed448", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87", "RS1"),
    *("RSA1_5", "RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-512", "A128KW", "A256KW", "A128GCMKW", "dir", "ECDH-ES"),
    *("PBES2-HS256+A128KW", "A128CBC-HS256", "A256GCM", "HS256/64", "ESB256", "SLH-DSA-SHA2-128s"),
)
MISSPELT = (
    "none",
    "None",
    "NONE",
    "nOnE",
    "noNe ",
    "",
    " ",
    "rs256",
    "Rs256",
    "RS256 ",
    " RS256",
    "RS256\n",
    "RS256\0",
)
MISSPELT_TOO = ("RS-256", "RSA256", "SHA256withRSA", "RS", "S256", "RS2560", "RS256,none", "ＲＳ２５６", "banana")  # noqa: RUF001 - meant to be ambiguous
MISTYPED: tuple[Any, ...] = (None, True, False, 0, 256, 2.56, [], ["RS256"], ["none", "RS256"], {}, {"RS256": 1})


def headers(shop: Workshop) -> Iterator[Attack]:
    for name, token in algorithms(shop):
        yield Attack(name, token, "unsupported_algorithm")
    made: list[tuple[str, Any]] = [*parameters(shop), *key_ids(shop), *written(shop)]
    for name, header in made:
        yield Attack(f"header: {name}", shop.headed(header), "malformed_token")
    yield from unknown_keys(shop)


def algorithms(shop: Workshop) -> Iterator[tuple[str, bytes]]:
    for alg in (*REGISTERED, *MISSPELT, *MISSPELT_TOO, *MISTYPED):
        yield f"alg {alg!r} over a good RS256 signature", shop.headed({**shop.header, "alg": alg})
    yield "no alg", shop.headed({"kid": shop.key.kid})
    yield "Alg in place of alg", shop.headed({"Alg": "RS256", "kid": shop.key.kid})
    for alg in ("none", "None", "NONE"):
        yield f"alg {alg} and a signature of one octet", shop.under({**shop.header, "alg": alg}, lambda _: b"\0")
    for size in ("256", "384", "512"):
        for name, secret in hmac_secrets(shop.key):
            header = {**shop.header, "alg": f"HS{size}"}
            yield f"HS{size} with {name} as the secret", shop.under(header, hmac_of(secret, f"sha{size}"))
    digests: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
    curves: dict[str, ec.EllipticCurve] = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "512": ec.SECP521R1()}
    for size, digest in digests.items():
        yield f"PS{size} by the right key", shop.under({**shop.header, "alg": f"PS{size}"}, pss(shop.key, digest))
        yield (
            f"RS{size} by a stranger",
            shop.under({**shop.header, "alg": f"RS{size}" if size != "256" else "RS257"}, rsa(shop.stranger, digest)),
        )
        yield f"ES{size}", shop.under({**shop.header, "alg": f"ES{size}"}, ecdsa(curves[size], digest))
    yield "EdDSA", shop.under({**shop.header, "alg": "EdDSA"}, eddsa)


def parameters(shop: Workshop) -> Iterator[tuple[str, dict[str, Any]]]:
    own = shop.stranger.jwk()
    values: dict[str, list[Any]] = {
        "crit": [["x"], ["b64"], [], "x", ["alg"], ["exp"], None, {}, True],
        "b64": [False, True, None, "false"],
        "zip": ["DEF", "GZ", None],
        "enc": ["A256GCM", "A128CBC-HS256"],
        "p2c": [1, 2**31],
        "cty": ["JWT", "json", None],
        "jwk": [own, shop.key.jwk(), None, {}],
        "jku": [shop.trap, shop.trap.encode().hex(), None, [shop.trap], "file:///etc/passwd"],
        "x5u": [shop.trap, None],
        "x5c": [[shop.stranger.certificate(0)], [], None],
        "x5t": ["AAAA", None],
        "x5t#S256": ["AAAA", None],
        "typ": ["at+jwt", "logout+jwt", "JOSE", "JWS", "dpop+jwt", "JWT ", "", 5, None, True, ["JWT"], {"JWT": 1}],
    }
    for name, options in values.items():
        for number, value in enumerate(options):
            yield f"{name} ({number})", {**shop.header, name: value}
    yield "crit with its parameter", {**shop.header, "crit": ["http://evil.example/x"], "http://evil.example/x": 1}
    yield "crit and b64", {**shop.header, "crit": ["b64"], "b64": False}


def key_ids(shop: Workshop) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "no kid", {"alg": "RS256"}
    kid = shop.key.kid
    values: list[Any] = [
        None,
        True,
        0,
        5.5,
        [],
        [kid],
        {"kid": kid},
        "",
        "k" * 257,
        f"{kid}\n",
        f"{kid}\0",
        "ä",
        "\x7f",
    ]
    for number, value in enumerate(values):
        yield f"kid ({number})", {"alg": "RS256", "kid": value}
    yield "kid with forged log lines", {"alg": "RS256", "kid": "x\r\n2026-01-01 INFO let in: root@example.com"}


def unknown_keys(shop: Workshop) -> Iterator[Attack]:
    """Ids that are nearly a key's, or that mean something elsewhere; the claims have expired, so no fetch follows.

    A stranger signs: if the id were taken for our key's, the signature would be wrong.
    """
    kid = shop.key.kid
    near = (kid.upper(), f" {kid}", f"{kid} ", kid[:-1], f"{kid}0", kid[::-1], f"{kid[:32]}%30{kid[33:]}")
    elsewhere = (
        "../../../dev/null",
        "/dev/null",
        "' OR '1'='1",
        "$(id)",
        "`id`",
        "{{7*7}}",
        "%s%s%n",
        "*",
        "0",
        "keys",
    )
    names = ("__proto__", "constructor", "__class__", "None", "null", "true", "\\u0000", "<script>", "k" * 256)
    for number, value in enumerate((*near, *elsewhere, *names)):
        token = shop.signed(key=shop.stranger, header={"alg": "RS256", "kid": value}, exp=1)
        yield Attack(f"no key of that kid ({number})", token, "token_expired")
    foreign = shop.signed(key=shop.stranger, iss="https://evil.cloudflareaccess.com")
    yield Attack("a stranger's key and issuer", foreign, "wrong_issuer")
    yield Attack("a stranger's key, too large to be read", shop.signed(key=shop.stranger, x="x" * 8192), "unknown_key")


def written(shop: Workshop) -> Iterator[tuple[str, bytes]]:
    """Headers that are not strict JSON."""
    right = compact_json(shop.header)
    kid = shop.key.kid.encode()
    deep = b'"a":'
    yield from {
        "empty object and a line break": b"\n",
        "no JSON": b"hello",
        "not closed": right[:-1],
        "two objects": right + right,
        "rubbish behind": right + b"x",
        "a NUL behind": right + b"\0",
        "a comment": right[:-1] + b"/**/}",
        "a trailing comma": right[:-1] + b",}",
        "single quotes": right.replace(b'"', b"'"),
        "a list": b"[" + right + b"]",
        "text": b'"' + kid + b'"',
        "null": b"null",
        "a number": b"1",
        "a byte order mark": b"\xef\xbb\xbf" + right,
        "UTF-16": right.decode().encode("utf-16"),
        "UTF-16 without a mark": right.decode().encode("utf-16-le"),
        "UTF-32": right.decode().encode("utf-32"),
        "no UTF-8": right[:-1] + b',"x":"\xff"}',
        "overlong UTF-8": right[:-1] + b',"x":"\xc0\xae"}',
        "a surrogate in UTF-8": right[:-1] + b',"x":"\xed\xa0\x80"}',
        "a lone surrogate": right[:-1] + rb',"x":"\ud800"}',
        "a raw line break in text": right[:-1] + b',"x":"\n"}',
        "alg twice": b'{"alg":"none","alg":"RS256","kid":"' + kid + b'"}',
        "alg twice, one escaped": b'{"\\u0061lg":"none","alg":"RS256","kid":"' + kid + b'"}',
        "alg twice, alike": b'{"alg":"RS256","alg":"RS256","kid":"' + kid + b'"}',
        "kid twice": b'{"alg":"RS256","kid":"x","kid":"' + kid + b'"}',
        "a member twice, deep inside": right[:-1] + b',"x":[{"a":1,"a":1}]}',
        "NaN": right[:-1] + b',"x":NaN}',
        "Infinity": right[:-1] + b',"x":-Infinity}',
        "1e400": right[:-1] + b',"x":1e400}',
        "a number of 900 digits": right[:-1] + b',"x":' + b"9" * 900 + b"}",
        "400 lists deep": right[:-1] + b"," + deep + b"[" * 400 + b"]" * 400 + b"}",
        "900 lists deep and never closed": b'{"a":' + b"[" * 900,
        "objects in lists, 17 deep": right[:-1] + b"," + deep + b'[{"a":' * 8 + b"1" + b"}]" * 8 + b"}",
        "quotes that never close": b"[" * 20 + b'"' + b'\\"' * 450,
    }.items()
