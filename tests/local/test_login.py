"""Login and logout."""

import json
from base64 import b64decode
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from support.local_rig import APP, TEAM, Browser, make_local_access, make_request

from fastapi_cloudflare_access.local.config import App, Person, Policy
from fastapi_cloudflare_access.local.edge_request import MAX_QUERY, MAX_TARGET
from fastapi_cloudflare_access.local.local_access import Addresses, LocalAccess
from fastapi_cloudflare_access.local.login import is_relative
from fastapi_cloudflare_access.local.responses import login_target
from fastapi_cloudflare_access.testing import FakeClock

SHOP = "http://shop.localhost:8787"


def two_apps(clock: FakeClock | None = None) -> LocalAccess:
    shop = App(name="shop", host="shop.localhost", policies=(Policy(groups=("admins",)),))
    people = (Person(email="ada@example.com", groups=("admins",)), Person(email="bob@example.com"))
    return make_local_access(App(name="wiki"), shop, clock=clock, people=people)


def test_a_login_returns_to_the_requested_page() -> None:
    browser = Browser(two_apps())
    response = browser.log_in(url=APP + "/a?b=1")
    assert (response.text, browser.at) == ("hello", APP + "/a?b=1")
    assert browser.app.headers()["cf-access-authenticated-user-email"] == "ada@example.com"


