"""A browser that opens a page without a valid token is redirected to the login, once for each navigation."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient, WebSocketDenialResponse

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, UserClaims
from fastapi_cloudflare_access._requests.login_redirect import is_navigation
from fastapi_cloudflare_access.guard import AccessGuard
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam, MemoryFetch

TEAM = FakeTeam("acme")
HOST = "app.example.com"
NAVIGATION = {
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
}


def make(team: FakeTeam[Any], **options: Any) -> CloudflareAccess[Any]:
    given: dict[str, Any] = {"team_domain": team.team_domain, "audience": team.audience, "user_model": UserClaims}
    return CloudflareAccess(**given, fetch=MemoryFetch(team), clock=team.clock, **options)


def client_of(team: FakeTeam[Any] = TEAM, host: str = HOST) -> TestClient:
    app = AccessGuard(PlainTextResponse("in"), access=make(team), login_redirect=host, exempt=["/open"])
    return TestClient(app, base_url="https://internal.example:8000", follow_redirects=False)


def test_the_marker_is_found_in_cookies_that_http_2_has_split() -> None:
    client = client_of()
    marker = client.get("/", headers=NAVIGATION).headers["set-cookie"].partition(";")[0]
    client.cookies.clear()
    split = [*NAVIGATION.items(), ("Cookie", "theme=dark"), ("Cookie", marker), ("Cookie", "language=en")]
    assert client.get("/", headers=split).status_code == 401


@pytest.mark.parametrize("token", [None, TEAM.forge("expired")], ids=["missing", "expired"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_navigation_without_a_valid_token_goes_to_the_login_of_the_public_host(
    token: str | None, method: str
) -> None:
    headers = NAVIGATION | (TEAM.headers(token) if token else {})
    answer = client_of().request(method, "/reports/a%20b?year=2026&x=%26", headers=headers)
    url = urlsplit(answer.headers["location"])
    assert (answer.status_code, answer.content) == (302, b"")
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{TEAM.issuer}/cdn-cgi/access/login/{HOST}"
    assert parse_qs(url.query) == {"kid": [TEAM.audience], "redirect_url": ["/reports/a%20b?year=2026&x=%26"]}
    assert answer.headers["cache-control"] == "no-store"


def test_a_caller_is_not_redirected() -> None:
    client = client_of()
    assert client.get("/", headers=NAVIGATION | TEAM.headers(TEAM.user("ada@example.com"))).text == "in"
    assert client.get("/open", headers=NAVIGATION).text == "in"


@pytest.mark.parametrize(
    "changed",
    [
        {"Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Mode": "same-origin"},
        {"Sec-Fetch-Mode": "websocket"},
        {"Sec-Fetch-Mode": ""},
        {"Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Dest": "empty"},
        {"Sec-Fetch-Dest": "image"},
        {"Sec-Purpose": "prefetch"},
        {"Accept": "*/*"},
        {"Accept": "application/json"},
        {"Accept": "text/html+json"},
        {"Accept": "text/html," + "a" * 1015},
        {"Accept": ""},
    ],
    ids=lambda changed: "-".join(*changed.items())[:40],
)
def test_a_request_that_opens_no_page_in_a_tab_gets_401(changed: dict[str, str]) -> None:
    assert client_of().get("/", headers=NAVIGATION | changed).status_code == 401


@pytest.mark.parametrize(
    "accept",
    [
        *("text/html", "text/html;q=0.9", "application/json, text/html", " TEXT/HTML ; level=1", "*/*;q=0.1,text/html"),
        "text/html," + "a" * 1014,
    ],
    ids=lambda accept: accept[:30],
)
def test_a_navigation_accepts_html_in_any_spelling_of_at_most_1024_characters(accept: str) -> None:
    client = client_of()
    assert client.get("/", headers=NAVIGATION | {"Accept": accept}).status_code == 302
    client.cookies.clear()
    longer = accept + "," + "a" * 1024
    assert client.get("/", headers=NAVIGATION | {"Accept": longer}).status_code == 401


def test_a_server_may_spell_the_type_of_a_connection_in_a_text_of_its_own() -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in NAVIGATION.items()]
    kinds = ["".join(letters) for letters in ("http", "websocket")]
    assert [is_navigation({"type": kind, "method": "GET", "headers": headers}) for kind in kinds] == [True, False]


def test_a_redirect_needs_one_audience_since_a_login_is_of_one_app() -> None:
    several = make(TEAM).with_audience("a", "b")
    with pytest.raises(ConfigurationError, match=r"needs one AUD tag, .* write access=access\.with_audience\(…\)$"):
        AccessGuard(PlainTextResponse("in"), access=several, login_redirect=HOST)


@pytest.mark.parametrize("missing", ["Sec-Fetch-Mode", "Sec-Fetch-Dest", "Accept"])
def test_a_client_without_the_metadata_of_a_browser_gets_401(missing: str) -> None:
    headers = {name: value for name, value in NAVIGATION.items() if name != missing}
    assert client_of().get("/", headers=headers).status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_get_401(method: str) -> None:
    assert client_of().request(method, "/", headers=NAVIGATION).status_code == 401


def test_a_websocket_is_never_redirected() -> None:
    with pytest.raises(WebSocketDenialResponse) as refused, client_of().websocket_connect("/", headers=NAVIGATION):
        pass
    assert refused.value.status_code == 401


@pytest.mark.parametrize(
    ("name", "status"),
    [(name, 302 if forgery.reason == "token_expired" else 401) for name, forgery in FORGERIES.items()],
)
def test_no_other_fault_of_a_token_is_redirected(name: str, status: int) -> None:
    access = make(TEAM)
    client = TestClient(
        AccessGuard(PlainTextResponse("in"), access=access, login_redirect=HOST), follow_redirects=False
    )
    with TEAM.patch(access):
        assert client.get("/", headers=NAVIGATION | TEAM.headers(TEAM.forge(name))).status_code == status


def test_a_caller_that_a_policy_refuses_is_not_redirected() -> None:
    guard = AccessGuard(PlainTextResponse("in"), access=make(TEAM), policy=lambda _: False, login_redirect=HOST)
    headers = NAVIGATION | TEAM.headers(TEAM.user("ada@example.com"))
    assert TestClient(guard).get("/", headers=headers).status_code == 403


def test_a_browser_that_returns_from_the_login_without_a_token_is_not_redirected_again() -> None:
    client = client_of()
    statuses = [client.get("/a?b=c", headers=NAVIGATION).status_code for _ in range(4)]
    assert statuses == [302, 401, 302, 401]
    assert client.get("/a?b=c", headers=NAVIGATION).status_code == 302
    assert client.get("/a?b=d", headers=NAVIGATION).status_code == 302


@pytest.mark.parametrize(("team", "is_secure"), [(TEAM, True), (FakeTeam("http://127.0.0.1:8787"), False)])
def test_the_marker_is_a_short_cookie_that_no_script_reads(team: FakeTeam[Any], *, is_secure: bool) -> None:
    client = client_of(team)
    for age in (60, 0):
        name, *attributes = client.get("/", headers=NAVIGATION).headers["set-cookie"].split("; ")
        assert name.startswith("CF_Access_Redirected_")
        assert attributes == [
            f"Max-Age={age}",
            "Path=/",
            "HttpOnly",
            "SameSite=Lax",
            *(["Secure"] if is_secure else []),
        ]
        client.cookies.set(*name.split("="))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"X-Forwarded-Host": "evil.example"},
        {"Forwarded": "host=evil.example"},
        {"X-Forwarded-Proto": "http", "X-Forwarded-Prefix": "/evil"},
        {"X-Original-URL": "/evil"},
    ],
    ids="-".join,
)
def test_no_header_of_the_request_changes_where_the_login_returns_to(headers: dict[str, str]) -> None:
    client = client_of()
    expected = client.get("/page", headers=NAVIGATION).headers["location"]
    client.cookies.clear()
    assert client.get("/page", headers=NAVIGATION | headers).headers["location"] == expected


@pytest.mark.parametrize(
    "path",
    ["//evil.example/x", "/\\evil.example", "/%5Cevil.example", "/a/../b", "/cdn-cgi/access/logout", "/" + "a" * 5000],
)
def test_a_path_by_which_a_browser_could_leave_the_app_is_replaced(path: str) -> None:
    app = AccessGuard(PlainTextResponse("in"), access=make(TEAM), login_redirect=HOST)

    class Raw:
        """Sends the path as it is."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    answer = TestClient(Raw(), follow_redirects=False).get("/", headers=NAVIGATION)
    assert parse_qs(urlsplit(answer.headers["location"]).query)["redirect_url"] == ["/"]


def test_a_mounted_guard_returns_to_the_whole_path() -> None:
    app = FastAPI()
    app.mount("/inner", AccessGuard(FastAPI(), access=make(TEAM), login_redirect=HOST))
    answer = TestClient(app, follow_redirects=False).get("/inner/page?x=1", headers=NAVIGATION)
    assert parse_qs(urlsplit(answer.headers["location"]).query)["redirect_url"] == ["/inner/page?x=1"]


def test_an_app_with_its_own_answer_still_stops_the_loop() -> None:
    """Its handler passes on the headers of the refusal, among them the cookie."""
    client = client_of()
    client.get("/", headers=NAVIGATION)
    refused = client.get("/", headers=NAVIGATION)
    assert (refused.status_code, refused.json()) == (401, {"detail": "No Cloudflare Access token"})
    assert refused.headers["www-authenticate"] == "Cloudflare-Access"
