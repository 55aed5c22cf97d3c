"""The control page and its JSON API."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from support.local_rig import APP, TEAM, Browser, make_local_access

from fastapi_cloudflare_access.local import run_local_access
from fastapi_cloudflare_access.local.config import App, Policy
from fastapi_cloudflare_access.local.control import _SECTIONS
from fastapi_cloudflare_access.local.control_commands import FAULTS, ControlCommands
from fastapi_cloudflare_access.local.local_access import Addresses
from fastapi_cloudflare_access.testing import FakeClock

API = TEAM + "/control/api/"


def post(browser: Browser, command: str, body: Any = None, **headers: str) -> Any:
    return browser.client.post(API + command, json=body or {}, headers=headers)


@pytest.fixture
def browser() -> Browser:
    return Browser(make_local_access(App(name="app"), App(name="shop", host="shop.localhost")))


def test_the_page_shows_sessions_without_tokens(browser: Browser) -> None:
    assert "No sessions." in browser.open(TEAM + "/").text
    browser.log_in()
    page = browser.open(TEAM + "/").text
    assert "ada@example.com" in page
    assert '"identity_nonce"' in page
    assert f"Session {next(iter(browser.local_access.state.sessions))}, 0 d 0 h 0 min old" in " ".join(page.split())
    for jar in browser.jar.values():
        assert all(value not in page for name, value in jar.items() if name == "CF_Authorization")
    client_id, name = next(iter(browser.local_access.services.items()))
    assert client_id in page
    assert browser.local_access.service_secret(client_id, name) not in page


def test_the_state_contains_the_same_as_json(browser: Browser) -> None:
    browser.log_in()
    state = browser.open(API + "state").json()
    assert state["team"]["issuer"] == TEAM
    assert [app["name"] for app in state["apps"]] == ["app", "shop"]
    assert [key["is_current"] for key in state["keys"]] == [True, False]
    assert state["sessions"][0]["email"] == "ada@example.com"
    assert list(state["sessions"][0]["tokens"]) == [browser.local_access.config.apps[0].tag]


def kids(browser: Browser) -> list[str]:
    return [key["kid"] for key in browser.open(TEAM + "/cdn-cgi/access/certs").json()["keys"]]


def test_commands_rotate_and_withdraw_keys(browser: Browser) -> None:
    before = kids(browser)
    assert post(browser, "rotate").json() == {"done": "rotate"}
    after = kids(browser)
    assert after[0] == before[1]
    assert after[1] not in before
    post(browser, "withdraw")
    assert kids(browser) == after[1:]


def test_a_rotation_keeps_sessions(browser: Browser) -> None:
    browser.log_in()
    post(browser, "rotate")
    assert browser.open(APP + "/").text == "hello"
    post(browser, "withdraw")
    assert browser.open(APP + "/").status_code == 302


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("hang", "lag", "refuse", "reset")])
def test_a_fault_of_the_certs_endpoint_lasts_until_it_is_removed(browser: Browser, fault: str) -> None:
    good = browser.open(TEAM + "/cdn-cgi/access/certs").content
    assert post(browser, "certs", {"fault": fault}).status_code == 200
    assert browser.open(TEAM + "/cdn-cgi/access/certs").content != good
    assert FAULTS[fault] in browser.open(TEAM + "/").text
    post(browser, "certs", {"fault": "none"})
    assert browser.open(TEAM + "/cdn-cgi/access/certs").content == good


def test_a_shifted_clock_dates_tokens() -> None:
    clock = FakeClock()
    browser = Browser(make_local_access(clock=clock))
    post(browser, "clock", {"seconds": -3600})
    browser.log_in()
    session = browser.open(API + "state").json()["sessions"][0]
    assert next(iter(session["tokens"].values()))["iat"] == int(clock.now()) - 3600
    assert "3600 seconds behind" in browser.open(TEAM + "/").text


def test_commands_expire_a_session_and_revoke_a_user(browser: Browser) -> None:
    browser.log_in()
    session = browser.open(API + "state").json()["sessions"][0]
    assert post(browser, "expire", {"session": session["id"]}).status_code == 200
    assert browser.open(APP + "/").status_code == 302
    browser.log_in()
    assert post(browser, "revoke", {"email": "Ada@Example.com"}).json()["ended"] == 1
    assert browser.open(APP + "/").status_code == 302
    page = browser.open(TEAM + "/").text
    assert "expired" in page
    assert "revoked" in page


def test_a_command_creates_tokens_for_users_and_services(browser: Browser) -> None:
    user = post(browser, "token", {"email": "bob@example.com", "app": "shop"}).json()["token"]
    assert browser.open("http://shop.localhost:8787/", cf_access_token=user).text == "hello"
    assert browser.open(APP + "/", cf_access_token=user).status_code == 302
    service = post(browser, "token", {"service": "nightly-backup"}).json()["token"]
    assert browser.open(APP + "/", cf_access_token=service).text == "hello"


def test_reset_removes_sessions_and_faults(browser: Browser) -> None:
    browser.log_in()
    post(browser, "clock", {"seconds": 5})
    post(browser, "certs", {"fault": "fail"})
    post(browser, "reset")
    post(browser, "rename")
    post(browser, "groups", {"shape": "text"})
    post(browser, "trim", {"email": "ada@example.com"})
    post(browser, "withdraw")
    post(browser, "reset")
    state = browser.open(API + "state").json()
    assert (state["sessions"], state["team"]["shift"], state["certs"]["fault"]) == ([], 0, "")
    assert (state["team"]["issuer"], state["team"]["token_issuer"], state["team"]["groups"]) == (TEAM, TEAM, "list")
    assert not any(person["trimmed"] for person in state["people"])
    assert len(kids(browser)) == 2


def test_reset_can_keep_the_sessions(browser: Browser) -> None:
    browser.log_in()
    post(browser, "clock", {"seconds": 5})
    post(browser, "reset", {"sessions": "keep"})
    assert browser.local_access.clock.shift == 0
    assert browser.open(APP + "/").text == "hello"


def test_a_token_is_created_only_where_a_login_would_create_one() -> None:
    policies = (Policy(emails=("ada@example.com",)), Policy(decision="service_auth", service_tokens=("one",)))
    names = [{"name": "one"}, {"name": "two"}]
    browser = Browser(make_local_access(App(name="app", policies=policies), service_tokens=names))
    for body, status in (
        ({"email": "ada@example.com"}, 200),
        ({"email": "bob@example.com"}, 403),
        ({"service": "one"}, 200),
        ({"service": "two"}, 403),
    ):
        response = post(browser, "token", body)
        assert (response.status_code, "token" in response.json()) == (status, status == 200), body
    assert [session.email for session in browser.local_access.state.sessions.values()] == ["ada@example.com"]


RENAMED = "http://[::1]:8787"


def test_a_renamed_team_serves_its_keys_under_the_new_name_and_tokens_follow_later(browser: Browser) -> None:
    browser.log_in()
    assert post(browser, "rename").json() == {"done": "rename", "issuer": RENAMED, "token_issuer": TEAM}
    certs = "/cdn-cgi/access/certs"
    assert browser.open(TEAM + certs).status_code == 404
    assert browser.open(TEAM + "/.well-known/openid-configuration").status_code == 404
    assert "keys" in browser.open(RENAMED + certs).json()
    assert browser.open(RENAMED + "/.well-known/openid-configuration").json()["issuer"] == RENAMED
    assert browser.open(APP + "/").text == "hello"
    browser.jar.pop("localhost")
    assert browser.open(APP + "/").headers["location"].startswith(RENAMED + "/cdn-cgi/access/login/")
    assert issuer_of_new_token(browser) == TEAM
    page = browser.open(TEAM + "/").text
    assert f"new tokens still name {TEAM}" in page
    assert post(browser, "rename").json()["token_issuer"] == RENAMED
    assert issuer_of_new_token(browser) == RENAMED
    assert "already" in post(browser, "rename").json()["error"]
    assert browser.log_in().text == "hello"


def issuer_of_new_token(browser: Browser) -> str:
    post(browser, "token", {"email": "ada@example.com"})
    state = browser.open(API + "state").json()
    return str(next(iter(state["sessions"][0]["tokens"].values()))["iss"])


def test_the_new_name_answers_404_before_the_renaming(browser: Browser) -> None:
    assert browser.open(RENAMED + "/cdn-cgi/access/certs").status_code == 404
    assert browser.open(RENAMED + "/control/api/state").status_code == 200


def test_a_team_domain_gets_a_new_label() -> None:
    domain = f"{'a' * 63}.cloudflareaccess.com"
    renamed = replace(Addresses(80, 443, domain), is_renamed=True)
    assert renamed.issuer == f"https://{'a' * 55}-renamed.cloudflareaccess.com"
    assert renamed.is_former(domain)
    assert not renamed.is_former("127.0.0.1")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("list", ["admins", "engineering"]),
        ("text", "admins,engineering"),
        ("objects", ["admins", "engineering"]),
    ],
)
def test_groups_have_the_chosen_shape_in_new_tokens(browser: Browser, shape: str, expected: object) -> None:
    post(browser, "groups", {"shape": shape})
    groups = custom_of_new_token(browser)["groups"]
    assert ([group["name"] for group in groups] if shape == "objects" else groups) == expected


def test_custom_claims_of_a_user_can_be_trimmed(browser: Browser) -> None:
    post(browser, "trim", {"email": "ada@example.com"})
    assert custom_of_new_token(browser) is None
    assert "(without custom claims)" in browser.open(TEAM + "/").text
    post(browser, "trim", {"email": "ada@example.com", "trimmed": False})
    assert custom_of_new_token(browser) == {"groups": ["admins", "engineering"]}


def custom_of_new_token(browser: Browser) -> Any:
    post(browser, "token", {"email": "ada@example.com"})
    return next(iter(browser.open(API + "state").json()["sessions"][0]["tokens"].values())).get("custom")


def test_the_certs_endpoint_can_limit_its_clients(browser: Browser) -> None:
    post(browser, "certs", {"fault": "limited", "seconds": 30})
    response = browser.open(TEAM + "/cdn-cgi/access/certs")
    assert (response.status_code, response.headers["retry-after"]) == (429, "30")
    post(browser, "certs", {"fault": "missing"})
    assert browser.open(TEAM + "/cdn-cgi/access/certs").status_code == 404


def test_a_cut_session_loses_its_open_streams() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await asyncio.Event().wait()

    with run_local_access(app) as local, httpx.Client(trust_env=False) as client:
        tokens = [local.control("token", email=email)["token"] for email in ("ada@example.com", "grace@example.com")]
        ada, grace = (
            client.send(client.build_request("GET", local.url(), headers={"cf-access-token": token}), stream=True)
            for token in tokens
        )
        pieces = [stream.iter_raw() for stream in (ada, grace)]
        assert [next(piece) for piece in pieces] == [b"first", b"first"]
        session = next(entry for entry in local.local_access.state.sessions.values() if entry.email.startswith("ada"))
        assert local.control("cut", session=session.id) == {"done": "cut", "closed": 1}
        with pytest.raises(httpx.RemoteProtocolError):
            next(pieces[0])
        assert client.get(local.url(), headers={"cf-access-token": tokens[0]}).status_code == 302
        assert local.control("cut", session=session.id)["closed"] == 0
        grace.close()
        ada.close()


@pytest.mark.parametrize(
    ("command", "body", "problem"),
    [
        ("nothing", {}, "unknown command"),
        ("groups", {"shape": "x"}, "shape must be one of list, text, objects"),
        ("groups", {"shape": ["text"]}, "shape must be one of"),
        ("trim", {"email": "x"}, "must be an email"),
        ("cut", {"session": "x"}, "no session has this id"),
        ("certs", {"fault": "x"}, "fault must be one of"),
        ("certs", {}, "fault must be one of"),
        ("certs", {"fault": ["hang"]}, "fault must be one of"),
        ("certs", {"fault": "lag", "seconds": -1}, "from 0 to 600"),
        ("clock", {"seconds": "x"}, "seconds must be a number"),
        ("clock", {"seconds": None}, "seconds must be a number"),
        ("clock", {"seconds": "nan"}, "seconds must be from"),
        ("clock", {"seconds": 1e99}, "seconds must be from"),
        ("expire", {"session": "x"}, "no session has this id"),
        ("revoke", {"email": 5}, "must be an email"),
        ("revoke", {"email": "x"}, "must be an email"),
        ("token", {"email": "a@b", "app": "x"}, "no app has this name"),
        ("token", {"service": "x"}, "no service token has this name"),
        ("rotate", [1], "must be a JSON object"),
    ],
    ids=[str(number) for number in range(19)],
)
def test_an_invalid_command_is_rejected_with_the_reason(
    browser: Browser, command: str, body: Any, problem: str
) -> None:
    response = post(browser, command, body)
    assert response.status_code == 400
    assert problem in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"content-type": "text/plain"}, 415),
        ("POST", {"content-type": "application/x-www-form-urlencoded"}, 415),
        ("POST", {"content-type": "application/json", "origin": "http://localhost:8787"}, 403),
        ("POST", {"content-type": "application/json", "sec-fetch-site": "cross-site"}, 403),
        ("POST", {"content-type": "application/json", "origin": "null"}, 403),
        ("DELETE", {}, 405),
        ("GET", {}, 405),
        ("POST", {"content-type": "application/json; charset=utf-8", "origin": TEAM}, 200),
    ],
    ids=[str(number) for number in range(8)],
)
def test_a_page_of_another_origin_cannot_run_a_command(
    browser: Browser, method: str, headers: Any, status: int
) -> None:
    before = browser.local_access.team.current.kid
    response = browser.client.request(method, API + "rotate", headers=headers)
    assert response.status_code == status
    assert (browser.local_access.team.current.kid != before) is (status == 200)


def test_a_button_returns_to_its_section_of_the_page(browser: Browser) -> None:
    page = browser.open(TEAM + "/").text
    commands = set(ControlCommands(browser.local_access).commands) - {"token", "reset"}
    assert set(_SECTIONS) == commands
    assert [name for name in _SECTIONS.values() if f'id="{name}"' not in page] == []


def test_the_buttons_of_the_page_work_without_scripts(browser: Browser) -> None:
    page = browser.open(TEAM + "/")
    browser.at = TEAM + "/control/rotate"
    before = browser.local_access.team.current.kid
    response = browser.submit(page)
    assert (response.status_code, response.headers["location"]) == (303, "/#keys")
    assert browser.local_access.team.current.kid != before
    browser.at = TEAM + "/control/certs"
    browser.submit(page, fault="lag", seconds="2")
    assert browser.local_access.fault == "lag"
    browser.at = TEAM + "/control/clock"
    assert browser.submit(page, seconds="x").status_code == 400
    assert browser.open(TEAM + "/control/rotate", method="POST", data={"csrf": "x"}).status_code == 403
    assert browser.open(TEAM + "/control/rotate").status_code == 404
