"""Authentication that an MCP app has by itself. Beside the bridge it would admit other tokens, or no one."""

from collections.abc import Iterator
from typing import Any

from fastapi_cloudflare_access.mcp.sdk import BearerAuthBackend, RequireAuthMiddleware

_SCHEMES = (BearerAuthBackend, RequireAuthMiddleware)


def other_scheme(app: object, access: object) -> str | None:
    """Return why an app must not be bridged to this object, or None.

    Args:
        app: The app, with or without middleware around it.
        access: The object of the bridge.
    """
    parts = [*_parts(app, set())]
    for part in parts:
        is_middleware = getattr(getattr(part, "cls", None), "is_bridge", False)
        protecting = _given_to(part) if is_middleware else getattr(part, "protecting_access", None)
        if protecting is not None:
            return _why_not_twice(protecting is access, is_middleware)
    if any(map(_is_scheme, parts)):
        return (
            "the app has authentication of its own, which would refuse the callers of the bridge or advertise "
            "another login: remove auth=, auth_server_provider= and token_verifier= from the server"
        )
    return None


def _why_not_twice(is_same: bool, is_middleware: bool) -> str:  # noqa: FBT001 - of the bridge that the app has
    if not is_same:
        return "the app verifies the tokens of another object already: give both the same one"
    if not is_middleware:
        return "the app is behind a bridge already: take one of them away"
    return (
        "the app has FastMCP(auth=CloudflareAccessProvider(access)) already, which contains the bridge: "
        "take bridge(…) away"
    )


def _parts(app: Any, seen: set[int]) -> Iterator[Any]:
    """Yield an app, its middleware, and the apps and routes in it."""
    if app is None or id(app) in seen:
        return
    seen.add(id(app))
    yield app
    yield from getattr(app, "user_middleware", ())
    for inner in (getattr(app, "app", None), getattr(app, "endpoint", None), *getattr(app, "routes", ())):
        yield from _parts(inner, seen)


def _given_to(middleware: Any) -> Any:
    """Return the object that the bridge in this middleware has, by position or by name."""
    return next(iter(middleware.args), middleware.kwargs.get("access"))


def _is_scheme(part: Any) -> bool:
    """Check whether a part of an app, or the backend of a middleware, is of an SDK's own authentication."""
    return isinstance(getattr(part, "kwargs", {}).get("backend") if hasattr(part, "cls") else part, _SCHEMES)
