"""Formatting of times, and escaping of untrusted text for a terminal."""

import re
from datetime import UTC, datetime
from typing import Any, TypeGuard, cast

from fastapi_cloudflare_access.claims import MAX_TIME

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_TOKEN = re.compile(r"(?:eyJ[A-Za-z0-9_-]*|[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,})[A-Za-z0-9_.-]*")
_SHOWN = 6


def printable(text: str, *, limit: int = 200) -> str:
    """Escape control characters, and truncate the text to `limit` characters."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def redacted(text: str) -> str:
    """Truncate each possible token in a text."""
    return _TOKEN.sub(lambda found: f"{found[0][:_SHOWN]}…", text)


def short(name: str) -> str:
    """Truncate a `kid` or AUD tag."""
    return name if len(name) <= 12 else f"{name[:8]}…"  # noqa: PLR2004 - the length of the truncated form, nearly


def duration(seconds: float) -> str:
    """Format a duration in its largest unit: `23 hours`."""
    whole = abs(int(seconds))
    for size, unit in _UNITS:
        if whole >= size:
            count = whole // size
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "less than a second"


def relative(time: float, now: float) -> str:
    """Format a time relative to `now`: `in 23 hours`, `5 minutes ago`."""
    if abs(time - now) < 1:
        return "now"
    return f"in {duration(time - now)}" if time > now else f"{duration(now - time)} ago"


def iso(time: float) -> str:
    """Format a time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(int(time), UTC).isoformat().replace("+00:00", "Z")


def iso_and_relative(time: float, now: float) -> str:
    """Format a time in both ways: `2026-01-01T00:00:00Z, in 23 hours`."""
    return f"{iso(time)}, {relative(time, now)}"


def is_time(value: Any) -> TypeGuard[float]:
    """Check whether a claim can be a time."""
    return type(value) in (int, float) and 0 <= value <= MAX_TIME


def as_dict(value: Any) -> dict[str, Any]:
    """Return a JSON object unchanged, and an empty one for any other value."""
    return cast("dict[str, Any]", value) if type(value) is dict else {}


def as_list(value: Any) -> list[Any]:
    """Return a JSON list unchanged, and an empty one for any other value."""
    return value if type(value) is list else []  # pyright: ignore[reportUnknownVariableType] - mypy sees Any


def plural(count: int, noun: str) -> str:
    """Format a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
