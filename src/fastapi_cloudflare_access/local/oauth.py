"""Managed OAuth: the authorization server of the team domain, for clients that are no browsers."""

import re
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from starlette.responses import JSONResponse, RedirectResponse, Response

from fastapi_cloudflare_access.local.config import App
from fastapi_cloudflare_access.local.edge_request import EdgeRequest
from fastapi_cloudflare_access.local.forms import read_form, read_json
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.login import LoginRequest, current_session, login_form, no_access, submit_form
from fastapi_cloudflare_access.local.oauth_grants import (
    CODE_LIFETIME,
    Grants,
    OAuthError,
    is_allowed_redirect,
    matches_redirect,
)
from fastapi_cloudflare_access.local.pages import NO_STORE, message
from fastapi_cloudflare_access.local.policies import admits_person
from fastapi_cloudflare_access.local.state import Grant

OAUTH_PATH = "/cdn-cgi/access/oauth/"
SERVER_PATH = "/.well-known/oauth-authorization-server"
MAX_REDIRECTS = 10
"""Most redirect URIs of one client."""

Body = AsyncIterator[bytes]

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
"""A SHA-256 in base64url (RFC 7636 section 4.2)."""


def server_metadata(_: EdgeRequest, local_access: LocalAccess) -> Response:
    """Return the metadata of the authorization server (RFC 8414)."""
    issuer = local_access.addresses.issuer
    endpoints = ("authorization", "token", "revocation", "registration")
    paths = {"revocation": "revoke"}
    return JSONResponse(
        {
            "issuer": issuer,
            **{f"{name}_endpoint": f"{issuer}{OAUTH_PATH}{paths.get(name, name)}" for name in endpoints},
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": ["none"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
    )


async def oauth(request: EdgeRequest, local_access: LocalAccess, body: Body) -> Response:
    """Return the response of one endpoint."""
    name = request.path.removeprefix(OAUTH_PATH)
    if name == "authorization":
        return await _authorize(request, local_access, body)
    commands = {"token": _token, "registration": _register, "revoke": _revoke}
    if name not in commands or request.method != "POST":
        return JSONResponse({"error": "invalid_request"}, 405 if name in commands else 404)
    try:
        content, status = await commands[name](Grants(local_access), local_access, body)
    except OAuthError as problem:
        content, status = {"error": problem.code, "error_description": str(problem)}, 400
    return JSONResponse(content, status, headers={"cache-control": NO_STORE})


async def _register(grants: Grants, local_access: LocalAccess, body: Body) -> tuple[dict[str, Any], int]:
    """Register a client (RFC 7591)."""
    asked = await read_json(body)
    given: object = (asked or {}).get("redirect_uris")
    uris = cast("list[object]", given) if isinstance(given, list) else []
    if not 1 <= len(uris) <= MAX_REDIRECTS:
        raise OAuthError("invalid_client_metadata", "redirect_uris must be a list with 1 to 10 entries")
    if not all(is_allowed_redirect(uri, local_access.config.apps) for uri in uris):
        raise OAuthError("invalid_redirect_uri", "name it in oauth_redirects of an app; loopback ones are allowed")
    return {
        "client_id": grants.register([str(uri) for uri in uris]),
        "client_id_issued_at": int(local_access.clock.now()),
        "redirect_uris": uris,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }, 201


async def _token(grants: Grants, _: LocalAccess, body: Body) -> tuple[dict[str, Any], int]:
    """Exchange a code or a refresh token (RFC 6749 sections 4.1.3 and 6)."""
    form = await read_form(body)
    client = form.get("client_id", "")
    if not grants.redirect_uris(client):
        raise OAuthError("invalid_client", "the client is not registered")
    if form.get("grant_type") == "authorization_code":
        code, verifier = form.get("code", ""), form.get("code_verifier", "")
        return grants.issue_tokens(grants.redeem_code(code, client, form.get("redirect_uri", ""), verifier)), 200
    if form.get("grant_type") == "refresh_token":
        return grants.issue_tokens(grants.redeem_refresh_token(form.get("refresh_token", ""), client)), 200
    raise OAuthError("unsupported_grant_type", "use authorization_code or refresh_token")


async def _revoke(grants: Grants, _: LocalAccess, body: Body) -> tuple[dict[str, Any], int]:
    """Revoke a token; an unknown one is no error (RFC 7009 section 2.2)."""
    grants.revoke((await read_form(body)).get("token", ""))
    return {}, 200


async def _authorize(request: EdgeRequest, local_access: LocalAccess, body: Body) -> Response:
    """Return the login page, or redirect to the client with a code or an error."""
    query = request.query
    redirect_uri = query.get("redirect_uri", "")
    if not matches_redirect(redirect_uri, Grants(local_access).redirect_uris(query.get("client_id", ""))):
        text = "The client is not registered, or has not registered this redirect URI."
        return message("This authorization is not valid", text, status=400)
    try:
        app = _requested_app(request, local_access)
    except OAuthError as problem:
        return _redirect(request, local_access, error=problem.code, error_description=str(problem))
    login_request = LoginRequest(app, local_access.addresses.origin(app.host), "", app.paths[0], None)
    if request.method == "POST":
        return await submit_form(request, local_access, login_request, body)
    session = current_session(request, local_access)
    if session is None:
        return login_form(request, local_access, login_request)
    if not admits_person(app, local_access.config.person(session.email)):
        return no_access(login_request, session)
    expires = local_access.clock.now() + CODE_LIFETIME
    grant = Grant(query["client_id"], session.id, app.tag, expires, redirect_uri, query["code_challenge"])
    return _redirect(request, local_access, code=Grants(local_access).issue_code(grant))


def _requested_app(request: EdgeRequest, local_access: LocalAccess) -> App:
    """Return the app that the parameters ask for.

    Raises:
        OAuthError: A parameter is missing or wrong.
    """
    query = request.query
    if query.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "response_type must be code")
    if query.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(query.get("code_challenge", "")):
        raise OAuthError("invalid_request", "PKCE with code_challenge_method=S256 and its code_challenge is required")
    if not query.get("resource"):
        raise OAuthError("invalid_target", "resource is required (RFC 8707)")
    app = app_of_resource(query["resource"], local_access)
    if app is None:
        raise OAuthError("invalid_target", "resource must be an address of an app with managed_oauth")
    return app


def app_of_resource(resource: str, local_access: LocalAccess) -> App | None:
    """Return the app with managed OAuth at an address, or None."""
    try:
        parts = urlsplit(resource)
    except ValueError:
        return None
    app = local_access.app_at(parts.hostname or "", parts.path or "/")
    is_known = app and parts.netloc in local_access.addresses.origins(app.host)
    return app if app and is_known and app.managed_oauth else None


def _redirect(request: EdgeRequest, local_access: LocalAccess, **values: str) -> Response:
    redirect_uri = request.query["redirect_uri"]
    state = {"state": request.query["state"]} if "state" in request.query else {}
    parameters = urlencode({**values, **state, "iss": local_access.addresses.issuer})
    separator = "&" if "?" in redirect_uri else "?"
    return RedirectResponse(f"{redirect_uri}{separator}{parameters}", 302, headers={"cache-control": NO_STORE})
