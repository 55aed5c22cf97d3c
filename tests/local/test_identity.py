"""Who a session is, in full."""

import pytest
from support.local_rig import APP, TEAM, Browser, a_realm

PATH = "/cdn-cgi/access/get-identity"


@pytest.mark.parametrize("host", [APP, TEAM])
def test_both_hosts_tell_who_is_logged_in(host: str) -> None:
    browser = Browser(a_realm())
    browser.log_in()
    answer = browser.open(host + PATH)
    assert answer.status_code == 200
    assert answer.json()["email"] == "ada@example.com"
    assert [group["name"] for group in answer.json()["groups"]] == ["admins", "engineering"]
    assert answer.json()["geo"] == {"country": "GB"}


def test_an_app_may_ask_the_team_with_the_users_token() -> None:
    browser = Browser(a_realm())
    browser.log_in()
    token = browser.jar["localhost"]["CF_Authorization"]
    browser.jar.clear()
    answer = browser.client.get(TEAM + PATH, headers={"cookie": f"CF_Authorization={token}"})
    assert answer.json()["email"] == "ada@example.com"


def test_without_a_cookie_the_documented_error_comes() -> None:
    answer = Browser(a_realm()).open(TEAM + PATH)
    assert (answer.status_code, answer.json()) == (400, {"err": "no app token set"})


def test_a_session_that_ended_has_no_identity_any_more() -> None:
    browser = Browser(a_realm())
    browser.log_in()
    browser.realm.end("ada@example.com", "revoked")
    assert browser.open(APP + PATH).status_code == 401
    browser.jar["localhost"]["CF_Authorization"] = "forged"
    assert browser.open(APP + PATH).status_code == 401


def test_a_service_token_has_no_identity() -> None:
    realm = a_realm()
    browser = Browser(realm)
    token = realm.team.machine_token(next(iter(realm.services)), realm.config.apps[0], host="localhost")
    browser.jar["localhost"] = {"CF_Authorization": token}
    assert browser.open(APP + PATH).status_code == 400
