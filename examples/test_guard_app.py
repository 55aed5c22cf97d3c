"""What the guarded app promises."""

import sys
from collections.abc import Iterator
from importlib import import_module

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.testing import FakeTeam

EVERYTHING = ["/me", "/admin/users", "/admin/docs", "/downloads/report.csv", "/docs", "/openapi.json", "/nothing"]


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def client(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.delitem(sys.modules, "guard_app", raising=False)
    guarded = import_module("guard_app")
    with team.patch(guarded.access), TestClient(guarded.app) as client:
        yield client


@pytest.mark.parametrize("path", EVERYTHING)
def test_every_path_needs_a_token_of_the_company(team: FakeTeam, client: TestClient, path: str) -> None:
    stranger = team.headers(team.user("eve@evil-acme.example", groups=["admins"]))
    assert client.get(path).status_code == 401
    assert client.get(path, headers=stranger).status_code == 403


def test_only_the_health_check_is_open(client: TestClient) -> None:
    assert client.get("/healthz").json() == "alive"
    assert client.get("/healthz/").status_code == 401


def test_staff_sees_the_app_and_only_admins_the_administration(team: FakeTeam, client: TestClient) -> None:
    staff = team.headers(team.user("ada@acme.example", groups=["users"]))
    admin = team.headers(team.user("root@acme.example", groups=["admins"]))
    assert client.get("/me", headers=staff).json() == "ada@acme.example"
    assert client.get("/docs", headers=staff).status_code == 200
    assert client.get("/nothing", headers=staff).status_code == 404
    assert client.get("/admin/users", headers=staff).status_code == 403
    assert client.get("/admin/users", headers=admin).json() == ["ada@acme.example"]


def test_no_shared_cache_keeps_a_download(team: FakeTeam, client: TestClient) -> None:
    download = client.get("/downloads/report.csv", headers=team.headers(team.user("ada@acme.example")))
    assert (download.status_code, download.headers["cache-control"]) == (200, "private, no-cache")
