"""What the edge itself answers."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.local_rig import APP, TEAM, Browser, a_realm

from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verification.strict import parse_json_object
from fastapi_cloudflare_access._verification.token import parse
from fastapi_cloudflare_access.local.config import App, Policy
from fastapi_cloudflare_access.local.local_access import Realm


def unverified(token: str) -> dict[str, Any]:
    return parse_json_object(parse(token.encode()).payload)


def verifies(realm: Realm, token: str) -> bool:
    parsed, jwk = parse(token.encode()), realm.team.current.jwk()
    return RS256Key(n=jwk["n"], e=jwk["e"]).verifies(parsed.signature, parsed.signed)


MACHINES = (Policy(decision="service_auth", everyone=True),)
PREFLIGHT = {"origin": "http://a.test", "access-control-request-method": "PUT"}


def test_the_login_redirect_has_the_documented_shape() -> None:
    realm = a_realm()
    browser = Browser(realm)
    answer = browser.open(APP + "/a/b?x=1&y=/")
    address = urlsplit(answer.headers["location"])
    assert answer.status_code == 302
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{TEAM}/cdn-cgi/access/login/localhost:8787"
    query = parse_qs(address.query)
    assert list(query) == ["kid", "meta", "redirect_url"]
    assert (query["kid"], query["redirect_url"]) == ([realm.config.apps[0].tag], ["/a/b?x=1&y=/"])
    meta = realm.team.read(query["meta"][0], "meta")
    assert meta is not None
    assert (meta["hostname"], meta["redirect_url"]) == ("localhost:8787", "/a/b?x=1&y=/")
    resource = f"{APP}/.well-known/cloudflare-access-protected-resource/a/b"
    assert answer.headers["www-authenticate"] == f'Cloudflare-Access resource_metadata="{resource}"'
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["expires"] == "Thu, 01 Jan 1970 00:00:01 GMT"
    assert "no-store" in answer.headers["cache-control"]


def test_the_redirect_sets_the_app_session_which_a_second_tab_shares() -> None:
    browser = Browser(a_realm())
    first = browser.open(APP + "/")
    line = first.headers["set-cookie"]
    assert line.startswith("CF_AppSession=n")
    assert line.endswith("; Path=/; Secure; HttpOnly")
    value = browser.jar["localhost"]["CF_AppSession"]
    assert len(value) == 17
    browser.open(APP + "/other")
    assert browser.jar["localhost"]["CF_AppSession"] == value
    browser.jar["localhost"]["CF_AppSession"] = 'planted"'
    browser.open(APP + "/")
    assert browser.jar["localhost"]["CF_AppSession"] not in (value, 'planted"')


def test_a_path_that_a_browser_would_take_for_a_host_comes_back_as_a_path() -> None:
    answer = Browser(a_realm()).open(APP + "//evil.test/x")
    assert parse_qs(urlsplit(answer.headers["location"]).query)["redirect_url"] == ["/evil.test/x"]


def test_a_script_gets_401_with_what_it_needs_to_see_it() -> None:
    answer = Browser(a_realm()).open(APP + "/x", x_requested_with="XMLHttpRequest")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Cloudflare-Access resource_metadata=")
    assert answer.headers["access-control-allow-headers"] == "x-requested-with"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "set-cookie" not in answer.headers


def test_an_app_for_machines_answers_403_as_a_page_or_as_json() -> None:
    realm = a_realm(App(name="app", policies=MACHINES))
    browser = Browser(realm)
    html, data = browser.open(APP + "/"), browser.open(APP + "/", accept="application/json")
    assert (html.status_code, data.status_code) == (403, 403)
    assert "This is a local Access" in html.text
    assert data.json().keys() == {"message", "status_code", "aud", "ray_id"}
    assert (data.json()["status_code"], data.json()["aud"]) == (403, realm.config.apps[0].tag)
    for answer in (html, data):
        assert answer.headers["cf-access-aud"] == realm.config.apps[0].tag
        assert answer.headers["cf-access-domain"] == "127.0.0.1:8787"
        assert answer.headers["cf-access-error"] == "service_auth"


def test_an_app_for_machines_answers_401_where_that_is_set() -> None:
    answer = Browser(a_realm(App(name="app", policies=MACHINES, service_auth_401=True))).open(APP + "/")
    assert answer.status_code == 401
    assert "www-authenticate" in answer.headers


@pytest.mark.parametrize("origin", ["http://a.test", "http://b.test"])
def test_a_preflight_is_answered_for_the_origins_of_the_app(origin: str) -> None:
    browser = Browser(a_realm(App(name="app", cors_origins=("http://a.test",))))
    sent = {**PREFLIGHT, "origin": origin, "access-control-request-headers": "x-a"}
    answer = browser.client.options(APP + "/", headers=sent)
    if origin == "http://b.test":
        assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (403, False)
        return
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-headers"] == "x-a"


def test_a_preflight_is_refused_where_nothing_is_set() -> None:
    assert Browser(a_realm()).client.options(APP + "/", headers=PREFLIGHT).status_code == 403


def test_the_metadata_is_a_signed_match() -> None:
    realm = a_realm()
    answer = Browser(realm).open(APP + "/x", method="HEAD", cf_access_metadata_request="true")
    assert answer.status_code == 200
    match = unverified(answer.headers["cf-access-metadata"])
    tag = realm.config.apps[0].tag
    assert (match["type"], match["aud"], match["hostname"]) == ("match", tag, "localhost")
    assert match["auth_domain"] == "127.0.0.1:8787"
    assert verifies(realm, answer.headers["cf-access-metadata"])


def test_who_may_not_is_told_who_decides_and_offered_another_login() -> None:
    realm = a_realm(App(name="app", policies=(Policy(emails=("ada@example.com",)),)))
    token = realm.team.app_token(
        realm.log_in("bob@example.com", ip=""), realm.config.person("bob@example.com"), realm.config.apps[0], host="h"
    )
    answer = Browser(realm).open(APP + "/", cf_access_token=token)
    assert answer.status_code == 403
    assert "/cdn-cgi/access/logout" in answer.text
