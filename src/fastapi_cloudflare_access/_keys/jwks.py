"""From the bytes of a certs document to an immutable key set; an unusable entry is ignored, and the others are used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from fastapi_cloudflare_access._keys.weak_moduli import weakness
from fastapi_cloudflare_access._verification.signature import ALGORITHM, RS256Key
from fastapi_cloudflare_access._verification.strict import EncodingProblem, decode_base64url, is_kid, parse_json_object

MIN_BITS, MAX_BITS = 2048, 8192
"""Sizes of the accepted moduli, in bits (RFC 7518 section 3.3 requires at least 2048)."""
MIN_EXPONENT, MAX_EXPONENT = 65537, 2**32 - 1
"""Accepted public exponents; real ones are 65537, and a large one would make each verification slow."""
MAX_KEYS = 32
"""Number of entries that a certs document may have."""
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members of private and symmetric keys (RFC 7518 sections 6.3.2 and 6.4.1); a published one is no longer secret."""


class JwksProblem(ValueError):
    """The document is not a usable key set; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one certs document.

    Attributes:
        keys: Key by `kid`; never empty.
        skipped: The reason for each entry that is ignored.
        conflicting_kids: Each `kid` that appears twice with different keys, of which none is used.
    """

    keys: Mapping[str, RS256Key]
    skipped: tuple[str, ...] = field(default=())
    conflicting_kids: frozenset[str] = field(default=frozenset())


def parse_jwks(document: bytes) -> KeySet:
    """Parse the `keys` member of a certs document (RFC 7517 section 5).

    The whole document must be strict JSON: a duplicate member, a lone surrogate or a giant number in any entry makes it
    unusable. Entries that are not an RS256 verification key of 2048 to 8192 bits are ignored. If a `kid` appears twice
    with the same material, one entry is used; with different material, none.

    Raises:
        JwksProblem: It is not a JSON object with a list of at most 32 keys, of which at least one is usable.
    """
    try:
        entries: Any = parse_json_object(document).get("keys")
    except EncodingProblem as problem:
        raise JwksProblem(f"the certs document is unusable: {problem}") from None
    if not _is(list, entries):
        raise JwksProblem("the certs document has no list of keys")
    if len(entries) > MAX_KEYS:
        raise JwksProblem(f"the certs document has {len(entries)} keys, more than {MAX_KEYS}")
    keys, skipped, conflicting_kids = _collect(entries)
    if not keys:
        raise JwksProblem(
            "the certs document has no usable key" + "".join(f"; {reason}" for reason in sorted(set(skipped)))
        )
    return KeySet(MappingProxyType(keys), tuple(skipped), frozenset(conflicting_kids))


def _collect(entries: list[Any]) -> tuple[dict[str, RS256Key], list[str], set[str]]:
    keys: dict[str, RS256Key] = {}
    skipped: list[str] = []
    conflicting_kids: set[str] = set()
    for entry in entries:
        try:
            kid, key = _read_key(entry)
        except JwksProblem as problem:
            skipped.append(str(problem))
            continue
        # The first entry stays in `keys` until the end, so that a third one is compared too.
        if keys.setdefault(kid, key) != key:
            conflicting_kids.add(kid)
    for kid in conflicting_kids:
        del keys[kid]
        skipped.append("two different keys with one kid")
    return keys, skipped, conflicting_kids


def _read_key(entry: Any) -> tuple[str, RS256Key]:
    if not _is(dict, entry) or entry.get("kty") != "RSA":
        raise JwksProblem("not an RSA key")
    kid: Any = entry.get("kid")
    if not is_kid(kid):
        raise JwksProblem("no usable kid")
    if entry.get("alg", ALGORITHM) != ALGORITHM:
        raise JwksProblem("for another algorithm than RS256")
    if entry.get("use", "sig") != "sig" or not _may_verify(entry.get("key_ops", ["verify"])):
        raise JwksProblem("not for verifying signatures")
    if not PRIVATE_MEMBERS.isdisjoint(entry):
        raise JwksProblem("a private key")
    n, e = entry.get("n"), entry.get("e")
    if not _is(str, n) or not _is(str, e):
        raise JwksProblem("no modulus or exponent")
    key = _build_key(n, e)
    if isinstance(key, JwksProblem):  # from the cache, where its traceback would grow with each raise
        raise key.with_traceback(None)
    return kid, key


def _may_verify(operations: Any) -> bool:
    return _is(list, operations) and "verify" in operations


def _is(kind: type, value: Any) -> bool:
    """Check the exact type, as JSON gives it; unlike `isinstance`, this leaves the value untyped for type checkers."""
    return type(value) is kind


@lru_cache(maxsize=256)
def _build_key(n: str, e: str) -> RS256Key | JwksProblem:
    """Return a key, or why it is unusable; both are cached, since the checks of the modulus take longest."""
    try:
        return _check_and_build(n, e)
    except JwksProblem as problem:
        return problem


def _check_and_build(n: str, e: str) -> RS256Key:
    modulus, exponent = _integer(n), _integer(e)
    if not MIN_BITS <= modulus.bit_length() <= MAX_BITS:
        raise JwksProblem(f"not of {MIN_BITS} to {MAX_BITS} bits")
    if not MIN_EXPONENT <= exponent <= MAX_EXPONENT or not exponent % 2:
        raise JwksProblem("an unusable exponent")
    if weak := weakness(modulus):
        raise JwksProblem(f"a modulus that is easy to factor: {weak}")
    try:
        return RS256Key(n=n, e=e)
    except Exception:  # noqa: BLE001 - the backend raises various classes
        raise JwksProblem("refused by the cryptography library") from None


def _integer(text: str) -> int:
    try:
        octets = decode_base64url(text.encode("ascii"))
    except (UnicodeEncodeError, EncodingProblem):
        raise JwksProblem("modulus or exponent are not base64url") from None
    if not octets[0]:
        raise JwksProblem("modulus or exponent with leading zeros")
    return int.from_bytes(octets, "big")
