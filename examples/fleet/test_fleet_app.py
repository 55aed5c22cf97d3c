"""What the app of the fleet promises."""

import asyncio
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any
from urllib.request import urlopen

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.testing import FakeTeam, assert_protected


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def fleet(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app as a server imports it: its settings are in the environment."""
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.setenv("STORE_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("STORE_SECRET", "a secret of the tests of this app,an older secret of the tests of this app")
    monkeypatch.setenv("METRICS_PORT", "0")
    monkeypatch.setenv("METRICS_HOST", "127.0.0.1")
    monkeypatch.delitem(sys.modules, "fleet.fleet_app", raising=False)
    return import_module("fleet.fleet_app")


@pytest.fixture
def client(team: FakeTeam, fleet: Any) -> Iterator[TestClient]:
    with team.patch(fleet.access), TestClient(fleet.app) as client:
        yield client


def scraped(fleet: Any) -> str:
    with urlopen(f"http://127.0.0.1:{fleet.app.state.metrics_port}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.usefixtures("fleet")
def test_without_a_secret_the_start_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORE_SECRET")
    monkeypatch.delitem(sys.modules, "fleet.fleet_app")
    with pytest.raises(SystemExit, match="STORE_SECRET is not set"):
        import_module("fleet.fleet_app")


def test_only_the_probes_are_open(fleet: Any) -> None:
    assert_protected(fleet.app, fleet.access, open={"/ready", "/alive"})


def test_users_and_services_see_who_they_are(team: FakeTeam, client: TestClient) -> None:
    for caller in (team.user("ada@example.com"), team.service("nightly backup")):
        answer = client.get("/me", headers=team.headers(caller))
        assert (answer.status_code, answer.json()["issuer"]) == (200, team.issuer)
        assert answer.json()["subject"] == caller.principal.subject
    assert client.get("/me").status_code == 401


def test_an_instance_is_ready_while_its_keys_are_usable_and_alive_without_them(team: FakeTeam, fleet: Any) -> None:
    with team.patch(fleet.access) as certs, TestClient(fleet.app) as client:
        assert (client.get("/ready").status_code, client.get("/alive").status_code) == (200, 204)
        certs.fail_with(500)
        team.clock.advance(25 * 3600)
        assert (client.get("/ready").status_code, client.get("/alive").status_code) == (503, 204)


def test_the_metrics_are_on_a_port_of_their_own(team: FakeTeam, fleet: Any, client: TestClient) -> None:
    client.get("/me", headers=team.headers(team.forge("expired")))
    refusal = 'cloudflare_access_refusals_total{cloudflare_access_outcome="rejected",error_type="token_expired"} 1.0'
    assert refusal in scraped(fleet)
    assert client.get("/metrics").status_code == 404


def test_a_log_out_refuses_older_tokens_of_a_user(team: FakeTeam, fleet: Any, client: TestClient) -> None:
    old = {"Cf-Access-Jwt-Assertion": team.user_token("ada@example.com")}
    assert client.get("/me", headers=old).status_code == 200
    asyncio.run(fleet.access.revocations.log_out(email="ada@example.com"))
    assert client.get("/me", headers=old).status_code == 401
    team.clock.advance(60)
    new = {"Cf-Access-Jwt-Assertion": team.user_token("ada@example.com")}
    assert client.get("/me", headers=new).status_code == 200
    assert 'cloudflare_access_revocations_in_force{cloudflare_access_team_domain="https://acme' in scraped(fleet)


def test_the_metrics_end_with_the_app(team: FakeTeam, fleet: Any) -> None:
    with team.patch(fleet.access), TestClient(fleet.app):
        assert "cloudflare_access_keys_ready" in scraped(fleet)
    with pytest.raises(OSError, match="refused"):
        scraped(fleet)
