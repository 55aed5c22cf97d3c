"""The keys under which a caller is found among the revocations."""

import unicodedata
from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeAlias

from fastapi_cloudflare_access._domains import normal_domain
from fastapi_cloudflare_access._verification.token_cache import RevocationKeys
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.stores._signing import Signer

NamesOf: TypeAlias = Callable[[str], tuple[str, ...]]
"""A function that returns the keys of an address."""

_KEYS = "_revocation_keys"


def folded(address: str) -> str:
    """Return an address in one spelling, in which all of its spellings compare equal.

    Case, compatibility characters and blanks around it do not count, and the domain compares as IDNA. A text that is no
    address is folded too, since a token can carry one.
    """
    if address.isascii():
        return address.strip().lower()
    text = unicodedata.normalize("NFKC", address).strip()
    local, separator, domain = text.rpartition("@")
    try:  # before `casefold`, which makes another domain of one with a sharp s
        return _casefolded(local) + separator + normal_domain(domain, ValueError())
    except ValueError:
        return _casefolded(text).strip()


def _casefolded(text: str) -> str:
    return unicodedata.normalize("NFKC", text.casefold())


def token_key(token: bytes) -> str:
    """Return the key of a token: its SHA-256, in hexadecimal."""
    return sha256(token).hexdigest()


def keys_of_claims(claims: dict[str, Any], token_digest: bytes, names_of: NamesOf) -> RevocationKeys:
    """Return the keys of a token whose claims have been checked.

    Args:
        claims: The claims.
        token_digest: The SHA-256 of the token.
        names_of: Returns the keys of an address.
    """
    names = [f"token:{token_digest.hex()}"]
    if sub := claims["sub"]:
        names.append(f"sub:{sub}")
        email = claims.get("email")
        if type(email) is str:
            names += names_of(email)
    else:
        names.append(f"client_id:{claims['common_name']}")
    return RevocationKeys(tuple(names), claims["iat"])


def attach_keys(caller: UserClaims | ServiceClaims, keys: RevocationKeys) -> None:
    """Keep the keys of a token with its caller, since a model of the app may change `sub` and `email`.

    They are no field, so comparing, copying and serialising a model treats them as the value of a cached property.
    """
    vars(caller)[_KEYS] = keys


def keys_of_caller(caller: UserClaims | ServiceClaims, names_of: NamesOf) -> RevocationKeys:
    """Return the attached keys of a verified caller; without any, those of its claims, without that of the token."""
    if (attached := vars(caller).get(_KEYS)) is not None:
        keys: RevocationKeys = attached
        return keys
    if isinstance(caller, ServiceClaims):
        return RevocationKeys((f"client_id:{caller.common_name}",), caller.iat)
    addresses = names_of(caller.email) if isinstance(caller.email, str) else ()
    return RevocationKeys((f"sub:{caller.sub}", *addresses), caller.iat)


def address_names(email: str, signer: Signer) -> tuple[str, ...]:
    """Return the keys of an address: one for each secret of the store, the newest one first."""
    return tuple(f"email:{digest}" for digest in signer.digests(folded(email)))


def stream_of(claims: dict[str, Any]) -> str:
    """Return the digest of the caller and the times of a token, by which its open streams are found."""
    caller = claims.get("sub") or claims.get("common_name")
    return sha256(f"{caller}\n{claims.get('iat')}\n{claims.get('exp')}".encode()).hexdigest()


def stream_of_caller(caller: UserClaims | ServiceClaims) -> str:
    """Return the same digest for a verified caller."""
    subject = caller.common_name if isinstance(caller, ServiceClaims) else caller.sub
    return sha256(f"{subject}\n{caller.iat}\n{caller.exp}".encode()).hexdigest()
