"""Containers that cannot be changed."""

from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest

from fastapi_cloudflare_access._frozen import FrozenDict, freeze

MOMENT = datetime.fromtimestamp(0, UTC)


@pytest.mark.parametrize(
    ("value", "frozen"),
    [
        ("text", "text"),
        (None, None),
        (["a", 1, None], ("a", 1, None)),
        (["a", ["b"]], ("a", ("b",))),
        ([{"a": ["b"]}], (FrozenDict({"a": ("b",)}),)),
        ({"a": {"b": [1]}}, FrozenDict({"a": FrozenDict({"b": (1,)})})),
        (MappingProxyType({"a": [1]}), FrozenDict({"a": (1,)})),
        (MOMENT, MOMENT),
    ],
)
def test_a_value_is_frozen_all_the_way_down(value: Any, frozen: Any) -> None:
    found = freeze(value)
    assert found == frozen
    assert type(found) is type(frozen)
