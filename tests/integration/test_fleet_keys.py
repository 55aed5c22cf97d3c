"""Shared keys over real servers: Redis and Valkey that work, fail, lie and are slow, and eight worker processes."""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.fleet_rig import SECRET
from support.fleet_workers import SlowClock
from support.key_servers import TESTS, free_port, get, serving
from support.redis_server import ENGINES, RedisServer, needs_redis, redis_server, responding
from support.store_locks import check_lock

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._keys.shared_snapshot import SharedSnapshot, SnapshotFormat
from fastapi_cloudflare_access.keys import KeysHealth
from fastapi_cloudflare_access.stores._redis.snapshots import SNAPSHOT_TTL
from fastapi_cloudflare_access.stores._signing import Signer
from fastapi_cloudflare_access.stores.redis import RedisStore
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

WORKERS = 8
HTML = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>400</html>"


@pytest.fixture
def certs() -> Iterator[CertsServer]:
    with CertsServer(FakeTeam("acme", clock=SystemClock())) as server:
        yield server


def access_over(certs: CertsServer, url: str, *, in_time: bool = True) -> CloudflareAccess[Any]:
    """Return a worker; unless the test is about slowness, its limits are generous, for a machine that is busy."""
    patience = "?socket_timeout=20&socket_connect_timeout=20" if in_time else "?"
    store = RedisStore(url.replace("?", f"{patience}&") if "?" in url else url + patience, secret=SECRET)
    return CloudflareAccess(
        team_domain=certs.origin,
        audience=certs.team.audience,
        snapshot_store=store,
        clock=SlowClock() if in_time else None,
    )


async def verify_one(access: CloudflareAccess[Any], certs: CertsServer) -> KeysHealth:
    """Start a worker, verify a token, let it save, and return its health."""
    async with access:
        assert await access.verify(certs.team.user_token("ada@example.com"))
        await asyncio.gather(*access.keys._fetcher.current_loop_state().background_tasks)
        return access.keys.health()


def start(certs: CertsServer, url: str, *, in_time: bool = True) -> KeysHealth:
    return asyncio.run(verify_one(access_over(certs, url, in_time=in_time), certs))


# A store that works


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("address", ["url", "unix_url"])
def test_the_second_worker_starts_with_the_keys_of_the_first(certs: CertsServer, engine: str, address: str) -> None:
    with redis_server(executable=engine) as server:
        assert start(certs, getattr(server, address)).store_failures == 0
        certs.hang()
        health = start(certs, getattr(server, address))
    assert (health.snapshots_loaded, health.store_failures, health.last_store_error) == (1, 0, None)
    assert certs.fetches == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_store_reads_writes_and_locks(engine: str) -> None:
    async def use(store: RedisStore) -> None:
        assert await store.load("acme") is None
        await store.save("acme", bytes(range(256)))
        assert await store.load("acme") == bytes(range(256))
        await check_lock(store, store)

    with redis_server(executable=engine) as server:
        asyncio.run(use(RedisStore(server.url, secret=SECRET)))
        asyncio.run(use(RedisStore(server.url + "?decode_responses=true", secret=SECRET, prefix="mine/")))
        with server.client() as client:
            names = {"cf-access:{acme}:snapshot", "mine/{acme}:snapshot"}
            assert {name.decode() for name in client.scan_iter()} == names
            assert all(7 * 86_400 - 60 < client.ttl(name) <= 7 * 86_400 for name in names)
    assert SNAPSHOT_TTL == 604_800


@needs_redis
def test_a_lock_ends_by_itself_after_its_seconds() -> None:
    async def use(store: RedisStore, client: Any) -> None:
        async with store.lock("acme", seconds=60):
            assert 50_000 < client.pttl("cf-access:{acme}:lock") <= 60_000
            assert len(client.get("cf-access:{acme}:lock")) == 32, "128 random bits, which no other worker has"

    with redis_server() as server, server.client() as client:
        asyncio.run(use(RedisStore(server.url, secret=SECRET), client))


