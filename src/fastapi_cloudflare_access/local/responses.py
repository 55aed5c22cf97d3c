"""The responses of the edge itself: login redirect, rejections, preflights and metadata."""

import re
import secrets
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from fastapi_cloudflare_access.local.config import App
from fastapi_cloudflare_access.local.cookies import APP_SESSION, app_session_cookie
from fastapi_cloudflare_access.local.decision import ResponseKind
from fastapi_cloudflare_access.local.edge_request import MAX_TARGET, EdgeRequest
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.pages import NO_STORE, message

LOGIN_PATH = "/cdn-cgi/access/login/"
RESOURCE_PATH = "/.well-known/cloudflare-access-protected-resource"

_APP_SESSION = re.compile(r"n[0-9a-f]{16}")
_UNQUOTED = "!$%&'()*+,/:;=?@[]"
_REJECTIONS: dict[str, tuple[int, str, str]] = {
    "login_needed": (
        401,
        "Log in first",
        "A script sent the request without a login. Open the app in this browser and log in.",
    ),
    "oauth_needed": (
        401,
        "Log in first",
        "The WWW-Authenticate header names the authorization server of this app.",
    ),
    "oauth_refused": (
        401,
        "The access token is not valid",
        "It is unknown, expired, revoked, or for another app. Refresh it, or log in again.",
    ),
    "forbidden": (
        403,
        "You do not have access",
        "You are logged in, but no policy of this app admits you. Log in as another user.",
    ),
    "service_auth": (
        403,
        "Forbidden",
        "This app needs the credentials of a service token that it admits. Add them to the request.",
    ),
    "service_unknown": (
        401,
        "Unauthorized",
        "The service credentials are unknown, incomplete or sent twice. Correct them.",
    ),
    "service_refused": (
        403,
        "Forbidden",
        "The service token is valid, but no policy of this app admits it. Add it to a policy.",
    ),
    "preflight_refused": (
        403,
        "Forbidden",
        "A CORS preflight has no login. Set bypass_options or cors_origins for this app.",
    ),
}


def build_response(kind: ResponseKind, request: EdgeRequest, app: App, local_access: LocalAccess) -> Response:
    """Return the response of this kind."""
    if kind == "login":
        return _login_redirect(request, app, local_access)
    if kind == "metadata":
        return Response(
            headers={
                "cf-access-metadata": local_access.team.app_metadata(app, host=request.host),
                "cache-control": NO_STORE,
            }
        )
    if kind == "preflight_answered":
        return _preflight_response(request, app)
    return _rejection(kind, request, app, local_access)


def _login_redirect(request: EdgeRequest, app: App, local_access: LocalAccess) -> Response:
    """Return a redirect to the team, bound to the browser's app session."""
    known = [value for value in request.cookies(APP_SESSION) if _APP_SESSION.fullmatch(value)]
    app_session = known[0] if known else f"n{secrets.token_hex(8)}"
    netloc, target = request.netloc or "", login_target(request)
    if len(target) > MAX_TARGET:
        text = f"A login can return to at most {MAX_TARGET} characters. Log in at a shorter address first."
        return message("The address is too long", text, status=414, links={"To the app": app.paths[0]})
    meta = local_access.team.login_token(app, host=netloc, target=target, app_session=app_session)
    query = f"kid={app.tag}&meta={meta}&redirect_url={quote(target, safe='')}"
    response = RedirectResponse(f"{local_access.addresses.issuer}{LOGIN_PATH}{netloc}?{query}", 302)
    response.headers.update(
        _challenge(request) | {"cache-control": NO_STORE, "expires": "Thu, 01 Jan 1970 00:00:01 GMT"}
    )
    response.headers.append("set-cookie", app_session_cookie(request, local_access, app_session))
    return response


def login_target(request: EdgeRequest) -> str:
    """Return the target after a login, as a path that no browser reads as a host."""
    return "/" + quote(request.target.lstrip("/"), safe=_UNQUOTED, encoding="latin-1")


def _bearer_challenge(kind: str, request: EdgeRequest) -> str:
    """Return the challenge of managed OAuth (RFC 6750 section 3, RFC 9728 section 5.1)."""
    error = 'error="invalid_token", ' if kind == "oauth_refused" else ""
    return f'Bearer {error}resource_metadata="{_resource(request)}"'


def _resource(request: EdgeRequest) -> str:
    return f"{request.scheme}://{request.netloc}{RESOURCE_PATH}{quote(request.path)}"


def _challenge(request: EdgeRequest) -> dict[str, str]:
    return {
        "www-authenticate": f'Cloudflare-Access resource_metadata="{_resource(request)}"',
        "access-control-allow-credentials": "true",
    }


def _preflight_response(request: EdgeRequest, app: App) -> Response:
    """Return an answer to a preflight that allows what the app's settings allow, whatever the page asks for."""
    origin = request.get("origin")
    if origin not in app.cors_origins and "*" not in app.cors_origins:
        return Response(status_code=403, headers={"vary": "Origin"})
    headers = {
        "access-control-allow-origin": "*" if "*" in app.cors_origins else origin,
        "access-control-allow-methods": ", ".join(app.cors_methods),
        "access-control-allow-headers": ", ".join(app.cors_headers),
        "access-control-allow-credentials": "true" if app.cors_credentials else "",
        "access-control-max-age": str(app.cors_max_age or ""),
        "vary": "Origin",
    }
    return Response(headers={name: value for name, value in headers.items() if value})


def _rejection(kind: ResponseKind, request: EdgeRequest, app: App, local_access: LocalAccess) -> Response:
    status, title, text = _REJECTIONS[kind]
    if kind == "service_auth" and app.service_auth_401:
        status = 401
    headers = {"cf-access-error": kind, "cache-control": NO_STORE}
    if kind.startswith("oauth"):
        headers |= {"www-authenticate": _bearer_challenge(kind, request)}
    elif status == 401:  # noqa: PLR2004 - the status this is about
        headers |= _challenge(request) | {"access-control-allow-headers": "x-requested-with"}
    else:
        headers |= {"cf-access-aud": app.tag, "cf-access-domain": local_access.addresses.issuer.partition("://")[2]}
    is_user = title.startswith("You")
    links = {"Log in as another user": f"{local_access.addresses.issuer}/cdn-cgi/access/logout"} if is_user else {}
    where = f"The app is “{app.name}”."
    response = message(title, text, where, status=status, links=links, aud=app.tag, ray_id=secrets.token_hex(8))
    response.headers.update(headers)
    return response
