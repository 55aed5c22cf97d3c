"""The app behind the guard: the path that it sees, and the paths that it serves."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from starlette._utils import get_route_path
from starlette.routing import Host, Match, Mount
from starlette.types import ASGIApp, Scope

from fastapi_cloudflare_access._requests.refusing import app_behind_middleware
from fastapi_cloudflare_access._routes.tree import route_contexts
from fastapi_cloudflare_access.errors import ConfigurationError

_NOT_IN_A_PATH = re.compile(r"[\x00-\x20\x7f*?#%{}\\]|//|/\.\.?(?:/|$)")
"""Characters of patterns and of encoded paths, and segments that a client or a proxy resolves."""


class GuardedApp:
    """An app, with or without middleware around it.

    Attributes:
        app: The app.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Look for the FastAPI or Starlette app behind the middleware."""
        self.app = app
        self._owner = app_behind_middleware(app, "root_path")

    def path_of(self, scope: Scope) -> str:
        """Return the path of a request as the routes of the app are compared with it: without `root_path`."""
        path: str = scope["path"]
        own: str = (
            getattr(self._owner, "root_path", "") if self._owner is not None else ""
        )  # it replaces that of the server
        root_path = own or scope.get("root_path", "")
        return get_route_path({"path": path, "root_path": root_path}) if root_path else path

    def serves(self, path: str) -> bool:
        """Check whether a route matches a path; an app whose routes are not known may serve each path."""
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [],
        }
        return _serves(self.app, scope)


def check_exempt(paths: Any) -> frozenset[str]:
    """Return exempt paths, each of which must be one whole path.

    Raises:
        ConfigurationError: It is not a collection of paths, or one of them is a pattern or can never match.
    """
    if not isinstance(paths, list | tuple | set | frozenset):
        raise ConfigurationError('exempt must be a list of paths: write exempt=["/healthz"]')
    given: list[Any] = [*paths]  # pyright: ignore[reportUnknownArgumentType]
    for path in given:
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigurationError(f"an exempt path must be text that begins with /, not {path!r}")
        if _NOT_IN_A_PATH.search(path):
            raise ConfigurationError(
                f"an exempt path must be one whole decoded path, not a pattern: {path!r}; list each path"
            )
    return frozenset(given)


def _serves(app: object, scope: Scope) -> bool:
    owner = app_behind_middleware(app, "routes")
    if not isinstance(getattr(owner, "routes", None), list):  # another framework may mean something else
        return True
    return any(_leads_on(route, scope) for route in _routes_of(owner))


def _routes_of(app: object) -> Iterator[Any]:
    """Yield the routes of an app, and its frontends, which are not among them."""
    yield from route_contexts(app)
    yield from getattr(getattr(app, "router", app), "_iter_low_priority_routes", tuple)()


def _leads_on(route: Any, scope: Scope) -> bool:
    """Check whether a route matches; a mounted app must have a route for the rest of the path."""
    original = getattr(route, "original_route", route)
    if isinstance(original, Host):
        return _serves(original.app, scope)
    match, child_scope = Match.FULL, dict[str, Any]()
    with suppress(Exception):  # a route of the app's own class may need more than this scope
        match, child_scope = route.matches({**scope})
    if match is Match.NONE:
        return False
    return not isinstance(original, Mount) or _serves(original.app, {**scope, **child_scope})
