"""Whether a request goes on to the app, as whom, or what it gets instead; the tables of Access in one place."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from fastapi_cloudflare_access._verification.request_token import COOKIE, HEADER
from fastapi_cloudflare_access.local.config import App
from fastapi_cloudflare_access.local.edge_request import ID_HEADER, SECRET_HEADER, TOKEN_HEADER, Call
from fastapi_cloudflare_access.local.local_access import Realm
from fastapi_cloudflare_access.local.policies import admits_person, admits_service, has_login, is_bypassed

Kind = Literal[
    "login",
    "login_needed",
    "forbidden",
    "service_auth",
    "service_unknown",
    "service_refused",
    "preflight_refused",
    "preflight_answered",
    "metadata",
]
"""What a request gets that does not go on; `responses` has the words."""

MAX_CREDENTIALS = 4096
MAX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Pass:
    """The request goes on.

    Attributes:
        token: The assertion; None where the app is open.
        email: Of the user.
        country: Of the user.
        sets_cookie: Whether the caller gets the token as a cookie.
        drop: The header that held credentials.
    """

    token: str | None = None
    email: str | None = None
    country: str = "US"
    sets_cookie: bool = False
    drop: str | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The request gets an answer of the edge's own."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows of a service token.

    Attributes:
        shown: Whether there is anything of it.
        client_id: The Client ID; empty where it is missing or stands twice.
        secret: The Client Secret, likewise.
        drop: The single header they came in.
    """

    shown: bool = False
    client_id: str = ""
    secret: str = ""
    drop: str | None = None


def decide(call: Call, app: App, realm: Realm) -> Pass | Stop:
    """Decide about a request for an app."""
    if is_bypassed(app):
        return Pass()
    if call.is_preflight:
        return _preflight(app)
    if call.method == "HEAD" and call.get("cf-access-metadata-request") == "true":
        return Stop("metadata")
    credentials = read_credentials(call, app)
    name = realm.service_named(credentials.client_id, credentials.secret)
    is_strict = realm.config.team.strict_service_tokens
    if name and admits_service(app, name):
        token = realm.team.machine_token(credentials.client_id, app, host=call.host)
        return Pass(token, sets_cookie=not is_strict, drop=credentials.drop)
    if credentials.shown and is_strict:
        return Stop("service_refused" if name else "service_unknown")
    return _by_tokens(call, app, realm) or _unknown(call, app)


def read_credentials(call: Call, app: App) -> Credentials:
    """Find service credentials: in the two headers, or in the single one that the app names."""
    ids, secrets = call.all(ID_HEADER), call.all(SECRET_HEADER)
    single = _single(call, app)
    if single and (ids or secrets):
        return Credentials(shown=True)
    if single:
        return single
    is_complete = len(ids) == len(secrets) == 1
    return Credentials(bool(ids or secrets), ids[0] if is_complete else "", secrets[0] if is_complete else "")


def _single(call: Call, app: App) -> Credentials | None:
    header = (app.service_token_header or "").lower()
    values = call.all(header) if header else []
    found = [entry for value in values if (entry := _json(value)) is not None]
    if not found:
        return None
    entry = found[0] if len(values) == 1 else {}
    client_id, secret = entry.get(ID_HEADER), entry.get(SECRET_HEADER)
    if isinstance(client_id, str) and isinstance(secret, str):
        return Credentials(shown=True, client_id=client_id, secret=secret, drop=header)
    return Credentials(shown=True, drop=header)


def _json(text: str) -> dict[str, Any] | None:
    """Read the JSON of a single header; other content, such as a bearer token, is the app's own."""
    try:
        value: object = json.loads(text) if len(text) <= MAX_CREDENTIALS and text.startswith("{") else None
    except (ValueError, RecursionError):
        return None
    entry = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return None if entry.keys().isdisjoint({ID_HEADER, SECRET_HEADER}) else entry


def _preflight(app: App) -> Pass | Stop:
    """Browsers send no cookie with a preflight, so nobody is logged in."""
    if app.bypass_options:
        return Pass()
    return Stop("preflight_answered" if app.cors_origins else "preflight_refused")


def _by_tokens(call: Call, app: App, realm: Realm) -> Pass | Stop | None:
    refused: Stop | None = None
    for token in _tokens(call):
        claims = realm.team.read(token, "app")
        audience = (claims or {}).get("aud", ())
        if claims is None or app.tag not in ((audience,) if isinstance(audience, str) else audience):
            continue
        if "email" not in claims:
            name = realm.services.get(str(claims.get("common_name")))
            if name and has_login(app) and admits_service(app, name):
                return Pass(token)
        elif session := realm.session_of(claims):
            person = realm.config.person(session.email)
            if admits_person(app, person):
                return Pass(token, person.email, person.country)
            refused = Stop("forbidden")
    return refused


def _tokens(call: Call) -> Iterator[str]:
    """Give every token a caller may log in with; each is believed only where the team signed it."""
    tokens = [*call.all(TOKEN_HEADER), *call.all(HEADER.lower()), *call.cookies(COOKIE)]
    yield from dict.fromkeys(tokens[:MAX_TOKENS])


def _unknown(call: Call, app: App) -> Stop:
    if not has_login(app):
        return Stop("service_auth")
    is_script = call.get("x-requested-with").lower() == "xmlhttprequest"
    return Stop("login_needed" if is_script else "login")
