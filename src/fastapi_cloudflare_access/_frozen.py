"""Containers that cannot be changed, so that one verified result can be handed to many requests."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self, cast


def _refuse(*_: object, **__: object) -> NoReturn:
    msg = "claims cannot be changed"
    raise TypeError(msg)


class FrozenDict(dict[str, Any]):
    """A dict that refuses every change, and is a dict to whatever serialises it."""

    __slots__ = ()

    def __new__(cls, *arguments: Any) -> Self:
        """Take over a mapping; `__init__` would do so again each time it is called."""
        frozen = super().__new__(cls)
        dict[str, Any].update(frozen, *arguments)
        return frozen

    def __init__(self, *_: Any) -> None:
        """Change nothing."""

    __setitem__: Any = _refuse
    __delitem__: Any = _refuse
    __ior__: Any = _refuse
    clear: Any = _refuse
    pop: Any = _refuse
    popitem: Any = _refuse
    setdefault: Any = _refuse
    update: Any = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled whole, not member by member."""
        return type(self), (dict(self),)

    def __hash__(self) -> int:  # type: ignore[override]
        """Follow equality."""
        return hash(frozenset(self.items()))


class FrozenList(list[Any]):
    """A list that refuses every change, equals the list that it was made from, and serialises as one."""

    __slots__ = ()

    def __new__(cls, *arguments: Any) -> Self:
        """Take over the items; `__init__` would do so again each time it is called."""
        frozen = super().__new__(cls)
        list[Any].extend(frozen, *arguments)
        return frozen

    def __init__(self, *_: Any) -> None:
        """Change nothing."""

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
        """Be copied and pickled whole, not item by item."""
        return type(self), (list(self),)

    def __hash__(self) -> int:  # type: ignore[override]
        """Follow equality."""
        return hash(tuple(self))


_SCALARS: frozenset[type] = frozenset({str, int, float, bool, type(None)})


def freeze(value: Any) -> Any:
    """Return the same JSON value with mappings as `FrozenDict` and lists as `FrozenList`, all the way down."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        return FrozenList(items if _SCALARS.issuperset(map(type, items)) else map(freeze, items))
    if isinstance(value, (dict, Mapping)):
        return FrozenDict({key: freeze(item) for key, item in cast("Mapping[str, Any]", value).items()})
    return value
