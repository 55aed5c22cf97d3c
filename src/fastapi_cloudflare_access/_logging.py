"""Telling log handlers and listeners, whose failures change no answer and stop no fetch."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress

from fastapi_cloudflare_access.events import AccessEvent
from fastapi_cloudflare_access.protocols import Listener


def log(
    logger: logging.Logger,
    level: int,
    message: str,
    *values: object,
    exc_info: bool = False,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write a record; where a handler fails, it is lost."""
    with suppress(Exception):
        logger.log(level, message, *values, exc_info=exc_info, extra=extra)


def tell(listeners: Iterable[Listener], event: AccessEvent, logger: logging.Logger) -> None:
    """Call each listener; log what one raises, and go on with the next."""
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # noqa: BLE001 - whatever it raises, it is the listener's own
            log(logger, logging.ERROR, "a listener failed at the event %s", event.name, exc_info=True)
