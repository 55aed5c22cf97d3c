"""`doctor` checks everything from the settings to the token, and gives a hint for each failure."""

import json
import socket
import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import certifi
import pytest
from support.command_line import Cli, Skewed, over

from fastapi_cloudflare_access._keys import environment
from fastapi_cloudflare_access.protocols import FetchResponse
from fastapi_cloudflare_access.testing import FORGERIES, CertsServer, FakeTeam, MemoryFetch, SystemClock

EMAIL = "ada@example.com"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CertsServer]:
    """Start a configured team on a real socket and on the machine's clock."""
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as server:
        monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", server.origin)
        monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
        yield server


def run_doctor(cli: Cli, *arguments: str, **options: Any) -> tuple[int, dict[str, Any], Any]:
    result = cli("doctor", *arguments, "--json", **options)
    return result.code, {step["name"]: step for step in result.json["steps"]}, result.json


def at(server: CertsServer) -> dict[str, Any]:
    """Return the options of a command for a real server."""
    return {"clock": server.team.clock, "fetch": None}


def test_every_step_passes_for_a_valid_configuration(cli: Cli, server: CertsServer) -> None:
    token = server.team.user_token(EMAIL)
    code, steps, report = run_doctor(cli, token, **at(server))
    assert list(steps) == ["settings", "audience", "proxy", "ca", "host", "answer", "certs", "clock", "token", "app"]
    assert {step["status"] for name, step in steps.items() if name != "app"} == {"ok"}
    assert steps["app"]["status"] == "skipped"
    unchecked = "not checked: revocations, policies and the types of caller that a route admits"
    assert steps["app"]["text"] == unchecked
    assert (code, report["ok"]) == (0, True)
    assert [key["role"] for key in report["keys"]] == ["current", "previous"]


def test_each_key_is_described(cli: Cli, server: CertsServer) -> None:
    out = cli("doctor", **at(server)).out
    for key, role in zip(reversed(server.team.keys), ("current", "previous"), strict=True):
        assert f"{role:12} RSA 2048, usable, " in out
        assert f"kid {key.kid}\n" in out


def test_an_unusable_key_is_described_with_the_reason(cli: Cli, server: CertsServer) -> None:
    good, other = server.team.certs()["keys"]
    entries = [good, {**other, "use": "enc"}, {**other, "n": 5}, {"kid": "x", "kty": "EC"}, 7, {**other, "n": "AQ"}]
    server.answer_with(json.dumps({"keys": entries, "public_cert": {"kid": 5}}).encode())
    code, steps, report = run_doctor(cli, **at(server))
    assert (code, steps["certs"]["status"], steps["certs"]["text"]) == (0, "warning", "1 usable key, 5 not used")
    assert [key["problem"] for key in report["keys"]] == [
        None,
        "not for verifying signatures",
        "no modulus or exponent",
        "not an RSA key",
        "not an RSA key",
        "not of 2048 to 8192 bits",
    ]
    out = cli("doctor", **at(server)).out
    assert "  key          RSA 2048, not used: not for verifying signatures, kid" in out
    assert "  key          not used: not an RSA key, kid none\n" in out


def test_two_different_keys_of_one_kid_are_reported(cli: Cli, server: CertsServer) -> None:
    first, second = server.team.certs()["keys"]
    server.answer_with(json.dumps({"keys": [first, {**second, "kid": first["kid"]}]}).encode())
    code, steps, report = run_doctor(cli, **at(server))
    assert (code, steps["certs"]["status"]) == (1, "failed")
    assert {key["problem"] for key in report["keys"]} == {"two different keys with one kid"}


