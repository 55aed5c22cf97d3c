"""What the app with shared keys promises."""

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest
from fastapi.testclient import TestClient

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


def test_a_worker_without_a_store_starts_alone(certs: CertsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_URL", "redis://127.0.0.1:1/0")
    with TestClient(new_worker(monkeypatch).app) as client:
        bot = {"Cf-Access-Jwt-Assertion": certs.team.service_token("bot")}
        ada = {"Cf-Access-Jwt-Assertion": certs.team.user_token("ada@example.com")}
        assert client.get("/ready").status_code == 200
        assert client.get("/me", headers=ada).json() == "ada@example.com"
        assert client.get("/keys", headers=ada).status_code == 403
        shown = client.get("/keys", headers=bot).json()
        assert shown["from_the_fleet"] == 0
        assert shown["store"], "why it failed"


@pytest.mark.usefixtures("certs")
def test_a_short_secret_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("STORE_SECRET", f"{SECRET},short")
    with pytest.raises(ConfigurationError, match="secret must have at least 32 bytes, not 5"):
        new_worker(monkeypatch)
