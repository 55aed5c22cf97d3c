"""The values of `Set-Cookie` headers, with the attributes that Access documents."""

from collections.abc import Iterator
from email.utils import formatdate

from fastapi_cloudflare_access._verification.request_token import COOKIE
from fastapi_cloudflare_access.local.config import DAY, App
from fastapi_cloudflare_access.local.edge_request import EdgeRequest
from fastapi_cloudflare_access.local.local_access import LocalAccess

APP_SESSION, TEAM_SESSION = "CF_AppSession", "CF_Session"
TEAM_SESSION_LIFETIME = 4 * 3600
"""Seconds that a form stays valid."""


def app_cookie(request: EdgeRequest, local_access: LocalAccess, app: App, token: str) -> str:
    """Return the cookie with the application token, for the app's host."""
    path = app.paths[0] if app.path_cookie else "/"
    return _cookie(
        request, local_access, COOKIE, token, app.session, path=path, http_only=app.http_only, same_site=app.same_site
    )


def service_cookie(request: EdgeRequest, local_access: LocalAccess, token: str) -> str:
    """Return the cookie for a service token; it lasts a day."""
    return _cookie(request, local_access, COOKIE, token, DAY, http_only=False, same_site="none")


def team_cookie(request: EdgeRequest, local_access: LocalAccess, token: str, expires: float) -> str:
    """Return the cookie with the global session token; `expires` is a time of the team's clock."""
    return _cookie(request, local_access, COOKIE, token, expires - local_access.clock.now(), same_site="none")


def app_session_cookie(request: EdgeRequest, local_access: LocalAccess, value: str) -> str:
    """Return the cookie that binds a login to its browser, for the app's host."""
    return _cookie(request, local_access, APP_SESSION, value, DAY)


def team_session_cookie(request: EdgeRequest, local_access: LocalAccess, value: str) -> str:
    """Return the cookie that binds a form to its browser, for the team domain."""
    return _cookie(request, local_access, TEAM_SESSION, value, TEAM_SESSION_LIFETIME, same_site="none")


def expired_token_cookie(request: EdgeRequest, local_access: LocalAccess, app: App | None) -> str:
    """Return an expired cookie, which removes the token from the browser."""
    path = app.paths[0] if app and app.path_cookie else "/"
    return _cookie(request, local_access, COOKIE, "", -local_access.clock.machine_now(), path=path, same_site="none")


def _cookie(
    request: EdgeRequest,
    local_access: LocalAccess,
    name: str,
    value: str,
    lifetime: float,
    *,
    path: str = "/",
    http_only: bool = True,
    same_site: str | None = None,
) -> str:
    return "; ".join(
        [
            f"{name}={value}",
            f"Expires={formatdate(local_access.clock.machine_now() + lifetime, usegmt=True)}",
            f"Path={path}",
            *_attributes(is_secure=_should_be_secure(request, local_access), http_only=http_only, same_site=same_site),
        ]
    )


def _attributes(*, is_secure: bool, http_only: bool, same_site: str | None) -> Iterator[str]:
    if is_secure:
        yield "Secure"
    if http_only:
        yield "HttpOnly"
    if same_site:
        yield f"SameSite={same_site if is_secure or same_site != 'none' else 'lax'}"


def _should_be_secure(request: EdgeRequest, local_access: LocalAccess) -> bool:
    """Return whether the cookie is `Secure`; over plain HTTP, browsers accept that from localhost, and Safari never."""
    agent = request.get("user-agent")
    is_safari = "Safari/" in agent and "Chrome/" not in agent and "Chromium/" not in agent
    accepts = local_access.config.team.secure_cookies and is_trustworthy(request.host) and not is_safari
    return request.scheme == "https" or accepts


def is_trustworthy(host: str) -> bool:
    """Return whether browsers trust the host without TLS (Secure Contexts, section 3.1)."""
    return host == "[::1]" or host.startswith("127.") or f".{host}".endswith(".localhost")
