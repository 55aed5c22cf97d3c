"""One token, from bytes to claims: every rule of shape, header, signature and claims."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from fastapi_cloudflare_access import errors
from fastapi_cloudflare_access._keys.jwks import parse_jwks
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verification.strict import decode_base64url, parse_json_object
from fastapi_cloudflare_access._verification.token import (
    MAX_HEADER,
    MAX_TOKEN,
    MAX_UNVERIFIED_PAYLOAD,
    check_claims,
    parse,
    precheck,
    shown_tags,
    verify,
    wrong_audience,
)
from fastapi_cloudflare_access.claims import MAX_TIME
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import FakeTeam
from fastapi_cloudflare_access.testing._issuer import base64url, compact_json

TEAM = FakeTeam("acme")
NOW = int(TEAM.clock.now())
SETTINGS = Settings.load(team_domain="acme", audience=TEAM.audience)
KEYS = parse_jwks(TEAM.certs_body()).keys
USER = TEAM.user_token("ada@example.com")
SERVICE = TEAM.service_token("deploy-bot")
HEADER = {"alg": "RS256", "kid": TEAM.current.kid}


def check(
    token: str | bytes, *, settings: Settings = SETTINGS, now: float = NOW, key: RS256Key | None = None
) -> dict[str, Any]:
    parsed = parse(token if isinstance(token, bytes) else token.encode())
    return verify(parsed, key=key or KEYS[parsed.kid], settings=settings, now=now)


def claims_of(token: str) -> dict[str, Any]:
    return parse_json_object(decode_base64url(token.split(".")[1].encode()))


def signed(change: dict[str, Any], *, base: str = USER, drop: str = "") -> str:
    claims = {name: value for name, value in {**claims_of(base), **change}.items() if name != drop}
    return TEAM.sign(claims)


def with_header(header: bytes | dict[str, Any]) -> str:
    head = header if isinstance(header, bytes) else compact_json(header)
    text = f"{base64url(head)}.{USER.split('.')[1]}"
    return f"{text}.{base64url(TEAM.current.sign(text.encode()))}"


@pytest.mark.parametrize("token", [USER, SERVICE], ids=["user", "service"])
def test_a_token_as_on_the_wire_gives_its_claims(token: str) -> None:
    wire = claims_of(token)
    wire["aud"] = tuple(wire["aud"]) if isinstance(wire["aud"], list) else (wire["aud"],)
    assert check(token) == wire


@pytest.mark.conformance(21)
def test_the_previous_key_verifies_as_well_as_the_current_one() -> None:
    assert TEAM.previous
    assert check(TEAM.user_token("ada@example.com", key=TEAM.previous))


# shape


def _segments(token: str) -> tuple[str, str, str]:
    header, payload, signature = token.split(".")
    return header, payload, signature


H, P, S = _segments(USER)

SHAPES: dict[str, str | bytes] = {
    "empty": "",
    "one segment": H,
    "two segments": f"{H}.{P}",
    "four segments": f"{H}.{P}.{S}.{S}",
    "five segments": f"{H}.{P}.{S}.{S}.{S}",
    "an empty header": f".{P}.{S}",
    "an empty payload": f"{H}..{S}",
    "an empty signature": f"{H}.{P}.",
    "only dots": "..",
    "a scheme in front": f"Bearer {USER}",
    "a space in front": f" {USER}",
    "a line break behind": f"{USER}\n",
    "quotes": f'"{USER}"',
    "JSON serialisation": json.dumps({"protected": H, "payload": P, "signature": S}),
    "padding": f"{USER}==",
    "standard alphabet": USER.replace("-", "+").replace("_", "/"),
    "a NUL": f"{USER}\x00",
    "beyond ASCII": f"{USER}ä",
    "no UTF-8": USER.encode() + b"\xff",
    "too long": f"{H}.{'A' * MAX_TOKEN}.{S}",
    "trailing bits in the header": f"{H[:-1]}{'B' if H[-1] == 'A' else chr(ord(H[-1]) + 1)}.{P}.{S}",
    "an impossible length": f"{H}.{P}.{S[:-1]}",
}


@pytest.mark.conformance(1, 2, 3)
@pytest.mark.parametrize("token", SHAPES.values(), ids=SHAPES)
def test_a_token_of_the_wrong_shape_is_malformed(token: str | bytes) -> None:
    with pytest.raises(errors.MalformedToken):
        check(token)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (H, "the token is cut or damaged: it has 1 part, and a token has 3"),
        (f"{H}.{P}", "the token is cut or damaged: it has 2 parts, and a token has 3"),
        ("a.b.c.d.e", "the token is cut or damaged: it has 5 parts, and a token has 3"),
        (f"{H}.{P}.{S[:-1]}", "the token is cut or damaged: a part of it is not canonical base64url"),
        (f"Zg.{P}.{S}", "the token is not three base64url segments around JSON: not JSON"),
    ],
)
def test_a_malformed_token_is_described_by_what_is_missing(token: str, said: str) -> None:
    with pytest.raises(errors.MalformedToken, match=f"^{said}$"):
        check(token)


@pytest.mark.conformance(3)
def test_of_all_last_characters_of_the_signature_only_the_right_one_passes() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = []
    for last in alphabet:
        try:
            check(USER[:-1] + last)
        except errors.CredentialError:
            continue
        accepted.append(last)
    assert accepted == [USER[-1]]


@pytest.mark.conformance(1)
def test_a_token_at_the_size_limit_is_read() -> None:
    bulk = signed({"bulk": "x" * 11_000})
    assert check(signed({"bulk": "x" * (11_000 + (MAX_TOKEN - len(bulk)) * 3 // 4 - 3)}))


# header

HEADERS: dict[str, bytes] = {
    name: header if isinstance(header, bytes) else compact_json(header)
    for name, header in {
        "no JSON": b"{",
        "a list": b"[]",
        "null": b"null",
        "a BOM": b"\xef\xbb\xbf" + compact_json(HEADER),
        "UTF-16": json.dumps(HEADER).encode("utf-16"),
        "alg twice": b'{"alg":"none","alg":"RS256","kid":"' + TEAM.current.kid.encode() + b'"}',
        "kid twice": b'{"alg":"RS256","kid":"x","kid":"' + TEAM.current.kid.encode() + b'"}',
        "nested deep": b'{"a":' + b"[" * 900,
        "a lone surrogate": b'{"alg":"RS256","kid":"' + TEAM.current.kid.encode() + rb'","x":"\ud800"}',
        "too long": HEADER | {"pad": "x" * MAX_HEADER},
        "crit": HEADER | {"crit": ["x"], "x": 1},
        "crit of b64": HEADER | {"crit": ["b64"], "b64": False},
        "crit empty": HEADER | {"crit": []},
        "crit as text": HEADER | {"crit": "x"},
        "b64": HEADER | {"b64": True},
        "zip": HEADER | {"zip": "DEF"},
        "enc": HEADER | {"enc": "A256GCM"},
        "p2c": HEADER | {"p2c": 1},
        "cty": HEADER | {"cty": "JWT"},
        "jwk": HEADER | {"jwk": TEAM.current.jwk()},
        "jku": HEADER | {"jku": "https://evil.example/certs"},
        "x5u": HEADER | {"x5u": "https://evil.example/cert"},
        "x5c": HEADER | {"x5c": ["AAAA"]},
        "x5t": HEADER | {"x5t": "AAAA"},
        "x5t#S256": HEADER | {"x5t#S256": "AAAA"},
        "typ of an access token": HEADER | {"typ": "at+jwt"},
        "typ of a logout token": HEADER | {"typ": "logout+jwt"},
        "typ as number": HEADER | {"typ": 5},
        "typ null": HEADER | {"typ": None},
        "typ as list": HEADER | {"typ": ["JWT"]},
        "no kid": {"alg": "RS256"},
        "kid null": HEADER | {"kid": None},
        "kid empty": HEADER | {"kid": ""},
        "kid as list": HEADER | {"kid": [TEAM.current.kid]},
        "kid as number": HEADER | {"kid": 5},
        "kid too long": HEADER | {"kid": "k" * 257},
        "kid with a line break": HEADER | {"kid": "a\r\nb"},
        "kid beyond ASCII": HEADER | {"kid": "ä"},
    }.items()
}


@pytest.mark.conformance(1, 4, 5, 6, 9, 10, 11, 12)
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_access_would_not_write_is_malformed_though_rightly_signed(header: bytes) -> None:
    with pytest.raises(errors.MalformedToken):
        check(with_header(header))


@pytest.mark.conformance(12)
@pytest.mark.parametrize("typ", ["JWT", "jwt", "Jwt", "application/jwt", "application/JWT"])
def test_typ_may_say_jwt_in_any_case(typ: str) -> None:
    assert check(with_header(HEADER | {"typ": typ}))


def test_an_unknown_header_parameter_is_ignored() -> None:
    assert check(with_header(HEADER | {"x": [1, {"y": None}]}))


FAMILIES = ("HS", "RS", "PS", "ES")
ALGORITHMS = [f"{family}{size}" for family in FAMILIES for size in (256, 384, 512) if family + str(size) != "RS256"]
MISSPELT = [
    "none",
    "None",
    "NONE",
    "nOnE",
    "rs256",
    "RS256 ",
    "",
    "RS",
    "ES256K",
    "EdDSA",
    "RSA-OAEP",
    "dir",
    "banana",
]
MISTYPED: list[Any] = [None, True, 256, 2.5, ["RS256"], {"alg": "RS256"}]


@pytest.mark.conformance(7, 8)
@pytest.mark.parametrize("alg", [*ALGORITHMS, *MISSPELT, *MISTYPED], ids=repr)
def test_any_algorithm_but_rs256_is_unsupported(alg: Any) -> None:
    with pytest.raises(errors.UnsupportedAlgorithm):
        check(with_header({"alg": alg, "kid": TEAM.current.kid}))


@pytest.mark.conformance(7)
def test_no_algorithm_is_unsupported() -> None:
    with pytest.raises(errors.UnsupportedAlgorithm):
        check(with_header({"kid": TEAM.current.kid}))


# signature


@pytest.mark.conformance(25)
def test_a_signature_over_something_else_is_wrong() -> None:
    other = TEAM.user_token("eve@example.com")
    with pytest.raises(errors.InvalidSignature):
        check(f"{H}.{P}.{other.split('.')[2]}")


@pytest.mark.conformance(25)
def test_the_signature_of_the_other_key_is_wrong() -> None:
    assert TEAM.previous
    forged = TEAM.sign(claims_of(USER), header=HEADER, key=TEAM.previous)
    with pytest.raises(errors.InvalidSignature):
        check(forged)


@pytest.mark.conformance(26)
@pytest.mark.parametrize("octets", [0, 1, 255, 257, 512])
def test_a_signature_of_another_length_than_the_modulus_is_wrong(octets: int) -> None:
    signature = (TEAM.current.sign(f"{H}.{P}".encode()) * 2)[:octets] if octets else b"\x00" * 3
    with pytest.raises(errors.InvalidSignature):
        check(f"{H}.{P}.{base64url(signature)}")


@pytest.mark.conformance(26)
def test_a_signature_with_a_leading_zero_more_is_wrong() -> None:
    with pytest.raises(errors.InvalidSignature):
        check(f"{H}.{P}.{base64url(bytes(1) + TEAM.current.sign(f'{H}.{P}'.encode()))}")


@pytest.mark.conformance(27)
@pytest.mark.parametrize("hash_name", ["SHA1", "MD5", "SHA224", "SHA384", "SHA512"])
def test_only_sha_256_is_accepted_in_the_signature(hash_name: str) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    signature = TEAM.current.private.sign(f"{H}.{P}".encode(), PKCS1v15(), getattr(hashes, hash_name)())
    with pytest.raises(errors.InvalidSignature):
        check(f"{H}.{P}.{base64url(signature)}")


# payload

PAYLOADS: dict[str, bytes] = {
    "no JSON": b"{",
    "text": b"hello",
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "a BOM": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "no UTF-8": b'{"a":"\xff"}',
    "trailing data": b"{}{}",
    "aud twice": b'{"aud":"a","aud":"b"}',
    "NaN": b'{"exp":NaN}',
    "Infinity": b'{"exp":Infinity}',
    "1e400": b'{"exp":1e400}',
    "a number of 4000 digits": b'{"exp":' + b"1" * 4000 + b"}",
    "a lone surrogate": rb'{"email":"\ud800"}',
    "nested deep": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
}


@pytest.mark.conformance(28)
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_payload_that_is_no_strict_json_is_malformed_though_rightly_signed(payload: bytes) -> None:
    with pytest.raises(errors.MalformedToken):
        check(TEAM.sign(payload))


# claims

NO_TIMES: list[Any] = [
    None,
    True,
    False,
    "5",
    str(NOW),
    5.5,
    float(NOW),
    -1,
    253_402_300_800,
    10**30,
    [],
    {},
    [NOW],
    {"exp": NOW},
]


@pytest.mark.conformance(31, 32, 33)
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", NO_TIMES, ids=repr)
def test_what_is_no_time_is_no_claim(name: str, value: Any) -> None:
    with pytest.raises(errors.InvalidClaims):
        check(signed({name: value}))


@pytest.mark.conformance(29, 30, 31, 33, 35, 36)
@pytest.mark.parametrize("name", ["exp", "iat", "iss", "aud", "type", "sub"])
def test_a_claim_that_must_be_there_must_be_there(name: str) -> None:
    with pytest.raises(errors.InvalidClaims):
        check(signed({}, drop=name))


@pytest.mark.conformance(29, 35, 36)
@pytest.mark.parametrize("name", ["iss", "sub", "type"])
@pytest.mark.parametrize("value", [None, True, 5, ["https://acme.cloudflareaccess.com"], {}], ids=repr)
def test_a_text_claim_of_another_type_is_no_claim(name: str, value: Any) -> None:
    with pytest.raises(errors.InvalidClaims):
        check(signed({name: value}))


ISSUERS = [
    "",
    "https://acme.cloudflareaccess.com/",
    "http://acme.cloudflareaccess.com",
    "https://ACME.cloudflareaccess.com",
    "https://other.cloudflareaccess.com",
    "https://acme.cloudflareaccess.com.evil.com",
    "https://acme.cloudflareaccess.com/cdn-cgi/access/sso/oidc/1",
    "acme.cloudflareaccess.com",
    "acme",
]


@pytest.mark.conformance(29)
@pytest.mark.parametrize("issuer", ISSUERS)
def test_the_issuer_is_compared_to_the_byte(issuer: str) -> None:
    with pytest.raises(errors.WrongIssuer):
        check(signed({"iss": issuer}))


A = TEAM.audience


@pytest.mark.conformance(30)
@pytest.mark.parametrize("audience", [A, [A], ["other", A], [A, A]])
def test_the_audience_may_be_text_or_a_list_that_holds_a_configured_tag(audience: Any) -> None:
    assert A in check(signed({"aud": audience}))["aud"]


@pytest.mark.conformance(30)
@pytest.mark.parametrize(
    "audience", ["", "other", A[:-1], A + "0", A.upper(), f" {A}", f"{A},other", ["other"], [A[:-1]], [""]]
)
def test_an_audience_that_is_not_configured_is_wrong(audience: Any) -> None:
    with pytest.raises(errors.WrongAudience):
        check(signed({"aud": audience}))


@pytest.mark.conformance(30)
@pytest.mark.parametrize("audience", [None, [], {}, 5, True, [A, 5], [A, None], [[A]], {A: 1}])
def test_an_audience_that_is_no_text_or_list_of_text_is_no_claim(audience: Any) -> None:
    with pytest.raises(errors.InvalidClaims):
        check(signed({"aud": audience}))


def test_any_of_several_configured_audiences_is_enough() -> None:
    settings = Settings.load(team_domain="acme", audience=["first", A])
    assert check(USER, settings=settings)


@pytest.mark.conformance(35)
@pytest.mark.parametrize("token_type", ["org", "meta", "match", "App", "app ", "", "APP"])
def test_any_type_but_app_is_wrong(token_type: str) -> None:
    with pytest.raises(errors.WrongType):
        check(signed({"type": token_type}))


@pytest.mark.conformance(35)
@pytest.mark.parametrize(
    "token", [TEAM.org_token("ada@example.com"), TEAM.meta_token(), TEAM.match_token()], ids=["org", "meta", "match"]
)
def test_the_other_tokens_of_the_team_are_refused_though_rightly_signed(token: str) -> None:
    with pytest.raises(errors.WrongType):
        check(token)


def test_a_service_token_of_2020_without_a_type_is_refused() -> None:
    with pytest.raises(errors.InvalidClaims):
        check(signed({}, base=SERVICE, drop="type"))


@pytest.mark.conformance(31)
@pytest.mark.parametrize(("leeway", "late"), [(0, 0), (10, 10), (10, 10.5), (300, 300)])
def test_a_token_has_expired_at_exp_plus_the_leeway(leeway: float, late: float) -> None:
    settings = Settings.load(team_domain="acme", audience=A, exp_leeway=leeway)
    with pytest.raises(errors.TokenExpired):
        check(signed({"exp": NOW}), settings=settings, now=NOW + late)


@pytest.mark.conformance(31)
@pytest.mark.parametrize(("leeway", "late"), [(0, -0.5), (0, -1), (10, 9.9), (300, 299.9)])
def test_a_token_lives_until_exp_plus_the_leeway(leeway: float, late: float) -> None:
    settings = Settings.load(team_domain="acme", audience=A, exp_leeway=leeway)
    assert check(signed({"exp": NOW}), settings=settings, now=NOW + late)


@pytest.mark.conformance(32, 33)
@pytest.mark.parametrize("name", ["iat", "nbf"])
@pytest.mark.parametrize("leeway", [0, 30, 300])
def test_nbf_and_iat_may_lie_ahead_by_the_leeway_and_no_more(name: str, leeway: float) -> None:
    settings = Settings.load(team_domain="acme", audience=A, nbf_leeway=leeway)
    token = signed({name: NOW + leeway})
    assert check(token, settings=settings, now=NOW)
    with pytest.raises(errors.TokenNotYetValid):
        check(token, settings=settings, now=NOW - 0.5)


@pytest.mark.conformance(34)
def test_the_default_leeway_is_10_seconds_on_exp_and_30_on_nbf_and_iat() -> None:
    assert (SETTINGS.exp_leeway, SETTINGS.nbf_leeway) == (10, 30)


@pytest.mark.conformance(32)
def test_nbf_may_be_absent() -> None:
    assert check(signed({}, drop="nbf"))


def test_time_begins_with_1970_and_ends_with_9999() -> None:
    settings = Settings.load(team_domain="acme", audience=A, nbf_leeway=0)
    assert check(signed({"exp": MAX_TIME}), settings=settings)
    assert check(signed({"iat": 0}, drop="nbf"), settings=settings, now=0)
    assert check(signed({"iat": 0, "nbf": 0}), settings=settings, now=0)


@pytest.mark.conformance(36)
@pytest.mark.parametrize("common_name", [None, "", 5, ["x"]])
def test_a_caller_without_sub_and_common_name_is_neither_user_nor_service(common_name: Any) -> None:
    with pytest.raises(errors.InvalidClaims):
        check(signed({"sub": "", "common_name": common_name}, base=SERVICE))


# order and screening


@pytest.mark.conformance(25)
def test_the_signature_comes_before_any_claim() -> None:
    expired = TEAM.sign({**claims_of(USER), "exp": 1}, header=HEADER, key=TEAM.previous)
    with pytest.raises(errors.InvalidSignature):
        check(expired)


SCREENED: dict[str, tuple[str, Callable[[], str]]] = {
    "expired": ("token_expired", lambda: signed({"exp": NOW - 11})),
    "not yet valid": ("token_not_yet_valid", lambda: signed({"iat": NOW + 31})),
    "foreign issuer": ("wrong_issuer", lambda: signed({"iss": ISSUERS[4]})),
    "foreign audience": ("wrong_audience", lambda: signed({"aud": ["other"]})),
    "other type": ("wrong_type", lambda: signed({"type": "org"})),
    "no claims": ("invalid_claims", lambda: TEAM.sign({})),
    "no JSON": ("malformed_token", lambda: TEAM.sign(b"{")),
    "no caller": ("invalid_claims", lambda: signed({"sub": ""})),
    "payload too long to read": ("unknown_key", lambda: signed({"bulk": "x" * MAX_UNVERIFIED_PAYLOAD})),
}


@pytest.mark.conformance(1, 11)
@pytest.mark.parametrize(("reason", "make"), SCREENED.values(), ids=SCREENED)
def test_a_token_that_could_not_pass_anyway_is_screened_out_for_that_reason(
    reason: str, make: Callable[[], str]
) -> None:
    with pytest.raises(errors.CredentialError) as caught:
        precheck(parse(make().encode()), settings=SETTINGS, now=NOW)
    assert (caught.value.reason, caught.value.unverified) == (reason, True)


@pytest.mark.parametrize("token", [USER, SERVICE], ids=["user", "service"])
def test_a_token_that_would_pass_is_let_through_the_screen(token: str) -> None:
    precheck(parse(token.encode()), settings=SETTINGS, now=NOW)


@pytest.mark.conformance(53)
def test_no_error_repeats_any_part_of_the_token() -> None:
    candidates = [
        *SHAPES.values(),
        *(with_header(header) for header in HEADERS.values()),
        *(make() for _, make in SCREENED.values()),
    ]
    for token in candidates:
        try:
            check(token)
        except errors.CredentialError as error:
            text = f"{error!r}"
            raw = token if isinstance(token, str) else token.decode("latin-1")
            assert not any(
                raw[start:end] in text for start, end in pairwise(range(0, len(raw), 12)) if end - start == 12
            )


@pytest.mark.parametrize("word", ["Bearer", "bearer", "BEARER"])
def test_a_word_before_a_token_is_named_without_the_token(word: str) -> None:
    with pytest.raises(errors.MalformedToken) as refused:
        parse(f"{word} {USER}".encode())
    assert str(refused.value) == "the token begins with 'Bearer ', which is not part of it: send it alone"


def test_a_wrong_audience_or_issuer_is_answered_with_what_is_configured_shortened() -> None:
    tags = ["32eafc7626e737941cc9a3c2f6a0c1ab4dbef0a2", "b" * 64, "short", "d" * 64]
    assert shown_tags(["eight-to", *tags[:2]]) == "eight-to, 32eafc76…, bbbbbbbb…"
    assert str(wrong_audience(tags[:1])) == "the audience is none of the configured ones: 32eafc76…"
    assert str(wrong_audience(tags)) == "the audience is none of the configured ones: 32eafc76…, bbbbbbbb…, short, …"
    settings = Settings.load(team_domain="acme", audience=tags)
    claims = {"type": "app", "iss": "https://evil.example", "aud": ["evil"]}
    with pytest.raises(errors.WrongIssuer) as foreign:
        check_claims(dict(claims), settings=settings, now=0)
    assert str(foreign.value) == "the issuer is not the configured team: https://acme.cloudflareaccess.com"
    with pytest.raises(errors.WrongAudience) as other:
        check_claims(claims | {"iss": settings.issuer}, settings=settings, now=0)
    assert str(other.value) == str(wrong_audience(tags))
