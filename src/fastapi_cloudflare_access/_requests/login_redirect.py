"""The redirect of a browser to the login, once for each navigation."""

from typing import cast

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from fastapi_cloudflare_access._requests.responses import AccessHTTPException, redirect_to_login
from fastapi_cloudflare_access._requests.urls import login_url, public_host, requested_path
from fastapi_cloudflare_access._verification.request_token import short_digest
from fastapi_cloudflare_access.errors import ConfigurationError, MissingToken, TokenExpired
from fastapi_cloudflare_access.settings import Settings

MARKER_LIFETIME = 60
"""Seconds for which a browser remembers that a page was redirected to the login."""

_MARKER = "CF_Access_Redirected_"
_MAX_ACCEPT = 1024
_MAX_SHOWN = 60


class LoginRedirect:
    """Redirects a browser that opens a page without a valid token.

    A cookie for each page stops a loop: if the browser returns from the login and the request still has no token, the
    client gets 401, and the next navigation may be redirected again.
    """

    def __init__(self, settings: Settings, host: str) -> None:
        """Check the public host of the app.

        Raises:
            ConfigurationError: The host is not valid, or several audiences are configured.
        """
        if settings.audience[1:]:
            raise ConfigurationError(
                "login_redirect needs one AUD tag, and several are configured: write access=access.with_audience(…)"
            )
        shown = repr(host[:_MAX_SHOWN]) if isinstance(cast("object", host), str) else type(host).__name__
        public_host(host, f"login_redirect, which is {shown},")
        login_url(settings, host)
        self._settings, self._host = settings, host
        self._attributes = "; Path=/; HttpOnly; SameSite=Lax" + ("" if settings.is_local else "; Secure")

    def response(self, refusal: AccessHTTPException, scope: Scope) -> Response | None:
        """Return the redirect, or None if the refusal is to be sent."""
        if not isinstance(refusal.error, MissingToken | TokenExpired) or not is_navigation(scope):
            return None
        target = requested_path(scope)
        marker = _MARKER + short_digest(target.encode())
        cookies = Headers(scope=scope).getlist("cookie")  # HTTP/2 may split them (RFC 9113 section 8.2.3)
        if any(marker in cookie for cookie in cookies):
            refusal.headers = {**(refusal.headers or {}), "Set-Cookie": f"{marker}=; Max-Age=0{self._attributes}"}
            return None
        url = login_url(self._settings, self._host, return_to=target)
        return redirect_to_login(url, f"{marker}=1; Max-Age={MARKER_LIFETIME}{self._attributes}")


def is_navigation(scope: Scope) -> bool:
    """Check whether a browser opens an HTML page in a tab, by the fetch metadata that it sends over HTTPS.

    Scripts, frames, prefetches, API clients and browsers without fetch metadata do not.
    """
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    headers = Headers(scope=scope)
    return (
        (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        and "sec-purpose" not in headers
        and _accepts_html(headers.get("accept", ""))
    )


def _accepts_html(accept: str) -> bool:
    if len(accept) > _MAX_ACCEPT:
        return False
    return any(part.partition(";")[0].strip().lower() == "text/html" for part in accept.split(","))
