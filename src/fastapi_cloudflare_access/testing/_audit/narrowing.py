"""A faster search for routes while an app is asked: FastAPI asks each route of an included router, twice."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from starlette._utils import get_route_path
from starlette.routing import Match
from starlette.types import Scope


def narrow(routes: Iterable[Any], change: Callable[..., None]) -> None:
    """Make included routers search only among their routes whose pattern matches the path of a request.

    Args:
        routes: The routes of an app or of an included router.
        change: Sets attributes of an object.
    """
    for route in routes:
        if hasattr(route, "effective_candidates") and is_stock(route.original_router, "matches"):
            candidates = [*route.effective_candidates()]
            narrow(candidates, change)
            chosen = _Chosen(candidates, route.matches)
            change(route, matches=chosen.matches, effective_candidates=chosen.candidates)


class _Chosen:
    """The routes of an included router that may match the current request."""

    def __init__(self, every: list[Any], matches: Callable[[Scope], tuple[Match, Scope]]) -> None:
        self._every, self._matches = [(pattern_of(route), route) for route in every], matches
        self._current: list[Any] = []

    def candidates(self) -> list[Any]:
        """Return the routes that may match."""
        return self._current

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Choose the routes that may match, and ask them."""
        path = get_route_path(scope)
        self._current = [route for pattern, route in self._every if pattern is None or pattern.match(path)]
        return self._matches(scope) if self._current else (Match.NONE, {})


def pattern_of(route: Any) -> re.Pattern[str] | None:
    """Return the pattern of the paths that a route can match; None if its class is of the app and may ignore it."""
    declared = getattr(route, "original_route", route)
    served = getattr(route, "starlette_route", None) or route
    return getattr(served, "path_regex", None) if is_stock(declared, "matches") else None


def is_stock(route: Any, method: str) -> bool:
    """Check whether a method of a route is one of FastAPI or Starlette, or does not exist."""
    function: Any = getattr(route.__class__, method, None)
    return function is None or function.__module__.partition(".")[0] in ("fastapi", "starlette")
