"""Hints and details for rejected tokens, by reason code."""

from collections.abc import Mapping
from typing import Any

from fastapi_cloudflare_access.cli.formatting import as_list, is_time, iso_and_relative, printable, short
from fastapi_cloudflare_access.cli.reports import Verdict
from fastapi_cloudflare_access.errors import (
    AccessError,
    TemporarilyUnavailable,
    TokenExpired,
    TokenNotYetValid,
    WrongAudience,
    WrongIssuer,
    WrongType,
)
from fastapi_cloudflare_access.settings import Settings

HINTS: Mapping[str, str] = {
    "malformed_token": "copy the whole token again: three parts, two dots, and no quotes, spaces or Bearer",
    "unsupported_algorithm": "Access signs with RS256 only: check the source of this token",
    "unknown_key": "check that the token is from this team, and log in again for a token signed by a current key",
    "invalid_signature": "it was truncated, changed or signed by another key: copy it again, or log in again",
    "invalid_claims": "Access does not issue such tokens: check the source of this token",
    "wrong_issuer": "set CF_ACCESS_TEAM_DOMAIN to the team whose tokens reach the app",
    "wrong_audience": "set CF_ACCESS_AUDIENCE to the AUD tag of the application in front of the app",
    "wrong_type": "use the token that reaches the app: its Cf-Access-Jwt-Assertion header or CF_Authorization cookie",
    "token_expired": "log in again; if the token is new, this machine's clock is ahead: see `cf-access doctor`",
    "token_not_yet_valid": "set this machine's clock: see `cf-access doctor`",
    "keys_unavailable": "run `cf-access doctor` to find out why the keys cannot be fetched",
    "key_unconfirmed": "try again in a few seconds",
}
"""Hints by reason code."""


def explain_rejection(
    error: AccessError, *, claims: Mapping[str, Any] | None = None, settings: Settings | None = None, now: float = 0.0
) -> Verdict:
    """Return the verdict for a rejected token; given claims, verified or not, add the value that does not match."""
    text = str(error)
    if claims is not None and settings is not None and (detail := _detail(error, claims, settings, now)):
        text = f"{text}: {detail}"
    accepted = None if isinstance(error, TemporarilyUnavailable) else False
    return Verdict(accepted=accepted, reason=error.reason, text=text, hint=HINTS[error.reason])


def _detail(error: AccessError, claims: Mapping[str, Any], settings: Settings, now: float) -> str | None:
    match error:
        case WrongIssuer():
            return f"it is {_format_text(claims.get('iss'))}, not {settings.issuer}"
        case WrongAudience():
            configured = ", ".join(short(tag) for tag in settings.audience)
            return f"it is {_format_audience(claims.get('aud'))}, not {configured}"
        case WrongType():
            return f"its type is {_format_text(claims.get('type'))}"
        case TokenExpired():
            return iso_and_relative(claims["exp"], now)
        case TokenNotYetValid():
            times = [claims[name] for name in ("iat", "nbf") if is_time(claims.get(name))]
            return iso_and_relative(max(times), now)
        case _:
            return None


def _format_audience(value: Any) -> str:
    tags = as_list(value) or [value]
    return ", ".join(printable(short(str(tag)), limit=40) for tag in tags[:3]) + (", …" if len(tags) > 3 else "")  # noqa: PLR2004


def _format_text(value: Any) -> str:
    return printable(str(value), limit=80)
