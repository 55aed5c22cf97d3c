"""A request to the edge, and the headers for the app."""

import pytest
from support.local_rig import make_request

from fastapi_cloudflare_access.local.edge_request import MAX_QUERY, EdgeRequest, headers_for_app, new_ray


@pytest.mark.parametrize(
    ("host", "netloc", "name"),
    [
        ("localhost:8787", "localhost:8787", "localhost"),
        ("Shop.LOCALHOST", "shop.localhost", "shop.localhost"),
        ("[::1]:80", "[::1]:80", "[::1]"),
        ("evil.com/x", None, ""),
        ("a@localhost", None, ""),
        ("", None, ""),
    ],
)
def test_a_host_is_a_name_and_a_port_or_invalid(host: str, netloc: str | None, name: str) -> None:
    request = make_request(host=host)
    assert (request.netloc, request.host) == (netloc, name)


def test_two_host_headers_are_invalid() -> None:
    assert make_request(headers=[("host", "localhost")]).netloc is None


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("//a///b", "/a/b"),
        ("/a/b/", "/a/b"),
        ("/a%2fb", "/a/b"),
        ("/a/...", "/a/..."),
        ("/%C3%BC;v=1", "/ü;v=1"),
        ("/?../x", "/"),
        ("/", "/"),
    ],
)
def test_a_path_is_normalized(path: str, seen: str) -> None:
    assert make_request(path).path == seen
    assert not make_request(path).is_ambiguous


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b",
        "/a/%2e%2e/b",
        "/a/./b/",
        "/a/%2E",
        "/a%2f..%2fb",
        "/a/..;v=1/b",
        "/a\\..\\b",
        "/a%5cb",
        "/a#b",
        "http://localhost/a",
        "*",
        "",
    ],
)
def test_a_path_that_servers_read_differently_is_ambiguous(path: str) -> None:
    assert make_request(path).is_ambiguous


def test_the_target_is_not_normalized() -> None:
    assert make_request("/a/%2e%2e/b?x=%20&y").target == "/a/%2e%2e/b?x=%20&y"
    scope = {**make_request("/a b").scope, "raw_path": None}
    assert EdgeRequest(scope).target == "/a b"


def test_a_query_has_a_limit_and_its_first_value_counts() -> None:
    assert make_request("/?a=1&a=2&b=").query == {"a": "1", "b": ""}
    assert make_request("/?" + "a&" * 60).query == {}
    assert make_request("/?a=" + "x" * MAX_QUERY).query == {}


def test_every_cookie_of_a_name_is_returned() -> None:
    request = make_request(headers=[("cookie", "a=1; b=2;a=3"), ("cookie", "a=4=5; c")])
    assert request.cookies("a") == ["1", "3", "4=5"]


def test_a_handshake_is_a_get_over_the_scheme_of_its_page() -> None:
    request = make_request(kind="websocket", scheme="wss")
    assert (request.is_websocket, request.scheme, request.method) == (True, "https", "GET")
    assert (make_request().is_websocket, make_request().scheme) == (False, "http")


def test_only_options_with_both_headers_is_a_preflight() -> None:
    both = {"origin": "http://a", "access-control-request-method": "POST"}
    assert make_request(method="OPTIONS", headers=both).is_preflight
    assert not make_request(method="GET", headers=both).is_preflight
    assert not make_request(method="OPTIONS", headers={"origin": "http://a"}).is_preflight


A_TOKEN = "t"


def app_headers(
    request: EdgeRequest,
    *,
    token: str | None = A_TOKEN,
    email: str | None = "a@b",
    credential_header: str | None = None,
) -> list[tuple[str, str]]:
    headers = headers_for_app(
        request, ray="r", token=token, email=email, country="GB", credential_header=credential_header
    )
    return [(name.decode(), value.decode()) for name, value in headers]


def test_the_app_receives_the_headers_that_access_sends() -> None:
    headers = dict(app_headers(make_request(headers={"accept": "x"})))
    assert headers == {
        "host": "localhost:8787",
        "accept": "x",
        "cookie": "CF_Authorization=t",
        "cf-access-jwt-assertion": "t",
        "cf-access-authenticated-user-email": "a@b",
        "cf-connecting-ip": "127.0.0.1",
        "cf-ipcountry": "GB",
        "cf-ray": "r",
        "cf-visitor": '{"scheme":"http"}',
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-real-ip": "127.0.0.1",
    }


FORGED = [
    "Cf-Access-Jwt-Assertion",
    "Cf_Access_Jwt_Assertion",
    "Cf-Access-Authenticated-User-Email",
    "Cf-Access-Client-Id",
    "CF-Access-Client-Secret",
    "Cf-Access-Token",
    "CF-Connecting-IP",
    "CF-Ray",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "Authorization",
]


@pytest.mark.parametrize("name", FORGED)
def test_the_app_never_receives_forged_headers_of_the_client(name: str) -> None:
    request = make_request(headers=[(name, "forged"), (name, "forged twice")])
    values = [value for _, value in app_headers(request, token=None, email=None, credential_header="authorization")]
    assert not any("forged" in value for value in values)


def test_connection_options_remove_headers_of_the_client_but_not_of_the_edge() -> None:
    names = "close, X-Hop, Host, Content-Length, Transfer-Encoding, Cookie, Cf-Access-Jwt-Assertion, CF-Connecting-IP"
    sent = [("connection", names), ("x-hop", "1"), ("x-own", "2"), ("content-length", "3"), ("transfer-encoding", "x")]
    headers = dict(app_headers(make_request(headers=sent)))
    assert headers.keys().isdisjoint({"connection", "x-hop"})
    assert headers.keys() >= {"host", "x-own", "content-length", "transfer-encoding", "cookie"}
    assert (headers["cf-access-jwt-assertion"], headers["cf-connecting-ip"]) == ("t", "127.0.0.1")


def test_the_app_receives_one_token_cookie_and_no_binding_cookie() -> None:
    request = make_request(headers={"cookie": "CF_Authorization=old; a=1; CF_Binding=b; =; CF_Authorization=older"})
    assert dict(app_headers(request))["cookie"] == "a=1; CF_Authorization=t"
    assert dict(app_headers(request, token=None))["cookie"] == "CF_Authorization=old; a=1; CF_Authorization=older"


def test_a_public_app_receives_no_token() -> None:
    names = {name for name, _ in app_headers(make_request(), token=None, email=None)}
    assert names.isdisjoint({"cf-access-jwt-assertion", "cookie", "cf-access-authenticated-user-email"})


def test_earlier_forwarders_keep_their_order() -> None:
    headers = dict(app_headers(make_request(headers=[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")])))
    assert headers["x-forwarded-for"] == "1.1.1.1, 2.2.2.2, 127.0.0.1"


def test_a_client_without_an_address_has_an_empty_one() -> None:
    assert EdgeRequest({**make_request().scope, "client": None}).client_ip == ""


def test_every_request_has_a_ray_of_its_own() -> None:
    assert new_ray() != new_ray()
