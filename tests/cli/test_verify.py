"""`verify` runs the steps of a verification, and its verdict is the decision of the app."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from socket import gaierror
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from starlette.requests import HTTPConnection
from support.command_line import Cli

from fastapi_cloudflare_access import AccessHTTPException, CloudflareAccess
from fastapi_cloudflare_access.cli.certs import read_certs
from fastapi_cloudflare_access.cli.hints import HINTS
from fastapi_cloudflare_access.cli.reports import CommandError
from fastapi_cloudflare_access.protocols import FetchResponse
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam, MemoryFetch

EMAIL = "ada@example.com"


@pytest.fixture
def saved(team: FakeTeam, tmp_path: Path) -> Path:
    path = tmp_path / "certs.json"
    path.write_bytes(team.certs_body())
    return path


@pytest.fixture
def pem(team: FakeTeam, tmp_path: Path) -> Path:
    path = tmp_path / "team.pem"
    path.write_text(team.certs()["public_cert"]["cert"])
    return path


def steps(report: Any) -> dict[str, str]:
    return {step["name"]: step["status"] for step in report["steps"]}


def reason_of_the_app(team: FakeTeam, token: str) -> str | None:
    """Return the reason code of the app, or None if the app accepts the token."""
    access = CloudflareAccess(fetch=MemoryFetch(team), clock=team.clock)
    scope = {"type": "http", "headers": [(b"cf-access-jwt-assertion", token.encode())]}

    async def ask() -> str | None:
        await access.keys.refresh()
        try:
            await team.clock.run_until(access.authenticate(HTTPConnection(scope)))
        except AccessHTTPException as refused:
            return refused.error.reason
        return None

    return asyncio.run(ask())


@pytest.mark.parametrize("place", ["Cf-Access-Jwt-Assertion: {}", "Cookie: CF_Authorization={}"])
def test_the_six_steps_of_a_manual_verification(
    cli: Cli, configured: FakeTeam, saved: Path, tmp_path: Path, place: str
) -> None:
    """Token from the header or cookie, its `kid`, the certificate with that `kid` under `public_certs`, signature."""
    request = place.format(configured.user_token(EMAIL))  # 1: copy the token from the cookie or the header
    inspected = cli("inspect", "-", "--json", stdin=request).json  # 2 to 5: decode it, RS256, its kid
    assert inspected["header"]["alg"] == "RS256"
    kid = inspected["header"]["kid"]
    entries = json.loads(saved.read_text())["public_certs"]  # 6: the entry with this kid
    (cert,) = [entry["cert"] for entry in entries if entry["kid"] == kid]
    (tmp_path / "copied.pem").write_text(json.dumps(cert))  # a copied JSON value, with quotes and \n
    with_certificate = cli(
        "verify", "-", "--cert", str(tmp_path / "copied.pem"), "--json", stdin=request
    )  # 7 and 8: verified
    with_document = cli("verify", "-", "--certs", str(saved), "--json", stdin=request)
    for result in (with_certificate, with_document):
        assert result.code == 0
        checked = dict.fromkeys(["token", "key", "signature", "claims"], "ok")
        assert steps(result.json) == {**checked, "app": "skipped"}
        assert kid in result.json["steps"][0]["text"]
    assert "under public_certs" in with_document.json["steps"][1]["text"]


def test_an_accepted_user_is_named(cli: Cli, configured: FakeTeam) -> None:
    token = configured.user_token(EMAIL)
    result = cli("verify", token)
    assert result.out.splitlines()[-1] == "✓ this configuration accepts it: the user ada@example.com"
    assert cli("verify", token, "--json").json["caller"] == {
        "kind": "user",
        "id": configured.user_id(EMAIL),
        "email": EMAIL,
    }


def test_an_accepted_service_is_named(cli: Cli, configured: FakeTeam) -> None:
    name = configured.client_id("backup")
    result = cli("verify", configured.service_token("backup"), "--json").json
    assert result["caller"] == {"kind": "service", "id": name, "email": None}
    assert result["verdict"]["text"] == f"this configuration accepts it: the service {name}"


def test_the_certs_are_fetched_once_and_only_from_the_configured_team(
    cli: Cli, configured: FakeTeam, certs: MemoryFetch
) -> None:
    cli("verify", configured.forge("other_team"))
    assert [request.url for request in certs.requests] == ["https://acme.cloudflareaccess.com/cdn-cgi/access/certs"]


@pytest.mark.parametrize("name", sorted(FORGERIES.keys() - {"empty"}))
@pytest.mark.parametrize("place", ["online", "offline"])
def test_every_forgery_is_rejected_with_the_reason_of_the_app(
    cli: Cli, configured: FakeTeam, saved: Path, name: str, place: str
) -> None:
    token = configured.forge(name)
    result = cli("verify", "-", "--json", *([] if place == "online" else ["--certs", str(saved)]), stdin=token)
    reason = reason_of_the_app(configured, token.strip())
    assert (result.code, result.json["verdict"]["accepted"]) == (1, False)
    assert result.json["verdict"]["reason"] == reason == FORGERIES[name].reason
    assert [step["status"] for step in result.json["steps"]].count("failed") == 1
    assert len(result.json["steps"]) == 4


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("two_segments", ["failed", "skipped", "skipped", "skipped"]),
        ("unknown_kid", ["ok", "failed", "skipped", "skipped"]),
        ("wrong_key", ["ok", "ok", "failed", "skipped"]),
        ("expired", ["ok", "ok", "ok", "failed"]),
    ],
)
def test_it_stops_at_the_step_that_fails(cli: Cli, configured: FakeTeam, name: str, statuses: list[str]) -> None:
    assert list(steps(cli("verify", configured.forge(name), "--json").json).values()) == statuses


def test_every_reason_code_of_a_rejected_token_has_a_hint() -> None:
    assert {forgery.reason for forgery in FORGERIES.values()} <= HINTS.keys()


ONLY_COOKIE = "the request has only the cookie, and this configuration reads only the header"
ONLY_HEADER = "the request has only the header, and this configuration reads only the cookie"


@pytest.mark.parametrize(
    ("sources", "request_text", "said", "hint"),
    [
        ("header", "Cookie: CF_Authorization={}", ONLY_COOKIE, HINTS["missing_token"]),
        ("header", "CF_Authorization={}", ONLY_COOKIE, HINTS["missing_token"]),
        ("header", "GET / HTTP/1.1\r\nHost: app\r\nCookie: a=b; CF_Authorization={}\r\n", ONLY_COOKIE, None),
        (
            "cookie",
            "Cf-Access-Jwt-Assertion: {}",
            ONLY_HEADER,
            "leave CF_ACCESS_TOKEN_SOURCES out, so that",
        ),
    ],
)
@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_token_in_a_place_that_the_app_does_not_read_is_missing(
    cli: Cli,
    configured: FakeTeam,
    monkeypatch: pytest.MonkeyPatch,
    sources: str,
    request_text: str,
    said: str,
    hint: str | None,
    command: str,
) -> None:
    monkeypatch.setenv("CF_ACCESS_TOKEN_SOURCES", sources)
    result = cli(command, "-", "--json", stdin=request_text.format(configured.user_token(EMAIL)))
    verdict = result.json["verdict"]
    assert (verdict["accepted"], verdict["reason"], verdict["text"]) == (False, "missing_token", said)
    assert verdict["hint"].startswith(hint or "let the proxy pass Cf-Access-Jwt-Assertion on")
    if command == "verify":
        assert result.code == 1
        assert list(steps(result.json).values()) == ["failed", "skipped", "skipped", "skipped"]


def test_of_a_whole_request_the_place_that_the_app_reads_is_verified(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CF_ACCESS_TOKEN_SOURCES", "cookie")
    request = f"Cf-Access-Jwt-Assertion: {configured.forge('expired')}\nCookie: CF_Authorization={{}}"
    assert cli("verify", "-", stdin=request.format(configured.user_token(EMAIL))).code == 0
    assert cli("verify", configured.user_token(EMAIL)).code == 0, "a bare token has no place"


def test_a_token_of_another_team_has_one_reason(cli: Cli, configured: FakeTeam) -> None:
    report = cli("verify", FakeTeam("other").user_token(EMAIL), "--json").json
    assert report["verdict"]["reason"] == "wrong_issuer"
    assert report["steps"][1]["text"].endswith("; the token is of another team")
    assert [step["reason"] for step in report["steps"]] == [None] * 4
    report = cli("verify", configured.forge("unknown_kid_expired"), "--json").json
    assert report["verdict"]["reason"] == "token_expired"
    assert [step["reason"] for step in report["steps"]] == [None] * 4


def test_an_unknown_key_is_reported_with_the_known_keys(cli: Cli, configured: FakeTeam) -> None:
    text = cli("verify", configured.forge("unknown_kid"), "--json").json["steps"][1]["text"]
    known = ", ".join(f"{key.kid[:8]}…" for key in configured.keys)
    assert text.endswith(f"it has {known}")


def test_a_truncated_token_is_reported_by_the_length_of_its_signature(cli: Cli, configured: FakeTeam) -> None:
    result = cli("verify", configured.user_token(EMAIL)[:-98], "--json")
    assert result.code == 1
    assert re.search(r"it has \d+ bytes instead of 256", result.json["steps"][2]["text"])


@pytest.mark.parametrize("cut", [10, 300])
def test_a_token_cut_in_the_middle_is_malformed(cli: Cli, configured: FakeTeam, cut: int) -> None:
    result = cli("verify", configured.user_token(EMAIL)[:cut])
    assert result.code == 1
    assert "(malformed_token)" in result.out
    assert "copy the whole token again" in result.out


def test_a_pem_of_another_key_does_not_verify(cli: Cli, configured: FakeTeam, pem: Path) -> None:
    configured.rotate()
    result = cli("verify", configured.user_token(EMAIL), "--cert", str(pem), "--json")
    assert (result.code, result.json["verdict"]["reason"]) == (1, "invalid_signature")


@pytest.mark.parametrize("audience", [[], ["--audience", " "]])
def test_a_certificate_that_does_not_verify_has_both_causes_in_the_hint(
    cli: Cli, configured: FakeTeam, pem: Path, audience: list[str]
) -> None:
    configured.rotate()
    result = cli("verify", configured.user_token(EMAIL), "--cert", str(pem), *audience, "--json")
    assert result.json["verdict"]["hint"] == (
        f"check that {pem} is the certificate of kid {configured.current.kid[:8]}… under public_certs; if it is, "
        "the token was truncated, changed or signed by another key"
    )


def test_a_malformed_token_is_rejected_without_a_key(cli: Cli, configured: FakeTeam, pem: Path) -> None:
    assert cli("verify", "nonsense", "--cert", str(pem), "--json").json["verdict"]["reason"] == "malformed_token"


def test_a_document_with_certificates_alone_is_accepted(cli: Cli, configured: FakeTeam, saved: Path) -> None:
    content = json.loads(saved.read_text())
    del content["keys"]
    saved.write_text(json.dumps(content))
    assert cli("verify", configured.user_token(EMAIL), "--certs", str(saved)).code == 0


def test_a_key_without_a_certificate_is_accepted(cli: Cli, configured: FakeTeam, saved: Path) -> None:
    saved.write_text(json.dumps({"keys": configured.certs()["keys"]}))
    result = cli("verify", configured.user_token(EMAIL), "--certs", str(saved))
    assert result.code == 0
    assert "without a certificate under public_certs" in result.out


def test_a_certificate_of_another_key_under_the_kid_is_a_warning(cli: Cli, configured: FakeTeam, saved: Path) -> None:
    content = json.loads(saved.read_text())
    first, second = content["public_certs"]
    first["cert"], second["cert"] = second["cert"], first["cert"]
    saved.write_text(json.dumps(content))
    result = cli("verify", configured.user_token(EMAIL), "--certs", str(saved), "--json")
    assert (result.code, steps(result.json)["key"]) == (0, "warning")


def test_an_unusable_key_differs_from_a_missing_one(cli: Cli, configured: FakeTeam, saved: Path) -> None:
    content = configured.certs()
    content["keys"][-1]["use"] = "enc"
    saved.write_text(json.dumps(content))
    result = cli("verify", configured.user_token(EMAIL), "--certs", str(saved), "--json")
    assert "cannot be used: not for verifying signatures" in result.json["steps"][1]["text"]
    assert (result.code, result.json["verdict"]["reason"]) == (1, "unknown_key")


def test_without_any_usable_key_the_result_is_inconclusive(cli: Cli, configured: FakeTeam, saved: Path) -> None:
    saved.write_text('{"keys":[]}')
    result = cli("verify", configured.user_token(EMAIL), "--certs", str(saved), "--json")
    assert (result.code, result.json["verdict"]["accepted"]) == (3, None)
    assert result.json["verdict"]["reason"] == "keys_unavailable"


@pytest.mark.parametrize("audience", [[], ["--audience", " "]])
def test_missing_keys_of_a_file_are_not_reported_as_a_failed_fetch(
    cli: Cli, configured: FakeTeam, saved: Path, audience: list[str]
) -> None:
    saved.write_text('{"keys":[]}')
    result = cli("verify", configured.user_token(EMAIL), "--certs", str(saved), *audience, "--json")
    verdict = result.json["verdict"]
    assert (result.code, verdict["accepted"], verdict["reason"]) == (3, None, "keys_unavailable")
    assert verdict["text"] == f"{saved}: the certs document has no usable key"
    assert verdict["hint"] == SAVE


def test_too_many_keys_are_reported(cli: Cli, configured: FakeTeam, saved: Path) -> None:
    saved.write_text(json.dumps({"keys": configured.certs()["keys"] * 17}))
    result = cli("verify", configured.user_token(EMAIL), "--certs", str(saved), "--json")
    assert (result.code, result.json["verdict"]["reason"]) == (3, "keys_unavailable")
    assert "has 34 keys, more than 32" in result.json["verdict"]["text"]


def test_a_malformed_token_is_rejected_with_any_keys(cli: Cli, configured: FakeTeam, saved: Path) -> None:
    saved.write_text('{"keys":[]}')
    result = cli("verify", configured.forge("two_segments"), "--certs", str(saved), "--json")
    assert (result.code, result.json["verdict"]["reason"]) == (1, "malformed_token")


def test_without_an_audience_the_signature_is_verified_and_nothing_is_accepted(
    cli: Cli, team: FakeTeam, saved: Path
) -> None:
    result = cli("verify", team.user_token(EMAIL), "--certs", str(saved), "--team", "acme")
    assert result.code == 3
    assert "✓ signature" in result.out
    assert "the claims cannot be checked: audience is missing: pass --audience or set" in result.out
    assert cli("verify", team.forge("wrong_key"), "--certs", str(saved)).code == 1


def test_without_a_team_and_without_certs_it_names_the_variable(cli: Cli, team: FakeTeam) -> None:
    result = cli("verify", team.user_token(EMAIL))
    assert (result.code, result.err) == (
        2,
        "cf-access: The settings are not valid: team_domain is missing: pass --team or set CF_ACCESS_TEAM_DOMAIN.\n",
    )


def elliptic() -> bytes:
    key = ec.derive_private_key(7, ec.SECP256R1())
    name = x509.Name([])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def unknown_algorithm(team: FakeTeam) -> bytes:
    """Return a certificate with a key of an unknown algorithm."""
    der = load_pem_x509_certificate(team.certs()["public_cert"]["cert"].encode()).public_bytes(Encoding.DER)
    rsa, other = (bytes.fromhex(f"06092a864886f70d0101{last}") for last in ("01", "63"))
    assert der.count(rsa) == 1
    body = base64.encodebytes(der.replace(rsa, other))
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


def both(team: FakeTeam) -> bytes:
    return "".join(entry["cert"] for entry in team.certs()["public_certs"]).encode()


SAVE = "save the response of <team domain>/cdn-cgi/access/certs unchanged"
COPY = "copy a `cert` of public_certs into it"
EMPTY = f"FILE is not a certs document (it has no keys): {SAVE}."
JSON = "FILE is JSON, not a certificate: pass a certs document as --certs."
SEVERAL = "FILE contains 2 certificates: keep the one with the token's kid, or pass the certs document as --certs."
NONE = f"FILE contains no certificate: {COPY}, with -----BEGIN CERTIFICATE-----."


@pytest.mark.parametrize(
    ("option", "content", "why"),
    [
        ("--certs", None, "FILE cannot be read: No such file or directory."),
        ("--certs", b"-----BEGIN CERTIFICATE-----", "FILE is a PEM file: pass it as --cert."),
        ("--certs", b" <!DOCTYPE html>", f"FILE is a web page, not a certs document: {SAVE}."),
        ("--certs", b"{", f"FILE is not a certs document (not JSON): {SAVE}."),
        ("--certs", b"{}", EMPTY),
        ("--certs", b'{"public_certs":[5,{},{"kid":5,"cert":"x"}]}', EMPTY),
        ("--certs", b" " * 1_048_577, "FILE is longer than 1048576 bytes: it is not a certs document."),
        ("--cert", None, "FILE cannot be read: No such file or directory."),
        ("--cert", b"", NONE),
        ("--cert", FakeTeam("acme").certs_body(), JSON),
        ("--cert", both(FakeTeam("acme")), SEVERAL),
        ("--cert", b"-----BEGIN PUBLIC KEY-----", NONE),
        ("--cert", unknown_algorithm(FakeTeam("acme")), f"The certificate in FILE has no RSA key: {COPY}."),
        ("--cert", elliptic(), f"The certificate in FILE has no RSA key: {COPY}."),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_reported_in_one_sentence(
    cli: Cli, configured: FakeTeam, tmp_path: Path, option: str, content: bytes | None, why: str
) -> None:
    path = tmp_path / "f"
    if content is not None:
        path.write_bytes(content)
    result = cli("verify", "x.y.z", option, str(path))
    assert (result.code, result.out, result.err) == (2, "", f"cf-access: {why.replace('FILE', str(path))}\n")


def test_an_invalid_file_name_is_reported() -> None:
    with pytest.raises(CommandError, match="cannot be read: not a valid file name"):
        read_certs(Path("a\0b"))


def test_two_sources_of_keys_are_a_usage_error(cli: Cli, configured: FakeTeam, saved: Path, pem: Path) -> None:
    result = cli("verify", "x.y.z", "--certs", str(saved), "--cert", str(pem))
    assert "pass --certs or --cert, not both" in result.err


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("html", "The response is a web page, not the certs document; allow the team domain in the proxy"),
        ("garbage", "The response of https://acme.cloudflareaccess.com is not a certs document: not UTF-8; try again"),
        ("hang", "returned no certs: no response in time; check the network"),
    ],
)
def test_a_failed_fetch_is_reported_in_one_sentence(
    cli: Cli, configured: FakeTeam, certs: MemoryFetch, fault: str, why: str
) -> None:
    getattr(certs, fault)()
    clock = configured.clock if fault != "hang" else Impatient(configured)
    result = cli("verify", configured.user_token(EMAIL), clock=clock)
    assert (result.code, result.out) == (3, "")
    assert why in result.err
    assert result.err.count("\n") == 1


def test_a_host_that_is_not_found_is_reported(cli: Cli, configured: FakeTeam) -> None:
    @asynccontextmanager
    async def fetch(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        raise ConnectionError from gaierror(-2, "Name or service not known")
        yield

    result = cli("verify", configured.user_token(EMAIL), fetch=fetch)
    assert result.code == 3
    assert result.err == (
        "cf-access: https://acme.cloudflareaccess.com returned no certs: the host name was not found; "
        "check the team's name, and this machine's DNS.\n"
    )


def test_a_missing_local_team_is_reported_in_one_sentence(cli: Cli, team: FakeTeam) -> None:
    local = FakeTeam("http://127.0.0.1:8787")
    certs = MemoryFetch(local)
    certs.fail_with(404)
    result = cli("keys", "--team", local.issuer, fetch=certs)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "cf-access: There is no such team: http://127.0.0.1:8787 answers 404; "
        "check that the local Access runs there; `cf-access dev` starts it.\n"
    )


class Impatient:
    """A clock on which every deadline has passed."""

    def __init__(self, team: FakeTeam) -> None:
        self.now, self.monotonic = team.clock.now, team.clock.monotonic

    async def sleep(self, seconds: float) -> None:
        """Return at once."""
