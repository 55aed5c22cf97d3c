"""`keys` shows the published keys of the team, and with `--watch` their changes."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from support.command_line import Cli, Skewed

from fastapi_cloudflare_access.cli.output import Screen
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

DAY = 86_400


class Script:
    """A clock whose sleep runs the next event at once."""

    def __init__(self, team: FakeTeam, *events: Callable[[], object]) -> None:
        self._clock, self._events = team.clock, list(events)
        self.now, self.monotonic = team.clock.now, team.clock.monotonic

    async def sleep(self, seconds: float) -> None:
        """Advance the clock and run the next event; other sleeps are deadlines that never pass."""
        if seconds != 7:
            await self._clock.sleep(seconds)
            return
        self._clock.advance(seconds)
        self._events.pop(0)()


def watch(cli: Cli, team: FakeTeam, *events: Callable[[], object], options: tuple[str, ...] = ()) -> tuple[int, str]:
    reads = str(len(events) + 1)
    result = cli("keys", "--watch", "--interval", "7", "--times", reads, *options, clock=Script(team, *events))
    assert result.err == ""
    return result.code, result.out


def test_it_shows_the_current_key_first_then_the_previous(cli: Cli, configured: FakeTeam) -> None:
    result = cli("keys", "--json")
    assert result.code == 0
    assert [(key["role"], key["kid"]) for key in result.json["keys"]] == [
        ("current", configured.current.kid),
        ("previous", configured.keys[0].kid),
    ]
    assert (result.json["added"], result.json["removed"]) == ([], [])


def test_it_shows_size_and_fingerprints(cli: Cli, configured: FakeTeam) -> None:
    key = cli("keys", "--json").json["keys"][0]
    public = configured.current.private.public_key()
    certificate = load_pem_x509_certificate(configured.certs()["public_cert"]["cert"].encode())
    assert key["bits"] == 2048
    assert (
        key["fingerprint"] == sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    )
    assert key["certificate"]["fingerprint"] == sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    assert key["certificate"]["same_key"] is True
    assert f"SHA-256      {key['fingerprint']}\n" in cli("keys").out


def test_it_shows_how_long_the_certificates_are_valid(cli: Cli, configured: FakeTeam) -> None:
    configured.clock.advance(2 * DAY)
    assert "certificate  valid 2026-01-01 to 2026-02-19 (ends in 47 days), 2 days old\n" in cli("keys").out
    configured.clock.advance(60 * DAY)
    assert "(expired 13 days ago), 62 days old\n" in cli("keys").out
    assert "(ends in 50 days), begins in 1 day\n" in cli("keys", clock=Skewed(configured.clock, -63 * DAY)).out


def test_a_missing_or_different_certificate_is_reported(cli: Cli, configured: FakeTeam, tmp_path: Path) -> None:
    content = configured.certs()
    first, second = content["public_certs"]
    content["public_certs"] = [{"kid": second["kid"], "cert": first["cert"]}]
    (tmp_path / "certs.json").write_text(json.dumps(content))
    out = cli("keys", "--certs", str(tmp_path / "certs.json")).out
    assert "its key differs from the one under keys" in out
    assert "certificate  none under public_certs" in out


def test_a_saved_document_needs_no_team(cli: Cli, team: FakeTeam, tmp_path: Path) -> None:
    (tmp_path / "certs.json").write_bytes(team.certs_body())
    result = cli("keys", "--certs", str(tmp_path / "certs.json"))
    assert result.code == 0
    assert result.out.startswith(f"{tmp_path}/certs.json, read 2026-01-01T00:00:00Z\n")


def test_a_document_without_keys_is_reported(cli: Cli, configured: FakeTeam, certs: MemoryFetch) -> None:
    certs.no_keys()
    result = cli("keys")
    assert result.code == 3
    assert "the document contains no keys" in result.out


def test_an_unusable_key_has_no_role(cli: Cli, configured: FakeTeam, certs: MemoryFetch) -> None:
    certs.answer_with(b'{"keys":[{"kty":"EC","kid":"x"}],"public_cert":{"kid":"x"}}')
    result = cli("keys")
    assert result.code == 3
    assert "! key, not used: not an RSA key\n" in result.out
    assert "kid          x\n" in result.out


@pytest.mark.parametrize("modulus", ["é" * 400, "A" * 5000, 7, None, "AQAB"])
def test_an_invalid_modulus_makes_the_key_unusable(
    cli: Cli, configured: FakeTeam, certs: MemoryFetch, modulus: object
) -> None:
    good = configured.certs()["keys"][0]
    certs.answer_with(json.dumps({"keys": [good, {**good, "kid": "\x1b", "n": modulus}]}).encode())
    key = cli("keys", "--json").json["keys"][1]
    assert (key["usable"], key["kid"], key["fingerprint"]) == (False, None, None)
    assert key["bits"] == (17 if modulus == "AQAB" else None)


@pytest.mark.parametrize("pem", ["", "\ud800", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_an_invalid_certificate_is_skipped(cli: Cli, configured: FakeTeam, certs: MemoryFetch, pem: str) -> None:
    content = configured.certs()
    content["public_certs"] = [{"kid": configured.current.kid, "cert": pem}, None, 5]
    content["public_cert"] = []
    certs.answer_with(json.dumps(content).encode())
    result = cli("keys", "--json")
    if "\ud800" in pem:
        assert result.code == 3
    else:
        assert [(key["role"], key["certificate"]) for key in result.json["keys"]] == [(None, None)] * 2


def test_without_a_team_it_names_the_variable(cli: Cli) -> None:
    assert cli("keys").err == (
        "cf-access: The settings are not valid: team_domain is missing: pass --team or set CF_ACCESS_TEAM_DOMAIN.\n"
    )


def test_a_team_is_enough(cli: Cli, team: FakeTeam) -> None:
    assert cli("keys", "--team", "acme").code == 0


def test_a_watch_shows_a_rotation_from_beginning_to_end(cli: Cli, configured: FakeTeam) -> None:
    first, second = (key.kid[:8] for key in configured.keys)
    code, out = watch(cli, configured, lambda: None, configured.rotate, configured.withdraw)
    third = configured.current.kid[:8]
    assert code == 0
    assert out.splitlines()[-4:] == [
        f"2026-01-01T00:00:14Z new key {third}…",
        f"2026-01-01T00:00:14Z key {first}… was removed",
        f"2026-01-01T00:00:14Z the current key is now {third}…",
        f"2026-01-01T00:00:21Z key {second}… was removed",
    ]
    assert out.count("current key, RSA 2048") == 1


def test_a_watch_as_json_writes_a_line_for_each_change(cli: Cli, configured: FakeTeam) -> None:
    before = configured.keys
    _, out = watch(cli, configured, lambda: None, configured.rotate, options=("--json",))
    first, second = map(json.loads, out.splitlines())
    assert (first["added"], first["removed"]) == ([], [])
    assert (second["added"], second["removed"]) == ([configured.current.kid], [before[0].kid])


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_watch_survives_an_outage_and_reports_it_once(
    cli: Cli, configured: FakeTeam, certs: MemoryFetch, options: tuple[str, ...]
) -> None:
    code, out = watch(
        cli, configured, lambda: certs.fail_with(503), lambda: None, certs.recover, configured.rotate, options=options
    )
    assert code == 0
    assert out.count("HTTP status 503") == 1
    assert configured.current.kid[:8] in out.splitlines()[-1]


def test_a_watch_can_begin_in_an_outage(cli: Cli, configured: FakeTeam, certs: MemoryFetch) -> None:
    certs.fail_with(503)
    _, out = watch(cli, configured, certs.recover)
    assert out.splitlines()[1].endswith("/cdn-cgi/access/certs, read 2026-01-01T00:00:07Z")


def test_an_interrupt_ends_a_watch_with_success(cli: Cli, configured: FakeTeam) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert watch(cli, configured, interrupt)[0] == 0


def test_the_live_view_shows_the_keys_and_the_changes(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(Screen, "is_live", property(lambda screen: True))
    _, out = watch(cli, configured, configured.rotate)
    assert f"new key {configured.current.kid[:8]}…" in out
    assert "Reading every 7 s; press Ctrl-C to stop." in out


def test_the_live_view_can_begin_in_an_outage(
    cli: Cli, configured: FakeTeam, certs: MemoryFetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(Screen, "is_live", property(lambda screen: True))
    certs.fail_with(503)
    _, out = watch(cli, configured, lambda: None)
    assert "HTTP status 503" in out
