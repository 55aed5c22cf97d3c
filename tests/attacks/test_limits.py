"""Every bound of a token to the byte, and that options which decide are named by who calls."""

from inspect import Parameter, signature
from typing import Any

import pytest

from fastapi_cloudflare_access import errors
from fastapi_cloudflare_access._verification import token as _token
from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import FakeTeam
from fastapi_cloudflare_access.testing._issuer import base64url, compact_json

TEAM = FakeTeam("acme")
SETTINGS = Settings.load(team_domain="acme", audience=TEAM.audience)
NOW = TEAM.clock.now()


def of_size(content: dict[str, Any], size: int) -> bytes:
    """Fill a JSON object up to so many bytes."""
    empty = compact_json({**content, "x": ""})
    return compact_json({**content, "x": "x" * (size - len(empty))})


def screened(payload: bytes) -> str:
    parsed = _token.ParsedToken("kid", b"", payload, b"")
    try:
        _token.precheck(parsed, settings=SETTINGS, now=NOW)
    except errors.CredentialError:
        return "refused"
    return "passed"


@pytest.mark.conformance(1)
def test_the_limits_are_16_kib_for_a_token_1_for_a_header_and_8_for_an_unverified_payload() -> None:
    assert (_token.MAX_TOKEN, _token.MAX_HEADER, _token.MAX_UNVERIFIED_PAYLOAD) == (16_384, 1_024, 8_192)


@pytest.mark.conformance(1)
def test_a_token_of_16_kib_is_read_and_one_byte_more_is_not() -> None:
    start = TEAM.sign(TEAM.user_claims("ada@example.com")).encode().rpartition(b".")[0] + b"."
    assert _token.parse(start + b"A" * (16_384 - len(start) - len(start) % 4)).kid == TEAM.current.kid
    longest = (b"%b.%b." % (b"e30", b"e30")).ljust(16_384, b"A")
    with pytest.raises(errors.UnsupportedAlgorithm):
        _token.parse(longest)
    with pytest.raises(errors.MalformedToken, match="too long"):
        _token.parse(longest + b"A")


@pytest.mark.conformance(1)
def test_a_header_of_1_kib_is_read_and_one_byte_more_is_not() -> None:
    for size, passes in ((1024, True), (1025, False), (1026, False)):
        token = f"{base64url(of_size({'alg': 'RS256', 'kid': 'k'}, size))}.e30.AAAA".encode()
        if passes:
            assert _token.parse(token).kid == "k"
        else:
            with pytest.raises(errors.MalformedToken, match="header is too long"):
                _token.parse(token)


@pytest.mark.conformance(1)
def test_an_unverified_payload_of_8_kib_is_read_and_one_byte_more_is_not() -> None:
    claims = TEAM.user_claims("ada@example.com")
    assert [screened(of_size(claims, size)) for size in (8191, 8192, 8193)] == ["passed", "passed", "refused"]


def test_64_headers_are_remembered() -> None:
    assert _token._read_header.cache_info().maxsize == 64


def test_a_header_that_was_refused_is_not_remembered_as_good() -> None:
    bad = b"%b.e30.AAAA" % base64url(b'{"alg":"none","kid":"k"}').encode()
    for _ in range(3):
        with pytest.raises(errors.UnsupportedAlgorithm):
            _token.parse(bad)


@pytest.mark.parametrize(
    "function", [_token.verify, _token.parse_and_check_claims, _token.precheck, _token.check_claims]
)
def test_what_decides_is_given_by_name(function: Any) -> None:
    kinds = {name: parameter.kind for name, parameter in signature(function).parameters.items()}
    first, *others = kinds
    assert kinds[first] is Parameter.POSITIONAL_OR_KEYWORD
    assert {kinds[name] for name in others} == {Parameter.KEYWORD_ONLY}


@pytest.mark.conformance(6, 28)
@pytest.mark.parametrize("turns", ["[", '{"a":', '[{"a":', '{"a":['])
def test_json_nests_16_deep_and_no_deeper_whatever_nests(turns: str) -> None:
    def nested(depth: int) -> bytes:
        pieces = ["[" if piece == "[" else '{"a":' for piece in turns.replace('{"a":', "{")] * 20
        opened = pieces[: depth - 1]
        closed = ["]" if piece == "[" else "}" for piece in reversed(opened)]
        return f'{{"x":{"".join(opened)}{"0"}{"".join(closed)}}}'.encode()

    assert parse_json_object(nested(16))
    with pytest.raises(EncodingProblem, match="too deep"):
        parse_json_object(nested(17))


@pytest.mark.conformance(28)
@pytest.mark.parametrize(
    "text", ['"[[[[[[[[[[[[[[[[[[[["', r'"\"[[[[[[[[[[[[[[[[[[[[\\"', '["]", "[", "{{{{{{{{{{{{{{{{{{"]']
)
def test_brackets_inside_text_are_text(text: str) -> None:
    assert parse_json_object(b'{"x":%b}' % text.encode())
