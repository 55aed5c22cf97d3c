"""For each reason code: what to do, and what exactly does not fit."""

from collections.abc import Mapping
from typing import Any

from fastapi_cloudflare_access.cli.formatting import as_list, is_time, moment, printable, short
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
    "unsupported_algorithm": "Access signs with RS256 only: look where this token comes from",
    "unknown_key": "compare the team with the one the token is from, and log in again for a token of today's keys",
    "invalid_signature": "it was cut, changed or signed by somebody else: copy it again, or log in for a new one",
    "invalid_claims": "Access issues no such token: look where it comes from",
    "wrong_issuer": "set CF_ACCESS_TEAM_DOMAIN to the team whose tokens reach the app",
    "wrong_audience": "set CF_ACCESS_AUDIENCE to the AUD tag of the application in front of the app",
    "wrong_type": "take the token that reaches the app: its Cf-Access-Jwt-Assertion header or CF_Authorization cookie",
    "token_expired": "log in again; where the token is new, this machine's clock is ahead: see `cf-access doctor`",
    "token_not_yet_valid": "set this machine's clock: see `cf-access doctor`",
    "keys_unavailable": "see `cf-access doctor` for what stands between this machine and the team",
    "key_unconfirmed": "try again in a moment",
}
"""What to do, by reason code."""


def refusal(
    error: AccessError, *, claims: Mapping[str, Any] | None = None, settings: Settings | None = None, now: float = 0.0
) -> Verdict:
    """Explain a refusal; with the claims, whether verified or not, say what exactly does not fit."""
    text = str(error)
    if claims is not None and settings is not None and (detail := _detail(error, claims, settings, now)):
        text = f"{text}: {detail}"
    accepted = None if isinstance(error, TemporarilyUnavailable) else False
    return Verdict(accepted=accepted, reason=error.reason, text=text, hint=HINTS[error.reason])


def _detail(error: AccessError, claims: Mapping[str, Any], settings: Settings, now: float) -> str | None:
    match error:
        case WrongIssuer():
            return f"it is {_quoted(claims.get('iss'))}, not {settings.issuer}"
        case WrongAudience():
            configured = ", ".join(short(tag) for tag in settings.audience)
            return f"it is {_audience(claims.get('aud'))}, not {configured}"
        case WrongType():
            return f"its type is {_quoted(claims.get('type'))}"
        case TokenExpired():
            return f"{moment(claims['exp'], now)}"
        case TokenNotYetValid():
            times = [claims[name] for name in ("iat", "nbf") if is_time(claims.get(name))]
            return f"{moment(max(times), now)}"
        case _:
            return None


def _audience(value: Any) -> str:
    tags = as_list(value) or [value]
    return ", ".join(printable(short(str(tag)), limit=40) for tag in tags[:3]) + (", …" if len(tags) > 3 else "")  # noqa: PLR2004


def _quoted(value: Any) -> str:
    return printable(str(value), limit=80)
