"""Attacks by the payload, all of them rightly signed: what JSON and claims can be made to mean."""

from collections.abc import Iterator
from typing import Any

from attacks.workshop import Attack, Workshop

from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam
from fastapi_cloudflare_access.testing._issuer import compact_json

NO_TEXT: tuple[Any, ...] = (None, True, 0, 5, 1.5, [], ["x"], {}, {"x": "y"})


def payloads(shop: Workshop) -> Iterator[Attack]:
    yield from (Attack(f"payload: {name}", shop.payload(data), "malformed_token") for name, data in json(shop))
    yield from (Attack(f"payload: {name}", shop.member(data), "malformed_token") for name, data in members())
    for name, token in mistyped(shop):
        yield Attack(f"claims: {name}", token, "invalid_claims")
    for reason, name, token in wrong(shop):
        yield Attack(f"claims: {name}", token, reason)
    if isinstance(shop.team, FakeTeam):
        for forgery in FORGERIES.values():
            if forged := shop.team.forge(forgery.name):
                yield Attack(f"kit: {forgery.name}", forged.encode(), forgery.reason)


def json(shop: Workshop) -> Iterator[tuple[str, bytes]]:
    right = compact_json(shop.claims)
    yield from {
        "text": b"hello",
        "empty object cut short": b"{",
        "a list": b"[" + right + b"]",
        "a text": b'"' + b"x" * 30 + b'"',
        "null": b"null",
        "true": b"true",
        "a number": b"12345",
        "a byte order mark": b"\xef\xbb\xbf" + right,
        "UTF-16": right.decode().encode("utf-16"),
        "UTF-16 big-endian": right.decode().encode("utf-16-be"),
        "UTF-32": right.decode().encode("utf-32"),
        "compressed": b"x\x9c\xab\x56\x4a\xad\x28\x50\xb2\x52",
        "two objects": right + right,
        "rubbish behind": right + b"x",
        "a NUL behind": right + b"\0",
        "a form feed before": b"\x0c" + right,
        "a no-break space before": b"\xc2\xa0" + right,
        "a comment": b"//\n" + right,
        "a trailing comma": right[:-1] + b",}",
        "single quotes": right.replace(b'"', b"'"),
        "names without quotes": right.replace(b'"exp"', b"exp"),
        "an array of pairs": compact_json(list(shop.claims.items())),
        "lists nested 5000 deep": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "lists that never close": b'{"a":' + b"[" * 11_000,
        "objects nested 1000 deep": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    }.items()


def members() -> Iterator[tuple[str, bytes]]:
    for name in ("aud", "exp", "iss", "sub", "type", "email"):
        yield f"{name} twice", f'"{name}":"x"'.encode()
    yield "exp twice, one escaped", rb'"\u0065xp":9999999999'
    yield "a member twice, deep inside", b'"x":{"y":[{"a":1,"a":2}]}'
    for value in (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"1E+9999", b"nan", b"0x1F", b"01", b"+1"):
        yield value.decode(), b'"x":' + value
    for value in (b".5", b"5.", b"1_000", b"'x'", b"undefined", b"True", b"None", b"", b"--1", b"1e"):
        yield f"{value.decode()!r} as value", b'"x":' + value
    for digits in (33, 400, 4000, 5000):
        yield f"a number of {digits} digits", b'"x":' + b"9" * digits
        yield f"a fraction of {digits} digits", b'"x":0.' + b"9" * digits
    for text in (rb"\ud800", rb"\udfff", rb"\udc00\ud800", rb"a\uDBFFb", rb"\ud83d\u0041"):
        yield f"lone surrogate {text.decode()}", b'"x":"' + text + b'"'
        yield f"lone surrogate {text.decode()} as name", b'"' + text + b'":1'
    for octets in (
        b"\xff",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xe2\x82",
        b"\xf8\x88\x80\x80\x80",
    ):
        yield f"octets {octets.hex()} as text", b'"x":"' + octets + b'"'
    for octet in (0, 1, 10, 13, 27, 31):
        yield f"control character {octet}", b'"x":"' + bytes([octet]) + b'"'
    for escape in (rb"\x41", rb"\u12", rb"\u{41}", rb"\'", rb"\a", rb"\U00000041"):
        yield f"escape {escape.decode()}", b'"x":"' + escape + b'"'
    yield "lists 16 deep in the object", b'"x":' + b"[" * 16 + b"]" * 16
    yield "objects and lists in turn, 17 deep", b'"x":' + b'[{"a":' * 8 + b"1" + b"}]" * 8
    yield "quotes that never close", b'"x":' + b"[" * 20 + b'"' + b'\\"' * 4000


