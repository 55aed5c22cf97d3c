"""The decision about a request: the edge forwards it to the app, or responds itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, cast

from fastapi_cloudflare_access._verification.request_token import COOKIE, HEADER
from fastapi_cloudflare_access.local.config import App, Policy
from fastapi_cloudflare_access.local.edge_request import ID_HEADER, SECRET_HEADER, TOKEN_HEADER, EdgeRequest
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.oauth_grants import Grants
from fastapi_cloudflare_access.local.policies import (
    bypass_policy,
    has_login,
    policy_for_person,
    policy_for_service,
)

ResponseKind = Literal[
    "login",
    "login_needed",
    "forbidden",
    "service_auth",
    "service_unknown",
    "service_refused",
    "preflight_refused",
    "preflight_answered",
    "metadata",
    "oauth_needed",
    "oauth_refused",
]
"""Kinds of responses of the edge itself; `responses` builds them."""

MAX_CREDENTIALS = 4096
"""Most characters of service credentials in one header."""
MAX_TOKENS = 8
"""Number of different tokens that are checked for one request, at most."""


@dataclass(frozen=True, slots=True)
class Forward:
    """The decision to forward the request to the app.

    Attributes:
        token: Application token for the app; None if a policy bypasses Access.
        email: Address of the user.
        country: Country code of the caller.
        sets_cookie: Whether the response sets the token as a cookie.
        credential_header: Name of the single header with both credentials, to remove.
        policy: Policy that decided; None for a request that no policy sees.
        caller: Address of the user, or name of the service token; empty for an unknown caller.
        session: Id of the user's session; empty for other callers.
    """

    token: str | None = None
    email: str | None = None
    country: str = "US"
    sets_cookie: bool = False
    credential_header: str | None = None
    policy: Policy | None = None
    caller: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True)
class Respond:
    """The decision that the edge itself responds.

    Attributes:
        kind: Kind of the response.
        policy: Policy that decided; None if no policy includes the caller, or the caller is unknown.
        caller: Address of the user, or name of the service token; empty for an unknown caller.
        note: What is wrong with the service credentials, for the log.
    """

    kind: ResponseKind
    policy: Policy | None = None
    caller: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The service credentials of a request.

    Attributes:
        present: Whether the request has any of them.
        client_id: Client ID; empty if a credential is missing or appears twice.
        secret: Client Secret; empty in the same cases.
        credential_header: Name of the single header with both credentials.
    """

    present: bool = False
    client_id: str = ""
    secret: str = ""
    credential_header: str | None = None


def decide(request: EdgeRequest, app: App, local_access: LocalAccess) -> Forward | Respond:
    """Check a request against the policies of its app."""
    return _decide_without_caller(request, app) or _decide_with_caller(request, app, local_access)


def _decide_without_caller(request: EdgeRequest, app: App) -> Forward | Respond | None:
    if policy := bypass_policy(app):
        return Forward(policy=policy)
    if request.method == "OPTIONS" and app.bypass_options:
        return Forward()
    if request.is_preflight:
        return Respond("preflight_answered" if app.cors_origins else "preflight_refused")
    if request.method == "HEAD" and request.get("cf-access-metadata-request") == "true":
        return Respond("metadata")
    return None


def _decide_with_caller(request: EdgeRequest, app: App, local_access: LocalAccess) -> Forward | Respond:
    credentials = read_credentials(request, app)
    name = local_access.authenticate_service(credentials.client_id, credentials.secret)
    is_strict = local_access.config.team.strict_service_tokens
    if name and (policy := policy_for_service(app, name)):
        token = local_access.team.service_app_token(credentials.client_id, app, host=request.host)
        header = credentials.credential_header
        return Forward(token, sets_cookie=not is_strict, credential_header=header, policy=policy, caller=name)
    if credentials.present and is_strict:
        kind: ResponseKind = "service_refused" if name else "service_unknown"
        return Respond(kind, caller=name or "", note=_credential_problem(credentials, name, local_access))
    if bearer := _bearer(request, app):
        return _check_bearer(bearer, request, app, local_access)
    decision = _check_tokens(request, app, local_access) or _require_login(request, app)
    if credentials.present and isinstance(decision, Respond):
        return replace(decision, note=_credential_problem(credentials, name, local_access))
    return decision


def _credential_problem(credentials: Credentials, name: str | None, local_access: LocalAccess) -> str:
    """Return why these service credentials do not admit the request; the client learns nothing of it."""
    if name:
        return f"no policy admits the service token {name}"
    if not credentials.client_id or not credentials.secret:
        return "the service credentials are incomplete or sent twice"
    if known := local_access.services.get(credentials.client_id):
        return f"the secret of the service token {known} is wrong"
    return "the Client ID is of no service token"