def test_a_command_that_fails_is_not_sent_again() -> None:
    connections: list[str] = []

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append("closed")
        writer.close()

    async def use() -> None:
        async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConnectionError):
                await RedisStore(f"redis://127.0.0.1:{port}/0", secret=SECRET).load("acme")

    asyncio.run(asyncio.wait_for(use(), 60))
    assert connections == ["closed"]


@needs_redis
def test_a_lock_that_ended_by_itself_is_not_taken_from_its_next_owner() -> None:
    async def use(store: RedisStore) -> None:
        async with store.lock("acme", seconds=0.001) as first:
            await asyncio.sleep(0.05)
            async with store.lock("acme", seconds=5) as second:
                assert (first, second) == (True, True)
                abandoned = store.lock("acme", seconds=5)
                assert not await abandoned.__aenter__()
                await abandoned.__aexit__(None, None, None)
            async with store.lock("acme", seconds=5) as third:
                assert third

    with redis_server() as server:
        asyncio.run(use(RedisStore(server.url, secret=SECRET)))


@needs_redis
def test_a_store_over_tls_is_verified(certs: CertsServer, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority, other = trustme.CA(), trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    pem = str(tmp_path / "server.pem")
    port = free_port()
    options = {"tls_port": str(port), "tls_cert_file": pem, "tls_key_file": pem, "tls_auth_clients": "no"}
    with redis_server(tls_ca_cert_file=str(tmp_path / "ca.pem"), **options):
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path}"
        assert start(certs, f"{url}/ca.pem").store_failures == 0
        assert start(certs, f"{url}/ca.pem").snapshots_loaded == 1
        failed = start(certs, f"{url}/other.pem")
    assert failed.snapshots_loaded == 0
    assert str(failed.last_store_error).startswith("TLS failed: ")


@needs_redis
def test_the_rights_in_the_guide_are_enough(certs: CertsServer) -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/fleet.md").read_text()
    rights = re.search(r"^user cf-access on >PASSWORD (.+)$", guide, re.MULTILINE)
    assert rights
    with redis_server() as server:
        url = _acl(server, rights[1])
        assert start(certs, url).store_failures == 0
        assert start(certs, url).snapshots_loaded == 1
        with server.client() as client:
            assert client.keys("*:lock") == [], "a worker unlocks"
            assert client.acl_log() == []


@needs_redis
def test_the_workers_of_the_example_share_their_keys(certs: CertsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"CF_ACCESS_TEAM_DOMAIN": certs.origin, "CF_ACCESS_AUDIENCE": certs.team.audience}
    with redis_server() as server:
        for name, value in (settings | {"STORE_URL": server.url, "STORE_SECRET": SECRET.replace(",", "")}).items():
            monkeypatch.setenv(name, value)
        for loaded in (0, 1):
            monkeypatch.delitem(sys.modules, "shared_keys_app", raising=False)
            access = import_module("shared_keys_app").access
            assert asyncio.run(verify_one(access, certs)).snapshots_loaded == loaded
    assert certs.fetches == 1


# A store that fails: the worker starts alone


def _acl(server: RedisServer, rights: str) -> str:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "worker", "on", ">password", *rights.split(" "))
    return server.url.replace("redis://", "redis://worker:password@")


def _down(stack: ExitStack) -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


def _paused(stack: ExitStack) -> str:
    server = stack.enter_context(redis_server())
    server.pause()
    return server.url


def _slow(stack: ExitStack) -> str:
    server = stack.enter_context(redis_server())
    port = stack.enter_context(responding(to_port=server.port, delay=2.0))
    return f"redis://127.0.0.1:{port}/0"


def _html(stack: ExitStack) -> str:
    return f"redis://127.0.0.1:{stack.enter_context(responding(HTML))}/0"


def _wrong_password(stack: ExitStack) -> str:
    server = stack.enter_context(redis_server(requirepass="right"))
    return server.url.replace("redis://", "redis://:wrong@")


