"""NaCl's `crypto_box` (X25519, XSalsa20, Poly1305), for one short message to cloudflared.

`cryptography` has no Salsa20. This one is slow and for development only: it protects no secret of a real team.
"""

import secrets
import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.poly1305 import Poly1305

KEY_SIZE = 32
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_ROUNDS = 10
_COLUMNS = ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11))
_ROWS = ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14))

Words = tuple[int, ...]


def seal(message: bytes, recipient: bytes, *, key: X25519PrivateKey, nonce: bytes | None = None) -> bytes:
    """Return the nonce and the encrypted message.

    Args:
        message: Content.
        recipient: Public key of the recipient, of 32 bytes.
        key: Private key of the sender.
        nonce: Number used once, of 24 bytes; by default random.

    Raises:
        ValueError: The public key is not valid.
    """
    nonce = nonce or secrets.token_bytes(24)
    shared = key.exchange(X25519PublicKey.from_public_bytes(recipient))
    stream = _stream(_hsalsa20(shared, bytes(16)), nonce, KEY_SIZE + len(message))
    encrypted = bytes(left ^ right for left, right in zip(message, stream[KEY_SIZE:], strict=True))
    return nonce + Poly1305.generate_tag(stream[:KEY_SIZE], encrypted) + encrypted


def _stream(key: bytes, nonce: bytes, size: int) -> bytes:
    subkey = _hsalsa20(key, nonce[:16])
    blocks = (_block(subkey, nonce[16:] + struct.pack("<Q", number)) for number in range(-(-size // 64)))
    return b"".join(blocks)[:size]


def _block(key: bytes, counter: bytes) -> bytes:
    before = _matrix(key, counter)
    return struct.pack("<16I", *((old + new) & 0xFFFFFFFF for old, new in zip(before, _mixed(before), strict=True)))


def _hsalsa20(key: bytes, counter: bytes) -> bytes:
    words = _mixed(_matrix(key, counter))
    return struct.pack("<8I", *(words[place] for place in (0, 5, 10, 15, 6, 7, 8, 9)))


def _matrix(key: bytes, counter: bytes) -> Words:
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", counter)
    return (_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3])


def _mixed(matrix: Words) -> Words:
    words = list(matrix)
    for _ in range(_ROUNDS):
        for quarter in (*_COLUMNS, *_ROWS):
            _mix(words, *quarter)
    return tuple(words)


def _mix(words: list[int], a: int, b: int, c: int, d: int) -> None:
    for target, first, second, bits in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
        total = (words[first] + words[second]) & 0xFFFFFFFF
        words[target] ^= ((total << bits) | (total >> (32 - bits))) & 0xFFFFFFFF
