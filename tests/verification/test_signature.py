"""RS256 with a prebuilt key: its length first, then its backend, and nothing but a plain True."""

import os
from importlib import import_module
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from fastapi_cloudflare_access._verification import signature as signature_module
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access.testing._issuer import base64url

TESTS = Path(__file__).parents[1]


def test_the_library_that_is_asked_for_verifies_signatures() -> None:
    """It is python-jose, or what scripts/signatures.py replaced it with."""
    used = Path(signature_module.__file__).read_text()
    if name := os.environ.get("SIGNATURE_BY"):
        assert used == (TESTS / f"support/signatures/by_{name}.py").read_text()
        with pytest.raises(ModuleNotFoundError, match="'jose'"):
            import_module("jose")
    else:
        assert "from jose import jwk" in used


def number(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def key_of(bits: int, offset: int = 12_345) -> RS256Key:
    return RS256Key(n=number(2 ** (bits - 1) + offset), e="AQAB")


@pytest.mark.conformance(26)
@pytest.mark.parametrize(
    ("bits", "octets"), [(2048, 256), (2049, 257), (2050, 257), (2056, 257), (2057, 258), (4096, 512)]
)
def test_a_signature_has_as_many_octets_as_the_modulus(bits: int, octets: int) -> None:
    key = key_of(bits)
    key._verify = lambda signed, signature: True
    lengths = [
        length for length in (0, 1, octets - 1, octets, octets + 1, 2 * octets) if key.verifies(bytes(length), b"")
    ]
    assert lengths == [octets]


@pytest.mark.conformance(27)
@pytest.mark.parametrize("answer", [None, 0, 1, 2, "yes", [1], object(), False])
def test_only_a_plain_true_of_the_backend_verifies(answer: object) -> None:
    key = key_of(2048)
    key._verify = lambda signed, signature: answer
    assert not key.verifies(bytes(256), b"")


@pytest.mark.conformance(25, 27)
def test_a_key_verifies_its_signatures_and_no_others() -> None:
    private = generate_private_key(65_537, 2048)
    numbers = private.public_key().public_numbers()
    key = RS256Key(n=number(numbers.n), e=number(numbers.e))
    signature = private.sign(b"signed", PKCS1v15(), hashes.SHA256())
    assert key.verifies(signature, b"signed")
    assert not key.verifies(signature, b"signed ")
    assert not key.verifies(signature[::-1], b"signed")


def test_keys_are_equal_where_their_numbers_are() -> None:
    low, high = key_of(2048, 12_345), key_of(2048, 54_321)
    assert low == key_of(2048, 12_345)
    assert hash(low) == hash(key_of(2048, 12_345))
    assert low != high
    assert high != low
    assert low != "a key"
    assert len({low, high, key_of(2048, 54_321)}) == 2
