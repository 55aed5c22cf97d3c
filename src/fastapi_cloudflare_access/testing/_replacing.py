"""Replacement of one attribute within contexts, which may end in any order."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from fastapi_cloudflare_access._access_base import AccessBase
from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access.any_access import AnyAccess
from fastapi_cloudflare_access.dependencies import Dependency

_stacks: WeakKeyDictionary[object, dict[str, list[list[Any]]]] = WeakKeyDictionary()
"""The original value of each replaced attribute, then the value of each open context, each in a list of one."""


@contextmanager
def replaced(target: object, name: str, value: object) -> Generator[None]:
    """Replace an attribute until the context ends; the context entered last determines the value."""
    stack = _stacks.setdefault(target, {}).setdefault(name, [[getattr(target, name)]])
    box = [value]
    stack.append(box)
    setattr(target, name, value)
    try:
        yield
    finally:
        stack[:] = [other for other in stack if other is not box]
        setattr(target, name, stack[-1][0])
        if len(stack) == 1:
            _stacks[target].pop(name, None)


def authenticator_of(access: Dependency[Any]) -> Authenticator[Any]:
    """Return the part of an object, or of a dependency, that authenticates requests."""
    return access._authenticator  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - made to be used here


def authenticators_of(access: AccessBase[Any]) -> list[Authenticator[Any]]:
    """Return the authenticators of an object, or of the objects that it combines."""
    return [authenticator_of(member) for member in (access.members if isinstance(access, AnyAccess) else (access,))]
