"""One attribute that contexts replace for a while; the contexts may end in any order."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from fastapi_cloudflare_access._authentication import Authenticator
from fastapi_cloudflare_access.access import CloudflareAccess

_stacks: WeakKeyDictionary[object, dict[str, list[list[Any]]]] = WeakKeyDictionary()
"""For each object and attribute its own value, and above that the value of each open context, boxed."""


@contextmanager
def replaced(target: object, name: str, value: object) -> Generator[None]:
    """Give an attribute this value until the context ends; the context entered last counts."""
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


def authenticator_of(access: CloudflareAccess[Any]) -> Authenticator[Any]:
    """Return the part of an object that authenticates requests."""
    return access._authenticator  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - made to be used here
