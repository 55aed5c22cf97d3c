"""What the app for two teams promises."""

import sys
from collections.abc import Iterator
from importlib import import_module

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.testing import FakeTeam


@pytest.fixture
def acme() -> FakeTeam:
    return FakeTeam("acme")


@pytest.fixture
def partner() -> FakeTeam:
    return FakeTeam("partner")


@pytest.fixture
def client(acme: FakeTeam, partner: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("ACME_AUDIENCE", acme.audience)
    monkeypatch.setenv("PARTNER_AUDIENCE", partner.audience)
    monkeypatch.delitem(sys.modules, "teams_app", raising=False)
    teams = import_module("teams_app")
    with acme.patch(teams.ours), partner.patch(teams.partners), TestClient(teams.app) as client:
        yield client


def test_users_of_both_teams_read_the_documents(acme: FakeTeam, partner: FakeTeam, client: TestClient) -> None:
    for team in (acme, partner):
        answer = client.get("/documents", headers=team.headers(team.user("ada@example.com")))
        assert (answer.status_code, answer.json()["team"]) == (200, team.issuer)


def test_only_our_own_team_reads_the_plans(acme: FakeTeam, partner: FakeTeam, client: TestClient) -> None:
    statuses = [
        client.get("/internal/plans", headers=team.headers(team.user("ada@example.com"))).status_code
        for team in (acme, partner, FakeTeam("stranger"))
    ]
    assert statuses == [200, 401, 401]


def test_a_token_with_the_old_name_has_the_same_principal(acme: FakeTeam, client: TestClient) -> None:
    old = acme.user_token("ada@example.com", claims={"iss": "https://acme-old.cloudflareaccess.com"})
    new = acme.user_token("ada@example.com")
    answers = [client.get("/documents", headers=acme.headers(token)).json() for token in (old, new)]
    assert answers[0] == answers[1]
