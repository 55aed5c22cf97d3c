"""What `CloudflareAccess` accepts as a store, and what a store has to do with copies and combinations."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from support.fleet_rig import WatchedStore

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError
from fastapi_cloudflare_access.stores.file import FileStore
from fastapi_cloudflare_access.stores.memory import MemoryStore
from fastapi_cloudflare_access.stores.redis import RedisStore
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

pytestmark = pytest.mark.anyio

SENTENCE = (
    "snapshot_store must be a SnapshotStore, such as RedisStore('redis://HOST:PORT', secret=…): an object with secret, "
    "load(), save() and lock()"
)


class WithoutSecret:
    load = save = lock = staticmethod(print)


@pytest.mark.parametrize(
    "store",
    ["redis://:password@localhost", RedisStore, MemoryStore, 7, {}, WithoutSecret()],
    ids=["url", "class", "other class", "number", "dict", "without secret"],
)
def test_what_is_no_store_is_an_error_at_construction(store: Any) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        CloudflareAccess(team_domain="acme", audience="a" * 64, snapshot_store=store)
    assert str(wrong.value) == SENTENCE


def test_a_short_secret_of_a_store_of_the_app_is_an_error_at_construction() -> None:
    store = WatchedStore()
    store.secret = "short"
    with pytest.raises(ConfigurationError, match="secret must have at least 32 bytes, not 5"):
        CloudflareAccess(team_domain="acme", audience="a" * 64, snapshot_store=store)


@pytest.mark.parametrize("name", ["store", "redis_url"])
def test_a_similar_setting_names_the_store(name: str) -> None:
    options: Any = {name: "redis://localhost"}
    with pytest.raises(ConfigurationError, match=f"there is no setting {name}; did you mean snapshot_store?"):
        CloudflareAccess(team_domain="acme", audience="a" * 64, **options)


async def test_a_copy_for_another_audience_shares_the_store() -> None:
    team, store = FakeTeam("acme"), MemoryStore()
    certs = MemoryFetch(team)
    options: Any = {"fetch": certs, "clock": team.clock, "snapshot_store": store}
    access = CloudflareAccess(team_domain="acme", audience=team.audience, **options)
    copy = access.with_audience("b" * 64)
    async with access, copy:
        await team.clock.run_for(0)
        other = CloudflareAccess(team_domain="acme", audience=team.audience, **options)
        async with other.with_audience("c" * 64) as started:
            assert started.keys.health().snapshots_loaded == 1
    assert certs.fetches == 1


async def test_objects_of_two_teams_combine_over_one_store() -> None:
    store = MemoryStore()
    teams = [FakeTeam("acme"), FakeTeam("globex")]
    for loaded in (0, 1):
        first, second = (
            CloudflareAccess(
                team_domain=team.name,
                audience=team.audience,
                fetch=MemoryFetch(team),
                clock=team.clock,
                snapshot_store=store,
            )
            for team in teams
        )
        async with first | second:
            for team, access in zip(teams, (first, second), strict=True):
                await team.clock.run_for(0)
                await access.verify(team.user_token("ada@example.com"))
                assert access.keys.health().snapshots_loaded == loaded


def stores(folder: Path) -> dict[str, Any]:
    folder.chmod(0o700)
    secret = "a" * 32
    made = [MemoryStore(), FileStore(folder, secret=secret), RedisStore("redis://localhost", secret=secret)]
    return {type(store).__name__: store for store in made}


@pytest.mark.parametrize("name", ["MemoryStore", "FileStore", "RedisStore"])
@pytest.mark.parametrize("method", [None, "load", "save", "lock"])
def test_a_store_is_not_a_dependency(name: str, method: str | None, tmp_path: Path) -> None:
    store = stores(tmp_path)[name]
    depends = Depends(getattr(store, method) if method else type(store))
    with pytest.raises(ConfigurationError, match="snapshot_store="):
        FastAPI().add_api_route("/", print, dependencies=[depends])
