"""The store in Redis: what is known at construction, and the words for what the server answers."""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import exceptions

from fastapi_cloudflare_access._keys.document import describe_store
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.stores._problem import StoreProblem
from fastapi_cloudflare_access.stores._redis.connection import RedisConnection, translated
from fastapi_cloudflare_access.stores._redis.revocations import _epoch
from fastapi_cloudflare_access.stores.redis import RedisStore

SECRET = "a secret of the tests, long enough"
WRITE = "write redis://HOST:PORT/0, rediss://HOST:PORT/0 for TLS, or unix:///PATH"
NO_URL = f"url is not a URL of Redis or Valkey: {WRITE}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://user:password@cache.internal:6380/3?socket_timeout=2", "redis://cache.internal:6380/3"),
        ("rediss://:password@cache.internal:6380/0", "rediss://cache.internal:6380/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://localhost:1", "redis://localhost:1"),
        ("unix://:password@/run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_its_representation_has_no_user_password_or_option(url: str, shown: str) -> None:
    assert repr(RedisStore(url, secret=SECRET)) == f"<RedisStore {shown}>"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (None, f"url must be text: {WRITE}"),
        (b"redis://localhost", f"url must be text: {WRITE}"),
        ("", NO_URL),
        ("localhost:6379", NO_URL),
        ("http://user:password@localhost:6379", NO_URL),
        ("valkey://localhost", NO_URL),
        ("valkey://localhost/0", NO_URL),
        ("valkey:///run/valkey.sock", NO_URL),
        ("redis://", NO_URL),
        ("redis://localhost:0", NO_URL),
        ("redis:///0", NO_URL),
        ("unix://", NO_URL),
        ("redis://localhost:port", NO_URL),
        ("redis://localhost:70000", NO_URL),
        ("redis://[::1", NO_URL),
        ("redis://:pass/word@localhost", NO_URL),
        ("redis://user:12/word@localhost", NO_URL),
        ("redis://user:12#word@localhost", NO_URL),
        ("redis://user:12?word@localhost", NO_URL),
        ("redis://localhost?socket_timeout=soon", f"url has an option that the package redis refuses: {WRITE}"),
        ("redis://localhost?password_of=me", f"url has an option that the package redis refuses: {WRITE}"),
    ],
)
def test_a_wrong_url_is_an_error_at_construction_that_does_not_quote_it(url: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        RedisStore(url, secret=SECRET)
    assert str(wrong.value) == sentence


@pytest.mark.parametrize(
    "option",
    ["protocol=3", "%70rotocol=3", "decode_responses=true", "encoding=utf-16", "socket_keepalive=true&protocol=3&db=1"],
    ids=range(5),
)
def test_the_url_does_not_choose_what_the_responses_look_like(option: str) -> None:
    client = RedisConnection(f"redis://localhost/0?{option}", prefix="")._client()
    given = client.connection_pool.connection_kwargs
    assert given["protocol"] == 2
    assert given.get("decode_responses") in (None, False)
    assert given.get("encoding") in (None, "utf-8")
    assert ("socket_keepalive" in given, given["db"]) == ((True, 1) if "db=1" in option else (False, 0))


def test_a_connection_and_a_command_may_take_one_second() -> None:
    given = RedisConnection("redis://localhost/0", prefix="")._client().connection_pool.connection_kwargs
    assert (given["socket_connect_timeout"], given["socket_timeout"]) == (1, 1)


@pytest.mark.parametrize("prefix", [None, 7, "a b", "{acme}", "x" * 65, "ü"])
def test_a_wrong_prefix_is_an_error_at_construction(prefix: Any) -> None:
    with pytest.raises(ConfigurationError, match="prefix must be at most 64 printable ASCII characters"):
        RedisStore("redis://localhost", secret=SECRET, prefix=prefix)


@pytest.mark.anyio
async def test_a_revocation_waits_longer_for_the_server_than_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float] = []

    @asynccontextmanager
    async def connect(_: object, *, command_timeout: float = 1) -> AsyncGenerator[Any]:
        timeouts.append(command_timeout)
        raise ConnectionError
        yield

    monkeypatch.setattr(RedisConnection, "connect", connect)
    store = RedisStore("redis://localhost", secret=SECRET)
    for use in (
        lambda: store.load("acme"),
        store.time,
        lambda: store.append("acme", [b"record"], keep=60),
        lambda: anext(store.read("acme", after=None)),
    ):
        with pytest.raises(ConnectionError):
            await use()
    assert timeouts == [1, 5, 5, 5.5]


