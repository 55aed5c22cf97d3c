"""What the app with shared keys promises."""

import sys
import time
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest
from fastapi.testclient import TestClient
from support.redis_server import needs_redis, redis_server

from fastapi_cloudflare_access import ConfigurationError
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

SECRET = "a secret of the tests of this app"  # noqa: S105 - of a test


@pytest.fixture
def certs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CertsServer]:
    with CertsServer(FakeTeam("acme", clock=SystemClock())) as server:
        monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", server.origin)
        monkeypatch.setenv("CF_ACCESS_AUDIENCE", server.team.audience)
        monkeypatch.setenv("STORE_SECRET", SECRET)
        yield server


def new_worker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.delitem(sys.modules, "shared_keys_app", raising=False)
    return import_module("shared_keys_app")


@needs_redis
def test_a_worker_starts_with_the_keys_of_another_one(certs: CertsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_server() as server:
        monkeypatch.setenv("STORE_URL", server.url)
        with TestClient(new_worker(monkeypatch).app) as client:
            assert client.get("/ready").status_code == 200
            saved = time.monotonic() + 10
            while not server.ask(b"EXISTS {}\r\n".replace(b"{}", name(certs))).startswith(b":1"):
                assert time.monotonic() < saved
        certs.hang()
        with TestClient(new_worker(monkeypatch).app) as client:
            ada = {"Cf-Access-Jwt-Assertion": certs.team.user_token("ada@example.com")}
            bot = {"Cf-Access-Jwt-Assertion": certs.team.service_token("bot")}
            assert client.get("/me", headers=ada).json() == "ada@example.com"
            assert client.get("/keys", headers=ada).status_code == 403
            shown = client.get("/keys", headers=bot).json()
            assert (shown["from_the_fleet"], shown["store"]) == (1, None)
    assert certs.fetches == 1


def name(certs: CertsServer) -> bytes:
    return f"cf-access:{{{certs.origin.removeprefix('http://').replace(':', '-')}}}:snapshot".encode()


def test_a_worker_without_a_store_starts_alone(certs: CertsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_URL", "redis://127.0.0.1:1/0")
    with TestClient(new_worker(monkeypatch).app) as client:
        bot = {"Cf-Access-Jwt-Assertion": certs.team.service_token("bot")}
        assert client.get("/keys", headers=bot).json()["store"] == "Connection refused"


@pytest.mark.usefixtures("certs")
def test_a_short_secret_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("STORE_SECRET", f"{SECRET},short")
    with pytest.raises(ConfigurationError, match="secret must have at least 32 bytes, not 5"):
        new_worker(monkeypatch)
