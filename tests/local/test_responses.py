"""The responses of the edge itself."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.local_rig import APP, TEAM, Browser, make_local_access

from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verification.strict import parse_json_object
from fastapi_cloudflare_access._verification.token import parse
from fastapi_cloudflare_access.local.config import App, Policy
from fastapi_cloudflare_access.local.local_access import LocalAccess


def unverified(token: str) -> dict[str, Any]:
    return parse_json_object(parse(token.encode()).payload)


def verifies(local_access: LocalAccess, token: str) -> bool:
    parsed, jwk = parse(token.encode()), local_access.team.current.jwk()
    return RS256Key(n=jwk["n"], e=jwk["e"]).verifies(parsed.signature, parsed.signing_input)


MACHINES = (Policy(decision="service_auth", everyone=True),)
PREFLIGHT = {"origin": "http://a.test", "access-control-request-method": "PUT"}


def test_the_login_redirect_has_the_documented_shape() -> None:
    local_access = make_local_access()
    browser = Browser(local_access)
    response = browser.open(APP + "/a/b?x=1&y=/")
    address = urlsplit(response.headers["location"])
    assert response.status_code == 302
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{TEAM}/cdn-cgi/access/login/localhost:8787"
    query = parse_qs(address.query)
    assert list(query) == ["kid", "meta", "redirect_url"]
    assert (query["kid"], query["redirect_url"]) == ([local_access.config.apps[0].tag], ["/a/b?x=1&y=/"])
    meta = local_access.team.verified_claims(query["meta"][0], "meta")
    assert meta is not None
    assert (meta["hostname"], meta["redirect_url"]) == ("localhost:8787", "/a/b?x=1&y=/")
    resource = f"{APP}/.well-known/cloudflare-access-protected-resource/a/b"
    assert response.headers["www-authenticate"] == f'Cloudflare-Access resource_metadata="{resource}"'
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["expires"] == "Thu, 01 Jan 1970 00:00:01 GMT"
    assert "no-store" in response.headers["cache-control"]


def test_the_redirect_sets_the_app_session_that_a_second_tab_shares() -> None:
    browser = Browser(make_local_access())
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


def test_a_path_that_looks_like_a_host_stays_a_path() -> None:
    response = Browser(make_local_access()).open(APP + "//evil.test/x")
    assert parse_qs(urlsplit(response.headers["location"]).query)["redirect_url"] == ["/evil.test/x"]


def test_a_script_gets_401_with_the_headers_to_read_it() -> None:
    response = Browser(make_local_access()).open(APP + "/x", x_requested_with="XMLHttpRequest")
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Cloudflare-Access resource_metadata=")
    assert response.headers["access-control-allow-headers"] == "x-requested-with"
    assert response.headers["access-control-allow-credentials"] == "true"
    assert "set-cookie" not in response.headers


def test_an_app_for_services_gets_403_as_a_page_or_as_json() -> None:
    local_access = make_local_access(App(name="app", policies=MACHINES))
    browser = Browser(local_access)
    html, data = browser.open(APP + "/"), browser.open(APP + "/", accept="application/json")
    assert (html.status_code, data.status_code) == (403, 403)
    assert "This is a local Access" in html.text
    assert data.json().keys() == {"message", "status_code", "aud", "ray_id"}
    assert (data.json()["status_code"], data.json()["aud"]) == (403, local_access.config.apps[0].tag)
    for response in (html, data):
        assert response.headers["cf-access-aud"] == local_access.config.apps[0].tag
        assert response.headers["cf-access-domain"] == "127.0.0.1:8787"
        assert response.headers["cf-access-error"] == "service_auth"


def test_an_app_for_services_gets_401_if_that_is_set() -> None:
    response = Browser(make_local_access(App(name="app", policies=MACHINES, service_auth_401=True))).open(APP + "/")
    assert response.status_code == 401
    assert "www-authenticate" in response.headers


@pytest.mark.parametrize("origin", ["http://a.test", "http://b.test"])
def test_the_edge_answers_preflights_of_the_configured_origins(origin: str) -> None:
    allowed = App(name="app", cors_origins=("http://a.test",), cors_methods=("GET", "PUT"), cors_max_age=60)
    browser = Browser(make_local_access(allowed))
    sent = {**PREFLIGHT, "origin": origin, "access-control-request-headers": "x-a"}
    response = browser.client.options(APP + "/", headers=sent)
    if origin == "http://b.test":
        assert (response.status_code, "access-control-allow-origin" in response.headers) == (403, False)
        return
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["access-control-allow-methods"] == "GET, PUT"
    assert response.headers["access-control-max-age"] == "60"
    assert {"access-control-allow-headers", "access-control-allow-credentials"}.isdisjoint(response.headers)


def test_a_preflight_can_allow_headers_and_credentials_or_every_origin() -> None:
    named = App(name="app", cors_origins=("http://a.test",), cors_headers=("x-a",), cors_credentials=True)
    response = Browser(make_local_access(named)).client.options(APP + "/", headers=PREFLIGHT)
    assert response.headers["access-control-allow-headers"] == "x-a"
    assert response.headers["access-control-allow-credentials"] == "true"
    every = Browser(make_local_access(App(name="app", cors_origins=("*",))))
    assert every.client.options(APP + "/", headers=PREFLIGHT).headers["access-control-allow-origin"] == "*"


def test_a_preflight_is_rejected_by_default() -> None:
    assert Browser(make_local_access()).client.options(APP + "/", headers=PREFLIGHT).status_code == 403


def test_the_metadata_is_a_signed_match() -> None:
    local_access = make_local_access()
    response = Browser(local_access).open(APP + "/x", method="HEAD", cf_access_metadata_request="true")
    assert response.status_code == 200
    match = unverified(response.headers["cf-access-metadata"])
    tag = local_access.config.apps[0].tag
    assert (match["type"], match["aud"], match["hostname"]) == ("match", tag, "localhost")
    assert match["auth_domain"] == "127.0.0.1:8787"
    assert verifies(local_access, response.headers["cf-access-metadata"])


def test_a_user_without_access_gets_a_link_to_log_in_as_another() -> None:
    local_access = make_local_access(App(name="app", policies=(Policy(emails=("ada@example.com",)),)))
    token = local_access.team.app_token(
        local_access.log_in("bob@example.com", ip=""),
        local_access.config.person("bob@example.com"),
        local_access.config.apps[0],
        host="h",
    )
    response = Browser(local_access).open(APP + "/", cf_access_token=token)
    assert response.status_code == 403
    assert "/cdn-cgi/access/logout" in response.text
