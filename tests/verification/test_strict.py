"""Strict base64url and strict JSON."""

import json
from base64 import urlsafe_b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cloudflare_access._verification.strict import (
    MAX_DEPTH,
    EncodingProblem,
    decode_base64url,
    parse_json_object,
)

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.binary(min_size=1))
def test_what_was_encoded_is_decoded(data: bytes) -> None:
    assert decode_base64url(urlsafe_b64encode(data).rstrip(b"=")) == data


@pytest.mark.conformance(3)
@pytest.mark.parametrize("data", [b"a", b"ab", b"abc", b"\xff\xfe"])
def test_of_all_last_characters_only_one_decodes(data: bytes) -> None:
    text = urlsafe_b64encode(data).rstrip(b"=")
    accepted = []
    for last in ALPHABET:
        candidate = text[:-1] + bytes([last])
        try:
            accepted.append((candidate, decode_base64url(candidate)))
        except EncodingProblem:
            continue
    assert (text, data) in accepted
    assert len({value for _, value in accepted}) == len(accepted)


@pytest.mark.conformance(3)
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"A",
        b"AAAAA",
        b"YQ==",
        b"YQ=",
        b"YR",
        b"YWJ",
        b"+/+/",
        b"AA/A",
        b"A+AA",
        b"A=AA",
        b"YWJjZA==",
        rb"\u0041AA",
        rb"AAA\u0041AA",
        rb"AA\/A",
        b'AA"AA',
        b'AA","AA',
        b"YQ\n",
        b" YQ",
        b"Y Q",
        b"Y.Q",
        b"\xc3\xa4YQ",
        b"YQ\x00",
    ],
)
def test_text_that_is_not_canonical_base64url_is_refused(text: bytes) -> None:
    with pytest.raises(EncodingProblem):
        decode_base64url(text)


@pytest.mark.conformance(3)
@pytest.mark.parametrize("length", [4, 6, 7, 8])
def test_no_other_byte_stands_for_a_letter_of_the_alphabet_anywhere(length: int) -> None:
    for place in range(length):
        for byte in set(range(256)) - set(ALPHABET):
            text = bytearray(b"A" * length)
            text[place] = byte
            with pytest.raises(EncodingProblem):
                decode_base64url(bytes(text))


@pytest.mark.conformance(3)
@given(st.binary(max_size=24) | st.text(ALPHABET.decode() + '+/=\\u0041"', max_size=24).map(str.encode))
def test_whatever_decodes_is_what_its_bytes_encode_to(text: bytes) -> None:
    with suppress(EncodingProblem):
        assert urlsafe_b64encode(decode_base64url(text)).rstrip(b"=") == text


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, -2, 2.5, true, null, "x"]} ', {"a": [1, -2, 2.5, True, None, "x"]}),
        (rb'{"a":"\u00e9\ud83d\ude00"}', {"a": "é😀"}),
        ('{"a":"é[[[[[[[[[[[[[[[[[["}'.encode(), {"a": "é[[[[[[[[[[[[[[[[[["}),
        (rb'{"a":"\"[[[[[[[[[[[[[[[[[[[[\\"}', {"a": '"[[[[[[[[[[[[[[[[[[[[\\'}),
        (b'{"a":[' + b",".join([b"[]"] * 40) + b"]}", {"a": [[]] * 40}),
    ],
)
def test_a_json_object_is_parsed(data: bytes, value: object) -> None:
    assert parse_json_object(data) == value


@pytest.mark.conformance(4, 5, 28)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'"x"',
        b"null",
        b"1",
        b"{",
        b"{}x",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\x01"}',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e400}',
        b'{"a":-1e400}',
        b'{"a":' + b"1" * 33 + b"}",
        b'{"a":0.' + b"1" * 32 + b"}",
        rb'{"a":"\ud800"}',
        rb'{"\udc00":1}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * MAX_DEPTH + b"{}" + b"}" * MAX_DEPTH,
        b'{"a":"' + b"[" * 20,
    ],
)
def test_anything_but_one_strict_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(EncodingProblem):
        parse_json_object(data)


@pytest.mark.conformance(6, 28)
def test_json_may_nest_to_the_limit_and_no_deeper() -> None:
    at_limit = b'{"a":' * (MAX_DEPTH - 1) + b"{}" + b"}" * (MAX_DEPTH - 1)
    padded = b'{"b":' + b"[" * 5 + b"]" * 5 + b',"a":' + at_limit[5:]
    assert parse_json_object(at_limit)
    assert parse_json_object(padded)
    assert parse_json_object(b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b',"b":[]}')
    with pytest.raises(EncodingProblem, match="deep"):
        parse_json_object(b'{"b":' + padded + b"}")


@pytest.mark.parametrize("number", ["1" * 32, "-" + "1" * 31, "0." + "1" * 30, "1e" + "0" * 30])
def test_a_number_may_have_32_characters_and_no_more(number: str) -> None:
    assert parse_json_object(f'{{"a":{number}}}'.encode()) == {"a": json.loads(number)}
    with pytest.raises(EncodingProblem, match="number is too long"):
        parse_json_object(f'{{"a":{number}1}}'.encode())


@pytest.mark.conformance(6)
def test_recursion_of_the_parser_never_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(_: str, at: int) -> None:
        raise RecursionError

    monkeypatch.setattr("fastapi_cloudflare_access._verification.strict._scan", overflow)
    with pytest.raises(EncodingProblem):
        parse_json_object(b"{}")


@given(st.dictionaries(st.text(), st.integers(-(2**53), 2**53) | st.booleans() | st.none() | st.text(), max_size=8))
def test_strict_parsing_agrees_with_json_on_ordinary_objects(value: dict[str, object]) -> None:
    assert parse_json_object(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for function in (decode_base64url, parse_json_object):
        with suppress(EncodingProblem):
            function(data)
