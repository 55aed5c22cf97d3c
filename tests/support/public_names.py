"""The names that users import, by module, as the code has them."""

from importlib import import_module
from types import ModuleType
from typing import Any

PACKAGE = "fastapi_cloudflare_access"
MODULES = [
    "access",
    "any_access",
    "browser",
    "claims",
    "dependencies",
    "errors",
    "events",
    "fetching",
    "guard",
    "identity",
    "instrumentation.metrics",
    "instrumentation.opentelemetry",
    "instrumentation.prometheus",
    "keys",
    "local",
    "mcp",
    "policies",
    "problems",
    "protocols",
    "revocations",
    "settings",
    "stores.file",
    "stores.memory",
    "stores.redis",
    "streams",
    "testing",
]
"""Public modules below the package, except for those of the command line."""
HELPERS = {
    "F",
    "T_co",
    "BaseClaims",
    "GeoObject",
    "ProviderObject",
    "marked_async",
    "security_scheme",
    "LeftOut",
    "left_out",
    "unknown_setting",
    "lease",
    "run_while_valid",
}
"""Names without an underscore that only the package uses."""
VALUES = {"settings": {"TokenSource"}, "claims": {"Claims"}}
"""Public names that are neither a class nor a function."""


def load(module: str) -> ModuleType:
    """Import a module of the package; the package itself for the empty name."""
    return import_module(f"{PACKAGE}.{module}" if module else PACKAGE)


def public_names(module: str) -> set[str]:
    """Return the names of `__all__`, or those of the classes and functions that a module defines."""
    found: Any = load(module)
    if hasattr(found, "__all__"):
        return set(found.__all__)
    defined = {name for name, value in vars(found).items() if getattr(value, "__module__", "") == found.__name__}
    called = {name for name in defined if not name.startswith("_") and callable(getattr(found, name))}
    return (called | VALUES.get(module, set())) - HELPERS


def members(kind: type) -> set[str]:
    """Return the public attributes of a class of this package, and of those that it inherits from in this package."""
    return {
        name
        for base in kind.__mro__
        if base.__module__.startswith(PACKAGE)
        for name in [*vars(base), *getattr(base, "__annotations__", {})]
        if not name.startswith("_")
    }
