"""`doctor` tells, step by step and from the settings to the token, what works and what to do about the rest."""

import json
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from support.command_line import Cli, Skewed, over

from fastapi_cloudflare_access.cli import proxies
from fastapi_cloudflare_access.testing import FORGERIES, CertsServer, FakeTeam, MemoryFetch, SystemClock

EMAIL = "ada@example.com"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CertsServer]:
    """A real team on a real socket, on the machine's clock, and configured."""
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as server:
        monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", server.origin)
        monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
        yield server


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is found, at an address for documentation."""
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry])


def examine(cli: Cli, *arguments: str, **options: Any) -> tuple[int, dict[str, Any], Any]:
    result = cli("doctor", *arguments, "--json", **options)
    return result.code, {step["name"]: step for step in result.json["steps"]}, result.json


def at(server: CertsServer) -> dict[str, Any]:
    """What a command uses on a real server."""
    return {"clock": server.team.clock, "fetch": None}


def test_where_all_is_well_every_step_says_so(cli: Cli, server: CertsServer) -> None:
    token = server.team.user_token(EMAIL)
    code, steps, report = examine(cli, token, **at(server))
    assert list(steps) == ["settings", "audience", "proxy", "ca", "host", "answer", "certs", "clock", "token"]
    assert {step["status"] for step in steps.values()} == {"ok"}
    assert (code, report["ok"]) == (0, True)
    assert [key["role"] for key in report["keys"]] == ["current", "previous"]


def test_each_key_is_described(cli: Cli, server: CertsServer) -> None:
    out = cli("doctor", **at(server)).out
    for key, role in zip(reversed(server.team.keys), ("current", "previous"), strict=True):
        assert f"{role:12} RSA 2048, usable, " in out
        assert f"kid {key.kid}\n" in out


def test_a_key_that_is_not_used_is_described_with_the_reason(cli: Cli, server: CertsServer) -> None:
    good, other = server.team.certs()["keys"]
    entries = [good, {**other, "use": "enc"}, {**other, "n": 5}, {"kid": "x", "kty": "EC"}, 7, {**other, "n": "AQ"}]
    server.answer_with(json.dumps({"keys": entries, "public_cert": {"kid": 5}}).encode())
    code, steps, report = examine(cli, **at(server))
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


def test_two_different_keys_of_one_kid_are_told(cli: Cli, server: CertsServer) -> None:
    first, second = server.team.certs()["keys"]
    server.answer_with(json.dumps({"keys": [first, {**second, "kid": first["kid"]}]}).encode())
    code, steps, report = examine(cli, **at(server))
    assert (code, steps["certs"]["status"]) == (1, "failed")
    assert {key["problem"] for key in report["keys"]} == {"two different keys with one kid"}


@pytest.mark.parametrize(
    ("audience", "text"),
    [
        ("a" * 63, "aaaaaaaa… is no AUD tag: it has 63 characters, not 64 hexadecimal digits"),
        ("A" * 64, "AAAAAAAA… is no AUD tag: it has upper-case letters"),
        ("7335d417-61da-459d-899c-0a01c76a2f94", "7335d417… is no AUD tag: it looks like the application's id"),
    ],
)
def test_an_audience_that_is_no_aud_tag_is_told(
    cli: Cli, server: CertsServer, certs: MemoryFetch, resolved: None, audience: str, text: str
) -> None:
    code, steps, _ = examine(cli, "--audience", audience, **at(server))
    assert (code, steps["audience"]["status"], steps["audience"]["text"]) == (0, "warning", text)
    code, steps, _ = examine(cli, "--audience", audience, "--team", "acme", clock=server.team.clock)
    assert (code, steps["audience"]["status"]) == (1, "failed")


def test_a_wrong_team_name_is_called_one(cli: Cli, server: CertsServer, resolved: None) -> None:
    """What Cloudflare does: the name is found, and the answer is 404 with a web page."""
    server.fail_with(404)
    code, steps, _ = examine(cli, "--team", "acmee", clock=server.team.clock, fetch=over(server.origin))
    assert (code, steps["host"]["status"]) == (1, "ok")
    assert steps["answer"]["text"] == "there is no such team: https://acmee.cloudflareaccess.com answers 404"
    assert "Zero Trust" in steps["answer"]["hint"]
    assert steps["certs"]["status"] == "skipped"
    code, steps, _ = examine(cli, **at(server))
    assert (steps["answer"]["status"], "local Access" in steps["answer"]["hint"]) == ("failed", True)


def test_a_name_that_is_not_found_is_not_asked(
    cli: Cli, certs: MemoryFetch, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    code, steps, _ = examine(cli)
    assert (code, steps["host"]["text"]) == (1, "acme.cloudflareaccess.com was not found")
    assert [steps[name]["status"] for name in ("answer", "certs", "clock")] == ["skipped"] * 3
    assert certs.fetches == 0


def test_only_the_first_of_many_addresses_are_named(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [(0, 0, 0, "", (f"192.0.2.{number}", 0)) for number in (1, 1, 2, 3, 4)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    text = examine(cli)[1]["host"]["text"]
    assert text == "acme.cloudflareaccess.com is 192.0.2.1, 192.0.2.2, 192.0.2.3, …"


def test_a_web_page_in_place_of_the_certs_is_called_one(cli: Cli, server: CertsServer) -> None:
    server.html()
    code, steps, _ = examine(cli, server.team.user_token(EMAIL), **at(server))
    assert (code, steps["answer"]["status"]) == (1, "ok")
    assert steps["certs"]["text"] == "a web page came in place of the certs document"
    assert "through the proxy" in steps["certs"]["hint"]
    assert steps["token"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("fault", "step", "text"),
    [
        ("garbage", "certs", "the certs document is unusable: not UTF-8"),
        ("empty", "certs", "the certs document is unusable: not JSON"),
        ("no_keys", "certs", "the certs document has no usable key"),
        ("refuse", "answer", "ORIGIN gave no certs: Connection reset by peer"),
        ("truncate", "answer", "ORIGIN gave no certs: the connection failed or was lost"),
        ("oversize", "answer", "ORIGIN gave no certs: the document is longer than 65536 bytes"),
        ("hang", "answer", "ORIGIN gave no certs: no answer in time"),
        ("fail_with", "answer", "ORIGIN gave no certs: an answer with HTTP status 503"),
    ],
)
def test_every_fault_of_the_endpoint_is_told(
    cli: Cli, server: CertsServer, monkeypatch: pytest.MonkeyPatch, fault: str, step: str, text: str
) -> None:
    monkeypatch.setenv("CF_ACCESS_READ_TIMEOUT", "0.3")
    getattr(server, fault)()
    code, steps, _ = examine(cli, **at(server))
    found = steps[step]
    assert (code, found["status"]) == (1, "failed")
    assert text.replace("ORIGIN", server.origin) in found["text"]
    assert found["hint"]


def test_a_closed_port_is_told(cli: Cli, server: CertsServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        team = f"http://127.0.0.1:{closed.getsockname()[1]}"
        code, steps, _ = examine(cli, "--team", team, **at(server))
    assert (code, steps["answer"]["text"]) == (1, f"{team} gave no certs: Connection refused")
    assert steps["answer"]["hint"] == "see whether the local Access runs there, and start it with `cf-access dev`"


def test_a_clock_that_is_right_needs_no_word(cli: Cli, server: CertsServer) -> None:
    assert examine(cli, **at(server))[1]["clock"]["text"] == "as the server's"


@pytest.mark.parametrize(
    ("skew", "status", "text"),
    [
        (-400, "failed", "6 minutes behind the server's: new tokens are refused as token_not_yet_valid"),
        (-20.5, "warning", "20 seconds behind the server's"),
        (20, "warning", "20 seconds ahead of the server's"),
        (400, "failed", "6 minutes ahead of the server's: tokens expire too early"),
    ],
)
def test_a_wrong_clock_is_told(cli: Cli, server: CertsServer, skew: float, status: str, text: str) -> None:
    code, steps, _ = examine(cli, fetch=None, clock=Skewed(server.team.clock, skew))
    assert (code, steps["clock"]["status"]) == (int(status == "failed"), status)
    said = steps["clock"]["text"]
    assert said.replace("19 s", "20 s").replace("21 s", "20 s") == text


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
def test_an_answer_from_a_cache_is_as_old_as_it_says(
    cli: Cli, configured: FakeTeam, resolved: None, headers: dict[str, str], status: str
) -> None:
    steps = examine(cli, fetch=MemoryFetch(configured, headers=headers))[1]
    assert steps["clock"]["status"] == status


def test_a_proxy_is_named_without_its_password(cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://ada:hunter2@proxy.example:3128")
    result = cli("doctor", "--json")
    steps = {step["name"]: step for step in result.json["steps"]}
    assert steps["proxy"]["text"] == "through http://proxy.example:3128"
    assert steps["host"]["text"] == "the proxy looks up acme.cloudflareaccess.com"
    assert "hunter2" not in result.out + result.err


def test_a_proxy_that_is_not_used_is_not_named(
    cli: Cli, configured: FakeTeam, resolved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert examine(cli)[1]["proxy"]["text"] == "none"
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    assert examine(cli)[1]["proxy"]["text"] == "through http://proxy.example:3128"
    monkeypatch.setenv("NO_PROXY", "cloudflareaccess.com")
    assert examine(cli)[1]["proxy"]["text"] == "none"


@pytest.mark.parametrize(
    ("proxy", "why", "hint"),
    [
        ("HTTPS_PROXY=nonsense:::", "is no URL", "set HTTPS_PROXY to http://HOST:PORT, or unset it"),
        ("HTTPS_PROXY=http://ada:pw@", "names no host", "set HTTPS_PROXY to http://HOST:PORT, or unset it"),
        (
            "HTTP_PROXY=ftp://proxy.example",
            "has the scheme ftp, not one of http, https, socks5, socks5h",
            "set HTTP_PROXY to http://HOST:PORT, or unset it",
        ),
        (
            "ALL_PROXY=socks5://proxy.example:1080",
            "names a SOCKS proxy, which httpx alone cannot use",
            "install its support: pip install 'httpx[socks]'",
        ),
    ],
)
@pytest.mark.usefixtures("configured", "resolved")
def test_a_proxy_that_cannot_be_used_is_told_and_nothing_is_asked(
    cli: Cli, certs: MemoryFetch, monkeypatch: pytest.MonkeyPatch, proxy: str, why: str, hint: str
) -> None:
    monkeypatch.setattr(proxies, "find_spec", lambda name: None)
    variable, _, value = proxy.partition("=")
    monkeypatch.setenv(variable, value)
    code, steps, _ = examine(cli)
    assert (code, steps["proxy"]["status"]) == (1, "failed")
    assert (steps["proxy"]["text"], steps["proxy"]["hint"]) == (f"{variable} {why}", hint)
    assert (steps["answer"]["status"], certs.fetches) == ("skipped", 0)
    keys = cli("keys", fetch=None, clock=SystemClock())
    assert (keys.code, keys.err) == (3, f"cf-access: {variable} {why}; {hint}.\n")


def test_a_socks_proxy_will_do_where_its_support_is_installed(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "find_spec", lambda name: object())
    monkeypatch.setenv("HTTPS_PROXY", "socks5h://proxy.example:1080")
    assert examine(cli)[1]["proxy"]["text"] == "through socks5h://proxy.example:1080"


@pytest.mark.parametrize("proxy", ["ftp://proxy.example", "nonsense:::", "http://proxy.example", "socks4://a:1"])
def test_the_doctor_and_httpx_are_of_one_mind_about_a_proxy(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    try:
        httpx.Client()
        usable = True
    except (ValueError, httpx.InvalidURL):
        usable = False
    assert (examine(cli)[1]["proxy"]["status"] == "ok") is usable


def test_where_no_host_is_for_a_proxy_a_wrong_one_does_no_harm(
    cli: Cli, configured: FakeTeam, resolved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")
    monkeypatch.setenv("NO_PROXY", "localhost, *")
    assert examine(cli)[1]["proxy"]["text"] == "none"


class Proxy(BaseHTTPRequestHandler):
    """A proxy that wants a login."""

    def do_CONNECT(self) -> None:
        self.send_error(407)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def test_a_proxy_that_lets_nothing_through_is_told(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = Thread(target=proxy.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_address[1]}")
        code, steps, _ = examine(cli, fetch=None, clock=SystemClock())
        proxy.shutdown()
        thread.join()
    assert (code, steps["answer"]["text"]) == (1, "the proxy did not let the connection through")
    assert "login" in steps["answer"]["hint"]


@pytest.mark.parametrize(("name", "make"), [("SSL_CERT_FILE", Path.touch), ("SSL_CERT_DIR", Path.mkdir)])
def test_the_ca_certificates_in_use_are_named(
    cli: Cli,
    configured: FakeTeam,
    resolved: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    make: Callable[[Path], None],
) -> None:
    assert examine(cli)[1]["ca"]["text"] == "those of certifi"
    path = tmp_path / "ca"
    monkeypatch.setenv(name, str(path))
    code, steps, _ = examine(cli)
    assert (code, steps["ca"]["text"]) == (1, f"{name} names {path}, which is not there")
    make(path)
    code, steps, _ = examine(cli)
    assert (code, steps["ca"]["text"]) == (0, f"{path} ({name})")


def test_ca_certificates_that_cannot_be_read_are_told(
    cli: Cli, configured: FakeTeam, resolved: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("none")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    answer = examine(cli, fetch=None, clock=SystemClock())[1]["answer"]
    assert "the CA certificates cannot be read" in answer["text"]
    assert answer["hint"] == "where a proxy opens TLS, name its CA in SSL_CERT_FILE"


def test_without_settings_it_says_what_to_set_and_goes_no_further(cli: Cli) -> None:
    code, steps, report = examine(cli)
    assert (code, list(steps), report["keys"]) == (1, ["settings"], [])
    assert "pass --team or set CF_ACCESS_TEAM_DOMAIN" in steps["settings"]["text"]
    assert "pass --audience or set CF_ACCESS_AUDIENCE" in steps["settings"]["text"]


def test_without_an_audience_it_still_looks_at_the_team(
    cli: Cli, server: CertsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CF_ACCESS_AUDIENCE")
    code, steps, _ = examine(cli, server.team.user_token(EMAIL), **at(server))
    assert (code, steps["certs"]["status"], steps["token"]["status"]) == (1, "ok", "warning")
    assert "the signature is good, but whether the claims fit is not known" in steps["token"]["text"]


@pytest.mark.parametrize("name", ["expired", "wrong_audience", "wrong_key", "meta", "two_segments", "unknown_kid"])
def test_a_token_is_explained(cli: Cli, server: CertsServer, name: str) -> None:
    team = server.team
    assert isinstance(team, FakeTeam)
    code, steps, _ = examine(cli, team.forge(name), **at(server))
    assert (code, steps["token"]["status"], steps["token"]["reason"]) == (1, "failed", FORGERIES[name].reason)
    assert steps["token"]["hint"]
    assert f"({FORGERIES[name].reason})" in cli("doctor", team.forge(name), **at(server)).out


def test_a_name_that_is_no_host_is_not_found(cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        "x".encode("idna").decode("ascii")
        raise UnicodeError

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert examine(cli)[1]["host"]["status"] == "failed"
