"""Attacks on the shape: size, segments, base64url."""

import json
from collections.abc import Iterator

from attacks.workshop import Attack, Workshop

from fastapi_cloudflare_access._verification.token import MAX_TOKEN
from fastapi_cloudflare_access.testing._issuer import base64url

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
CANONICAL_LAST = "AQgw"
"""Of 256 octets, the last character carries two bits: four spellings, of which one is right."""
FOREIGN = "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~."


def shapes(shop: Workshop) -> Iterator[Attack]:
    malformed = dict(pieces(shop)) | dict(spellings(shop)) | dict(junk(shop)) | dict(sizes(shop))
    for name, token in malformed.items():
        yield Attack(name, token.encode("latin-1"), "malformed_token")
    h, p, s = shop.segments
    yield Attack("header and payload exchanged", f"{p}.{h}.{s}".encode(), "unsupported_algorithm")
    yield from last_characters(shop)


def pieces(shop: Workshop) -> Iterator[tuple[str, str]]:
    h, p, s = shop.segments
    json_general = {"payload": p, "signatures": [{"protected": h, "signature": s}]}
    json_flat = {"payload": p, "protected": h, "signature": s}
    yield from {
        "one segment": h,
        "two segments": f"{h}.{p}",
        "four segments": f"{h}.{p}.{s}.{s}",
        "five segments": f"{h}.{p}.{s}.{s}.{s}",
        "five segments signed as one text": shop.team.sign(b"x", header=f"{h}.{p}.{s}".encode()),
        "seven segments": f"{h}.{p}.{s}.{h}.{p}.{s}.{s}",
        "a thousand dots": "." * 1000,
        "three empty segments": "..",
        "an empty header": f".{p}.{s}",
        "an empty payload": f"{h}..{s}",
        "an empty signature": f"{h}.{p}.",
        "a dot before": f".{shop.good}",
        "a dot behind": f"{shop.good}.",
        "two dots between": f"{h}..{p}.{s}",
        "a detached payload": f"{h}..{s}",
        "signature first": f"{s}.{h}.{p}",
        "Bearer": f"Bearer {shop.good}",
        "bearer with a colon": f"bearer:{shop.good}",
        "JWT": f"JWT {shop.good}",
        "quoted": f'"{shop.good}"',
        "in brackets": f"[{shop.good}]",
        "two tokens with a comma": f"{shop.good},{shop.good}",
        "two tokens with comma and space": f"{shop.good}, {shop.good}",
        "two tokens with a semicolon": f"{shop.good};{shop.good}",
        "two tokens with a space": f"{shop.good} {shop.good}",
        "a cookie as header": f"CF_Authorization={shop.good}",
        "JSON general serialisation": json.dumps(json_general),
        "JSON flattened serialisation": json.dumps(json_flat),
        "percent-encoded dots": shop.good.replace(".", "%2E"),
        "fullwidth dots": shop.good.replace(".", "\xb7"),
        "a comment": f"{shop.good}#x",
        "null": "null",
        "undefined": "undefined",
        "opaque": "oauth:0123456789abcdef",
    }.items()


def spellings(shop: Workshop) -> Iterator[tuple[str, str]]:
    h, p, s = shop.segments
    for padding in ("=", "==", "===", "====", "=" * 1024):
        yield f"{len(padding)} padding characters behind the signature", shop.good + padding
    yield "padding behind the header", f"{h}=.{p}.{s}"
    yield "padding behind the payload", f"{h}.{p}==.{s}"
    yield "padding in the middle", f"{h}.{p}.{s[:100]}=={s[100:]}"
    yield "the standard alphabet", shop.good.replace("-", "+").replace("_", "/") + "+"
    yield "one slash", f"{h}.{p}.{s[:-1]}/"
    for name, part in (("header", h), ("payload", p), ("signature", s)):
        other = {"header": f"{{}}.{p}.{s}", "payload": f"{h}.{{}}.{s}", "signature": f"{h}.{p}.{{}}"}[name]
        yield f"a {name} of an impossible length", other.format(part + "A" * (-len(part) % 4 + 1))
    signature = base64url(b"x" * 254)
    yield "trailing bits in a shorter signature", f"{h}.{p}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}"
    yield "percent-encoded", "%" + shop.good
    yield "bits beyond the header", f"{h.rstrip('AEIMQUYcgkosw048')}B.{p}.{s}" if len(h) % 4 else f"{h}B.{p}.{s}"


def junk(shop: Workshop) -> Iterator[tuple[str, str]]:
    """One character that is not base64url, everywhere it was ever overlooked; the signature covers what it can."""
    h, p, s = shop.segments
    for character in [*FOREIGN, "\x80", "\xa0", "\xad", "\xb2", "\xe4", "\xff"]:
        shown = f"{character!r}" if character.isascii() else f"octet {ord(character):02x}"
        yield f"{shown} behind", shop.good + character
        yield f"{shown} in the signature", f"{h}.{p}.{s[:40]}{character}{s[40:]}"
        yield f"{shown} in the payload", f"{h}.{p[:40]}{character}{p[40:]}.{s}"
        yield f"{shown} in the header", f"{h[:40]}{character}{h[40:]}.{p}.{s}"
    yield "a space inside", f"{h}.{p}. {s}"
    yield "a tab inside", f"{h}.\t{p}.{s}"


def sizes(shop: Workshop) -> Iterator[tuple[str, str]]:
    h, p, _ = shop.segments
    yield "one byte too long", f"{h}.{p}.".ljust(MAX_TOKEN + 1, "A")
    yield "twice too long", f"{h}.{p}.".ljust(MAX_TOKEN * 2, "A")
    yield "rightly signed and too long", shop.signed(bulk="x" * MAX_TOKEN).decode()
    yield "a header of a kilobyte and a byte", shop.headed({**shop.header, "x": "x" * 1000}).decode()
    yield "a header of 8 KB", shop.headed({**shop.header, "x": "x" * 8192}).decode()
    yield "a header of 12 KB of white space", shop.headed(b" " * 12_000 + b"{}").decode()


def last_characters(shop: Workshop) -> Iterator[Attack]:
    """Every other last character of the signature."""
    for character in ALPHABET:
        if character != shop.good[-1]:
            reason = "invalid_signature" if character in CANONICAL_LAST else "malformed_token"
            yield Attack(f"last character {character}", (shop.good[:-1] + character).encode(), reason)
