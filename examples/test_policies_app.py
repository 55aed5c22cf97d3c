"""What the policies app promises."""

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.testing import FakeTeam

DEPLOYER = "0123456789abcdef0123456789abcdef.access"


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def client(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.delitem(sys.modules, "policies_app", raising=False)
    policies = import_module("policies_app")
    with team.patch(policies.access), TestClient(policies.app) as client:
        yield client


@pytest.mark.parametrize(
    ("email", "groups", "status"),
    [
        ("ada@acme.example", ["admins"], 200),
        ("ada@acme.example", [], 200),
        ("ada@acme.example", None, 403),
        ("ada@acme.example", ["contractors"], 403),
        ("ada@acme.example", "contractors", 403),
        ("ada@evil-acme.example", ["admins"], 403),
    ],
)
def test_staff_reads_the_handbook(team: FakeTeam, client: TestClient, email: str, groups: Any, status: int) -> None:
    custom = {} if groups is None else {"groups": groups}
    user = team.user(email, custom=custom)
    assert client.get("/handbook", headers=team.headers(user)).status_code == status


@pytest.mark.parametrize(
    ("email", "groups", "status"),
    [
        ("ada@acme.example", ["admins"], 200),
        ("ada@acme.example", ["not-admins"], 403),
        ("root@acme.example", ["users"], 200),
        ("root@acme.example", ["contractors"], 403),
    ],
)
def test_admins_delete_users(team: FakeTeam, client: TestClient, email: str, groups: list[str], status: int) -> None:
    user = team.user(email, custom={"groups": groups})
    assert client.delete("/users/1", headers=team.headers(user)).status_code == status


@pytest.mark.parametrize(("country", "region", "status"), [("DE", "eu", 200), ("US", "eu", 403), ("DE", "us", 403)])
def test_the_payroll_is_for_staff_in_germany(
    team: FakeTeam, client: TestClient, country: str, region: str, status: int
) -> None:
    user = team.user("ada@acme.example", country=country, custom={"groups": [], "region": region})
    assert client.get("/payroll", headers=team.headers(user)).status_code == status


def test_the_deployer_and_admins_deploy(team: FakeTeam, client: TestClient) -> None:
    admin = team.user("ada@acme.example", custom={"groups": ["admins"]})
    other = team.service("backup")
    deployer = other.model_copy(update={"common_name": DEPLOYER})
    statuses = [
        client.post("/deployments", headers=team.headers(caller)).status_code for caller in (admin, other, deployer)
    ]
    assert statuses == [200, 403, 200]
