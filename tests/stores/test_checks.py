"""What `CloudflareAccess` accepts as a store, and what a store has to do with copies and combinations."""

from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from support.fleet_rig import WatchedStore

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError
from fastapi_cloudflare_access.protocols import RevocationStore, SnapshotStore
from fastapi_cloudflare_access.stores._checks import check_revocation_store
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


class WithoutTime:
    secret = "a" * 32
    append = read = staticmethod(print)


class WithoutSecretForRecords:
    time = append = read = staticmethod(print)


NO_REVOCATION_STORE = (
    "revocation_store must be a RevocationStore, such as RedisStore('redis://HOST:PORT', secret=…): an object with "
    "secret, time(), append() and read()"
)


@pytest.mark.parametrize(
    "store",
    ["redis://:password@localhost", RedisStore, MemoryStore, 7, {}, WithoutTime(), WithoutSecretForRecords()],
    ids=["url", "class", "other class", "number", "dict", "without time", "without secret"],
)
def test_what_is_no_store_of_revocations_is_an_error_at_construction(store: Any) -> None:
    for unavailable in ("closed", None):
        with pytest.raises(ConfigurationError) as wrong:
            check_revocation_store(store, unavailable)
        assert str(wrong.value) == NO_REVOCATION_STORE


def test_a_store_of_revocations_and_what_holds_without_it_come_together() -> None:
    check_revocation_store(None, None)
    for unavailable in ("open", "closed"):
        check_revocation_store(MemoryStore(), unavailable)
        with pytest.raises(ConfigurationError, match="revocations_unavailable needs revocation_store: pass it, or"):
            check_revocation_store(None, unavailable)
    with pytest.raises(ConfigurationError, match="revocation_store needs revocations_unavailable, which says what"):
        check_revocation_store(MemoryStore(), None)


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        *((kind, SnapshotStore) for kind in (MemoryStore, FileStore, RedisStore)),
        *((kind, RevocationStore) for kind in (MemoryStore, RedisStore)),
    ],
)
def test_the_methods_of_a_store_take_the_arguments_of_the_protocol(kind: Any, protocol: Any) -> None:
    for name in [name for name, each in vars(protocol).items() if name[0] != "_" and callable(each)]:
        expected = signature(getattr(protocol, name)).parameters.values()
        given = signature(getattr(kind, name)).parameters.values()
        assert [(one.name, one.kind, one.default) for one in given] == [
            (one.name, one.kind, one.default) for one in expected
        ]


def test_arguments_of_a_store_have_names_and_a_secret_has_no_place(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    secret = "a" * 32
    FileStore(folder=tmp_path, secret=secret)
    RedisStore(url="redis://localhost", secret=secret, prefix="acme:")
    wrong: dict[Any, tuple[Any, ...]] = {
        FileStore: (tmp_path, secret),
        RedisStore: ("redis://localhost", secret),
        MemoryStore: (secret,),
    }
    for kind, arguments in wrong.items():
        with pytest.raises(TypeError, match="positional argument"):
            kind(*arguments)


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