@pytest.mark.parametrize(
    ("audience", "text"),
    [
        ("a" * 63, "aaaaaaaa… is not an AUD tag: it has 63 characters, not 64 hexadecimal digits"),
        ("A" * 64, "AAAAAAAA… is not an AUD tag: it has upper-case letters"),
        ("7335d417-61da-459d-899c-0a01c76a2f94", "7335d417… is not an AUD tag: it looks like the application's id"),
    ],
)
def test_an_audience_that_is_not_an_aud_tag_is_reported(
    cli: Cli, server: CertsServer, certs: MemoryFetch, resolved: None, audience: str, text: str
) -> None:
    code, steps, _ = run_doctor(cli, "--audience", audience, **at(server))
    assert (code, steps["audience"]["status"], steps["audience"]["text"]) == (0, "warning", text)
    code, steps, _ = run_doctor(cli, "--audience", audience, "--team", "acme", clock=server.team.clock)
    assert (code, steps["audience"]["status"]) == (1, "failed")


def test_a_wrong_team_name_is_reported(cli: Cli, server: CertsServer, resolved: None) -> None:
    """Cloudflare resolves any team name, and answers an unknown team with 404 and a web page."""
    server.fail_with(404)
    code, steps, _ = run_doctor(cli, "--team", "acmee", clock=server.team.clock, fetch=over(server.origin))
    assert (code, steps["host"]["status"]) == (1, "ok")
    assert steps["answer"]["text"] == "there is no such team: https://acmee.cloudflareaccess.com answers 404"
    assert "Zero Trust" in steps["answer"]["hint"]
    assert "if it was renamed, set CF_ACCESS_TEAM_DOMAIN to the new name" in steps["answer"]["hint"]
    assert steps["certs"]["status"] == "skipped"
    code, steps, _ = run_doctor(cli, **at(server))
    assert (steps["answer"]["status"], "local Access" in steps["answer"]["hint"]) == ("failed", True)


