"""Login and logout URLs: they name hosts that the app gave, and paths that no browser reads as another host."""

from typing import Any
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError
from fastapi_cloudflare_access._requests.urls import public_host, requested_path, safe_path

TAG, OTHER = "1" * 64, "2" * 64
HOST = "app.example.com"
SITE = f"https://{HOST}"

access = CloudflareAccess(team_domain="acme", audience=TAG)
local = CloudflareAccess(team_domain="http://127.0.0.1:8787", audience=TAG)
several = CloudflareAccess(team_domain="acme", audience=[TAG, OTHER])


def target(url: str) -> str:
    return parse_qs(urlsplit(url).query)["redirect_url"][0]


# login


def test_a_login_url_is_the_one_of_the_edge() -> None:
    expected = (
        f"https://acme.cloudflareaccess.com/cdn-cgi/access/login/{HOST}?kid={TAG}&redirect_url=%2Freports%3Fyear%3D2026"
    )
    assert access.login_url(HOST, return_to="/reports?year=2026") == expected


def test_a_login_returns_to_the_front_page_by_default() -> None:
    assert target(access.login_url(HOST)) == "/"


def test_a_login_url_of_a_local_team_names_the_port_of_the_app() -> None:
    assert local.login_url("localhost:8787") == (
        f"http://127.0.0.1:8787/cdn-cgi/access/login/localhost:8787?kid={TAG}&redirect_url=%2F"
    )


def test_a_login_url_names_the_app_by_its_audience() -> None:
    assert f"kid={OTHER}&" in several.login_url(HOST, audience=OTHER)
    assert f"kid={OTHER}&" in access.with_audience(OTHER).login_url(HOST)


def test_a_login_url_with_several_audiences_needs_to_know_which() -> None:
    with pytest.raises(ConfigurationError, match=r"several are configured: pass audience=…$"):
        several.login_url(HOST)
    for wrong in ("3" * 64, "", 1):
        with pytest.raises(ConfigurationError, match="must be one of the configured AUD tags"):
            several.login_url(HOST, audience=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host",
    [
        *(HOST, "a", "localhost:8787", "127.0.0.1:80", "[::1]:65535", "xn--bcher-kva.example", "a_b.example", "a" * 63),
        *("a." * 126 + "a", "a." * 126 + "a:8443", "[::1]", "a:1"),
    ],
)
def test_a_host_is_accepted(host: str) -> None:
    assert public_host(f" {host.upper()} ") == host


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "/", "https://app.example.com", "//app.example.com", "app.example.com/", "app.example.com/x"),
        *("user@app.example.com", "app.example.com#", "app.example.com?", "app.example.com\\x", "app.example.com."),
        *(".app.example.com", "app..example.com", "-app.example.com", "app-.example.com", "a" * 64, "a." * 127 + "a"),
        *("a." * 126 + "aa", "a." * 126 + "aa:443"),
        *("app.example.com:", "app.example.com:0", "app.example.com:65536", "app.example.com:80:80", "app:99999999"),
        *("app.example.com\r\nx: y", "app example.com", "bücher.example", "app.example.com\x00"),
        *("[::1", "[::2]", "::1", "*.example.com", "app%2eexample.com", None, 1, b"app.example.com"),
    ],
)
def test_what_is_not_a_host_is_refused_and_not_repeated(host: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^host of log(in|out)_url must be the public host of your app, without a scheme"
    ) as error:
        access.login_url(host)
    assert str(error.value).endswith("such as 'app.example.com', in ASCII")


VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "\\")
SAFE = {
    "/": "/",
    "/a/b?c=d&e=%20f#g": "/a/b?c=d&e=%20f#g",
    "/a//b": "/a//b",
    "/?next=//evil.example": "/?next=//evil.example",
    "/?next=https://evil.example\u00e9": "/?next=https://evil.example%C3%A9",
    "/b\u00fccher/a b": "/b%C3%BCcher/a%20b",
    "/.well-known/x": "/.well-known/x",
    "/a..b/...": "/a..b/...",
    "/x/cdn-cgi/access": "/x/cdn-cgi/access",
    "/cdn-cgis": "/cdn-cgis",
    "/%252f%252fevil.example": "/%252f%252fevil.example",
    "/\ud800": "/?",
    "/" + "a" * 4095: "/" + "a" * 4095,
    "/" + "\u00e9" * 682 + "abc": "/" + "%C3%A9" * 682 + "abc",
    "/x" + VISIBLE: "/x" + VISIBLE,
}


@pytest.mark.parametrize(("given", "returned"), SAFE.items())
def test_a_path_of_the_app_is_kept_in_ascii(given: str, returned: str) -> None:
    assert target(access.login_url(HOST, return_to=given)) == returned


