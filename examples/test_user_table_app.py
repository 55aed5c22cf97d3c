"""What the app with a table of users promises."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.testing import FakeTeam, assert_protected

PAGES = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def client(team: FakeTeam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.setenv("DATABASE", str(tmp_path / "users.db"))
    monkeypatch.delitem(sys.modules, "user_table_app", raising=False)
    example = import_module("user_table_app")
    assert_protected(example.app, example.access, open=PAGES)
    with team.patch(example.access), TestClient(example.app) as client:
        yield client


def test_a_row_is_made_at_the_first_visit_and_found_again(client: TestClient, team: FakeTeam) -> None:
    ada, bob = (team.headers(team.user(f"{name}@example.com")) for name in ("ada", "bob"))
    first = client.get("/me", headers=ada).json()
    assert first == {"id": first["id"], "email": "ada@example.com", "theme": "light"}
    assert client.put("/me", headers=ada, json={"theme": "dark"}).status_code == 200
    assert client.get("/me", headers=ada).json() == {**first, "theme": "dark"}
    assert client.get("/me", headers=bob).json()["theme"] == "light"


def test_a_user_with_a_new_address_keeps_the_row(client: TestClient, team: FakeTeam) -> None:
    ada = team.user("ada@example.com")
    married = ada.model_copy(update={"email": "ada.king@example.com"})
    first = client.get("/me", headers=team.headers(ada)).json()
    assert client.get("/me", headers=team.headers(married)).json() == {**first, "email": "ada.king@example.com"}


def test_an_address_that_another_person_got_is_another_row(client: TestClient, team: FakeTeam) -> None:
    ada = team.user("ada@example.com")
    successor = ada.model_copy(update={"sub": "11111111-2222-4333-8444-555555555555"})
    ids = [client.get("/me", headers=team.headers(user)).json()["id"] for user in (ada, successor)]
    assert ids[0] != ids[1]


def test_callers_without_a_row_are_refused(client: TestClient, team: FakeTeam) -> None:
    assert client.get("/me").status_code == 401
    assert client.get("/me", headers=team.headers(team.service("backup"))).status_code == 403
    ada = team.headers(team.user("ada@example.com"))
    assert client.put("/me", headers=ada, json={"theme": "red"}).status_code == 422
