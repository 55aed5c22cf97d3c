"""The examples of the standards: what they sign is verified, and none of them is an Access token."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastapi_cloudflare_access import _token, errors
from fastapi_cloudflare_access._encoding import decode_base64url
from fastapi_cloudflare_access._issuer import base64url, compact_json
from fastapi_cloudflare_access._jwks import JwksProblem, parse_jwks
from fastapi_cloudflare_access._signature import RS256Key

VECTORS = Path(__file__).parents[1] / "vectors"
EXAMPLES: dict[str, Any] = {path.stem: json.loads(path.read_text()) for path in sorted(VECTORS.glob("rfc*.json"))}
OTHERS = {
    "4.2 RSA-PSS": {"alg": "PS384", "kid": "bilbo.baggins@hobbiton.example"},
    "4.3 ECDSA": {"alg": "ES512", "kid": "bilbo.baggins@hobbiton.example"},
    "4.4 HMAC": {"alg": "HS256", "kid": "018c0ae5-4d9b-471b-bfd6-eef314bc7037"},
}
"""The headers of the other examples of RFC 7520 section 4 that have one."""


def test_both_examples_are_there() -> None:
    assert {*EXAMPLES} == {"rfc7515_a2", "rfc7520_4_1"}


@pytest.mark.conformance(25, 27)
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_signature_of_an_example_is_verified_and_no_other(example: dict[str, Any]) -> None:
    key = RS256Key(n=example["key"]["n"], e=example["key"]["e"])
    signed = f"{example['header']}.{example['payload']}".encode()
    signature = decode_base64url(example["signature"].encode())
    assert key.verifies(signature, signed)
    for bit in range(0, len(signature) * 8, 61):
        flipped = int.from_bytes(signature) ^ (1 << bit)
        assert not key.verifies(flipped.to_bytes(len(signature)), signed)
    assert not key.verifies(signature, signed + b"x")
    assert not key.verifies(signature, signed.swapcase())


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_key_of_an_example_is_one_that_a_certs_document_may_hold(example: dict[str, Any]) -> None:
    document = compact_json({"keys": [example["key"]]})
    if "kid" in example["key"]:
        assert parse_jwks(document).keys
    else:
        with pytest.raises(JwksProblem, match="no usable kid"):
            parse_jwks(document)


@pytest.mark.conformance(11)
def test_an_example_without_a_kid_is_malformed() -> None:
    example = EXAMPLES["rfc7515_a2"]
    token = f"{example['header']}.{example['payload']}.{example['signature']}".encode()
    with pytest.raises(errors.MalformedToken, match="no usable kid"):
        _token.parse(token)


@pytest.mark.conformance(3, 28)
def test_an_example_whose_payload_is_no_json_passes_the_signature_and_no_further() -> None:
    from fastapi_cloudflare_access._settings import Settings

    example = EXAMPLES["rfc7520_4_1"]
    parsed = _token.parse(f"{example['header']}.{example['payload']}.{example['signature']}".encode())
    assert parsed.kid == example["key"]["kid"]
    key = RS256Key(n=example["key"]["n"], e=example["key"]["e"])
    settings = Settings.load(team_domain="acme", audience="tag")
    with pytest.raises(errors.MalformedToken, match="the payload is malformed"):
        _token.verify(parsed, key=key, settings=settings, now=0)


@pytest.mark.conformance(8)
@pytest.mark.parametrize("header", OTHERS.values(), ids=OTHERS)
def test_the_other_algorithms_of_the_examples_are_unsupported(header: dict[str, str]) -> None:
    token = f"{base64url(compact_json(header))}.{EXAMPLES['rfc7520_4_1']['payload']}.AAAA".encode()
    with pytest.raises(errors.UnsupportedAlgorithm):
        _token.parse(token)
