"""The response to an error: the only module with status codes.

It contains the OAuth error and a plain description of the fault, never the reason code, a claim, or which keys exist.
"""

import logging
from collections.abc import Mapping
from math import ceil
from types import MappingProxyType
from typing import Any

from fastapi import HTTPException, WebSocketException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from fastapi_cloudflare_access._logging import Place, log
from fastapi_cloudflare_access.errors import (
    AccessError,
    AmbiguousToken,
    AuthorizationError,
    CredentialError,
    CrossOriginRequest,
    MalformedToken,
    MissingToken,
    TemporarilyUnavailable,
    TokenExpired,
)
from fastapi_cloudflare_access.keys import KeysHealth

logger = logging.getLogger("fastapi_cloudflare_access")

POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013
"""WebSocket close codes (RFC 6455 section 7.4.1 and the IANA registry)."""

_DENIAL_RESPONSE = "websocket.http.response"
_VARY = "Cf-Access-Jwt-Assertion, Cookie"
_FAULTS: dict[type[AccessError], tuple[str | None, str]] = {
    MissingToken: (None, "No Cloudflare Access token"),
    AmbiguousToken: ("invalid_request", "More than one Cloudflare Access token"),
    MalformedToken: ("invalid_token", "The Cloudflare Access token is malformed"),
    TokenExpired: ("invalid_token", "The Cloudflare Access token has expired"),
    CredentialError: ("invalid_token", "The Cloudflare Access token is not acceptable"),
    AuthorizationError: ("insufficient_scope", "This caller is not allowed here"),
    CrossOriginRequest: (None, "A page of another origin sent this request"),
    TemporarilyUnavailable: (None, "Cloudflare Access tokens cannot be checked right now, try again shortly"),
}


def _response(description: str, header: str, example: str) -> dict[str, Any]:
    body = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
    return {
        "description": description,
        "headers": {header: {"schema": {"type": "string"}, "example": example}},
        "content": {"application/json": {"schema": body}},
    }


RESPONSES: Mapping[int | str, dict[str, Any]] = MappingProxyType(
    {
        401: _response("No acceptable token of Cloudflare Access", "WWW-Authenticate", "Cloudflare-Access"),
        403: _response(
            "A caller who is not allowed here", "WWW-Authenticate", 'Cloudflare-Access error="insufficient_scope"'
        ),
        503: _response("Tokens cannot be verified right now", "Retry-After", "1"),
    }
)
"""The OpenAPI description of the error responses."""


class AccessHTTPException(HTTPException):
    """The refusal of a request; FastAPI turns it into the response.

    Install an exception handler for it to send a response of your own.

    Attributes:
        error: The cause; `error.reason` is the reason code.
    """

    def __init__(self, error: AccessError, *, auth_scheme: str) -> None:
        """Map the error to status, headers and body; `auth_scheme` is the scheme of `WWW-Authenticate`."""
        code, description = _fault(error)
        super().__init__(_status(error), detail=description, headers=_headers(error, auth_scheme, code, description))
        self.error = error


class AccessWebSocketException(WebSocketException):
    """The refusal of a WebSocket by a close code: of its handshake, or later when its token is no longer valid.

    A handshake is refused this way if the server cannot send a response.

    Attributes:
        error: The cause; `error.reason` is the reason code.
    """

    def __init__(self, error: AccessError, *, reason: str | None = None) -> None:
        """Map the error to a close code; the reason is by default the description of the fault."""
        super().__init__(close_code(error), reason=reason or _fault(error)[1])
        self.error = error


for _exception in (AccessHTTPException, AccessWebSocketException):
    _exception.__module__ = "fastapi_cloudflare_access"  # where users import it from


def to_exception(
    error: AccessError, connection: HTTPConnection, *, auth_scheme: str = ""
) -> AccessHTTPException | AccessWebSocketException:
    """Return the exception that makes FastAPI refuse this connection."""
    scope = connection.scope
    if scope["type"] == "websocket" and _DENIAL_RESPONSE not in (scope.get("extensions") or {}):
        return AccessWebSocketException(error)
    return AccessHTTPException(error, auth_scheme=auth_scheme)


def close_code(error: AccessError) -> int:
    """Return the code with which a WebSocket is closed."""
    return TRY_AGAIN_LATER if isinstance(error, TemporarilyUnavailable) else POLICY_VIOLATION


def log_refusal(
    error: AccessError,
    token_digest: str | None,
    place: Place,
    *,
    optional: bool = False,
    is_first: bool = False,
) -> None:
    """Write one log record with the route, the reason code and the digest of the token.

    Args:
        error: The reason.
        token_digest: The digest of the token; None if there is no single one.
        place: The route.
        optional: Whether the request goes on without a caller.
        is_first: Whether it is the first request without a token, which also a log without `INFO` shows.
    """
    level = logging.INFO if optional or isinstance(error, MissingToken) else logging.WARNING
    note = ""
    if is_first and not optional and not logger.isEnabledFor(level):
        level, note = logging.WARNING, "; further requests without a token are logged at INFO only"
    extra = {
        "reason": error.reason,
        "token_digest": token_digest,
        "unverified": error.unverified,
        "method": place.method,
        "route": place.route,
        "policy": getattr(error, "policy", None),
    }
    verb = "ignored" if optional else "refused"
    message = "cf-access %s %s: %s (%s), token %s%s"
    log(logger, level, message, verb, place, error.reason, _detail(error), token_digest or "none", note, extra=extra)


def _detail(error: AccessError) -> str:
    """Return the message of an error, with what it leaves out: an unchecked signature, and the present wait."""
    if error.unverified:
        return f"{error}; the signature was not checked"
    if isinstance(error, TemporarilyUnavailable):
        return f"{error}; try again in {error.retry_after:.1f} s"
    return str(error)


def readiness(health: KeysHealth, *, knows_revocations: bool = True) -> JSONResponse:
    """Return the response to a readiness probe: 200 if tokens can be checked, else 503."""
    ready = health.ready and knows_revocations
    state = health.state if knows_revocations else "revocations_unavailable"
    headers = {"Cache-Control": "no-store"}
    return JSONResponse({"ready": ready, "state": state}, status_code=200 if ready else 503, headers=headers)


def redirect_to_login(url: str, cookie: str) -> Response:
    """Return the redirect of a browser to the login, with the cookie that stops a loop."""
    headers = {"Location": url, "Set-Cookie": cookie, "Cache-Control": "no-store", "Vary": _VARY}
    return Response(status_code=302, headers=headers)


def _fault(error: AccessError) -> tuple[str | None, str]:
    return next(_FAULTS[kind] for kind in type(error).__mro__ if kind in _FAULTS)


def _status(error: AccessError) -> int:
    if isinstance(error, TemporarilyUnavailable):
        return 503
    return 403 if isinstance(error, AuthorizationError | CrossOriginRequest) else 401


def _headers(error: AccessError, auth_scheme: str, code: str | None, description: str) -> dict[str, str]:
    if isinstance(error, CrossOriginRequest):  # no credential would help, so there is no challenge
        return {"Cache-Control": "no-store", "Vary": "Origin, Sec-Fetch-Site"}
    headers = {"Cache-Control": "no-store", "Vary": _VARY}
    if isinstance(error, TemporarilyUnavailable):
        return headers | {"Retry-After": str(max(1, ceil(error.retry_after)))}
    parameters = f' error="{code}"' if code else ""
    if code and isinstance(error, CredentialError):
        parameters += f', error_description="{description}"'
    return headers | {"WWW-Authenticate": auth_scheme + parameters}
