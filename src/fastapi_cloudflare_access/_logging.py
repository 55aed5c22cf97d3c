"""Log records and events; a log handler or a listener that fails changes no response and stops no fetch."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from traceback import walk_tb
from typing import Any, NamedTuple

from fastapi_cloudflare_access.events import AccessEvent
from fastapi_cloudflare_access.protocols import Listener

LOG_INTERVAL = 60.0
"""Seconds between two equal log records, at least."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""HTTP methods that are shown as they are (RFC 9110 section 9, RFC 5789); a client could make up others."""
MAX_REPEATED = 256
"""Number of different records whose repetition is noticed."""


BEFORE_ROUTING = "(before routing, at a guard or middleware)"
"""Shown instead of a route; the path is not shown, since a client chooses it."""


class Throttle:
    """Selects the records to write: the first of its kind, then one in each `LOG_INTERVAL`."""

    def __init__(self) -> None:
        """Create a throttle that has seen no record."""
        self._last: dict[object, tuple[float, int]] = {}

    def repetitions(self, kind: object, now: float) -> int | None:
        """Return the number of records left out since the last one, or None if this one is left out.

        Args:
            kind: What makes two records equal.
            now: Monotonic time in seconds.
        """
        logged_at, left_out = self._last.get(kind, (float("-inf"), 0))
        if now - logged_at < LOG_INTERVAL:
            self._last[kind] = logged_at, left_out + 1
            return None
        self._last.pop(kind, None)
        if len(self._last) >= MAX_REPEATED:
            self._last.pop(next(iter(self._last)))
        self._last[kind] = now, 0
        return left_out

    def clear(self) -> None:
        """Write the next record of every kind."""
        self._last.clear()


def omitted(count: int) -> str:
    """Return the end of a log message that says how many equal records a throttle left out; empty for none."""
    left_out = (
        "1 equal record since the last one was" if count == 1 else f"{count} equal records since the last one were"
    )
    return f" ({left_out} not logged)" if count else ""


class Place(NamedTuple):
    """The route of a request, as log records and events show it; never the raw path, which a client chooses.

    Attributes:
        method: `GET` and so on, `WEBSOCKET` for a handshake; None without a request.
        route: The template of the path, such as `/items/{id}`; None before routing, such as at a guard.
    """

    method: str | None = None
    route: str | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.route or BEFORE_ROUTING}" if self.method else "a token in a call of verify"


def place_of(scope: Mapping[str, Any]) -> Place:
    """Return the route of a request, as the app that has the route declares it."""
    included = scope.get("fastapi", {}).get("effective_route_context")
    route = getattr(included, "path", None) or getattr(scope.get("route"), "path", None)
    method = "WEBSOCKET" if scope["type"] == "websocket" else str(scope.get("method", ""))
    return Place(method if method in METHODS or method == "WEBSOCKET" else "?", route or None)


def raised_at(error: BaseException) -> str:
    """Return the file and line that raised an exception; unlike its message, they contain nothing of a request."""
    frames = [*walk_tb(error.__traceback__)]
    if not frames:
        return "an unknown place"
    frame, line = frames[-1]
    return f"{frame.f_code.co_filename}:{line}"


def log(
    logger: logging.Logger,
    level: int,
    message: str,
    *values: object,
    exc_info: bool = False,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write a log record; it is lost if a handler fails."""
    with suppress(Exception):
        logger.log(level, message, *values, exc_info=exc_info, extra=extra)


def emit(listeners: Iterable[Listener], event: AccessEvent, logger: logging.Logger) -> None:
    """Call each listener; log what one raises, and go on with the next."""
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # noqa: BLE001 - a listener may raise anything
            log(
                logger,
                logging.ERROR,
                "cf-access called a listener that failed at the event %s",
                event.name,
                exc_info=True,
            )
