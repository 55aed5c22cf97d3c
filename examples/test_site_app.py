"""What the server-rendered site promises."""

import sys
from collections.abc import Iterator
from html import unescape
from importlib import import_module
from re import findall

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.testing import FakeTeam

ORIGIN = "https://votes.example.com"
EVIL = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def client(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.setenv("SITE_ORIGIN", ORIGIN)
    monkeypatch.delitem(sys.modules, "site_app", raising=False)
    site = import_module("site_app")
    with (
        team.patch(site.access),
        TestClient(site.app, base_url="http://127.0.0.1:8000") as client,
    ):
        yield client


def links(page: str) -> list[str]:
    return [unescape(link) for link in findall('href="([^"]+)"', page)]


def test_a_visitor_gets_a_link_to_the_login(client: TestClient, team: FakeTeam) -> None:
    path = f"/cdn-cgi/access/login/votes.example.com?kid={team.audience}"
    url = f"https://acme.cloudflareaccess.com{path}&redirect_url=%2Fvotes"
    assert links(client.get("/").text) == [url]


def test_a_user_gets_a_link_to_the_logout(client: TestClient, team: FakeTeam) -> None:
    page = client.get("/", headers=team.headers(team.user("<b>@example.com")))
    assert "<h1>Hello &lt;b&gt;@example.com</h1>" in page.text
    log_out = "/cdn-cgi/access/logout?returnTo=https%3A%2F%2Fvotes.example.com%2F"
    assert links(page.text) == ["/votes", ORIGIN + log_out]


def test_users_vote_by_a_form_of_the_site_alone(client: TestClient, team: FakeTeam) -> None:
    ada = team.headers(team.user("ada@example.com"))
    own = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/votes", headers=ada | own).status_code == 200
    assert client.post("/votes", headers=ada | EVIL).status_code == 403
    assert client.post("/votes", headers=own).status_code == 401
    assert "<h1>1 votes</h1>" in client.get("/votes", headers=ada).text


def test_the_private_page_is_private(client: TestClient) -> None:
    assert client.get("/votes").status_code == 401