def test_a_host_that_does_not_resolve_is_not_fetched_from(
    cli: Cli, certs: MemoryFetch, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    code, steps, _ = run_doctor(cli)
    assert (code, steps["host"]["text"]) == (1, "acme.cloudflareaccess.com was not found")
    assert [steps[name]["status"] for name in ("answer", "certs", "clock")] == ["skipped"] * 3
    assert certs.fetches == 0


def test_only_the_first_of_many_addresses_are_named(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [(0, 0, 0, "", (f"192.0.2.{number}", 0)) for number in (1, 1, 2, 3, 4)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    text = run_doctor(cli)[1]["host"]["text"]
    assert text == "acme.cloudflareaccess.com resolves to 192.0.2.1, 192.0.2.2, 192.0.2.3, …"


def test_a_web_page_instead_of_the_certs_is_reported(cli: Cli, server: CertsServer) -> None:
    server.html()
    code, steps, _ = run_doctor(cli, server.team.user_token(EMAIL), **at(server))
    assert (code, steps["answer"]["status"]) == (1, "ok")
    assert steps["certs"]["text"] == "the response is a web page, not the certs document"
    assert "in the proxy" in steps["certs"]["hint"]
    assert steps["token"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("fault", "step", "text"),
    [
        ("garbage", "certs", "the certs document is unusable: not UTF-8"),
        ("empty", "certs", "the certs document is unusable: not JSON"),
        ("no_keys", "certs", "the certs document has no usable key"),
        ("refuse", "answer", "ORIGIN returned no certs: Connection reset by peer"),
        ("truncate", "answer", "ORIGIN returned no certs: the connection failed or was lost"),
        ("oversize", "answer", "ORIGIN returned no certs: the document is longer than 65536 bytes"),
        ("hang", "answer", "ORIGIN returned no certs: no response in time"),
        ("fail_with", "answer", "ORIGIN returned no certs: a response with HTTP status 503"),
    ],
)
def test_every_fault_of_the_endpoint_is_reported(
    cli: Cli, server: CertsServer, monkeypatch: pytest.MonkeyPatch, fault: str, step: str, text: str
) -> None:
    monkeypatch.setenv("CF_ACCESS_READ_TIMEOUT", "0.3")
    getattr(server, fault)()
    code, steps, _ = run_doctor(cli, **at(server))
    found = steps[step]
    assert (code, found["status"]) == (1, "failed")
    assert text.replace("ORIGIN", server.origin) in found["text"]
    assert found["hint"]


def test_a_closed_port_is_reported(cli: Cli, server: CertsServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        team = f"http://127.0.0.1:{closed.getsockname()[1]}"
        code, steps, _ = run_doctor(cli, "--team", team, **at(server))
    assert (code, steps["answer"]["text"]) == (1, f"{team} returned no certs: Connection refused")
    assert steps["answer"]["hint"] == "check that the local Access runs there; `cf-access dev` starts it"


def test_a_correct_clock_passes(cli: Cli, server: CertsServer) -> None:
    assert run_doctor(cli, **at(server))[1]["clock"]["text"] == "same time as the server"


@pytest.mark.parametrize(
    ("skew", "status", "text"),
    [
        (-400, "failed", "6 minutes behind the server: new tokens are rejected as token_not_yet_valid"),
        (-20.5, "warning", "20 seconds behind the server"),
        (20, "warning", "20 seconds ahead of the server"),
        (400, "failed", "6 minutes ahead of the server: tokens expire too early"),
    ],
)
def test_a_wrong_clock_is_reported(cli: Cli, server: CertsServer, skew: float, status: str, text: str) -> None:
    code, steps, _ = run_doctor(cli, fetch=None, clock=Skewed(server.team.clock, skew))
    assert (code, steps["clock"]["status"]) == (int(status == "failed"), status)
    shown = steps["clock"]["text"]
    assert shown.replace("19 s", "20 s").replace("21 s", "20 s") == text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, "skipped"),
        ({"date": "yesterday"}, "skipped"),
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT"}, "ok"),
        ({"date": "Wed, 31 Dec 2025 23:00:00 GMT"}, "failed"),
        ({"date": "Wed, 31 Dec 2025 23:00:00 GMT", "age": "3600"}, "ok"),
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT", "age": "-1"}, "ok"),
    ],
)
def test_the_age_of_a_cached_response_is_added_to_its_date(
    cli: Cli, configured: FakeTeam, resolved: None, headers: dict[str, str], status: str
) -> None:
    steps = run_doctor(cli, fetch=MemoryFetch(configured, headers=headers))[1]
    assert steps["clock"]["status"] == status


def test_a_proxy_is_named_without_its_password(cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://ada:hunter2@proxy.example:3128")
    result = cli("doctor", "--json")
    steps = {step["name"]: step for step in result.json["steps"]}
    assert steps["proxy"]["text"] == "through http://proxy.example:3128 (HTTPS_PROXY)"
    assert steps["host"]["text"] == "the proxy resolves acme.cloudflareaccess.com"
    assert "hunter2" not in result.out + result.err


def test_a_proxy_that_is_not_used_is_not_named(
    cli: Cli, configured: FakeTeam, resolved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_doctor(cli)[1]["proxy"]["text"] == "none"
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    assert run_doctor(cli)[1]["proxy"]["text"] == "through http://proxy.example:3128 (ALL_PROXY)"
    monkeypatch.setenv("NO_PROXY", "cloudflareaccess.com")
    excluded = "none: the entry cloudflareaccess.com of NO_PROXY excludes the team"
    assert run_doctor(cli)[1]["proxy"]["text"] == excluded


@pytest.mark.parametrize(
    ("proxy", "why", "hint"),
    [
        ("HTTPS_PROXY=nonsense:::", "is not a valid URL", "set HTTPS_PROXY to http://HOST:PORT, or unset it"),
        ("HTTPS_PROXY=http://ada:pw@", "has no host", "set HTTPS_PROXY to http://HOST:PORT, or unset it"),
        (
            "HTTPS_PROXY=ftp://proxy.example",
            "has a scheme that is not one of http, https, socks5, socks5h",
            "set HTTPS_PROXY to http://HOST:PORT, or unset it",
        ),
        (
            "ALL_PROXY=socks5://proxy.example:1080",
            "is a SOCKS proxy, which needs the package socksio",
            "install it: pip install socksio",
        ),
    ],
)
@pytest.mark.usefixtures("configured", "resolved")
def test_an_unusable_proxy_is_reported_and_nothing_is_fetched(
    cli: Cli, certs: MemoryFetch, monkeypatch: pytest.MonkeyPatch, proxy: str, why: str, hint: str
) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    variable, _, value = proxy.partition("=")
    monkeypatch.setenv(variable, value)
    code, steps, _ = run_doctor(cli)
    assert (code, steps["proxy"]["status"]) == (1, "failed")
    assert (steps["proxy"]["text"], steps["proxy"]["hint"]) == (f"{variable} {why}", hint)
    assert (steps["answer"]["status"], certs.fetches) == ("skipped", 0)
    keys = cli("keys", fetch=None, clock=SystemClock())
    assert (keys.code, keys.err) == (3, f"cf-access: {variable} {why}; {hint}.\n")


def test_a_socks_proxy_is_usable_with_its_extra(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: object())
    monkeypatch.setenv("HTTPS_PROXY", "socks5h://proxy.example:1080")
    assert run_doctor(cli)[1]["proxy"]["text"] == "through socks5h://proxy.example:1080 (HTTPS_PROXY)"


def test_an_invalid_proxy_is_ignored_if_no_host_uses_it(
    cli: Cli, configured: FakeTeam, resolved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")
    monkeypatch.setenv("NO_PROXY", "localhost, *")
    assert run_doctor(cli)[1]["proxy"]["text"] == "none: the entry * of NO_PROXY excludes the team"


class Proxy(BaseHTTPRequestHandler):
    """A proxy that requires a login."""

    def do_CONNECT(self) -> None:
        self.send_error(407)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Discard the log message."""


def test_a_proxy_that_rejects_the_connection_is_reported(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = Thread(target=proxy.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_address[1]}")
        code, steps, _ = run_doctor(cli, fetch=None, clock=SystemClock())
        proxy.shutdown()
        thread.join()
    assert (code, steps["answer"]["text"]) == (1, "the proxy of HTTPS_PROXY refuses to connect with HTTP status 407")
    assert "login" in steps["answer"]["hint"]


def test_the_ca_certificates_in_use_are_named(
    cli: Cli, configured: FakeTeam, resolved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_doctor(cli)[1]["ca"]["text"] == "the certificates of certifi"
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    code, steps, _ = run_doctor(cli)
    assert (code, steps["ca"]["text"]) == (0, f"{certifi.where()} (SSL_CERT_FILE)")


def test_unusable_ca_certificates_are_reported(
    cli: Cli, configured: FakeTeam, resolved: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("none")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    code, steps, _ = run_doctor(cli, fetch=None, clock=SystemClock())
    problem = "SSL_CERT_FILE names a file without usable certificates in PEM form"
    assert (code, steps["ca"]["text"], steps["ca"]["hint"]) == (1, problem, "correct or unset SSL_CERT_FILE")
    assert (steps["answer"]["text"], steps["answer"]["hint"]) == (problem, "correct or unset SSL_CERT_FILE")


def test_tls_that_fails_gets_the_advice_about_proxies_that_decrypt(
    cli: Cli, configured: FakeTeam, resolved: None
) -> None:
    @asynccontextmanager
    async def failing(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        raise ssl.SSLCertVerificationError("secret")
        yield

    answer = run_doctor(cli, fetch=failing)[1]["answer"]
    assert "TLS failed: SSLCertVerificationError" in answer["text"]
    assert answer["hint"] == "if a proxy decrypts TLS, set SSL_CERT_FILE to its CA certificate"


def test_without_settings_it_names_the_variables_and_stops(cli: Cli) -> None:
    code, steps, report = run_doctor(cli)
    assert (code, list(steps), report["keys"]) == (1, ["settings"], [])
    assert "pass --team or set CF_ACCESS_TEAM_DOMAIN" in steps["settings"]["text"]
    assert "pass --audience or set CF_ACCESS_AUDIENCE" in steps["settings"]["text"]


def test_without_an_audience_it_still_checks_the_team(
    cli: Cli, server: CertsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CF_ACCESS_AUDIENCE")
    code, steps, _ = run_doctor(cli, server.team.user_token(EMAIL), **at(server))
    assert (code, steps["certs"]["status"], steps["token"]["status"]) == (1, "ok", "warning")
    assert "the signature is valid, but the claims cannot be checked" in steps["token"]["text"]


@pytest.mark.parametrize("name", ["expired", "wrong_audience", "wrong_key", "meta", "two_segments", "unknown_kid"])
def test_an_invalid_token_is_explained(cli: Cli, server: CertsServer, name: str) -> None:
    team = server.team
    assert isinstance(team, FakeTeam)
    code, steps, _ = run_doctor(cli, team.forge(name), **at(server))
    assert (code, steps["token"]["status"], steps["token"]["reason"]) == (1, "failed", FORGERIES[name].reason)
    assert steps["token"]["hint"]
    assert f"({FORGERIES[name].reason})" in cli("doctor", team.forge(name), **at(server)).out


def test_without_a_token_it_says_that_no_refused_request_was_checked(cli: Cli, server: CertsServer) -> None:
    code, steps, _ = run_doctor(cli, **at(server))
    assert (code, steps["token"]["status"]) == (0, "skipped")
    assert steps["token"]["text"] == "none given; this says nothing about a refused request"


def test_a_cookie_alone_is_no_token_for_a_configuration_that_reads_the_header(
    cli: Cli, server: CertsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CF_ACCESS_TOKEN_SOURCES", "header")
    code, steps, _ = run_doctor(cli, f"Cookie: CF_Authorization={server.team.user_token(EMAIL)}", **at(server))
    assert (code, steps["token"]["status"], steps["token"]["reason"]) == (1, "failed", "missing_token")
    assert "app" not in steps


def test_without_keys_the_claims_of_a_token_are_checked_as_the_app_does(cli: Cli, server: CertsServer) -> None:
    server.fail_with(503)
    other = FakeTeam("other", clock=SystemClock()).user_token(EMAIL)
    code, steps, _ = run_doctor(cli, other, **at(server))
    assert (code, steps["token"]["status"], steps["token"]["reason"]) == (1, "failed", "wrong_issuer")
    assert steps["token"]["text"].endswith("; the signature was not checked")
    code, steps, _ = run_doctor(cli, server.team.user_token(EMAIL), **at(server))
    assert steps["token"]["text"] == "not checked: there is no certs document"


def test_the_hint_about_the_clock_does_not_send_the_reader_to_the_same_command(
    cli: Cli, configured: FakeTeam, resolved: None
) -> None:
    _, steps, _ = run_doctor(cli, configured.user_token(EMAIL), clock=Skewed(configured.clock, -400))
    assert steps["token"]["reason"] == "token_not_yet_valid"
    assert steps["token"]["hint"] == "set this machine's clock: see the check of the clock above"


def test_a_name_that_is_not_a_host_is_not_found(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        "x".encode("idna").decode("ascii")
        raise UnicodeError

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert run_doctor(cli)[1]["host"]["status"] == "failed"


@pytest.mark.parametrize(
    ("proxy", "hint"),
    [
        ("http://proxy.invalid:3128", "check the host in https_proxy"),
        ("http://127.0.0.1:1", "check the network, the firewall, and https_proxy"),
    ],
)
def test_a_proxy_that_cannot_be_reached_is_named_in_the_hint(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch, proxy: str, hint: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    answer = run_doctor(cli, fetch=None, clock=SystemClock())[1]["answer"]
    assert answer["hint"] == hint


def test_audiences_that_differ_late_are_shown_whole(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = configured.audience[:-1] + ("0" if configured.audience[-1] != "0" else "1")
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", other)
    verdict = cli("inspect", configured.user_token(EMAIL), "--json").json["verdict"]
    assert verdict["text"].endswith(f"it is {configured.audience}, not {other}")
