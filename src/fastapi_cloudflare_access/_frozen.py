"""Immutable containers, so that many requests can share one verified result."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self, cast


def _refuse(*_: object, **__: object) -> NoReturn:
    msg = "claims cannot be changed"
    raise TypeError(msg)


class FrozenDict(dict[str, Any]):
    """A dict that refuses every change and serialises as a dict."""

    __slots__ = ()

    def __new__(cls, *arguments: Any) -> Self:
        """Copy a mapping here, since `__init__` could be called again and change the dict."""
        frozen = super().__new__(cls)
        dict[str, Any].update(frozen, *arguments)
        return frozen

    def __init__(self, *_: Any) -> None:
        """Do nothing: `__new__` has copied the content."""

    __setitem__: Any = _refuse
    __delitem__: Any = _refuse
    __ior__: Any = _refuse
    clear: Any = _refuse
    pop: Any = _refuse
    popitem: Any = _refuse
    setdefault: Any = _refuse
    update: Any = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the dict whole, not member by member."""
        return type(self), (dict(self),)

    def __hash__(self) -> int:  # type: ignore[override]
        """Return a hash of the content, as equality compares it."""
        return hash(frozenset(self.items()))


class FrozenList(list[Any]):
    """A list that refuses every change, equals the list that it was made from, and serialises as one."""

    __slots__ = ()

    def __new__(cls, *arguments: Any) -> Self:
        """Copy the items here, since `__init__` could be called again and change the list."""
        frozen = super().__new__(cls)
        list[Any].extend(frozen, *arguments)
        return frozen

    def __init__(self, *_: Any) -> None:
        """Do nothing: `__new__` has copied the content."""

    __setitem__: Any = _refuse
    __delitem__: Any = _refuse
    __iadd__: Any = _refuse
    __imul__: Any = _refuse
    append: Any = _refuse
    clear: Any = _refuse
    extend: Any = _refuse
    insert: Any = _refuse
    pop: Any = _refuse
    remove: Any = _refuse
    reverse: Any = _refuse
    sort: Any = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the list whole, not item by item."""
        return type(self), (list(self),)

    def __hash__(self) -> int:  # type: ignore[override]
        """Return a hash of the content, as equality compares it."""
        return hash(tuple(self))


_SCALARS: frozenset[type] = frozenset({str, int, float, bool, type(None)})


def freeze(value: Any) -> Any:
    """Return the same JSON value with mappings as `FrozenDict` and lists as `FrozenList`, at every depth."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        return FrozenList(items if _SCALARS.issuperset(map(type, items)) else map(freeze, items))
    if isinstance(value, (dict, Mapping)):
        return FrozenDict({key: freeze(item) for key, item in cast("Mapping[str, Any]", value).items()})
    return value