def test_the_epoch_differs_after_a_restart_and_after_a_fail_over() -> None:
    known = [_epoch({"run_id": run}, {"master_replid": replid}) for run in ("a", "b") for replid in ("c", "d")]
    assert len({*known, "unknown"}) == 5
    assert [_epoch({"run_id": "a"}, {"master_replid": "c"})] == known[:1]
    refused = exceptions.NoPermissionError()
    for server, replication in ((refused, refused), (refused, {}), ({}, refused)):
        assert _epoch(server, replication) == "unknown"


def test_a_short_secret_is_an_error_at_construction() -> None:
    with pytest.raises(ConfigurationError, match="secret must have at least 32 bytes, not 5; make one with: python -c"):
        RedisStore("redis://localhost", secret="short")


def test_a_missing_package_is_an_error_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError) as wrong:
        RedisStore("redis://localhost", secret=SECRET)
    assert str(wrong.value) == "RedisStore needs the package redis: pip install 'fastapi-cloudflare-access[redis]'"


PERMISSION = "the server does not permit a command to the user of the URL"
PASSWORD = "the server refuses the user or the password of the URL, or asks for one"
REFUSALS = [
    (exceptions.AuthenticationError("invalid username-password pair"), PASSWORD),
    (exceptions.ResponseError("WRONGPASS invalid username-password pair"), PASSWORD),
    (
        exceptions.ResponseError("NOAUTH Authentication required."),
        "the server asks for a password, and the URL has none",
    ),
    (exceptions.NoPermissionError("this user has no permissions"), PERMISSION),
    (exceptions.ResponseError("NOPERM this user has no permissions"), PERMISSION),
    (exceptions.ResponseError("OOM command not allowed"), "the server is out of memory (maxmemory)"),
    (exceptions.ReadOnlyError("You can't write"), "the server is a replica, which is read-only"),
    (exceptions.BusyLoadingError("Redis is loading"), "the server is still loading its data"),
    (exceptions.InvalidResponse("HTTP/1.1"), "the response is not one of Redis or Valkey; is the port right?"),
    (exceptions.ResponseError("WRONGTYPE Operation"), "a name of the store holds another type of value"),
    (exceptions.ResponseError("ERR of a server, password"), "the command failed with ResponseError"),
]


@pytest.mark.parametrize(("problem", "sentence"), REFUSALS, ids=[str(problem) for problem, _ in REFUSALS])
def test_a_refusal_of_the_server_becomes_a_sentence_without_its_words(problem: Exception, sentence: str) -> None:
    with pytest.raises(StoreProblem) as failed, translated():
        raise problem
    assert str(failed.value) == sentence
    assert describe_store(failed.value) == sentence


NETWORK = [
    (exceptions.TimeoutError("Timeout reading from host:6379"), TimeoutError, "no response in time"),
    (exceptions.ConnectionError("Connection to host:6379 lost"), ConnectionError, "the connection failed or was lost"),
]


@pytest.mark.parametrize(("problem", "kind", "sentence"), NETWORK, ids=["timeout", "connection"])
def test_a_failure_of_the_network_is_one_of_python(problem: Exception, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind) as failed, translated():
        raise problem
    assert str(failed.value) == ""
    assert describe_store(failed.value) == sentence


def test_other_exceptions_stay() -> None:
    with pytest.raises(ZeroDivisionError), translated():
        raise ZeroDivisionError
