"""The arguments of `access.revocations`: which caller or token, and for how long."""

import re
from collections.abc import Callable
from datetime import timedelta
from math import ceil
from typing import Any

from fastapi_cloudflare_access._revocations.record import (
    LONGEST_SESSION,
    MAX_NAME,
    MICROSECONDS,
    RECORD_LIFETIME,
    Kind,
    Record,
)
from fastapi_cloudflare_access._revocations.subjects import address_names, stream_of, token_key
from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access._verification.token import parse
from fastapi_cloudflare_access.claims import MAX_TIME
from fastapi_cloudflare_access.errors import ConfigurationError, CredentialError
from fastapi_cloudflare_access.stores._signing import Signer

MAX_ADDRESS = 320
"""Number of characters that an address may have (RFC 5321 section 4.5.3.1)."""

_NOT_ALONE = re.compile(r"[\s<>,;]|^mailto:", re.IGNORECASE)
"""Parts of a list of addresses, of an address with a name, or of a link."""
_HEADER = re.compile(r"CF-Access-Client-(Id|Secret)\b", re.IGNORECASE)
"""The names of the headers, with which the dashboard of Cloudflare shows a service token."""


def caller_keys(signer: Signer, method: str, **callers: Any) -> list[tuple[Kind, str]]:
    """Return the kind and the key of the one caller that is given.

    An address has a key for each secret of the store, the one for new records first.

    Args:
        signer: Makes the digest of an address.
        method: Name of the method, for the message.
        **callers: `sub`, `email` and `client_id`, of which one is not None.

    Raises:
        ConfigurationError: Not exactly one is given, or it is not usable.
    """
    given = {name: value for name, value in callers.items() if value is not None}
    if len(given) != 1:
        raise ConfigurationError(f"{method} takes one of sub=…, email=… and client_id=…")
    ((name, value),) = given.items()
    longest = MAX_ADDRESS if name == "email" else MAX_NAME
    if not isinstance(value, str) or not value.strip() or value != value.strip():
        raise ConfigurationError(f"{name} must be text that is not blank and has no blanks around it")
    if len(value) > longest or not value.isprintable():
        raise ConfigurationError(f"{name} must have at most {longest} characters, and no control characters")
    if name == "email":
        if "@" not in value or _NOT_ALONE.search(value):
            raise ConfigurationError("email must be one address alone, such as 'ada@acme.example'")
        return [("email", name.partition(":")[2]) for name in address_names(value, signer)]
    if name == "sub" and "@" in value:
        raise ConfigurationError("sub is the claim `sub` of a user, which is no address: pass the address as email=…")
    if name == "client_id" and _HEADER.match(value):
        raise ConfigurationError(
            "client_id is the Client ID alone, such as '0123….access', without CF-Access-Client-Id"
        )
    return [("sub" if name == "sub" else "client_id", value)]


def seconds_of(for_: Any) -> int:
    """Return the duration of a block in whole seconds.

    Raises:
        ConfigurationError: It is no duration, not positive, or longer than the longest session.
    """
    if not isinstance(for_, timedelta):
        raise ConfigurationError("for_ must be a timedelta, such as timedelta(hours=1)")
    if not timedelta() < for_ <= timedelta(seconds=LONGEST_SESSION):
        raise ConfigurationError(
            "for_ must be positive and at most 31 days; for longer remove the caller at Cloudflare"
        )
    return ceil(for_.total_seconds())


def revocation_of(token: Any) -> Callable[[int], list[Record]]:
    """Return a function that makes the record of a token at a time of the store; none if it has expired.

    Raises:
        ConfigurationError: This is not a token.
    """
    given = token.encode(errors="replace") if isinstance(token, str) else token
    if not isinstance(given, bytes):
        raise _not_a_token()
    try:
        claims = parse_json_object(parse(given).payload)
    except (CredentialError, EncodingProblem):
        raise _not_a_token() from None
    exp, key, stream = claims.get("exp"), token_key(given), stream_of(claims)
    if type(exp) is not int or not 0 <= exp <= MAX_TIME:
        raise _not_a_token()

    def records(at: int) -> list[Record]:
        now, until = at // MICROSECONDS, exp + RECORD_LIFETIME - LONGEST_SESSION
        if exp > now + LONGEST_SESSION:
            raise ConfigurationError("revoke takes a token that expires within 31 days, as all of Cloudflare do")
        return [Record("block", "token", key, at, until, stream)] if until > now else []

    return records


def _not_a_token() -> ConfigurationError:
    return ConfigurationError("revoke takes a token of Cloudflare Access, as text or bytes")
