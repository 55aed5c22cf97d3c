"""Notes on protected WebSockets: which pages may open them, and whether they end with the token of their caller."""

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from inspect import getattr_static
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from fastapi.dependencies.models import Dependant

from fastapi_cloudflare_access._routes.tree import Level, Node, behind
from fastapi_cloudflare_access.browser import SameOrigin
from fastapi_cloudflare_access.dependencies import Dependency
from fastapi_cloudflare_access.testing._audit.entries import Note
from fastapi_cloudflare_access.testing._audit.paths import levels_of

ANY_ORIGIN = Note("pages of any origin may open it", "write app.add_middleware(SameOrigin, origins=[…])")
NO_END = Note(
    "it is not seen to end with its token",
    "write async with access.while_valid(user), or AccessGuard(end_streams=True)",
)
MAX_FUNCTIONS = 500
"""Number of functions of an app that are read for one WebSocket."""

_END = "while_valid"
_HOLDERS: tuple[type[Any], ...] = (MethodType, staticmethod, classmethod)
_OTHERS = {*sys.stdlib_module_names, "fastapi", "fastapi_cloudflare_access", "pydantic", "starlette"}
"""Packages whose functions are not read."""


def notes_on(node: Node, *, is_guarded: bool, admits_users: bool) -> Iterator[Note]:
    """Yield the notes on a protected WebSocket.

    Args:
        node: Its route, before its handler is replaced.
        is_guarded: Whether a guard ends it with the token.
        admits_users: Whether it admits users, whose browsers send the token for every page.
    """
    if admits_users and not any(_is_same_origin(one) for level in levels_of(node) for one in _before(level)):
        yield ANY_ORIGIN
    if not is_guarded and not _names_the_end(_start(node)):
        yield NO_END


def _before(level: Level) -> Iterator[Any]:
    """Yield the middleware of an app, as classes or objects."""
    yield from level.wrappers
    yield from (middleware.cls for middleware in getattr(level.app, "user_middleware", ()))
    yield from behind(getattr(level.router, "middleware_stack", None))


def _is_same_origin(one: Any) -> bool:
    kind = one if isinstance(one, type) else type(one)
    return issubclass(kind, SameOrigin)


class _Found(NamedTuple):
    """A function of the app, and the class that it belongs to."""

    function: Any
    owner: type[Any] | None


def _start(node: Node) -> list[Any]:
    """Return the handler of a route, and the other functions that it depends on."""
    calls = [call for tree in node.dependants[:1] for call in _calls(tree)]
    return [getattr(node.declared, "endpoint", None), *calls]


def _calls(tree: Dependant) -> Iterator[Any]:
    for sub in tree.dependencies:
        if not isinstance(sub.call, Dependency):
            yield sub.call
        yield from _calls(sub)


def _names_the_end(start: list[Any]) -> bool:
    """Check whether a function, or one that it names, uses `while_valid`; no function is called."""
    waiting = deque(found for value in start for found in _functions(value))
    seen = set[tuple[int, int]]()
    while waiting and len(seen) < MAX_FUNCTIONS:
        found = waiting.popleft()
        if (known := (id(found.function), id(found.owner))) in seen:
            continue
        seen.add(known)
        names = {name for code in _codes(found.function.__code__) for name in code.co_names}
        if _END in names:
            return True
        waiting.extend(further for value, owner in _values(found, names) for further in _functions(value, owner))
    return False


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function, and of the functions in it."""
    yield code
    for constant in code.co_consts:
        if _is(constant, CodeType):
            yield from _codes(constant)


def _values(found: _Found, names: set[str]) -> Iterator[tuple[Any, type[Any] | None]]:
    """Yield what the names in a function stand for, with its class for an attribute of that class."""
    spaces = found.function.__globals__
    modules = [value for name in names if _is(value := spaces.get(name), ModuleType)]
    for space in (spaces, *map(vars, modules)):
        yield from ((space[name], None) for name in names if name in space)
    if found.owner is not None:
        yield from ((_static(found.owner, name), found.owner) for name in names)
    for cell in found.function.__closure__ or ():
        with suppress(ValueError):  # an empty cell
            yield cell.cell_contents, None


def _static(value: Any, name: str, default: Any = None) -> Any:
    """Return an attribute without running code of the app."""
    try:
        return getattr_static(value, name, default)
    except TypeError:  # from Python 3.14 on, of an object whose class cannot be hashed
        return default


def _functions(value: Any, owner: type[Any] | None = None) -> Iterator[_Found]:
    """Yield the functions of the app that a value stands for: itself, or those of its class."""
    given: Any = value.func if _is(value, partial) else value
    if _is(given, MethodType):
        owner = _class_of(given.__self__)
    function: Any = given.__func__ if _is(given, *_HOLDERS) else given
    if not _is(function, FunctionType):  # a cached function, for example
        function = _static(function, "__wrapped__", function)
    if _is(function, FunctionType):
        if not _is_of_another(function):
            yield _Found(function, owner)
    elif not _is(function, ModuleType):
        yield from _methods(function if _is(function, type) else _class_of(function))


def _methods(kind: type[Any]) -> Iterator[_Found]:
    for base in kind.__mro__:
        for member in () if _is_of_another(base) else vars(base).values():
            function: Any = member.__func__ if _is(member, *_HOLDERS) else member
            if _is(function, FunctionType):
                yield _Found(function, kind)


def _is(value: Any, *kinds: type[Any]) -> bool:
    """Check the class of an object; `isinstance` would run the code of an object that stands for another one."""
    return issubclass(type(value), kinds)


def _class_of(value: object) -> type[Any]:
    return type(value)


def _is_of_another(value: Any) -> bool:
    return str(getattr(value, "__module__", None)).partition(".")[0] in _OTHERS
