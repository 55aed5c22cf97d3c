"""The messages to cloudflared are those of NaCl."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from support.nacl import open_box

from fastapi_cloudflare_access.local.nacl_box import seal

ALICE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
BOB = X25519PrivateKey.from_private_bytes(bytes(range(32, 64)))


def test_a_message_is_the_one_that_libsodium_makes() -> None:
    """PyNaCl 1.6 made the expected bytes."""
    sealed = seal(b"a message of a test", BOB.public_key().public_bytes_raw(), key=ALICE, nonce=bytes(range(24)))
    assert sealed.hex() == (
        "000102030405060708090a0b0c0d0e0f1011121314151617"
        "c67a0586b75664b93c34a1553838dd1702f2d2550f0b29c82453d99704cbd7e268c5f4"
    )


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 2000])
def test_the_recipient_opens_a_message_of_any_length(size: int) -> None:
    sealed = seal(b"x" * size, BOB.public_key().public_bytes_raw(), key=ALICE)
    assert open_box(sealed, ALICE.public_key().public_bytes_raw(), BOB) == b"x" * size
    with pytest.raises(InvalidSignature):
        open_box(sealed[:30] + bytes([sealed[30] ^ 1]) + sealed[31:], ALICE.public_key().public_bytes_raw(), BOB)


def test_a_public_key_without_a_secret_is_rejected() -> None:
    with pytest.raises(ValueError, match="shared key"):
        seal(b"x", bytes(32), key=ALICE)
