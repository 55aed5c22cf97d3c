"""What type checkers see of revocations: never executed, read by mypy and pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from datetime import timedelta
from typing import assert_type

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.protocols import RevocationStore, SnapshotStore
from fastapi_cloudflare_access.revocations import Revocation, Revocations, RevocationsHealth
from fastapi_cloudflare_access.stores.file import FileStore
from fastapi_cloudflare_access.stores.memory import MemoryStore
from fastapi_cloudflare_access.stores.redis import RedisStore

store: RevocationStore = RedisStore("redis://localhost", secret="…")
both: RevocationStore = MemoryStore()
same: SnapshotStore = MemoryStore()
neither: RevocationStore = FileStore("keys", secret="…")  # type: ignore[assignment]

access = CloudflareAccess(revocation_store=store, revocations_unavailable="closed")
CloudflareAccess(revocation_store=store, revocations_unavailable="half")  # type: ignore[arg-type]

assert_type(access.revocations, Revocations)
assert_type(access.revocations.in_force(), list[Revocation])
assert_type(access.revocations.health(), RevocationsHealth)


async def revoke() -> None:
    await access.revocations.log_out(sub="…")
    await access.revocations.block(email="…", for_=timedelta(hours=1))
    await access.revocations.block(email="…", for_=60)  # type: ignore[arg-type]
    await access.revocations.block(email="…")  # type: ignore[call-arg]
    await access.revocations.unblock(client_id="…")
    await access.revocations.revoke(b"token")
    await access.revocations.log_out("…")  # type: ignore[call-arg]
