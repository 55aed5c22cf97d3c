"""Replacement of every handler and every other dependency of an app, so that a request runs none of them."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from types import CellType
from typing import Any, NoReturn

from fastapi.dependencies.models import Dependant
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.types import Scope

from fastapi_cloudflare_access._routes.tree import Level, Node, behind, has_routes
from fastapi_cloudflare_access.testing._audit.narrowing import is_stock, narrow
from fastapi_cloudflare_access.testing._audit.tree import effective, overrides_of, provider_of

PARAMETERS = ("path_params", "query_params", "header_params", "cookie_params", "body_params")
MAX_CLOSURES = 10
"""Depth to which the closures of a handler are looked into."""

_MISSING: Any = object()
_EMPTY = CellType()
_KNOWN = (Route, WebSocketRoute, Mount, Host)


class Reached(BaseException):
    """The end of a request that reached a replaced handler; no handler of exceptions catches it."""


class Placeholder:
    """A replacement of a handler, which records that a request reached it and ends the request."""

    def __init__(self, place: Node | Level, record: Callable[[Node | Level], None], handler: Any = None) -> None:
        """Replace the handler of a route, or the handler of an app for paths without a route."""
        self._place, self._record = place, record
        self.__name__ = getattr(handler, "__name__", type(handler).__name__)
        self.__qualname__ = getattr(handler, "__qualname__", self.__name__)
        self.__module__ = getattr(handler, "__module__", None) or type(handler).__module__

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """End the request."""
        self._record(self._place)
        raise Reached

    async def get_response_for_scope(self, scope: Scope) -> None:  # noqa: ARG002 - as FastAPI calls a frontend
        """End the request."""
        self()


class Replacements:
    """Changes of attributes, which are undone in reverse."""

    def __init__(self) -> None:
        """Change nothing yet."""
        self._undo: list[Callable[[], object]] = []

    def set(self, target: Any, **values: object) -> None:
        """Change attributes of an object."""
        own = getattr(target, "__dict__", None)
        before = {name: getattr(target, name) if own is None else own.get(name, _MISSING) for name in values}
        for name, value in values.items():
            setattr(target, name, value)  # an object of the app's own class may refuse: then there is nothing to undo
            self._undo.append(partial(_assign, target, {name: before[name]}))

    def keep(self, target: Any) -> None:
        """Undo every later change of an object, also what it computes and keeps, as FastAPI before 0.137 does."""
        if (own := getattr(target, "__dict__", None)) is not None:  # pragma: no branch - by version
            self._undo.append(partial(_restore, own, dict(own)))  # pragma: no cover - by version

    def undo(self) -> None:
        """Undo all changes."""
        while self._undo:
            self._undo.pop()()


def _assign(target: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value is _MISSING:
            delattr(target, name)
        else:
            setattr(target, name, value)


def _restore(own: dict[str, Any], before: dict[str, Any]) -> None:  # pragma: no cover - by version
    own.clear()
    own.update(before)


@contextmanager
def without_handlers(levels: Iterable[Level], record: Callable[[Node | Level], None]) -> Generator[set[Node]]:
    """Replace the handlers and the other dependencies of these apps.

    Yields:
        The routes whose own code would have to run to ask them: these are replaced as a whole.
    """
    changes, opaque = Replacements(), dict[int, bool]()
    apps = [*levels]
    given = [node for level in apps for node in level.nodes]
    try:
        for level in {id(level.app): level for level in apps}.values():  # an app may be mounted twice
            _replace_in_app(level, changes, record)
        for node in given:
            if id(node.route) not in opaque:  # an app may be mounted twice
                opaque[id(node.route)] = _has_own_code(node)
                placeholder = Placeholder(node, record, getattr(node.declared, "endpoint", None))
                _replace(node, placeholder, changes, whole=opaque[id(node.route)])
        for provider in {id(one): one for one in map(provider_of, given)}.values():
            if hasattr(provider, "dependency_overrides"):
                changes.set(provider, dependency_overrides={})
        yield {node for node in given if opaque[id(node.route)]}
    finally:
        changes.undo()


def _replace_in_app(level: Level, changes: Replacements, record: Callable[[Node | Level], None]) -> None:
    """Replace the handler of an app for paths without a route, and restore its middleware afterwards."""
    changes.set(level.app, middleware_stack=level.app.middleware_stack)
    changes.set(level.router, default=Placeholder(level, record, level.router.default))
    narrow(level.router.routes, changes.set)


def _replace(node: Node, placeholder: Placeholder, changes: Replacements, *, whole: bool) -> None:
    """Replace the handler of one route, or the whole route."""
    for tree in node.dependants:
        _replace_dependencies(tree, node, placeholder, changes)
    if node.group is not None:
        changes.set(node.route, app=placeholder)
        return
    for each in _objects(node):
        if hasattr(each, "endpoint"):
            changes.set(each, endpoint=placeholder)
        if whole:
            changes.set(each, handle=placeholder)
    if not node.dependants:
        _replace_app(node.route, placeholder, changes)


def _replace_dependencies(tree: Dependant, node: Node, placeholder: Placeholder, changes: Replacements) -> None:
    """Leave only the dependencies of this package in a tree."""
    gates = [sub for _, sub in effective(tree, overrides_of(node), [])]
    changes.keep(tree)
    changes.set(tree, **{name: list[Any]() for name in PARAMETERS}, dependencies=gates, call=placeholder)


def _replace_app(route: Any, placeholder: Placeholder, changes: Replacements) -> None:
    """Replace what a route without dependencies leads to, behind its middleware."""
    *_, last = chain = behind(getattr(route, "app", None))
    if not has_routes(last):
        changes.set(chain[-2] if len(chain) > 1 else route, app=placeholder)


def _objects(node: Node) -> list[Any]:
    """Return the route as it is served, and as it is declared if that is another object."""
    return [node.route] if node.route is node.declared else [node.route, node.declared]


def _has_own_code(node: Node) -> bool:
    """Check whether a route has code of the app that cannot be asked without running it."""
    declared: Any = node.declared
    if node.group is not None:
        return False
    if not isinstance(declared, _KNOWN) or not all(is_stock(each, "handle") for each in _objects(node)):
        return True
    if is_stock(declared, "get_route_handler"):
        return False
    endpoint: Any = getattr(declared, "endpoint", None)
    return any(_captures(getattr(each, "app", None), endpoint) for each in _objects(node))


def _captures(function: Any, endpoint: Any, depth: int = 0) -> bool:
    """Check whether a function, or a function in its closure, has the endpoint in its closure."""
    if isinstance(function, partial):
        return _captures_any([function.func, *function.args], endpoint, depth)
    cells = getattr(function, "__closure__", None) or ()
    return _captures_any([cell.cell_contents for cell in cells if cell != _EMPTY], endpoint, depth)


def _captures_any(values: list[Any], endpoint: Any, depth: int) -> bool:
    return depth < MAX_CLOSURES and any(value is endpoint or _captures(value, endpoint, depth + 1) for value in values)
