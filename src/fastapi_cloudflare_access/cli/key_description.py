"""Descriptions of the keys in a certs document."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fastapi_cloudflare_access._keys.jwks import MAX_KEYS, JwksProblem, parse_jwks
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verification.strict import EncodingProblem, decode_base64url, is_kid, parse_json_object
from fastapi_cloudflare_access.cli.certs import certificates, rsa_key
from fastapi_cloudflare_access.cli.formatting import as_dict, as_list, duration, iso, relative
from fastapi_cloudflare_access.cli.reports import Certificate, Key, Role

MAX_MODULUS_CHARS = 4096
"""Maximum length of a base64url modulus, in characters."""


def describe_keys(document: bytes, *, now: float) -> list[Key]:
    """Describe each entry of `keys`, the current key first; an invalid document has no entries."""
    try:
        content = parse_json_object(document)
    except EncodingProblem:
        return []
    known, current = certificates(content), _current(content)
    entries = as_list(content.get("keys"))[:MAX_KEYS]
    conflicting = _conflicting_kids(entries)
    keys = [_describe(entry, known, current, conflicting, now) for entry in entries]
    return sorted(keys, key=lambda key: key.role != "current")


def _current(content: Mapping[str, Any]) -> str | None:
    kid = as_dict(content.get("public_cert")).get("kid")
    return kid if isinstance(kid, str) else None


def _conflicting_kids(entries: Iterable[Any]) -> set[str]:
    """Return each `kid` that appears twice with different keys."""
    seen: dict[str, RS256Key] = {}
    usable = [pair for entry in entries if not isinstance(found := _parse_entry(entry), str) for pair in found.items()]
    return {kid for kid, key in usable if seen.setdefault(kid, key) != key}


def _describe(
    entry: Any, known: Mapping[str, x509.Certificate], current: str | None, conflicting: set[str], now: float
) -> Key:
    members = as_dict(entry)
    kid = str(members["kid"]) if is_kid(members.get("kid")) else None
    parsed = _parse_entry(entry)
    problem = parsed if isinstance(parsed, str) else "two different keys with one kid" if kid in conflicting else None
    public = _public_key(members)
    certificate = known.get(kid or "")
    role: Role = None if current is None or problem else "current" if kid == current else "previous"
    return Key(
        kid=kid,
        role=role,
        bits=public.key_size if public else _bits(members.get("n")),
        usable=problem is None,
        problem=problem,
        fingerprint=_fingerprint(public) if public else None,
        certificate=_certificate(certificate, public, now) if certificate else None,
    )


def _parse_entry(entry: Any) -> Mapping[str, RS256Key] | str:
    """Return the key of one entry, or the reason why it is not usable."""
    try:
        return parse_jwks(json.dumps({"keys": [entry]}).encode()).keys
    except JwksProblem as problem:
        return str(problem).partition("; ")[2] or str(problem)


def _public_key(members: Mapping[str, Any]) -> RSAPublicKey | None:
    e, n = (_integer(members.get(name)) for name in ("e", "n"))
    try:
        return RSAPublicNumbers(e or 0, n or 0).public_key()
    except Exception:  # noqa: BLE001 - the library raises many types for an invalid key
        return None


def _bits(modulus: Any) -> int | None:
    number = _integer(modulus)
    return number and number.bit_length()


def _integer(text: Any) -> int | None:
    if not isinstance(text, str) or len(text) > MAX_MODULUS_CHARS:
        return None
    try:
        return int.from_bytes(decode_base64url(text.encode("ascii", "replace")), "big")
    except EncodingProblem:
        return None


def _fingerprint(key: RSAPublicKey) -> str:
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _certificate(certificate: x509.Certificate, key: RSAPublicKey | None, now: float) -> Certificate:
    start, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    own = rsa_key(certificate)
    return Certificate(
        valid_from=iso(start),
        valid_to=iso(end),
        age=int(now - start),
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        same_key=own is not None and key is not None and own.public_numbers() == key.public_numbers(),
    )


def title(key: Key) -> str:
    """Format the role, size and usability of a key."""
    role = f"{key.role} key" if key.role else "key"
    size = f", RSA {key.bits}" if key.bits else ""
    return f"{role}{size}, {'usable' if key.usable else f'not used: {key.problem}'}"


def details(key: Key, now: float) -> Iterable[tuple[str, str]]:
    """Return the other details of a key as pairs of name and value."""
    yield "kid", key.kid or "none that is valid"
    if key.fingerprint:
        yield "SHA-256", key.fingerprint
    if key.certificate is None:
        yield "certificate", "none under public_certs"
        return
    yield "certificate", validity(key.certificate, now)
    if not key.certificate.same_key:
        yield "", "its key differs from the one under keys"


def validity(certificate: Certificate, now: float) -> str:
    """Format the validity period and the age of a certificate."""
    start, end = certificate.valid_from[:10], certificate.valid_to
    age = duration(certificate.age)
    age_text = f"{age} old" if certificate.age >= 0 else f"begins in {age}"
    return f"valid {start} to {end[:10]} ({_format_end(end, now)}), {age_text}"


def _format_end(valid_to: str, now: float) -> str:
    end = datetime.fromisoformat(valid_to).timestamp()
    return f"{'expired' if end < now else 'ends'} {relative(end, now)}"
