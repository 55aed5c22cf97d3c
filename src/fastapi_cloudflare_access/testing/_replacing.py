"""Attributes that contexts replace for a while; the contexts may end in any order."""

from collections import ChainMap
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

_layers: WeakKeyDictionary[object, list[dict[str, Any]]] = WeakKeyDictionary()
"""For each object what it was, and above that what each open context makes of it."""


@contextmanager
def replaced(target: object, attributes: Mapping[str, Any]) -> Generator[None]:
    """Give an object these attributes; when the last context ends, it is as it was before the first."""
    layers, layer = _layers.setdefault(target, [vars(target).copy()]), dict(attributes)
    layers.append(layer)
    vars(target).update(layer)
    try:
        yield
    finally:
        layers[:] = [other for other in layers if other is not layer]
        _show(target, layers, layer)
        if len(layers) == 1:
            _layers.pop(target, None)


def _show(target: object, layers: list[dict[str, Any]], names: Mapping[str, Any]) -> None:
    """Let these attributes be as the topmost layer has them."""
    seen = ChainMap(*reversed(layers))
    for name in names:
        if name in seen:
            vars(target)[name] = seen[name]
        else:
            vars(target).pop(name, None)