@pytest.mark.conformance(62)
@pytest.mark.parametrize(
    "hostile",
    [
        *("", "a", "?a=b", "#a", "https://evil.example/", "https:/evil.example", "javascript:alert(1)", "data:,x"),
        *("//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "\\/evil.example", "/a\\b"),
        *("/\t/evil.example", "/\n/evil.example", "/\r\nSet-Cookie: a=b", "/\x00", "/\x7f", "/\x85", " /a", "\t//a"),
        *("/%2fevil.example", "/%2F/evil.example", "/%5cevil.example", "/%5Cevil", "/a%0d%0ab", "/a%00", "/a%5cb"),
        *("/.", "/..", "/./", "/../x", "/.//evil.example", "/a/../../x", "/%2e%2e/x", "/a/%2E/b", "/%2e//evil.example"),
        *("/cdn-cgi/access/logout", "/cdn-cgi", "/CDN-CGI/access/logout", "/%63dn-cgi/access/logout", "/cdn%2dcgi/"),
        *("/cdn-cgi?x", "/cdn-cgi#x", "/./cdn-cgi/access/logout", "/" + "a" * 4096, "/" + "\u00e9" * 1000),
        *("/" + "\u00e9" * 682 + "abcd", "/a\x9f", "/a\x1f", "/a/..?b", "/a/.#b", "/cdn-cgi/?x=/#/a"),
    ],
)
def test_a_path_that_could_leave_the_app_becomes_the_front_page(hostile: str) -> None:
    assert target(access.login_url(HOST, return_to=hostile)) == "/"


@pytest.mark.parametrize("wrong", [None, 1, b"/a", ["/a"]])
def test_a_path_that_is_not_text_is_an_error(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^return_to must be the path of a page of your app"):
        access.login_url(HOST, return_to=wrong)


@pytest.mark.conformance(62)
@given(st.text(alphabet=st.sampled_from("/\\.%25cfe2CdDn-gi:?#@ab\t\n\r \x00\u00e9\uff0f\ud800")))
def test_no_path_leads_a_browser_to_another_host_or_into_another_header(text: str) -> None:
    path = safe_path(text)
    assert path.isascii()
    assert path.isprintable()
    assert urlsplit(urljoin(f"{SITE}/x/y", path)).netloc == HOST
    assert safe_path(path) == path


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        ({"raw_path": b"/a%20b", "path": "/a b", "query_string": b"c=d"}, "/a%20b?c=d"),
        ({"raw_path": b"/a", "path": "/a", "query_string": b""}, "/a"),
        ({"raw_path": None, "path": "/b\u00fc cher?"}, "/b%C3%BC%20cher%3F"),
        ({"path": "/a", "query_string": b"x=\xff\n"}, "/"),
        ({"raw_path": b"/\xfc", "path": "/\ufffd"}, "/%C3%BC"),
        ({"raw_path": b"//evil.example", "path": "//evil.example"}, "/"),
        ({"raw_path": b"http://evil.example/", "path": "http://evil.example/"}, "/"),
        ({"path": ""}, "/"),
    ],
)
def test_the_path_of_a_request_is_safe_to_return_to(scope: dict[str, Any], path: str) -> None:
    assert requested_path(scope) == path


# logout


def test_a_logout_url_is_the_one_of_the_team() -> None:
    assert access.logout_url() == "https://acme.cloudflareaccess.com/cdn-cgi/access/logout"


def test_a_logout_at_the_app_deletes_its_cookie_too() -> None:
    assert access.logout_url(host=HOST) == f"{SITE}/cdn-cgi/access/logout"
    assert local.logout_url(host="localhost:8787") == "http://localhost:8787/cdn-cgi/access/logout"
    assert access.logout_url(host=HOST, return_to=f"{SITE}/").startswith(f"{SITE}/cdn-cgi/access/logout?returnTo=")
    with pytest.raises(
        ConfigurationError, match=r"^host of log(in|out)_url must be the public host of your app, without a scheme"
    ):
        access.logout_url(host=SITE)


def test_a_logout_can_return_to_a_page() -> None:
    page = f"{SITE}/goodbye?a=b&c=d#e"
    assert access.logout_url(return_to=page) == f"{access.logout_url()}?returnTo={quote(page, safe='')}"
    assert parse_qs(urlsplit(access.logout_url(return_to=page)).query) == {"returnTo": [page]}


def test_the_url_of_a_page_has_at_most_4096_characters() -> None:
    page = f"{SITE}/{'a' * (4096 - len(SITE) - 1)}"
    assert access.logout_url(return_to=page).endswith("a")
    with pytest.raises(ConfigurationError, match=r"^return_to must be the URL of a page of your app"):
        access.logout_url(return_to=f"{page}a")


@pytest.mark.parametrize("end", ["", "/", "?a", "#a", "/a/b?c=/d#e", ":8443/a", "?a=https://evil.example/"])
def test_a_page_is_any_of_the_host_that_its_url_names(end: str) -> None:
    assert parse_qs(urlsplit(access.logout_url(return_to=SITE + end)).query) == {"returnTo": [SITE + end]}


def test_only_a_local_team_returns_to_plain_http() -> None:
    page = "http://localhost:8787/goodbye"
    assert local.logout_url(return_to=page).endswith(f"?returnTo={quote(page, safe='')}")
    with pytest.raises(ConfigurationError):
        access.logout_url(return_to=page)


@pytest.mark.conformance(62)
@pytest.mark.parametrize(
    "wrong",
    [
        *("", "/", "/goodbye", "//app.example.com", "app.example.com", "ftp://app.example.com", "javascript:alert(1)"),
        *("https://", "https:///x", "https:app.example.com", "https://user@app.example.com", "https://a\\@b.example"),
        *(
            "https://app.example.com\r\nx: y",
            "https://app.example.com/\n",
            " https://app.example.com",
            "https://ü.example",
        ),
        *("https://app.example.com/a b", "HTTPS://app.example.com", f"https://app.example.com/{'a' * 4096}"),
        *(
            "https://app.example.com/a\\b",
            "https://app.example.com:port",
            "https://app.example.com:99999",
            1,
            b"https://app.example.com",
        ),
    ],
)
def test_a_logout_returns_to_nothing_but_the_url_of_a_page(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^return_to must be the URL of a page of your app"):
        access.logout_url(return_to=wrong)
