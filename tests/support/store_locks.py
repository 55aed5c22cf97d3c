"""What every store of snapshots promises about its lock."""

from fastapi_cloudflare_access.protocols import SnapshotStore


async def check_lock(store: SnapshotStore, same_store: SnapshotStore) -> None:
    """Check that one worker has the lock of a team, that other teams have their own, and that it is free afterwards."""
    async with (
        store.lock("acme", seconds=5) as mine,
        same_store.lock("acme", seconds=5) as same_team,
        same_store.lock("other", seconds=5) as other_team,
    ):
        assert (mine, same_team, other_team) == (True, False, True)
    async with same_store.lock("acme", seconds=5) as is_free:
        assert is_free
