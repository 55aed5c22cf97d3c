"""Log records and events; a log handler or a listener that fails changes no response and stops no fetch."""

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
    """Write a log record; it is lost if a handler fails."""
    with suppress(Exception):
        logger.log(level, message, *values, exc_info=exc_info, extra=extra)


def emit(listeners: Iterable[Listener], event: AccessEvent, logger: logging.Logger) -> None:
    """Call each listener; log what one raises, and go on with the next."""
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # noqa: BLE001 - a listener may raise anything
            log(logger, logging.ERROR, "a listener failed at the event %s", event.name, exc_info=True)
