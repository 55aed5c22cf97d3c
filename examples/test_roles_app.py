"""What the app with roles promises."""

import sys
from collections.abc import Iterator
from importlib import import_module

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access import ConfigurationError
from fastapi_cloudflare_access.testing import FakeTeam

ROLES = """
accountant = "Group('finance')"
boss = "Email('root@acme.example') & ~Group('contractors')"
"""


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> FakeTeam:
    team = FakeTeam()
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.setenv("APP_ROLES", ROLES)
    monkeypatch.delitem(sys.modules, "roles_app", raising=False)
    return team


@pytest.fixture
def client(team: FakeTeam) -> Iterator[TestClient]:
    roles = import_module("roles_app")
    with team.patch(roles.access), TestClient(roles.app) as client:
        yield client


def test_roles_come_from_the_token_or_else_from_the_identity(team: FakeTeam, client: TestClient) -> None:
    ada = team.headers(team.user("ada@acme.example", groups=["finance"]))
    assert client.get("/menu", headers=ada).json() == {"user": "ada@acme.example", "roles": ["accountant"]}
    assert client.get("/salaries", headers=ada).json() == "salaries"
    team.set_identity("root@acme.example", groups=[{"id": "1", "name": "finance"}])
    root = team.headers(team.user("root@acme.example"))
    assert client.get("/menu", headers=root).json()["roles"] == ["accountant", "boss"]
    eve = team.headers(team.user("eve@acme.example"))
    assert client.get("/salaries", headers=eve).status_code == 403


def test_a_profile_shows_what_get_identity_has(team: FakeTeam, client: TestClient) -> None:
    team.set_identity("ada@acme.example", groups=["finance"], name="Ada", idp={"type": "okta"})
    answer = client.get("/profile", headers=team.headers(team.user("ada@acme.example")))
    assert answer.json() == {"name": "Ada", "provider": "okta", "groups": ["finance"]}


def test_a_logout_ends_the_access_within_a_minute(team: FakeTeam, client: TestClient) -> None:
    ada = team.headers(team.user("ada@acme.example"))
    assert client.get("/menu", headers=ada).status_code == 200
    team.end_sessions("ada@acme.example")
    team.clock.advance(61)
    assert client.get("/menu", headers=ada).status_code == 401


@pytest.mark.usefixtures("team")
def test_a_wrong_role_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ROLES", 'accountant = "Group(finance)"')
    with pytest.raises(ConfigurationError, match="APP_ROLES, role 'accountant': finance is not a value"):
        import_module("roles_app")
