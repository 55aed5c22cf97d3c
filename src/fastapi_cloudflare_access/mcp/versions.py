"""The SDKs that the bridge works with, and the lowest versions of them."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

from fastapi_cloudflare_access.errors import ConfigurationError

LOWEST: Mapping[str, tuple[int, int]] = MappingProxyType({"mcp": (2, 0), "fastmcp": (4, 0)})
"""The lowest version of each SDK with which the tests pass."""


class MissingSdk(ConfigurationError, ImportError):
    """An SDK is not installed, or its version is too old."""


def check_sdk(name: str) -> None:
    """Check that an SDK is installed in a version that is supported.

    Raises:
        MissingSdk: It is not installed, or it is too old.
    """
    needed = ".".join(map(str, LOWEST[name]))
    try:
        installed = version(name)
    except PackageNotFoundError:
        raise MissingSdk(
            f"{name} {needed} or newer is not installed: pip install 'fastapi-cloudflare-access[{name}]'"
        ) from None
    if _numbers(installed) < LOWEST[name]:
        raise MissingSdk(f"{name} {installed} is too old: pip install '{name}>={needed}'")


def _numbers(release: str) -> tuple[int, ...]:
    """Return the first two numbers of a version; what is not a number counts as 0."""
    parts = [*release.split("."), "0"][:2]
    return tuple(int(part) if part.isdecimal() else 0 for part in parts)
