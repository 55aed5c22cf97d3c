"""What the app behind several Access applications promises."""

import sys
from collections.abc import Iterator
from importlib import import_module

import pytest
from fastapi.testclient import TestClient

from fastapi_cloudflare_access.testing import FakeTeam, assert_protected

AUDIENCES = {"SITE_AUDIENCE": "a" * 64, "ADMIN_AUDIENCE": "b" * 64, "API_AUDIENCE": "c" * 64}
PAGES = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam(audience=tuple(AUDIENCES.values()))


@pytest.fixture
def client(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    for name, value in AUDIENCES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "apps_app", raising=False)
    example = import_module("apps_app")
    objects = (example.site, example.admin, example.api)
    assert_protected(example.app, *objects, example.site_or_admin, open=PAGES)
    with team.patch(*objects), TestClient(example.app) as client:
        yield client


@pytest.mark.parametrize(
    ("application", "statuses"),
    [
        ("SITE_AUDIENCE", {"/": 200, "/admin/": 401, "/api/": 401, "/profile": 200}),
        ("ADMIN_AUDIENCE", {"/": 401, "/admin/": 200, "/api/": 401, "/profile": 200}),
        ("API_AUDIENCE", {"/": 401, "/admin/": 401, "/api/": 200, "/profile": 401}),
    ],
)
def test_a_token_is_good_for_its_application_alone(
    client: TestClient, team: FakeTeam, application: str, statuses: dict[str, int]
) -> None:
    token = team.user_token("ada@example.com", audience=AUDIENCES[application])
    found = {path: client.get(path, headers=team.headers(token)).status_code for path in statuses}
    assert found == statuses


def test_services_call_the_api(client: TestClient, team: FakeTeam) -> None:
    token = team.service_token("backup", audience=AUDIENCES["API_AUDIENCE"])
    assert client.get("/api/", headers=team.headers(token)).json() == team.client_id("backup")
