"""`cf-access inspect`: the content of a token, without verification."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi_cloudflare_access._verification.strict import EncodingProblem, decode_base64url, parse_json_object
from fastapi_cloudflare_access._verification.token import MAX_TOKEN, check_claims, parse
from fastapi_cloudflare_access._verifier import build_claims
from fastapi_cloudflare_access.claims import UserClaims
from fastapi_cloudflare_access.cli.configuration import Configuration
from fastapi_cloudflare_access.cli.formatting import as_list, is_time, iso, iso_and_relative, plural, short
from fastapi_cloudflare_access.cli.hints import explain_rejection, is_saas_id_token
from fastapi_cloudflare_access.cli.output import Screen
from fastapi_cloudflare_access.cli.reports import InspectReport, Kind, Times, Verdict
from fastapi_cloudflare_access.cli.tokens import GivenToken, describe_token
from fastapi_cloudflare_access.errors import CredentialError, MalformedToken
from fastapi_cloudflare_access.settings import Settings

NOTHING_VERIFIED = "Nothing was verified: anyone can write such a token. See `cf-access verify`."
KINDS: Mapping[Kind, str] = {
    "user": "a user's login to an application",
    "service": "a service's login to an application",
    "org": "org: a user's session with the team, not a login to an application",
    "meta": "meta: part of a login redirect, issued to every visitor",
    "match": "match: describes an application, issued to every visitor",
    "saas": "an ID token of Access for SaaS (OIDC), not a login to an app behind Access",
    "unknown": "not a kind of token that Access issues",
}
SECRETS = frozenset({"identity_nonce"})
"""Claims that are credentials; only their first characters are shown."""

PERSONAL = frozenset({"email", "name", "identity", "custom", "groups", "country", "ip"})
"""Claims with personal data."""

_OTHER_KINDS: Mapping[Any, Kind] = {"org": "org", "meta": "meta", "match": "match"}
_HEADER, _PAYLOAD = 0, 1
_TIMES = ("iat", "nbf", "exp")


def inspect_token(token: bytes, configuration: Configuration, now: float) -> InspectReport:
    """Decode the parts of a token that can be decoded, and check the claims against this configuration."""
    claims = _decode(token, _PAYLOAD)
    return InspectReport(
        token=describe_token(token),
        kind=kind_of(claims or {}),
        header=_decode(token, _HEADER),
        claims=claims and {name: _masked(name, value) for name, value in claims.items()},
        times=_times(claims or {}),
        verdict=_verdict(token, claims, configuration, now),
    )


def inspect_given(given: GivenToken, configuration: Configuration, now: float) -> InspectReport:
    """Decode a token; if an app with this configuration does not read it from the request, the verdict says so."""
    try:
        return inspect_token(given.for_app(configuration.settings), configuration, now)
    except CredentialError as error:
        report = inspect_token(given.value, configuration, now)
        return report.model_copy(update={"verdict": explain_rejection(error, settings=configuration.settings)})


def kind_of(claims: Mapping[str, Any]) -> Kind:
    """Return the kind of token that the claims describe."""
    if is_saas_id_token(claims):
        return "saas"
    kind, sub, name = (claims.get(member) for member in ("type", "sub", "common_name"))
    if isinstance(kind, str) and kind in _OTHER_KINDS:
        return _OTHER_KINDS[kind]
    if kind != "app" or not isinstance(sub, str):
        return "unknown"
    return "user" if sub else "service" if name and isinstance(name, str) else "unknown"


def _decode(token: bytes, part: int) -> dict[str, Any] | None:
    parts = token.split(b".") if len(token) <= MAX_TOKEN else []
    try:
        return parse_json_object(decode_base64url(parts[part]))
    except (IndexError, EncodingProblem):
        return None


def _masked(name: str, value: Any) -> Any:
    return f"{value[:4]}…" if name in SECRETS and isinstance(value, str) else value


def _times(claims: Mapping[str, Any]) -> Times:
    issued, not_before, expires = (iso(claims[name]) if is_time(claims.get(name)) else None for name in _TIMES)
    return Times(issued=issued, not_before=not_before, expires=expires)


def _verdict(token: bytes, claims: dict[str, Any] | None, configuration: Configuration, now: float) -> Verdict:
    try:
        parse(token)
        if claims is None:
            raise MalformedToken("the payload is malformed")
        if configuration.settings is None:
            return Verdict(accepted=None, text=f"the decision of the app is not known: {configuration.problem}")
        checked = dict(claims)
        check_claims(checked, settings=configuration.settings, now=now)
        build_claims(checked, UserClaims, issuer=configuration.settings.issuer)
    except CredentialError as error:
        return explain_rejection(error, token=token, claims=claims, settings=configuration.settings, now=now)
    return Verdict(accepted=None, text="this configuration accepts the token if its signature is valid")


def show(report: InspectReport, screen: Screen, *, settings: Settings | None, now: float) -> None:
    """Print a report as text."""
    screen.line(NOTHING_VERIFIED, style="bold")
    screen.line()
    screen.field("kind", KINDS[report.kind])
    screen.field("token", f"{plural(report.token.length, 'byte')}, {report.token.digest} in the app's log")
    _show_header(report.header, screen)
    if report.claims is None:
        screen.field("claims", "cannot be decoded")
    for name, value in (report.claims or {}).items():
        screen.field(name, _format_claim(name, value, settings, now))
    if PERSONAL & (report.claims or {}).keys():
        screen.row("warning", "", "do not paste this into a ticket or a chat: it contains personal data")
    screen.line()
    screen.verdict(report.verdict)


def _show_header(header: Mapping[str, Any] | None, screen: Screen) -> None:
    if header is None:
        screen.field("header", "cannot be decoded")
    for name, value in (header or {}).items():
        screen.field(name, _format_value(value))


def _format_claim(name: str, value: Any, settings: Settings | None, now: float) -> str:
    if name in _TIMES and is_time(value):
        return f"{value} ({iso_and_relative(value, now)})"
    if name == "aud" and settings is not None:
        tags = {str(tag) for tag in as_list(value) or [value]}
        configured = ", ".join(short(tag) for tag in settings.audience)
        note = "configured" if tags & settings.audience_tags else f"configured: {configured}"
        return f"{_format_value(value)} ({note})"
    if name == "identity" and isinstance(value, dict):
        return f"{plural(len(json.dumps(value)), 'byte')} of personal data, not shown; --json shows them"
    if name == "iss" and settings is not None:
        return f"{value} ({'configured' if value == settings.issuer else f'configured: {settings.issuer}'})"
    return _format_value(value)


def _format_value(value: Any) -> str:
    texts = [item for item in as_list(value) if isinstance(item, str)]
    if texts and texts == value:
        return ", ".join(texts)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
