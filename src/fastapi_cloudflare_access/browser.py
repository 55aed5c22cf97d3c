"""Protection from requests that pages of other origins make a browser send (cross-site request forgery).

Access turns the cookie of a browser into a valid token, whichever page made the browser send the request.
"""

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, cast

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cloudflare_access._logging import place_of
from fastapi_cloudflare_access._not_a_dependency import NotADependency, forbid_as_dependency
from fastapi_cloudflare_access._requests.refusing import refuse
from fastapi_cloudflare_access._requests.responses import log_refusal, to_exception
from fastapi_cloudflare_access._requests.urls import is_host
from fastapi_cloudflare_access.dependencies import Dependency
from fastapi_cloudflare_access.errors import ConfigurationError, CrossOriginRequest

__all__ = ["SameOrigin"]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing, so that pages of other origins may send them."""

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_ORIGIN = re.compile(r"(https?)://(.+)")
_OWN_SITES = frozenset({b"same-origin", b"none"})
_WRITE = "SameOrigin is middleware: write app.add_middleware(SameOrigin, origins=['https://app.example.com'])"


class SameOrigin:
    """ASGI middleware that refuses requests which pages of other origins made a browser send.

    It refuses unsafe methods with 403, and WebSocket handshakes before the app accepts them. It reads `Sec-Fetch-Site`
    and `Origin`, which a page cannot forge, and never `Host`. Clients that are no browsers send neither, and pass.

    Examples:
        ```python
        app.add_middleware(SameOrigin, origins=["https://app.example.com"])
        ```
    """

    def __init__(self, app: ASGIApp, *, origins: str | Sequence[str]) -> None:
        """Check the origins.

        Args:
            app: The app to protect.
            origins: The public origins of the app, and those of other apps whose pages may call it.

        Raises:
            ConfigurationError: There is no origin, or one is wrong.
        """
        given: Any = app
        if not callable(given) or isinstance(given, Dependency | type):
            raise ConfigurationError(_WRITE)
        self.app = app
        self._origins = _origins_of(origins)

    async def __call__(self, scope: Annotated[Scope, NotADependency(_WRITE)], receive: Receive, send: Send) -> None:
        """Refuse the request, or call the app."""
        if problem := self._problem(scope):
            error = CrossOriginRequest(problem)
            log_refusal(error, None, place_of(scope))
            await refuse(to_exception(error, HTTPConnection(scope)), self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _problem(self, scope: Scope) -> str | None:
        """Return why the request is refused, or None; the order is that of Go's `http.CrossOriginProtection`."""
        is_handshake = scope["type"] == "websocket"
        if not is_handshake and (scope["type"] != "http" or scope["method"] in SAFE_METHODS):
            return None
        origins, sites = _values(scope, b"origin"), _values(scope, b"sec-fetch-site")
        if len(origins) > 1:
            return "there is more than one Origin header"
        if self._origins.issuperset(origins) and origins:
            return None
        if not _OWN_SITES.issuperset(sites):
            return "Sec-Fetch-Site names another site"
        if sites and not is_handshake:
            return None
        return "the Origin is none of the configured ones" if origins else None


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value.strip(b" \t") for key, value in scope["headers"] if key == name]


def _origins_of(origins: Any) -> frozenset[bytes]:
    given: Any = [origins] if isinstance(origins, str) else origins
    if not isinstance(given, list | tuple | set | frozenset) or not given:
        raise ConfigurationError("origins must be the public origins of your app, such as ['https://app.example.com']")
    return frozenset(map(_origin_of, cast("Collection[object]", given)))


def _origin_of(origin: object) -> bytes:
    """Return an origin as browsers send it (RFC 6454 section 6.2)."""
    text = origin.strip().lower().removesuffix("/") if isinstance(origin, str) else ""
    found = _ORIGIN.fullmatch(text)
    if found is None or not is_host(found[2]):
        raise ConfigurationError(
            "each of the origins must be a scheme and a public host in ASCII, such as 'https://app.example.com'"
        )
    return f"{found[1]}://{found[2].removesuffix(_DEFAULT_PORTS[found[1]])}".encode()


forbid_as_dependency(SameOrigin, _WRITE)
