"""What the single-page app promises to its page; the page itself is tested in a browser."""

import sys
from collections.abc import Iterator
from importlib import import_module

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.testing import FakeTeam


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def client(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.delitem(sys.modules, "spa_app", raising=False)
    single_page = import_module("spa_app")
    with team.patch(single_page.access), TestClient(single_page.app) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/app.js", "/session.js", "/service-worker.js"])
def test_its_files_are_for_users_and_checked_again(client: TestClient, team: FakeTeam, path: str) -> None:
    assert client.get(path).status_code == 401
    file = client.get(path, headers=team.headers(team.user("ada@example.com")))
    assert file.status_code == 200
    assert file.headers["cache-control"] == "private, no-cache"


def test_nothing_else_is_a_file(client: TestClient, team: FakeTeam) -> None:
    headers = team.headers(team.user("ada@example.com"))
    for path in ("/spa_app.py", "/..%2fspa_app.py", "/nothing"):
        assert client.get(path, headers=headers).status_code == 404


def test_the_api_returns_the_user_or_a_problem(client: TestClient, team: FakeTeam) -> None:
    headers = team.headers(team.user("ada@example.com"))
    assert client.get("/api/me", headers=headers).json() == {"email": "ada@example.com"}
    refused = client.get("/api/me")
    assert (refused.status_code, refused.json()["title"]) == (401, "Unauthorized")
    assert refused.headers["content-type"] == "application/problem+json"


def test_the_socket_greets_the_user(client: TestClient, team: FakeTeam) -> None:
    headers = team.headers(team.user("ada@example.com"))
    with client.websocket_connect("/api/feed", headers=headers) as socket:
        assert socket.receive_text() == "ada@example.com"