def _without_password(stack: ExitStack) -> str:
    return stack.enter_context(redis_server(requirepass="right")).url


def _without_rights(stack: ExitStack) -> str:
    return _acl(stack.enter_context(redis_server()), "~* -@all")


def _without_keys(stack: ExitStack) -> str:
    return _acl(stack.enter_context(redis_server()), "~other:* +@all")


def _read_only(stack: ExitStack) -> str:
    return _acl(stack.enter_context(redis_server()), "~* +@read +@connection")


def _full(stack: ExitStack) -> str:
    return stack.enter_context(redis_server(maxmemory="1kb", maxmemory_policy="noeviction")).url


def _replica(stack: ExitStack) -> str:
    first = stack.enter_context(redis_server())
    return stack.enter_context(redis_server(replicaof=f"127.0.0.1 {first.port}")).url


LATE = "no response in time"
TROUBLES: dict[str, tuple[Callable[[ExitStack], str], str]] = {
    "down": (_down, "Connection refused"),
    "paused": (_paused, LATE),
    "slow by 2 s": (_slow, LATE),
    "answers HTML": (_html, "the response is not one of Redis or Valkey; is the port right?"),
    "wrong password": (_wrong_password, "the server refuses the user or the password of the URL, or asks for one"),
    "no password": (_without_password, "the server refuses the user or the password of the URL, or asks for one"),
    "no rights": (_without_rights, "the server does not permit a command to the user of the URL"),
    "no rights on the keys": (_without_keys, "the server does not permit a command to the user of the URL"),
    "no right to write": (_read_only, "the server does not permit a command to the user of the URL"),
    "out of memory": (_full, "the server is out of memory (maxmemory)"),
    "replica": (_replica, "the server is a replica, which is read-only"),
}


