"""The get-identity endpoint."""

import pytest
from support.local_rig import APP, TEAM, Browser, make_local_access

PATH = "/cdn-cgi/access/get-identity"


@pytest.mark.parametrize("host", [APP, TEAM])
def test_both_hosts_return_the_identity(host: str) -> None:
    browser = Browser(make_local_access())
    browser.log_in()
    response = browser.open(host + PATH)
    assert response.status_code == 200
    assert response.json()["email"] == "ada@example.com"
    assert [group["name"] for group in response.json()["groups"]] == ["admins", "engineering"]
    assert response.json()["geo"] == {"country": "GB"}


def test_an_app_can_fetch_the_identity_with_the_token_of_its_user() -> None:
    browser = Browser(make_local_access())
    browser.log_in()
    token = browser.jar["localhost"]["CF_Authorization"]
    browser.jar.clear()
    response = browser.client.get(TEAM + PATH, headers={"cookie": f"CF_Authorization={token}"})
    assert response.json()["email"] == "ada@example.com"


def test_a_request_without_a_cookie_gets_the_documented_error() -> None:
    response = Browser(make_local_access()).open(TEAM + PATH)
    assert (response.status_code, response.json()) == (400, {"err": "no app token set"})


def test_an_ended_session_has_no_identity() -> None:
    browser = Browser(make_local_access())
    browser.log_in()
    browser.local_access.end_sessions("ada@example.com", "revoked")
    assert browser.open(APP + PATH).json() == {"err": "no app token set"}
    browser.jar["localhost"]["CF_Authorization"] = "forged"
    assert browser.open(APP + PATH).status_code == 400


def test_a_service_token_has_no_identity() -> None:
    local_access = make_local_access()
    browser = Browser(local_access)
    token = local_access.team.service_app_token(
        next(iter(local_access.services)), local_access.config.apps[0], host="localhost"
    )
    browser.jar["localhost"] = {"CF_Authorization": token}
    assert browser.open(APP + PATH).status_code == 400
