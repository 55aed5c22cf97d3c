"""Authentication that an MCP app has by itself. Beside the bridge it would admit other tokens, or no one."""

from collections.abc import Iterator
from typing import Any

from fastapi_cloudflare_access.mcp.sdk import BearerAuthBackend, RequireAuthMiddleware

_TWICE = (
    "the app has FastMCP(auth=CloudflareAccessProvider(access)) already, which contains the bridge: take bridge(…) away"
)
_SCHEMES = (BearerAuthBackend, RequireAuthMiddleware)


def other_scheme(app: object, access: object) -> str | None:
    """Return why an app must not be bridged to this object, or None.

    Args:
        app: The app, with or without middleware around it.
        access: The object of the bridge.
    """
    for each in _apps(app, set()):
        if (protecting := getattr(each, "protecting_access", None)) is not None:
            if protecting is not access:
                return "the app verifies the tokens of another object already: give both the same one"
            return _TWICE if _is_fastmcp_provider(each) else "the app is behind a bridge already: take one of them away"
    for each in _apps(app, set()):
        if _has_scheme(each):
            return (
                "the app has authentication of its own, which would refuse the callers of the bridge or advertise "
                "another login: remove auth=, auth_server_provider= and token_verifier= from the server"
            )
    return None


def _apps(app: Any, seen: set[int]) -> Iterator[Any]:
    """Yield an app, its authentication provider, its middleware, and the apps and routes in it."""
    if app is None or id(app) in seen:
        return
    seen.add(id(app))
    yield app
    yield from filter(None, [getattr(getattr(app, "state", None), "fastmcp_auth", None)])
    yield from getattr(app, "user_middleware", ())
    for inner in (getattr(app, "app", None), getattr(app, "endpoint", None), *getattr(app, "routes", ())):
        yield from _apps(inner, seen)


def _has_scheme(part: Any) -> bool:
    backend = getattr(part, "kwargs", {}).get("backend") if hasattr(part, "cls") else part
    return isinstance(backend, _SCHEMES) or _is_fastmcp_provider(part)


def _is_fastmcp_provider(part: Any) -> bool:
    return any(
        base.__module__.startswith("fastmcp.") and base.__name__ == "AuthProvider" for base in type(part).__mro__
    )
