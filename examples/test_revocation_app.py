"""What the app with revocations promises."""

import sys
from collections.abc import Iterator
from importlib import import_module

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.errors import RevocationsUnavailable
from fastapi_cloudflare_access.revocations import Revocations
from fastapi_cloudflare_access.testing import FakeTeam, assert_protected


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def client(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.setenv("STORE_URL", "redis://127.0.0.1:1/0")  # no server: the kit replaces the store
    monkeypatch.setenv("STORE_SECRET", "a secret of the tests of this app")
    monkeypatch.delitem(sys.modules, "revocation_app", raising=False)
    app = import_module("revocation_app")
    assert_protected(app.app, app.access, open={"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})
    with team.patch(app.access), TestClient(app.app) as client:
        yield client


def headers(team: FakeTeam, email: str, *groups: str) -> dict[str, str]:
    return team.headers(team.user(email, groups=[*groups]))


def test_a_user_who_logs_out_everywhere_needs_a_new_token(team: FakeTeam, client: TestClient) -> None:
    ada, bob = headers(team, "ada@example.com"), headers(team, "bob@example.com")
    assert client.post("/log-out-everywhere", headers=ada).json().endswith("/cdn-cgi/access/logout")
    assert [client.get("/me", headers=each).status_code for each in (ada, bob)] == [401, 200]
    team.clock.advance(1)
    assert client.get("/me", headers=headers(team, "ada@example.com")).status_code == 200


def test_an_admin_blocks_a_user_for_some_hours(team: FakeTeam, client: TestClient) -> None:
    admin = headers(team, "root@example.com", "admins")
    block = {"email": "ADA@example.com", "hours": 2}
    assert client.post("/admin/revocations", headers=admin, json=block).json() == "blocked"
    assert client.get("/admin/revocations", headers=admin).json()[0]["by"] == "email"
    team.clock.advance(3600)
    assert client.get("/me", headers=headers(team, "ada@example.com")).status_code == 401
    team.clock.advance(3601)
    assert client.get("/me", headers=headers(team, "ada@example.com")).status_code == 200


def test_an_admin_logs_a_user_out(team: FakeTeam, client: TestClient) -> None:
    ada = headers(team, "ada@example.com")
    admin = headers(team, "root@example.com", "admins")
    caller = {"email": "ada@example.com"}
    assert client.post("/admin/revocations", headers=ada, json=caller).status_code == 403
    assert client.post("/admin/revocations", headers=admin, json={"email": "ada"}).status_code == 422
    assert client.post("/admin/revocations", headers=admin, json=caller).json() == "logged out"
    assert client.get("/me", headers=ada).status_code == 401


def test_an_admin_is_told_that_nothing_was_stored(
    team: FakeTeam, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RevocationsUnavailable("nothing was stored: no response in time")

    monkeypatch.setattr(Revocations, "log_out", fail)
    admin = headers(team, "root@example.com", "admins")
    answer = client.post("/admin/revocations", headers=admin, json={"email": "ada@example.com"})
    assert (answer.status_code, answer.json()["detail"]) == (503, "nothing was stored: no response in time")
