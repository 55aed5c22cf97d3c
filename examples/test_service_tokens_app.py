"""What the app with service tokens promises, and its client."""

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import httpx
import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.local import App, Config, Policy, RunningAccess, ServiceToken, run_local_access
from fastapi_cloudflare_access.testing import FakeTeam, assert_protected

BACKUP = "e367826f93b8d71185e03fe518aff3b4.access"
PAGES = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def example(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.delitem(sys.modules, "service_tokens_app", raising=False)
    return import_module("service_tokens_app")


@pytest.fixture
def client(team: FakeTeam, example: ModuleType) -> Iterator[TestClient]:
    with team.patch(example.access), TestClient(example.app) as client:
        yield client


def test_the_backup_starts_a_backup_and_no_other_caller_does(client: TestClient, team: FakeTeam) -> None:
    other = team.service("reports")
    backup = other.model_copy(update={"common_name": BACKUP})
    user = team.user("ada@example.com", groups=["staff"])
    statuses = [
        client.post("/jobs/backup", headers=team.headers(caller)).status_code for caller in (backup, other, user)
    ]
    assert statuses == [202, 403, 403]
    assert client.post("/jobs/backup").status_code == 401


def test_staff_and_the_backup_make_reports(client: TestClient, team: FakeTeam) -> None:
    backup = team.service("backup").model_copy(update={"common_name": BACKUP})
    staff = team.user("ada@example.com", groups=["staff"])
    other = team.user("bob@example.com", groups=["guests"])
    assert client.post("/reports", headers=team.headers(backup)).json() == {"for": BACKUP}
    assert client.post("/reports", headers=team.headers(staff)).json() == {"for": staff.sub}
    assert client.post("/reports", headers=team.headers(other)).status_code == 403


def test_no_route_is_open(example: ModuleType) -> None:
    assert_protected(example.app, example.access, open=PAGES)


@pytest.fixture(scope="module")
def local() -> Iterator[RunningAccess]:
    backup = ServiceToken(name="backup", client_id=BACKUP)
    stranger = ServiceToken(name="stranger")
    policies = (Policy(decision="service_auth", service_tokens=("backup",)), Policy(emails=("ada@example.com",)))
    config = Config(apps=(App(name="app", policies=policies),), service_tokens=(backup, stranger))
    with run_local_access(config=config) as local:
        yield local


def test_the_client_calls_through_the_edge(local: RunningAccess) -> None:
    local.mount("service_tokens_app:app")
    example = import_module("service_tokens_app")
    known, unknown = (local.service_headers(name) for name in ("backup", "stranger"))
    with httpx.Client(base_url=local.url("/"), trust_env=False) as client:
        assert example.call(client, "/jobs/backup", *known.values()) == {"started by": BACKUP}
        with pytest.raises(example.NotLetInError):
            example.call(client, "/jobs/backup", *unknown.values())
        with pytest.raises(example.NotLetInError):
            example.call(client, "/jobs/backup", BACKUP, "wrong")
