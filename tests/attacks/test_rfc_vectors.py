"""The examples of the standards: what they sign is verified, and none of them is an Access token."""

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk as joserfc_jwk
from joserfc import jws
from joserfc.errors import BadSignatureError

from fastapi_cloudflare_access import errors
from fastapi_cloudflare_access._keys.jwks import JwksProblem, parse_jwks
from fastapi_cloudflare_access._verification import token as _token
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verification.strict import decode_base64url
from fastapi_cloudflare_access.testing._issuer import base64url, compact_json

VECTORS = Path(__file__).parents[1] / "vectors"
EXAMPLES: dict[str, Any] = {path.stem: json.loads(path.read_text()) for path in sorted(VECTORS.glob("rfc*.json"))}
COOKBOOK: dict[str, Any] = json.loads((VECTORS / "jose_cookbook.json").read_text())
OTHERS: dict[str, Any] = COOKBOOK["examples"]
"""The other examples of RFC 7520 section 4."""


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
    from fastapi_cloudflare_access.settings import Settings

    example = EXAMPLES["rfc7520_4_1"]
    parsed = _token.parse(f"{example['header']}.{example['payload']}.{example['signature']}".encode())
    assert parsed.kid == example["key"]["kid"]
    key = RS256Key(n=example["key"]["n"], e=example["key"]["e"])
    settings = Settings.load(team_domain="acme", audience="tag")
    with pytest.raises(errors.MalformedToken, match="the payload is malformed"):
        _token.verify(parsed, key=key, settings=settings, now=0)


def test_the_other_examples_of_the_cookbook_are_there() -> None:
    assert [*OTHERS] == ["4.2", "4.3", "4.4", "4.5", "4.6", "4.7", "4.8"]


@pytest.mark.parametrize("example", OTHERS.values(), ids=OTHERS)
def test_another_library_verifies_each_of_the_other_examples(example: dict[str, Any]) -> None:
    keys = {key["kty"]: joserfc_jwk.import_key(key) for key in example["keys"]}
    kinds = {"PS384": "RSA", "RS256": "RSA", "ES512": "EC", "HS256": "oct"}

    def verify(form: str, payload: str) -> None:
        whole: Any = {**example[form], "payload": payload}
        jws.deserialize_json(whole, lambda one: keys[kinds[one.headers()["alg"]]], algorithms=[*kinds])

    for form in {"json", "json_flat"} & {*example}:
        verify(form, COOKBOOK["payload"])
        with pytest.raises(BadSignatureError):
            verify(form, COOKBOOK["payload"][4:])


@pytest.mark.conformance(2, 3, 8, 11)
@pytest.mark.parametrize("example", OTHERS.values(), ids=OTHERS)
def test_another_example_gets_its_answer_in_the_shape_of_a_token(example: dict[str, Any]) -> None:
    assert reason(example["compact"]["token"].encode()) == example["compact"]["answer"]


@pytest.mark.conformance(2)
@pytest.mark.parametrize("example", OTHERS.values(), ids=OTHERS)
def test_another_example_in_the_json_serialization_is_malformed(example: dict[str, Any]) -> None:
    for form in {"json", "json_flat"} & {*example}:
        text = compact_json(example[form])
        assert {reason(text), reason(base64url(text).encode())} == {"malformed_token"}


def reason(token: bytes) -> str:
    with pytest.raises(errors.CredentialError) as refused:
        _token.parse(token)
    return refused.value.reason
