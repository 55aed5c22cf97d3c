"""Records that repeat, and how a route is named."""

from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_cloudflare_access._logging import (
    BEFORE_ROUTING,
    LOG_INTERVAL,
    MAX_REPEATED,
    Place,
    Throttle,
    omitted,
    place_of,
)


def test_a_record_is_written_once_and_then_once_an_interval_with_the_number_left_out() -> None:
    throttle = Throttle()
    assert [throttle.repetitions("a", now) for now in (0, 1, LOG_INTERVAL - 0.1, LOG_INTERVAL, LOG_INTERVAL + 1)] == [
        0,
        None,
        None,
        2,
        None,
    ]
    assert throttle.repetitions("b", 1) == 0


def test_a_message_names_the_number_of_records_left_out_unless_there_are_none() -> None:
    assert omitted(0) == ""
    assert omitted(1) == " (1 equal record since the last one was not logged)"
    assert omitted(2) == " (2 equal records since the last one were not logged)"


def test_the_memory_of_a_throttle_is_bounded() -> None:
    throttle = Throttle()
    for kind in range(10 * MAX_REPEATED):
        assert throttle.repetitions(kind, 0) == 0
    assert len(throttle._last) <= MAX_REPEATED


@pytest.mark.parametrize(
    ("scope", "place", "shown"),
    [
        ({"type": "http", "method": "GET"}, Place("GET", None), f"GET {BEFORE_ROUTING}"),
        (
            {"type": "http", "method": "GET", "route": SimpleNamespace(path="/a/{b}")},
            Place("GET", "/a/{b}"),
            "GET /a/{b}",
        ),
        ({"type": "websocket", "route": SimpleNamespace(path="/a")}, Place("WEBSOCKET", "/a"), "WEBSOCKET /a"),
        ({"type": "http", "method": "GET\nroot"}, Place("?", None), f"? {BEFORE_ROUTING}"),
        ({"type": "http", "method": "HELLOADMIN"}, Place("?", None), f"? {BEFORE_ROUTING}"),
        (
            {"type": "http", "method": "GET", "path": "/secret"},
            Place("GET", None),
            f"GET {BEFORE_ROUTING}",
        ),
        ({"type": "http"}, Place("?", None), f"? {BEFORE_ROUTING}"),
        (
            {
                "type": "http",
                "method": "GET",
                "route": SimpleNamespace(path="/b"),
                "fastapi": {"effective_route_context": SimpleNamespace(path="/a/b")},
            },
            Place("GET", "/a/b"),
            "GET /a/b",
        ),
    ],
)
def test_a_place_is_a_method_and_a_template(scope: dict[str, Any], place: Place, shown: str) -> None:
    assert (place_of(scope), str(place)) == (place, shown)
    assert BEFORE_ROUTING == "(before routing, at a guard or middleware)"
    assert str(Place()) == "a token in a call of verify"
