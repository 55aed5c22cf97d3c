"""Containers that cannot be changed, so that one verified result can be handed to many."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast


class FrozenDict(dict[str, Any]):
    """A dict that refuses every change, and is a dict to whatever serialises it."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        msg = "claims cannot be changed"
        raise TypeError(msg)

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


_SCALARS: frozenset[type] = frozenset({str, int, float, bool, type(None)})


def freeze(value: Any) -> Any:
    """Give the same JSON value with mappings as `FrozenDict` and lists as tuples, all the way down."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        return tuple(items) if _SCALARS.issuperset(map(type, items)) else tuple(map(freeze, items))
    if isinstance(value, (dict, Mapping)):
        return FrozenDict({key: freeze(item) for key, item in cast("Mapping[str, Any]", value).items()})
    return value
