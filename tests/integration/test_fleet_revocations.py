"""Revocations over a real Redis and Valkey that work, fail, lie, lose and lag, and eight worker processes."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.fleet_rig import SECRET, TEAM
from support.key_servers import free_port, get, serving
from support.redis_server import ENGINES, RedisServer, needs_redis, redis_server, responding
from support.revocation_rig import record

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._keys.shared_snapshot import team_name
from fastapi_cloudflare_access._revocations.log import RecordFormat
from fastapi_cloudflare_access._revocations.record import Completion
from fastapi_cloudflare_access.errors import AccessError, RevocationsUnavailable
from fastapi_cloudflare_access.protocols import LogPage
from fastapi_cloudflare_access.stores._problem import StoreProblem
from fastapi_cloudflare_access.stores._redis.revocations import PAGE, _epoch
from fastapi_cloudflare_access.stores._signing import Signer
from fastapi_cloudflare_access.stores.redis import RedisStore
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, MemoryFetch, SystemClock
from fastapi_cloudflare_access.testing._issuer import Issuer

WORKERS = 8
PATIENCE = 20.0
STREAM = f"cf-access:{{{TEAM}}}:revocations"
STREAM_OF_ACME = "cf-access:{acme}:revocations"
HTML = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>400</html>"

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")


@pytest.fixture
def team() -> Issuer:
    return FakeTeam("acme", clock=SystemClock())


def worker(team: Issuer, url: str, *, unavailable: Any = "closed") -> CloudflareAccess[Any]:
    return CloudflareAccess(
        team_domain="acme",
        audience=team.audience,
        fetch=MemoryFetch(team),
        revocation_store=RedisStore(url, secret=SECRET),
        revocations_unavailable=unavailable,
    )


async def outcome(access: CloudflareAccess[Any], token: str) -> str:
    try:
        await access.verify(token)
    except AccessError as error:
        return error.reason
    return "ok"


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < deadline:  # noqa: ASYNC110 - of something that has no event
        await asyncio.sleep(0.02)
    assert true()


def in_force(access: CloudflareAccess[Any]) -> set[str]:
    return {each.key for each in access.revocations.in_force()}


def mark_complete(server: RedisServer, issuer: str = f"https://{TEAM}") -> None:
    """Write that the log is complete, so that the first worker need not wait."""
    with server.client() as client:
        epoch = _epoch(client.info("server"), client.info("replication"))
        statement = signed(Completion(epoch, int(time.time() * 1_000_000)), issuer=issuer)
        client.xadd(f"cf-access:{{{team_name(issuer)}}}:revocations", {"r": statement})


def signed(each: Any, *, secret: str = SECRET, issuer: str = f"https://{TEAM}") -> bytes:
    return RecordFormat(Signer(secret, purpose="revocation"), issuer, ()).sign(each)


# The log


@pytest.mark.parametrize("engine", ENGINES)
def test_a_log_is_read_in_pages_followed_and_trimmed(engine: str) -> None:
    async def use(store: RedisStore, server: RedisServer) -> None:
        assert abs(await store.time() - time.time()) < 60
        assert [page.records for page in await pages(store, None, 1)] == [[]]
        await store.append("acme", [b"%d" % number for number in range(2 * PAGE + 9)], keep=60)
        found = await pages(store, None, 3)
        assert [(len(page.records), page.is_end) for page in found] == [(PAGE, False), (PAGE, False), (9, True)]
        assert b"".join(found[2].records[-2:]) == b"407408"
        later = asyncio.create_task(pages(store, found[-1].position, 3))
        await asyncio.sleep(0.1)
        await store.append("acme", [b"new"], keep=60)
        seen = await later
        assert [each for page in seen for each in page.records] == [b"new"]
        assert not any(page.has_gap for page in seen)
        assert len({page.epoch for page in found + seen}) == 1
        with server.client() as client:
            client.xadd("cf-access:{old}:revocations", {"r": "old"}, id="1-1")
            client.xadd("cf-access:{old}:revocations", {"other": "field"}, id="1-2")
            assert [page.records for page in await pages(store, None, 1, team="old")] == [[b"old", b""]]
            for _ in range(3):  # the server trims whole nodes of 100 entries
                await store.append("old", [b"x"] * 100, keep=0.001)
                await asyncio.sleep(0.01)
            assert client.xlen("cf-access:{old}:revocations") < 302
            client.delete("cf-access:{acme}:revocations")
        (gap,) = await pages(store, found[-1].position, 1)
        assert gap.has_gap

    with redis_server(executable=engine) as server:
        asyncio.run(use(RedisStore(server.url, secret=SECRET), server))


async def pages(store: RedisStore, after: str | None, number: int, *, team: str = "acme") -> list[LogPage]:
    reading = store.read(team, after=after)
    try:
        return [await anext(reading) for _ in range(number)]
    finally:
        await reading.aclose()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_server_gets_these_commands(engine: str) -> None:
    async def use(store: RedisStore) -> None:
        await store.append("acme", [b"one"], keep=60)
        reading = store.read("acme", after=None)
        assert [(await anext(reading)).records for _ in range(2)] == [[b"one"], []]
        await reading.aclose()

    with redis_server(executable=engine) as server, server.client() as client, client.monitor() as monitor:
        asyncio.run(use(RedisStore(server.url, secret=SECRET)))
        server.ask(b"ECHO end\r\n")
        commands = [*iter(lambda: monitor.next_command()["command"], "ECHO end")]
    time_, xadd, *read = [one for one in commands if not one.startswith("CLIENT SETINFO ")]  # not before Redis 7.2
    entry = read[-1].split(" ")[2]
    oldest = int(xadd.split(" ")[4].removesuffix("-0"))
    assert (time_, xadd) == ("TIME", f"XADD {STREAM_OF_ACME} MINID ~ {oldest}-0 * r one")
    assert 59_000 < int(entry.partition("-")[0]) - oldest <= 60_000 + 5_000
    assert read == [
        "INFO server",
        "INFO replication",
        f"XREAD COUNT 200 STREAMS {STREAM_OF_ACME} 0-0",
        f"XREAD BLOCK 500 COUNT 200 STREAMS {STREAM_OF_ACME} {entry}",
        f"XRANGE {STREAM_OF_ACME} {entry} {entry} COUNT 1",
    ]


@needs_redis
def test_a_log_of_another_type_of_value_is_an_error() -> None:
    async def use(store: RedisStore, client: Any) -> None:
        reading = store.read("acme", after=None)
        await anext(reading)
        client.set(STREAM_OF_ACME, "text")
        for page in (reading, store.read("acme", after=None)):
            with pytest.raises(StoreProblem, match="a name of the store holds another type of value"):
                await anext(page)
        with pytest.raises(StoreProblem, match="a name of the store holds another type of value"):
            await store.append("acme", [b"one"], keep=60)

    with redis_server() as server, server.client() as client:
        asyncio.run(use(RedisStore(server.url, secret=SECRET), client))


@needs_redis
def test_workers_share_revocations_over_tls(team: Issuer, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pem, port = str(tmp_path / "server.pem"), free_port()
    options = {"tls_port": str(port), "tls_cert_file": pem, "tls_key_file": pem, "tls_auth_clients": "no"}

    async def use() -> None:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path}/ca.pem"
        async with worker(team, url) as first, worker(team, url) as second:
            await first.revocations.log_out(sub="ada")
            await until(lambda: in_force(second) == {"ada"})

    with redis_server(tls_ca_cert_file=str(tmp_path / "ca.pem"), **options) as server:
        mark_complete(server)
        asyncio.run(use())


@needs_redis
def test_a_user_of_the_server_with_few_rights_suffices(team: Issuer) -> None:
    async def use(url: str) -> None:
        async with worker(team, url, unavailable="open") as first, worker(team, url, unavailable="open") as second:
            await first.revocations.block(sub="ada", for_=timedelta(hours=1))
            await until(lambda: in_force(second) == {"ada"})
            assert first.revocations.health().last_error is None

    with redis_server() as server, server.client() as client:
        rights = f"~{STREAM} +xadd +xread +xrange +time".split(" ")
        client.execute_command("ACL", "SETUSER", "worker", "on", ">password", *rights)
        asyncio.run(use(server.url.replace("redis://", "redis://worker:password@")))


# What the store loses


async def lose_and_check(team: Issuer, server: RedisServer, lose: Callable[[], None]) -> None:
    """Revoke, lose, and check that live workers remember, that they write back, and that a new one knows."""
    async with AsyncExitStack() as stack:
        live = [await stack.enter_async_context(worker(team, server.url)) for _ in range(3)]
        token = team.user_token("ada@example.com")
        await live[0].revocations.log_out(email="ada@example.com")
        await live[1].revocations.block(client_id="0123.access", for_=timedelta(hours=1))
        await until(lambda: all(len(in_force(each)) == 2 for each in live))
        known = in_force(live[0])
        await asyncio.to_thread(lose)
        assert [await outcome(each, token) for each in live] == ["token_revoked"] * 3
        new = await stack.enter_async_context(worker(team, server.url))
        await until(lambda: in_force(new) == known)
        assert [await outcome(each, token) for each in (*live, new)] == ["token_revoked"] * 4
        assert await outcome(new, team.user_token("bob@example.com")) == "ok"


@needs_redis
@pytest.mark.parametrize("how", ["flush", "kill", "lag"])
def test_no_live_worker_forgets_and_each_writes_back_what_was_lost(team: Issuer, how: str) -> None:
    def flush() -> None:
        with first.client() as client:
            client.flushall()

    def kill() -> None:
        first.kill()
        time.sleep(0.5)
        first.start()

    def lag() -> None:
        """Fail over to a replica that has not seen the revocations, at the same address."""
        first.kill()
        replica.resume()
        with replica.client() as client:
            client.replicaof("no", "one")
            client.config_set("port", first.port)

    with redis_server() as first, redis_server(replicaof=f"127.0.0.1 {first.port}") as replica:
        deadline = time.monotonic() + PATIENCE
        with replica.client() as client:
            while client.info("replication")["master_link_status"] != "up" and time.monotonic() < deadline:
                time.sleep(0.05)
        mark_complete(first)  # the first replica begins a new epoch
        while replica.ask(b"EXISTS %b\r\n" % STREAM.encode()) != b":1\r\n":
            time.sleep(0.05)
        replica.pause()
        try:
            asyncio.run(lose_and_check(team, first, {"flush": flush, "kill": kill, "lag": lag}[how]))
        finally:
            replica.resume()


# What is wrong with the store


def _acl(server: RedisServer, rights: str) -> str:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "worker", "on", ">password", *rights.split(" "))
    return server.url.replace("redis://", "redis://worker:password@")


TROUBLES: dict[str, tuple[Callable[[ExitStack], str], str]] = {
    "down": (lambda _: f"redis://127.0.0.1:{free_port()}/0", "Connection refused"),
    "answers HTML": (
        lambda stack: f"redis://127.0.0.1:{stack.enter_context(responding(HTML))}/0",
        "the response is not one of Redis or Valkey; is the port right?",
    ),
    "wrong password": (
        lambda stack: stack.enter_context(redis_server(requirepass="right")).url.replace("//", "//:wrong@"),
        "the server refuses the user or the password of the URL, or asks for one",
    ),
    "no rights": (
        lambda stack: _acl(stack.enter_context(redis_server()), "~* -@all"),
        "the server does not permit a command to the user of the URL",
    ),
}


@needs_redis
def test_a_store_that_cannot_be_read_is_as_the_setting_says(team: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    async def use(url: str, cause: str) -> None:
        token = team.user_token("ada@example.com")
        async with (
            worker(team, url, unavailable="open") as is_open,
            worker(team, url, unavailable="closed") as is_closed,
        ):
            assert [await outcome(each, token) for each in (is_open, is_closed)] == ["ok", "revocations_unavailable"]
            for each in (is_open, is_closed):
                health = each.revocations.health()
                assert (health.state, health.last_error) == ("cold", cause)
            with pytest.raises(RevocationsUnavailable, match="nothing was stored: "):
                await is_open.revocations.log_out(sub="ada")

    async def use_all(urls: list[tuple[str, str]]) -> None:
        await asyncio.gather(*(use(*each) for each in urls))

    with ExitStack() as stack:
        asyncio.run(use_all([(make(stack), cause) for make, cause in TROUBLES.values()]))
    assert "wrong@" not in caplog.text
    assert ":password" not in caplog.text


@needs_redis
def test_a_store_that_can_only_be_read_says_that_nothing_was_stored(team: Issuer) -> None:
    async def use(url: str, cause: str) -> None:
        async with worker(team, url) as access:
            with pytest.raises(RevocationsUnavailable, match=cause):
                await access.revocations.log_out(sub="ada")
            assert await outcome(access, team.user_token("ada@example.com")) == "ok"
            assert in_force(access) == set()

    with ExitStack() as stack:
        full, replicated = stack.enter_context(redis_server()), stack.enter_context(redis_server())
        mark_complete(full)
        mark_complete(replicated)
        with full.client() as client:
            client.config_set("maxmemory", "1kb")
        with replicated.client() as client:
            client.replicaof("127.0.0.1", free_port())
            client.config_set("replica-serve-stale-data", "yes")
        asyncio.run(use(full.url, "out of memory"))
        asyncio.run(use(replicated.url, "is a replica"))


@needs_redis
def test_a_store_that_is_slow_by_two_seconds_is_no_outage(team: Issuer) -> None:
    async def use(url: str, fast: str) -> None:
        async with worker(team, fast) as quick, worker(team, url, unavailable="open") as slow:
            await asyncio.gather(slow.revocations.log_out(sub="ada"), quick.revocations.log_out(sub="bob"))
            await until(lambda: in_force(quick) == in_force(slow) == {"ada", "bob"})

    with redis_server() as server, responding(to_port=server.port, delay=2.0) as port:
        mark_complete(server)
        asyncio.run(use(f"redis://127.0.0.1:{port}/0", server.url))


# Eight worker processes


def ask_all(port: int, path: str, key: str) -> list[Any]:
    """Ask until each worker has answered."""
    found: dict[int, Any] = {}
    deadline = time.monotonic() + PATIENCE
    while len(found) < WORKERS and time.monotonic() < deadline:
        answer = json.loads(get(port, path)[1])
        found[answer["pid"]] = answer[key]
    assert len(found) == WORKERS
    return [*found.values()]


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RedisServer, int, Issuer]]:
    pytest.importorskip("gunicorn")
    pytest.importorskip("uvicorn_worker")
    port = free_port()
    arguments = [f"--workers={WORKERS}", "--preload", "--worker-class=uvicorn_worker.UvicornWorker"]
    arguments += [f"--bind=127.0.0.1:{port}", "--log-level=warning", "support.revocation_app:app"]
    with CertsServer(FakeTeam("acme", clock=SystemClock())) as certs, redis_server() as server:
        monkeypatch.setenv("STORE_URL", server.url)
        monkeypatch.setenv("STORE_SECRET", SECRET)
        settings = {"team_domain": certs.origin, "audience": certs.team.audience}
        mark_complete(server, certs.origin)
        with serving("gunicorn", *arguments, port=port, revocations_unavailable="closed", **settings):
            yield server, port, certs.team


class Fleet:
    """Eight processes, and what was revoked so far."""

    def __init__(self, port: int, team: Issuer) -> None:
        self.port, self.team = port, team
        self.tokens: list[str] = []
        self.valid = team.user_token("eve@example.com")

    def log_out(self, *, may_fail: bool = False) -> None:
        email = f"user{len(self.tokens)}@example.com"
        token = self.team.user_token(email)
        answer = json.loads(get(self.port, f"/log-out?email={quote(email)}")[1])
        if answer == "ok":
            self.tokens.append(token)
        assert may_fail or answer == "ok"

    def check(self) -> None:
        """Wait until every process refuses what was revoked; none refuses a valid token."""
        for token in self.tokens[-1:] + self.tokens[:1]:
            deadline = time.monotonic() + PATIENCE
            while (seen := set(ask_all(self.port, f"/outcome?token={token}", "outcome"))) != {"token_revoked"}:
                assert time.monotonic() < deadline, seen
        assert set(ask_all(self.port, f"/outcome?token={self.valid}", "outcome")) == {"ok"}


@needs_redis
@needs_fork
def test_eight_workers_forget_no_revocation_whatever_happens_to_redis(
    fleet: tuple[RedisServer, int, Issuer],
) -> None:
    server, port, team = fleet
    processes = Fleet(port, team)
    processes.log_out()
    processes.check()
    with server.client() as client:
        (stream,) = [name.decode() for name in client.keys("*:revocations")]
        known = [fields[b"r"] for _, fields in client.xrange(stream)]
        evil = signed(record("block", "email", "0" * 64, until=60), secret="another secret, of an attacker 12345")
        foreign = signed(record(), issuer="https://evil.cloudflareaccess.com")
        for lie in (b"garbage", HTML, known[0][:-9], b"x" * 100_000, evil, foreign, *known):
            client.xadd(stream, {"r": lie})
        client.xadd(stream, {"other": "field"})
        processes.check()
        assert min(ask_all(port, "/health", "ignored")) >= 6
        client.flushall()
    processes.check()
    server.pause()
    time.sleep(1)
    server.resume()
    processes.log_out()
    processes.check()
    server.kill()
    processes.log_out(may_fail=True)
    processes.check()
    server.start()
    deadline = time.monotonic() + PATIENCE
    while min(ask_all(port, "/health", "records")) < 2 and time.monotonic() < deadline:
        pass
    processes.log_out()
    processes.check()
    assert set(ask_all(port, "/health", "state")) == {"ok"}
    assert min(ask_all(port, "/health", "records")) == len(processes.tokens)
