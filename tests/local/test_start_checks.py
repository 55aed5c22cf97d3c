"""Surroundings in which a browser or an app could not use the local Access are reported at the start."""

import logging

import pytest
from support.local_rig import make_local_access

from fastapi_cloudflare_access.local import start_checks
from fastapi_cloudflare_access.local.config import App
from fastapi_cloudflare_access.local.local_access import Addresses
from fastapi_cloudflare_access.local.start_checks import (
    check_surroundings,
    name_problems,
    names_to_resolve,
    port_problems,
    resolve,
)

DOMAIN = "acme.cloudflareaccess.com"


def test_the_default_has_no_problem() -> None:
    local_access = make_local_access()
    assert list(port_problems(local_access)) == []
    assert names_to_resolve(local_access) == []


def test_an_app_without_a_server_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    apps = (App(name="a"), App(name="b", host="b.localhost", upstream="http://127.0.0.1:1"))
    check_surroundings(make_local_access(*apps))
    assert caplog.messages == []
    check_surroundings(make_local_access(*apps), has_server=False)
    assert caplog.messages == [
        "nothing answers for a: name an app or --upstream, or set its upstream in access.toml",
    ]


def test_a_team_domain_on_another_port_than_443_is_reported() -> None:
    local_access = make_local_access(addresses=Addresses(8787, 8443, DOMAIN))
    assert [problem.partition(":")[0] for problem in port_problems(local_access)] == [
        f"clients expect {DOMAIN} on port 443, and this is port 8443"
    ]
    assert list(port_problems(make_local_access(addresses=Addresses(8787, 443, DOMAIN)))) == []


def test_a_host_whose_cookies_cannot_be_secure_is_reported() -> None:
    app = App(name="a", host="app.test")
    assert "app.test over plain HTTP" in next(port_problems(make_local_access(app)))
    assert list(port_problems(make_local_access(app, team={"secure_cookies": False}))) == []
    assert list(port_problems(make_local_access(app, addresses=Addresses(80, 443)))) == []


def test_only_names_that_browsers_do_not_resolve_themselves_are_looked_up() -> None:
    local_access = make_local_access(
        App(name="a", host="app.test"), App(name="b", host="b.localhost"), addresses=Addresses(80, 443, DOMAIN)
    )
    assert names_to_resolve(local_access) == [DOMAIN, "login.cloudflareaccess.org", "app.test"]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([], f"{DOMAIN} has no address: add the line '127.0.0.1 {DOMAIN}'"),
        (["104.16.0.1", "127.0.0.1"], f"{DOMAIN} leads to 104.16.0.1, not to this computer"),
        (["127.0.0.1", "::1", "fe80::1%eth0"], f"{DOMAIN} leads to 127.0.0.1"),
    ],
)
def test_a_name_that_leads_elsewhere_is_reported(found: list[str], problem: str) -> None:
    assert next(name_problems([DOMAIN], lambda _: found)).startswith(problem)


def test_a_name_that_leads_here_is_no_problem() -> None:
    assert list(name_problems([DOMAIN], lambda _: ["127.0.0.1", "::1"])) == []


def test_a_name_is_resolved_by_the_computer() -> None:
    assert resolve("localhost")
    assert resolve("does-not-exist.invalid") == []


def test_problems_are_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_checks, "resolve", lambda _: [])
    with caplog.at_level(logging.WARNING):
        thread = check_surroundings(make_local_access(App(name="a", host="app.test")))
        assert thread is not None
        thread.join(10)
        assert check_surroundings(make_local_access()) is None
    assert "Secure cookies" in caplog.text
    assert "app.test has no address" in caplog.text