def mistyped(shop: Workshop) -> Iterator[tuple[str, bytes]]:
    now = shop.now
    times: tuple[Any, ...] = (
        None,
        True,
        False,
        "",
        "5",
        str(now + 60),
        f" {now + 60}",
        "9_9_9",
        "٩٩٩٩٩٩٩٩٩٩",
        [],
        [now + 60],
    )
    times += ({}, {"x": 1}, now + 60.5, 1e30, -1, -now, 253_402_300_800, 2**63, 2**64, 10**30, -(2**63))
    for name in ("exp", "iat", "nbf"):
        for value in times:
            yield f"{name} {value!r}", shop.signed(changes={name: value})
    for name in ("type", "iss", "sub"):
        for value in NO_TEXT:
            yield f"{name} {value!r}", shop.signed(changes={name: value})
    tag = shop.team.audience
    values: list[Any] = [None, True, 0, 5, {}, {tag: 1}, [], [tag, 5], [tag, None], [None, tag], [[tag]], [tag, {}]]
    for number, value in enumerate(values):
        yield f"aud ({number})", shop.signed(aud=value)
    for name in ("type", "iss", "aud", "exp", "iat", "sub"):
        yield f"no {name}", shop.signed(changes={name: ...})
        yield f"no {name}, but {name.upper()}", shop.signed(changes={name: ..., name.upper(): shop.claims[name]})
    for value in (0, True, ["ada@example.com"], {"x": 1}, 1.5):
        yield f"email {value!r}", shop.signed(email=value)
    for value in (..., None, "", 0, True, [], {}, ["x"]):
        shown = "absent" if value is ... else repr(value)
        yield f"empty sub and common_name {shown}", shop.service_token(common_name=value)
        yield f"user with an empty sub and common_name {shown}", shop.signed(sub="", common_name=value)
    yield "only an issuer", shop.payload(compact_json({"iss": shop.team.issuer}))
    yield "no claims", shop.payload(b"{}")
    yield "objects for every time", shop.payload(b'{"nbf":{},"exp":{},"iat":{}}')


def wrong(shop: Workshop) -> Iterator[tuple[str, str, bytes]]:
    issuer, tag, now = shop.team.issuer, shop.team.audience, shop.now
    for value in (f"{issuer}/", f"{issuer} ", f" {issuer}", issuer.upper(), issuer.replace("://", ":///"), issuer[:-1]):
        yield "wrong_issuer", f"iss {value.replace(issuer, '<issuer>')!r}", shop.signed(iss=value)
    for value in (f"{issuer}.evil.com", f"{issuer}@evil.com", f"{issuer}#", f"{issuer}/cdn-cgi/access/sso/oidc/1"):
        yield "wrong_issuer", f"iss {value.replace(issuer, '<issuer>')!r}", shop.signed(iss=value)
    for value in ("", "acme", "https://other.cloudflareaccess.com", f"{issuer}\0", "https://cloudflareaccess.com", "*"):
        yield "wrong_issuer", f"iss {value.replace(issuer, '<issuer>')!r}", shop.signed(iss=value)
    for value in ("", tag[:-1], f"{tag}0", tag.upper() + "X", f" {tag}", f"{tag} ", f"{tag},x", f'["{tag}"]', "*", "%"):
        yield "wrong_audience", f"aud {value.replace(tag, '<tag>')!r}", shop.signed(aud=value)
        yield "wrong_audience", f"aud [{value.replace(tag, '<tag>')!r}]", shop.signed(aud=[value])
    yield "wrong_audience", "aud of 300 others", shop.signed(aud=[f"{number:x}" for number in range(300)])
    for value in ("org", "meta", "match", "App", "APP", "app ", " app", "", "ID", "user", "app\0", "\u0430pp"):
        yield "wrong_type", f"type {value!r}", shop.signed(type=value)
    yield "wrong_type", "the global session", shop.team.org_token("ada@example.com").encode()
    yield "wrong_type", "the login redirect", shop.team.meta_token().encode()
    yield "wrong_type", "a token that every visitor gets", shop.team.match_token().encode()
    for exp in (0, 1, now - 3600, now - 60):
        yield "token_expired", f"exp {exp - now if exp > 1 else exp}", shop.signed(exp=exp)
    yield "token_expired", "exp before iat", shop.signed(exp=now - 7200, iat=now - 3600)
    yield "token_expired", "a service, expired", shop.service_token(exp=now - 60)
    for name in ("iat", "nbf"):
        for ahead in (3600, 10 * 365 * 86_400, 253_402_300_799 - now):
            yield "token_not_yet_valid", f"{name} {ahead} ahead", shop.signed(changes={name: now + ahead})
