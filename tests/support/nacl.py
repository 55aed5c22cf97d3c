"""The recipient of a NaCl box, as cloudflared is one."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.poly1305 import Poly1305

from fastapi_cloudflare_access.local.nacl_box import _hsalsa20, _stream


def open_box(sealed: bytes, sender: bytes, key: X25519PrivateKey) -> bytes:
    """Return the message; raise `InvalidSignature` if it was changed."""
    nonce, tag, encrypted = sealed[:24], sealed[24:40], sealed[40:]
    shared = key.exchange(X25519PublicKey.from_public_bytes(sender))
    stream = _stream(_hsalsa20(shared, bytes(16)), nonce, 32 + len(encrypted))
    Poly1305.verify_tag(stream[:32], encrypted, tag)
    return bytes(left ^ right for left, right in zip(encrypted, stream[32:], strict=True))