@pytest.mark.parametrize("piece", ["abc", "%25", "%C3%BC%22", "?&="])
def test_a_login_returns_to_a_long_address(piece: str) -> None:
    browser = Browser(two_apps())
    url = APP + "/" + piece * ((MAX_TARGET - 1) // len(piece))
    assert (browser.log_in(url=url).text, browser.at) == ("hello", url)


def test_an_address_that_is_too_long_to_return_to_gets_414() -> None:
    response = Browser(two_apps()).open(APP + "/" + "a" * MAX_TARGET)
    assert response.status_code == 414
    assert "The address is too long" in response.text


@pytest.mark.parametrize(
    ("sent", "target"),
    [("/a%2Fb?c=d&e=%20[1]", "/a%2Fb?c=d&e=%20[1]"), ("//evil.com", "/evil.com"), ('/a"\\\xff b', "/a%22%5C%FF%20b")],
)
def test_a_login_target_is_a_path_that_no_browser_reads_as_a_host(sent: str, target: str) -> None:
    assert login_target(make_request(sent)) == target
    assert is_relative(target)


def test_the_app_cookie_and_the_team_cookie_are_as_documented() -> None:
    browser = Browser(two_apps())
    page = browser.follow(browser.open(APP + "/"))
    assert page.headers["set-cookie"].startswith("CF_Session=")
    assert page.headers["set-cookie"].endswith("; Path=/; Secure; HttpOnly; SameSite=none")
    chosen = browser.submit(page, email="ada@example.com")
    assert chosen.status_code == 303
    team = chosen.headers["set-cookie"]
    assert team.startswith("CF_Authorization=")
    assert team.endswith("; Path=/; Secure; HttpOnly; SameSite=none")
    back = browser.open(browser.open(chosen.headers["location"]).headers["location"])
    assert back.status_code == 302
    assert back.headers["set-cookie"].endswith("; Path=/; Secure; HttpOnly; SameSite=none")
    assert browser.jar["localhost"]["CF_Authorization"] != browser.jar["127.0.0.1"]["CF_Authorization"]


def test_the_redirect_to_the_app_has_the_documented_state() -> None:
    browser = Browser(two_apps())
    page = browser.follow(browser.open(APP + "/x"))
    back = browser.open(browser.submit(page, email="ada@example.com").headers["location"])
    address = urlsplit(back.headers["location"])
    assert address.path == "/cdn-cgi/access/authorized"
    state = json.loads(b64decode(parse_qs(address.query)["state"][0]))
    assert state == {"hostname": "localhost:8787", "redirectURL": "/x", "isSSO": True, "authDomain": TEAM}


def test_a_second_app_needs_no_second_login() -> None:
    browser = Browser(two_apps())
    browser.log_in()
    response = browser.follow(browser.open(SHOP + "/cart"))
    assert (response.text, browser.at) == ("hello", SHOP + "/cart")


def test_a_user_without_access_to_the_second_app_can_log_in_as_another() -> None:
    browser = Browser(two_apps())
    browser.log_in("bob@example.com")
    refused = browser.follow(browser.open(SHOP + "/cart"))
    assert (refused.status_code, "That account does not have access" in refused.text) == (403, True)
    again = browser.follow(browser.open(f"/cdn-cgi/access/logout?returnTo={quote(SHOP + '/cart')}"))
    assert "Log in to shop" in again.text
    assert browser.follow(browser.submit(again, email="ada@example.com")).text == "hello"


def test_the_login_page_accepts_any_address_without_a_password() -> None:
    browser = Browser(two_apps())
    page = browser.follow(browser.open(APP + "/"))
    assert "password" not in page.text.replace("It never asks for a password", "")
    assert browser.follow(browser.submit(page, email=" New.Person@Example.ORG ")).text == "hello"
    assert browser.app.headers()["cf-access-authenticated-user-email"] == "new.person@example.org"


@pytest.mark.parametrize("typed", ["", "nobody", '"><script>alert(1)</script>@x.y'])
def test_an_invalid_address_is_rejected_and_escaped(typed: str) -> None:
    browser = Browser(two_apps())
    response = browser.submit(browser.follow(browser.open(APP + "/")), email=typed)
    assert response.status_code == 400
    assert "not a valid email address" in response.text
    assert "<script" not in response.text


def test_a_form_is_valid_only_in_its_browser() -> None:
    local_access = two_apps()
    browser, other = Browser(local_access), Browser(local_access)
    browser.follow(browser.open(APP + "/"))
    page = other.follow(other.open(APP + "/"))
    browser.at = other.at
    assert "has expired" in browser.submit(page, email="ada@example.com").text
    browser.jar.clear()
    assert "has expired" in browser.submit(page, email="ada@example.com").text
    assert local_access.state.sessions == {}


@pytest.mark.parametrize(
    "headers", [{"origin": "http://localhost:3000"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}]
)
def test_a_form_of_another_origin_does_not_log_in(headers: dict[str, str]) -> None:
    browser = Browser(two_apps())
    page = browser.follow(browser.open(APP + "/"))
    csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
    response = browser.open(browser.at, method="POST", data={"csrf": csrf, "email": "ada@example.com"}, **headers)
    assert response.status_code == 400
    assert browser.local_access.state.sessions == {}


def login_address(browser: Browser, **change: str) -> str:
    address = urlsplit(browser.open(APP + "/page").headers["location"])
    query = {name: values[0] for name, values in parse_qs(address.query).items()} | change
    host = query.pop("host", "localhost:8787")
    return f"{TEAM}/cdn-cgi/access/login/{host}?" + "&".join(f"{name}={quote(value)}" for name, value in query.items())


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_url": "https://evil.test/"},
        {"redirect_url": "//evil.test/"},
        {"redirect_url": "/\\evil.test"},
        {"redirect_url": "/a\nb"},
        {"redirect_url": ""},
        {"host": "evil.test"},
        {"host": "localhost:1"},
        {"host": "shop.localhost:8787"},
        {"kid": "nobody"},
        {"meta": "x" * MAX_QUERY},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_login_that_leads_to_another_address_is_rejected(change: dict[str, str]) -> None:
    browser = Browser(two_apps())
    response = browser.open(login_address(browser, **change))
    assert (response.status_code, "location" in response.headers) == (400, False)


@pytest.mark.parametrize("change", [{"meta": ""}, {"meta": "forged"}, {"redirect_url": "/other"}], ids=str)
def test_a_login_without_its_meta_restarts_at_the_app(change: dict[str, str]) -> None:
    browser = Browser(two_apps())
    browser.log_in()
    del browser.jar["localhost"]["CF_Authorization"]
    response = browser.open(login_address(browser, **change))
    assert response.headers["location"] == APP + change.get("redirect_url", "/page")
    assert browser.follow(response).text == "hello"


def test_a_form_logs_in_after_a_long_time() -> None:
    clock = FakeClock()
    browser = Browser(two_apps(clock))
    page = browser.follow(browser.open(APP + "/page"))
    clock.advance(3000)
    assert browser.follow(browser.submit(page, email="ada@example.com")).text == "hello"
    assert browser.at == APP + "/page"


def redirect_after_login(browser: Browser) -> str:
    page = browser.follow(browser.open(APP + "/"))
    response = browser.open(browser.submit(page, email="ada@example.com").headers["location"])
    return str(response.headers["location"])


def assert_invalid(response: Any, browser: Browser) -> None:
    assert (response.status_code, "Invalid login session" in response.text) == (400, True)
    assert "CF_Authorization" not in browser.jar.get("localhost", {})


@pytest.mark.parametrize("address", ["", "?nonce=", "?nonce=wrong&state=x", "?" + "a&" * 99])
def test_an_invalid_nonce_does_not_log_in(address: str) -> None:
    browser = Browser(two_apps())
    assert_invalid(browser.open(f"{APP}/cdn-cgi/access/authorized{address}"), browser)


def test_a_nonce_is_valid_once() -> None:
    browser = Browser(two_apps())
    address = redirect_after_login(browser)
    assert browser.open(address).status_code == 302
    del browser.jar["localhost"]["CF_Authorization"]
    assert_invalid(browser.open(address), browser)


def test_a_nonce_is_valid_only_in_the_browser_of_the_login() -> None:
    local_access = two_apps()
    address = redirect_after_login(Browser(local_access))
    attacker = Browser(local_access)
    attacker.open(APP + "/")
    assert_invalid(attacker.open(address), attacker)


def test_a_nonce_is_valid_only_on_the_host_of_the_login() -> None:
    browser = Browser(two_apps())
    address = redirect_after_login(browser)
    browser.jar["shop.localhost"] = browser.jar["localhost"]
    assert browser.open(address.replace("//localhost", "//shop.localhost")).status_code == 400


def test_a_nonce_is_valid_for_a_minute() -> None:
    clock = FakeClock()
    browser = Browser(two_apps(clock))
    address = redirect_after_login(browser)
    clock.advance(61)
    assert_invalid(browser.open(address), browser)


def test_a_nonce_of_an_ended_session_is_not_valid() -> None:
    browser = Browser(two_apps())
    address = redirect_after_login(browser)
    browser.local_access.end_sessions("ada@example.com", "revoked")
    assert_invalid(browser.open(address), browser)


@pytest.mark.parametrize("host", [APP, SHOP, TEAM])
def test_logout_on_any_host_ends_the_session_on_every_host(host: str) -> None:
    browser = Browser(two_apps())
    browser.log_in()
    browser.follow(browser.open(SHOP + "/"))
    response = browser.open(host + "/cdn-cgi/access/logout")
    assert "You are logged out" in response.text
    assert response.headers["set-cookie"].startswith("CF_Authorization=; Expires=Thu, 01 Jan 1970")
    for app in (APP, SHOP):
        assert "Log in to" in browser.follow(browser.open(app + "/")).text


def test_logout_without_a_login_is_not_an_error() -> None:
    browser = Browser(two_apps())
    browser.jar["localhost"] = {"CF_Authorization": "forged"}
    assert browser.open(APP + "/cdn-cgi/access/logout").status_code == 200
    assert Browser(two_apps()).open(APP + "/cdn-cgi/access/logout").status_code == 200


@pytest.mark.parametrize("address", [TEAM + "/", APP + "/x?y", SHOP, "http://shop.localhost:8787/a"])
def test_logout_returns_to_addresses_of_the_team(address: str) -> None:
    response = Browser(two_apps()).open(f"{APP}/cdn-cgi/access/logout?returnTo={quote(address)}")
    assert (response.status_code, response.headers["location"]) == (302, address)


@pytest.mark.parametrize(
    "address",
    ["https://evil.test", "//evil.test", "/path", "http://localhost:3000/", "http://localhost:8787@evil.test/",
     "http://localhost:8787\\@evil.test", " http://localhost:8787/", "javascript:alert(1)", "http://[::1"],
)  # fmt: skip
def test_logout_does_not_return_to_other_addresses(address: str) -> None:
    browser = Browser(two_apps())
    browser.log_in()
    response = browser.open(f"{APP}/cdn-cgi/access/logout?returnTo={quote(address)}")
    assert (response.status_code, "location" in response.headers) == (400, False)


def test_the_team_session_expires() -> None:
    clock = FakeClock()
    local_access = make_local_access(App(name="app", session=10), clock=clock, team={"session": "60s"})
    browser = Browser(local_access)
    browser.log_in()
    clock.advance(11)
    assert browser.follow(browser.open(APP + "/")).text == "hello"  # the edge issues a new application token
    clock.advance(60)
    assert "Log in to app" in browser.follow(browser.open(APP + "/")).text


def test_the_stored_expiry_of_the_team_session_counts() -> None:
    browser = Browser(make_local_access(App(name="app", session=1), clock=(clock := FakeClock())))
    browser.log_in()
    next(iter(browser.local_access.state.sessions.values())).expires = clock.now()
    clock.advance(2)
    assert "Log in to app" in browser.follow(browser.open(APP + "/")).text


@pytest.mark.parametrize("target", ["/", "/a?b=//c", "/%2F"])
def test_paths_are_relative(target: str) -> None:
    assert is_relative(target)


def test_a_login_over_tls_returns_to_https() -> None:
    local_access = make_local_access(addresses=Addresses(8787, 8443))
    browser = Browser(local_access)
    encrypted = "https://localhost:8443"
    response = browser.log_in(url=encrypted + "/x")
    assert (response.text, browser.at) == ("hello", encrypted + "/x")
