"""Checks of the arguments of a fault; the app would report an invalid value as an outage."""

from collections.abc import Mapping
from typing import Any

from fastapi_cloudflare_access.errors import ConfigurationError

_STATUSES = range(100, 600)


def check_status(status: int) -> None:
    """Check that a status is an HTTP status code."""
    if status not in _STATUSES:
        raise ConfigurationError(f"status must be from 100 to 599, not {status!r}")


def check_times(times: int | None) -> None:
    """Check that a number of fetches is positive; None means any number."""
    if times is not None and times < 1:
        raise ConfigurationError(f"times must be at least 1, not {times!r}")


def check_size(size: int) -> None:
    """Check that a number of bytes is positive."""
    if size < 1:
        raise ConfigurationError(f"size must be at least 1 byte, not {size!r}")


def check_seconds(name: str, seconds: float) -> None:
    """Check that a duration is finite and not negative; `hang` never ends."""
    if not 0 <= seconds < float("inf"):
        raise ConfigurationError(f"{name} must be finite and not negative, not {seconds!r}")


def check_body(body: object) -> None:
    """Check that a body is bytes; a type error inside a fetch would look like an outage."""
    if not isinstance(body, bytes):
        raise ConfigurationError(
            f"a body must be bytes, not {type(body).__name__}; encode JSON: json.dumps(…).encode()"
        )


def check_headers(headers: Mapping[Any, Any] | None) -> None:
    """Check that header names and values are text; a type error inside a fetch would look like an outage."""
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError(f"header names and values must be text, not {name!r}: {value!r}")
