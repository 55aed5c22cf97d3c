"""Hints and details for rejected tokens, by reason code."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi_cloudflare_access.cli.formatting import as_list, is_time, iso_and_relative, printable, short
from fastapi_cloudflare_access.cli.reports import Verdict
from fastapi_cloudflare_access.errors import (
    AccessError,
    ConfigurationError,
    MalformedToken,
    MissingToken,
    TemporarilyUnavailable,
    TokenExpired,
    TokenNotYetValid,
    WrongAudience,
    WrongIssuer,
    WrongType,
)
from fastapi_cloudflare_access.settings import Settings

TOKEN_DOTS = 2
_SAAS_ISSUER = re.compile(r"https://[a-z0-9.-]+\.cloudflareaccess\.com/cdn-cgi/access/sso/oidc/")
OPAQUE_HINT = "verify the token that reaches the app: Access adds a JWT in the header Cf-Access-Jwt-Assertion"
SAAS_HINT = "this is an ID token of Access for SaaS, for the SaaS application alone: use the token that reaches the app"
FOREIGN_ISSUER_HINT = (
    "its issuer is not a team domain, which ends with .cloudflareaccess.com: check the source of the token"
)
HINTS: Mapping[str, str] = {
    "missing_token": "let the proxy pass Cf-Access-Jwt-Assertion on, or set CF_ACCESS_TOKEN_SOURCES",
    "ambiguous_token": "delete the cookies of the host, and let no proxy add the header Cf-Access-Jwt-Assertion again",
    "malformed_token": "copy the whole token again: three parts, two dots, and no quotes, spaces or Bearer",
    "unsupported_algorithm": "Access signs with RS256 only: check the source of this token",
    "unknown_key": "check that the token is from this team, and log in again for a token signed by a current key",
    "invalid_signature": "it was truncated, changed or signed by another key: copy it again, or log in again",
    "invalid_claims": "Access does not issue such tokens: check the source of this token",
    "wrong_issuer": (
        "set CF_ACCESS_TEAM_DOMAIN to the team whose tokens reach the app; if the team was renamed, add the name in "
        "the token to CF_ACCESS_FORMER_TEAM_DOMAINS"
    ),
    "wrong_audience": "set CF_ACCESS_AUDIENCE to the AUD tag of the application in front of the app",
    "wrong_type": "use the token that reaches the app: its Cf-Access-Jwt-Assertion header or CF_Authorization cookie",
    "token_expired": "log in again; if the token is new, this machine's clock is ahead: see `cf-access doctor`",
    "token_not_yet_valid": "set this machine's clock: see `cf-access doctor`",
    "keys_unavailable": "run `cf-access doctor` to find out why the keys cannot be fetched",
    "key_unconfirmed": "try again in a few seconds",
    "identity_unavailable": "check that the app can reach get-identity on the team domain, as it reaches the keys",
}
"""Hints by reason code."""


def explain_rejection(
    error: AccessError,
    *,
    token: bytes = b"",
    claims: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    now: float = 0.0,
) -> Verdict:
    """Return the verdict for a rejected token; given claims, verified or not, add the value that does not match."""
    text, hint = str(error), HINTS[error.reason]
    if token.startswith(b"oauth:"):
        text, hint = "this is an opaque token of Managed OAuth, which only Cloudflare can check", OPAQUE_HINT
    elif isinstance(error, MalformedToken) and token.count(b".") != TOKEN_DOTS:
        parts = token.count(b".") + 1
        text = f"it has {parts} part{'' if parts == 1 else 's'}, and a token has 3, separated by dots"
    elif isinstance(error, MissingToken) and settings is not None and "header" not in settings.token_sources:
        hint = "leave CF_ACCESS_TOKEN_SOURCES out, so that the header is read too"
    elif claims is not None and is_saas_id_token(claims):
        hint = SAAS_HINT
    elif isinstance(error, WrongIssuer) and claims is not None and not _is_team_domain(claims.get("iss")):
        hint = FOREIGN_ISSUER_HINT
    if claims is not None and settings is not None and (detail := _detail(error, claims, settings, now)):
        text = f"{text.partition(':')[0]}: {detail}"
    accepted = None if isinstance(error, TemporarilyUnavailable) else False
    return Verdict(accepted=accepted, reason=error.reason, text=text, hint=hint)


def is_saas_id_token(claims: Mapping[str, Any]) -> bool:
    """Check whether claims are those of an ID token of Access for SaaS, whose issuer has a path of its own."""
    issuer = claims.get("iss")
    return (
        isinstance(issuer, str) and re.match(r"https://[a-z0-9.-]+\.cloudflareaccess\.com/cdn-cgi/", issuer) is not None
    )


def _is_team_domain(issuer: object) -> bool:
    try:
        Settings.load(team_domain=issuer, audience="none")
    except ConfigurationError:
        return False
    return True


def _detail(error: AccessError, claims: Mapping[str, Any], settings: Settings, now: float) -> str | None:
    match error:
        case WrongIssuer():
            return f"it is {_format_text(claims.get('iss'))}, not {settings.issuer}"
        case WrongAudience():
            return _audience_detail(as_list(claims.get("aud")) or [claims.get("aud")], settings.audience)
        case WrongType():
            return f"its type is {_format_text(claims.get('type'))}"
        case TokenExpired():
            return iso_and_relative(claims["exp"], now)
        case TokenNotYetValid():
            times = [claims[name] for name in ("iat", "nbf") if is_time(claims.get(name))]
            return iso_and_relative(max(times), now)
        case _:
            return None


def _audience_detail(given: list[Any], configured: Sequence[str]) -> str:
    """Return both audiences, shortened unless that makes two of them look alike."""
    first = [str(tag) for tag in given[:3]]
    alike = {*map(short, first)} & {*map(short, configured)}
    there, here = (
        ", ".join(printable(tag if alike else short(tag), limit=80) for tag in tags) for tags in (first, configured)
    )
    return f"it is {there}{', …' if len(given) > len(first) else ''}, not {here}"


def _format_text(value: Any) -> str:
    return printable(str(value), limit=80)