def _bearer(request: EdgeRequest, app: App) -> str:
    """Return the opaque access token of managed OAuth; empty without one."""
    scheme, _, token = request.get("authorization").partition(" ")
    return token.strip() if app.managed_oauth and scheme.lower() == "bearer" else ""


def _check_bearer(bearer: str, request: EdgeRequest, app: App, local_access: LocalAccess) -> Forward | Respond:
    """Swap an access token for an assertion that expires with it."""
    grant = Grants(local_access).access_grant(bearer, app)
    session = local_access.state.sessions.get(grant.session) if grant else None
    if grant is None or session is None or session.ended:
        return Respond("oauth_refused")
    person = local_access.config.person(session.email)
    policy = policy_for_person(app, person)
    if policy is None or policy.decision != "allow":
        return Respond("forbidden", policy, person.email)
    lifetime = int(grant.expires - local_access.clock.now())
    token = local_access.team.app_token(session, person, app, host=request.host, expires_in=lifetime)
    return Forward(token, person.email, person.country, policy=policy, caller=person.email, session=session.id)


def read_credentials(request: EdgeRequest, app: App) -> Credentials:
    """Read service credentials from the two headers, or from the single header that the app names."""
    ids, secrets = request.get_all(ID_HEADER), request.get_all(SECRET_HEADER)
    credentials = _single_header_credentials(request, app)
    if credentials and (ids or secrets):
        return Credentials(present=True)
    if credentials:
        return credentials
    is_complete = len(ids) == len(secrets) == 1
    return Credentials(bool(ids or secrets), ids[0] if is_complete else "", secrets[0] if is_complete else "")


def _single_header_credentials(request: EdgeRequest, app: App) -> Credentials | None:
    header = (app.service_token_header or "").lower()
    values = request.get_all(header) if header else []
    found = [entry for value in values if (entry := _parse_credentials(value)) is not None]
    if not found:
        return None
    entry = found[0] if len(values) == 1 else {}
    client_id, secret = entry.get(ID_HEADER), entry.get(SECRET_HEADER)
    if isinstance(client_id, str) and isinstance(secret, str):
        return Credentials(present=True, client_id=client_id, secret=secret, credential_header=header)
    return Credentials(present=True, credential_header=header)


def _parse_credentials(text: str) -> dict[str, Any] | None:
    """Parse the JSON of a single header; return None for other content."""
    try:
        value: object = json.loads(text) if len(text) <= MAX_CREDENTIALS and text.startswith("{") else None
    except (ValueError, RecursionError):
        return None
    entry = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return None if entry.keys().isdisjoint({ID_HEADER, SECRET_HEADER}) else entry


def _check_tokens(request: EdgeRequest, app: App, local_access: LocalAccess) -> Forward | Respond | None:
    rejection: Respond | None = None
    for token in _tokens(request):
        claims = local_access.team.verified_claims(token, "app")
        audience = (claims or {}).get("aud", ())
        if claims is None or app.tag not in ((audience,) if isinstance(audience, str) else audience):
            continue
        if "email" not in claims:
            name = local_access.services.get(str(claims.get("common_name")))
            if name and has_login(app) and (policy := policy_for_service(app, name)):
                return Forward(token, policy=policy, caller=name)
        elif session := local_access.session_of(claims):
            person = local_access.config.person(session.email)
            policy = policy_for_person(app, person)
            if policy and policy.decision == "allow":
                return Forward(
                    token, person.email, person.country, policy=policy, caller=person.email, session=session.id
                )
            rejection = Respond("forbidden", policy, person.email)
    return rejection


def _tokens(request: EdgeRequest) -> Iterator[str]:
    """Yield the unverified application tokens of the request, without duplicates, up to `MAX_TOKENS`."""
    tokens = [*request.get_all(TOKEN_HEADER), *request.get_all(HEADER.lower()), *request.cookies(COOKIE)]
    yield from islice(dict.fromkeys(tokens), MAX_TOKENS)


def _require_login(request: EdgeRequest, app: App) -> Respond:
    if not has_login(app):
        return Respond("service_auth")
    if app.managed_oauth and "text/html" not in request.get("accept"):
        return Respond("oauth_needed")
    is_script = request.get("x-requested-with").lower() == "xmlhttprequest"
    return Respond("login_needed" if is_script else "login")
