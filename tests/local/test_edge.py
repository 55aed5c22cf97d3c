"""One port serves the team and the apps, by host."""

from email.utils import parsedate_to_datetime

import pytest
from starlette.testclient import TestClient
from starlette.types import Message
from support.local_rig import APP, TEAM, Browser, events_of, make_local_access, make_request

from fastapi_cloudflare_access.local.config import App, Policy
from fastapi_cloudflare_access.local.edge import Edge
from fastapi_cloudflare_access.testing import FakeTeam


@pytest.fixture
def browser() -> Browser:
    return Browser(
        make_local_access(
            App(name="app"), App(name="open", paths=("/public",), policies=(Policy(decision="bypass", everyone=True),))
        )
    )


def test_the_response_for_an_unknown_host_links_the_apps(browser: Browser) -> None:
    response = browser.open("http://rebound.evil.test:8787/")
    assert response.status_code == 404
    assert APP in response.text
    assert browser.client.get(TEAM, headers={"host": "a b"}).status_code == 400


@pytest.mark.parametrize("address", [TEAM + "/me", APP + "/cdn-cgi/access/nothing", APP + "/cdn-cgi/trace"])
def test_an_unknown_page_of_the_edge_never_reaches_the_app(browser: Browser, address: str) -> None:
    response = browser.open(address)
    assert response.status_code == 404
    assert browser.app.scopes == []
    assert ("control page" in response.text) is (APP in address)


def test_a_path_without_an_app_gets_404() -> None:
    assert Browser(make_local_access(App(name="api", paths=("/api",)))).open(APP + "/other").status_code == 404


@pytest.mark.parametrize(
    "path", ["/cdn-cgi/access/get-identity", "//cdn-cgi/access/get-identity", "/cdn-cgi%2faccess/get-identity"]
)
def test_the_edges_own_paths_never_reach_an_app(browser: Browser, path: str) -> None:
    assert browser.open(APP + path).status_code == 400
    assert browser.app.scopes == []


def test_a_public_path_needs_no_login_and_gets_no_assertion(browser: Browser) -> None:
    forged = FakeTeam("stranger").user_token("ada@example.com")
    assert browser.open(APP + "/public/x", cf_access_jwt_assertion=forged).text == "hello"
    assert "cf-access-jwt-assertion" not in browser.app.headers()


def test_a_protected_path_with_the_prefix_of_a_public_one_stays_protected(browser: Browser) -> None:
    assert browser.open(APP + "/publicity").status_code == 302
    assert browser.app.scopes == []


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "path",
    [
        "/public/../x",
        "/public/%2e%2e/x",
        "/x/../public/a",
        "/x%2f..%2fpublic",
        "/x/..%2fpublic",
        "/x/y/../../public",
        "/x/..;/public",
        "/public/..\\x",
    ],
)
async def test_the_edge_rejects_a_path_that_the_app_could_read_differently(
    browser: Browser, path: str, kind: str
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(event: Message) -> None:
        sent.append(event)

    await Edge(browser.local_access, browser.app)(make_request(path, kind=kind).scope, receive, send)
    assert sent[0]["status"] == 400
    assert browser.app.scopes == []


def test_the_protected_resource_is_described(browser: Browser) -> None:
    described = browser.open(APP + "/.well-known/cloudflare-access-protected-resource/x").json()
    assert described["resource"] == APP + "/x"
    assert described["team_domain"] == "127.0.0.1:8787"
    assert described["protected"] is True


def test_every_response_of_the_app_has_a_ray_and_a_service_token_gets_its_cookie(browser: Browser) -> None:
    client_id, name = next(iter(browser.local_access.services.items()))
    secret = browser.local_access.service_secret(client_id, name)
    response = browser.open(APP + "/", cf_access_client_id=client_id, cf_access_client_secret=secret)
    assert response.text == "hello"
    assert response.headers["cf-ray"] == browser.app.headers()["cf-ray"]
    assert response.headers["set-cookie"].endswith("Path=/; Secure; SameSite=none")
    assert browser.app.headers().keys().isdisjoint({"cf-access-client-id", "cf-access-client-secret"})
    assert "cf-access-authenticated-user-email" not in browser.app.headers()


def test_only_the_team_domain_serves_the_certs(browser: Browser) -> None:
    assert browser.open(TEAM + "/cdn-cgi/access/certs").json().keys() == {"keys", "public_cert", "public_certs"}
    assert browser.open(APP + "/cdn-cgi/access/certs").status_code == 404
    assert browser.open(TEAM + "/cdn-cgi/access/certs", method="POST").status_code == 404
    head = browser.open(TEAM + "/cdn-cgi/access/certs", method="HEAD")
    assert (head.status_code, head.headers["content-type"]) == (200, "application/json")


def test_the_team_domain_describes_its_keys(browser: Browser) -> None:
    described = browser.open(TEAM + "/.well-known/openid-configuration").json()
    assert (described["issuer"], described["jwks_uri"]) == (TEAM, TEAM + "/cdn-cgi/access/certs")


def test_the_date_follows_the_clock_that_the_control_page_shifts(browser: Browser) -> None:
    browser.local_access.clock.shift = -3600.0
    date = browser.open("http://127.0.0.1:8787/cdn-cgi/access/certs").headers["date"]
    assert parsedate_to_datetime(date).timestamp() == int(browser.local_access.clock.now())


def test_every_response_has_one_date(browser: Browser) -> None:
    for address in (TEAM + "/", APP + "/public/x", APP + "/"):
        assert len(browser.open(address).headers.get_list("date")) == 1


def test_a_client_of_json_gets_errors_as_json(browser: Browser) -> None:
    for address in (TEAM + "/missing", APP + "/cdn-cgi/access/nothing", APP + "/cdn-cgi/access/authorized?nonce=x"):
        response = browser.open(address, accept="application/json")
        assert response.json()["status_code"] == response.status_code >= 400
        assert "content-security-policy" not in response.headers
        assert browser.open(address, accept="text/html, application/json;q=0.9").text.startswith("<!doctype html>")


@pytest.mark.anyio
@pytest.mark.parametrize(("host", "path"), [("127.0.0.1:8787", "/"), ("localhost:8787", "/cdn-cgi/access/logout")])
async def test_the_team_and_the_pages_of_the_edge_reject_websockets(host: str, path: str) -> None:
    events = await events_of(Edge(make_local_access()), make_request(path, host=host, kind="websocket"))
    assert (events[0]["type"], events[0]["status"]) == ("websocket.http.response.start", 404)


def test_the_edge_starts_and_stops_its_backends() -> None:
    local_access = make_local_access(App(name="app", upstream="http://127.0.0.1:1"))
    with TestClient(Edge(local_access)) as client:
        assert client.get(APP, follow_redirects=False).status_code == 302


@pytest.mark.anyio
async def test_a_body_can_arrive_in_chunks() -> None:
    local_access = make_local_access()
    pieces = iter([(b'{"seco', True), (b'nds":5}', False)])
    sent: list[Message] = []

    async def receive() -> Message:
        body, more = next(pieces)
        return {"type": "http.request", "body": body, "more_body": more}

    async def send(event: Message) -> None:
        sent.append(event)

    headers = {"content-type": "application/json"}
    request = make_request("/control/api/clock", method="POST", host="127.0.0.1:8787", headers=headers)
    await Edge(local_access)(request.scope, receive, send)
    assert (sent[0]["status"], local_access.clock.shift) == (200, 5)
