"""Settings by one flat set of names, as tests like to write them."""

from typing import Any

from fastapi_cloudflare_access.settings import KeySettings, Settings


def grouped(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with those of the key source inside `key_settings`."""
    keys = {name: value for name, value in options.items() if name in KeySettings.model_fields}
    others = {name: value for name, value in options.items() if name not in keys}
    return others | ({"key_settings": KeySettings(**keys)} if keys else {})


def load(**options: Any) -> Settings:
    """Load settings of both groups."""
    return Settings.load(**grouped(options))


def no_jitter(low: float, high: float) -> float:
    """Stand in for chance: the longest first pause, and the middle of every other range."""
    return high if high == 1 else (low + high) / 2
