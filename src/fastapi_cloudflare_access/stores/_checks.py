"""Checks of the stores that are passed to `CloudflareAccess`."""

from typing import Any

from fastapi_cloudflare_access.errors import ConfigurationError


def check_snapshot_store(store: Any) -> None:
    """Check that this is a store for snapshots, or None.

    Raises:
        ConfigurationError: It is something else; the message does not quote it, since a URL may hold a password.
    """
    methods = [getattr(store, name, None) for name in ("load", "save", "lock")]
    is_store = not isinstance(store, type) and all(map(callable, methods)) and hasattr(store, "secret")
    if store is not None and not is_store:
        raise ConfigurationError(
            "snapshot_store must be a SnapshotStore, such as RedisStore('redis://HOST:PORT', secret=…): an object with "
            "secret, load(), save() and lock()"
        )
