"""What the quickstart app promises."""

import sys
from collections.abc import Iterator
from importlib import import_module

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.testing import FakeTeam, assert_protected


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def client(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The app as a server imports it: its settings are in the environment."""
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.delitem(sys.modules, "quickstart_app", raising=False)
    quickstart = import_module("quickstart_app")
    with team.patch(quickstart.access), TestClient(quickstart.app) as client:
        yield client


@pytest.mark.usefixtures("client")
def test_only_the_documentation_is_open() -> None:
    quickstart = import_module("quickstart_app")
    pages = {"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
    assert_protected(quickstart.app, quickstart.access, open=pages)


def test_users_see_their_identity(team: FakeTeam, client: TestClient) -> None:
    ada = team.user("ada@example.com")
    answer = client.get("/me", headers=team.headers(ada))
    assert (answer.status_code, answer.json()) == (200, {"id": ada.sub, "email": "ada@example.com"})


def test_services_start_jobs(team: FakeTeam, client: TestClient) -> None:
    answer = client.post("/jobs/backup", headers=team.headers(team.service("nightly backup")))
    assert (answer.status_code, answer.json()) == (202, {"status": "started"})


@pytest.mark.parametrize(("method", "path"), [("GET", "/me"), ("POST", "/jobs/backup")])
@pytest.mark.parametrize("forgery", ["expired", "wrong_key", "wrong_audience", "alg_none"])
def test_bad_tokens_are_refused(team: FakeTeam, client: TestClient, method: str, path: str, forgery: str) -> None:
    assert client.request(method, path, headers=team.headers(team.forge(forgery))).status_code == 401
    assert client.request(method, path).status_code == 401


def test_each_type_of_caller_is_refused_where_only_the_other_is_admitted(team: FakeTeam, client: TestClient) -> None:
    user, service = team.user("ada@example.com"), team.service("nightly backup")
    assert client.post("/jobs/backup", headers=team.headers(user)).status_code == 403
    assert client.get("/me", headers=team.headers(service)).status_code == 403
