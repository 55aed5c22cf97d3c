"""What a fault may be made of: a wrong value would only show later, as an outage that nobody asked for."""

from collections.abc import Mapping
from typing import Any

from fastapi_cloudflare_access.errors import ConfigurationError

_STATUSES = range(100, 600)


def check_status(status: object) -> None:
    """Refuse what is no HTTP status code."""
    if type(status) is not int or status not in _STATUSES:
        raise ConfigurationError(f"a status is a number from 100 to 599, not {status!r}")


def check_times(times: object) -> None:
    """Refuse what is no number of fetches; None is any number."""
    if times is not None and not _is_count(times):
        raise ConfigurationError(f"times is a number of fetches, 1 at least, not {times!r}")


def check_size(size: object) -> None:
    """Refuse what is no number of bytes."""
    if not _is_count(size):
        raise ConfigurationError(f"size is a number of bytes, 1 at least, not {size!r}")


def check_seconds(name: str, seconds: object) -> None:
    """Refuse what is no length of time; what never ends is `hang`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise ConfigurationError(f"{name} is a number of seconds, 0 at least, not {seconds!r}")


def check_body(body: object) -> None:
    """Refuse what cannot be sent."""
    if not isinstance(body, bytes):
        raise ConfigurationError(
            f"a body is bytes, not {type(body).__name__}; json.dumps(…).encode() makes them of JSON"
        )


def check_headers(headers: Mapping[Any, Any] | None) -> None:
    """Refuse headers that are no text."""
    if headers is None:
        return
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers are a mapping of names to values, not {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError(f"the names and values of headers are text, not {name!r}: {value!r}")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1