@needs_redis
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_worker_starts_alone_whatever_is_wrong_with_the_store(
    certs: CertsServer, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, cause = TROUBLES[trouble]
    with ExitStack() as stack:
        url = make(stack)
        health = start(certs, url, in_time=cause != LATE)
    assert health.state == "ok"
    assert health.store_failures > 0
    assert health.last_store_error == cause
    assert certs.fetches == 1
    assert "password" not in caplog.text.replace("user or the password of the URL", "")
    assert f"so this worker goes on alone: {cause}" in caplog.text


@needs_redis
def test_a_name_that_holds_another_type_of_value_is_replaced(
    certs: CertsServer, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server() as server, server.client() as client:
        assert start(certs, server.url).store_failures == 0
        name = client.keys("*:snapshot")[0]
        client.delete(name)
        client.rpush(name, "a list")
        assert start(certs, server.url).store_failures == 1
        assert "a name of the store holds another type of value" in caplog.text
        assert start(certs, server.url).snapshots_loaded == 1, "a save replaces whatever the name holds"


# Eight worker processes


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")


@needs_redis
@needs_fork
def test_eight_processes_that_start_together_against_a_cold_endpoint_make_one_fetch(
    certs: CertsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", certs.origin)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", certs.team.audience)
    monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
    certs.slow(0.5)
    with redis_server() as server:
        command = [sys.executable, "-m", "support.fleet_workers", server.url, SECRET, str(WORKERS)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    healths = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [health["state"] for health in healths] == ["ok"] * WORKERS
    assert certs.fetches == 1
    assert sorted(health["fetches"] for health in healths) == [0] * (WORKERS - 1) + [1]
    assert sum(health["snapshots_loaded"] for health in healths) == WORKERS - 1
    assert sum(health["store_failures"] for health in healths) == 0


class Load:
    """Clients that send valid and forged tokens without a pause, and count the answers."""

    def __init__(self, port: int, certs: CertsServer) -> None:
        self.port, self.certs = port, certs
        self.evil = FakeTeam("evil", clock=SystemClock())
        for _ in range(5):  # fake teams have the same keys in the same order
            self.evil.rotate()
        self.evil.withdraw()
        self.evil.issuer, self.evil.audiences = certs.team.issuer, certs.team.audiences
        self.seen: dict[str, set[int]] = defaultdict(set)

    def run(self, seconds: float) -> None:
        """Send tokens for so long, also of a key that no worker knows yet."""
        previous = self.certs.team.user_token("eve@example.com")
        self.certs.team.rotate()
        good = [previous, self.certs.team.user_token("ada@example.com"), self.certs.team.service_token("bot")]
        forged = self.evil.user_token("ada@example.com")
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(4) as clients:
            for sent in [clients.submit(self._send, good, forged, end) for _ in range(4)]:
                sent.result()

    def _send(self, good: list[str], forged: str, end: float) -> None:
        while time.monotonic() < end:
            token = random.choice([*good, *good, forged])
            self.seen["forged" if token == forged else "valid"].add(get(self.port, "/", token)[0])


def healths(port: int) -> list[dict[str, Any]]:
    """The health of each worker."""
    found: dict[int, dict[str, Any]] = {}
    deadline = time.monotonic() + 10
    while len(found) < WORKERS and time.monotonic() < deadline:
        health = json.loads(get(port, "/health")[1])
        found[health["pid"]] = health
    return [*found.values()]


def snapshot_key(server: RedisServer) -> bytes:
    with server.client() as client:
        return client.keys("*:snapshot")[0]  # type: ignore[no-any-return]


def plant(server: RedisServer, value: bytes) -> None:
    with server.client() as client:
        client.set(snapshot_key(server), value)


def signed(certs: CertsServer, document: bytes, *, secret: str = SECRET, issuer: str | None = None) -> bytes:
    form = SnapshotFormat(Signer(secret, purpose="snapshot"), issuer or certs.team.issuer)
    return form.sign(SharedSnapshot(time.time(), document))


@pytest.mark.conformance(90)
@needs_redis
@needs_fork
def test_eight_workers_refuse_no_valid_token_and_accept_no_forged_key_whatever_happens_to_redis(
    certs: CertsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gunicorn")
    pytest.importorskip("uvicorn_worker")
    port = free_port()
    arguments = [f"--workers={WORKERS}", "--preload", "--worker-class=uvicorn_worker.UvicornWorker"]
    arguments += [f"--bind=127.0.0.1:{port}", "--log-level=warning", "support.key_app:app"]
    settings = {"team_domain": certs.origin, "audience": certs.team.audience}
    settings |= {"unknown_kid_burst": "10", "unknown_kid_interval": "1", "key_wait_timeout": "10"}
    with redis_server() as server:
        monkeypatch.setenv("TEST_STORE_URL", server.url)
        monkeypatch.setenv("TEST_STORE_SECRET", SECRET)
        with serving("gunicorn", *arguments, port=port, **settings):
            assert len(healths(port)) == WORKERS
            load = Load(port, certs)
            load.run(1.5)
            good = signed(certs, certs.team.certs_body())
            evil = load.evil.certs_body()
            with server.client() as client:
                stored = client.get(snapshot_key(server))
            for lie in (
                b"garbage",
                HTML,
                stored[:-100],
                b"x" * 5_000_000,
                signed(certs, evil, secret="another secret, of an attacker 12345"),
                signed(certs, evil, issuer="https://evil.cloudflareaccess.com"),
                good,
            ):
                plant(server, lie)
                load.run(0.3)
            with server.client() as client:
                client.flushall()
            load.run(0.5)
            server.pause()
            load.run(1.5)
            server.resume()
            server.kill()
            load.run(0.5)
            server.start()
            load.run(0.5)
            found = healths(port)
    assert load.seen == {"valid": {200}, "forged": {401}}
    assert sum(health["snapshots_rejected"] for health in found) > 0
    assert all(health["state"] == "ok" for health in found)


def test_the_simulation_of_a_fleet_holds_its_bounds() -> None:
    command = [sys.executable, str(TESTS.parent / "benchmarks/simulate_fleet.py"), "--workers=40"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert finished.returncode == 0, finished.stdout + finished.stderr
