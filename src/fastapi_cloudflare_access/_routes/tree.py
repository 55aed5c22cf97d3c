"""The tree of an app: its routes as FastAPI serves them, its frontends, and the apps that are mounted in it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from fastapi import routing
from fastapi.dependencies.models import Dependant
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Match, Router
from starlette.types import Scope

MAX_WRAPPERS = 100
"""Number of middleware objects around one app that are looked into."""

_WSGI = "WSGIMiddleware"
"""Name of the classes whose attribute `app` is not an ASGI app."""


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """An app with routes.

    Attributes:
        app: The app or router.
        wrappers: The middleware objects around it, the outermost first.
        mount: The route that leads to it; None for the whole app.
        nodes: Its routes, in the order in which they are matched.
    """

    app: Any
    wrappers: tuple[Any, ...] = ()
    mount: "Node | None" = None
    nodes: "list[Node]" = field(default_factory=list["Node"])

    @property
    def router(self) -> Any:
        """The router of the app."""
        return getattr(self.app, "router", self.app)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One route of an app.

    Attributes:
        route: The object that serves it; for an included route, with the prefix and the dependencies of its routers.
        declared: The route as the app declares it.
        path: Its path in its app.
        level: Its app.
        group: The object that holds the dependencies of a frontend; None for other routes.
    """

    route: Any
    declared: Any
    path: str
    level: Level
    group: Any = None

    @property
    def dependants(self) -> list[Dependant]:
        """The trees of its dependencies: as it is served, and as it is declared."""
        owners = (self.route, self.declared) if self.group is None else (self.group,)
        found = {id(dependant): dependant for owner in owners if (dependant := getattr(owner, "dependant", None))}
        return [*found.values()]

    def matches(self, scope: Scope) -> bool:
        """Check whether the route serves a request with the path that its app sees; not for a frontend."""
        with suppress(Exception):  # a route of the app's own class may raise anything
            return bool(self.route.matches({**scope})[0] is Match.FULL)
        return False


def walk(app: object) -> Iterator[Node]:
    """Yield every route of an app and of the apps mounted in it."""
    for level in levels(app):
        yield from level.nodes


def levels(app: object) -> Iterator[Level]:
    """Yield an app and the apps mounted in it; an app that is mounted twice is yielded twice."""
    yield from _levels(app, None, ())


def _levels(app: object, mount: Node | None, ancestors: tuple[object, ...]) -> Iterator[Level]:
    *wrappers, inner = behind(app)
    if not has_routes(inner):
        return
    level = Level(inner, tuple(wrappers), mount)
    if any(inner is one for one in ancestors):
        if wrappers:  # they may answer themselves
            yield level
        return
    level.nodes.extend([*_routes(level), *_frontends(level)])
    yield level
    for node in level.nodes:
        if node.group is None:
            yield from _levels(getattr(node.route, "app", None), node, (*ancestors, inner))


def behind(app: Any) -> list[Any]:
    """Return an app with the apps in it, from the outermost middleware to the first app that has routes."""
    found = [app]
    for _ in range(MAX_WRAPPERS):
        inner = getattr(app, "app", None)
        if has_routes(app) or isinstance(app, BaseRoute) or type(app).__name__ == _WSGI or not callable(inner):
            return found
        app = inner
        found.append(app)
    return found


def has_routes(app: object) -> TypeGuard[Starlette | Router]:
    """Check whether this is an app, or a router, whose routes are known."""
    return isinstance(app, Starlette | Router)


def route_contexts(app: object) -> Iterator[Any]:
    """Return the routes of an app, each with the dependencies that the app and its routers add."""
    routes: list[BaseRoute] = getattr(app, "routes", [])
    every = getattr(routing, "iter_route_contexts", None)  # FastAPI before 0.138 copies included routes instead
    return iter(every(routes) if every else routes)


def _routes(level: Level) -> Iterator[Node]:
    for context in route_contexts(level.app):
        route = getattr(context, "_effective_route", context)
        declared = getattr(context, "original_route", context)
        yield Node(route, declared, getattr(route, "path", None) or "", level)


def _frontends(level: Level) -> Iterator[Node]:
    """Yield the frontends, which FastAPI keeps apart from the routes."""
    for context in getattr(level.router, "_iter_low_priority_routes", tuple)():
        group = getattr(context, "original_route", context)
        prefix = getattr(context, "frontend_prefix", "")
        for route in getattr(group, "routes", ()):
            path = prefix + route.path if prefix and route.path != "/" else prefix or route.path
            yield Node(route, route, path, level, context)
