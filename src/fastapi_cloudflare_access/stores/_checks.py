"""Checks of the stores that are passed to `CloudflareAccess`."""

from typing import Any

from fastapi_cloudflare_access.errors import ConfigurationError


def check_revocation_store(store: Any, unavailable: object) -> None:
    """Check that this is a store for revocations, or None, and that `revocations_unavailable` is set with it alone.

    Raises:
        ConfigurationError: It is something else; the message does not quote it, since a URL may hold a password.
    """
    if store is None and unavailable is None:
        return
    if store is None:
        raise ConfigurationError("revocations_unavailable needs revocation_store: pass it, or leave both out")
    methods = [getattr(store, name, None) for name in ("time", "append", "read")]
    if isinstance(store, type) or not all(map(callable, methods)) or not hasattr(store, "secret"):
        raise ConfigurationError(
            "revocation_store must be a RevocationStore, such as RedisStore('redis://HOST:PORT', secret=…): an object "
            "with secret, time(), append() and read()"
        )
    if unavailable is None:
        raise ConfigurationError(
            "revocation_store needs revocations_unavailable, which says what happens while the store cannot be read: "
            "'open' accepts tokens, 'closed' answers 503"
        )


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
