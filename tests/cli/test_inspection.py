"""`inspect` decodes a token without verification, and checks its claims against the configuration."""

import re
from collections.abc import Callable

import pytest
from support.command_line import Cli

from fastapi_cloudflare_access.errors import InvalidSignature, UnknownKey
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam

EMAIL = "ada@example.com"
UNVERIFIED = (InvalidSignature, UnknownKey)


def of_kind(team: FakeTeam, kind: str) -> str:
    made: dict[str, Callable[[], str]] = {
        "user": lambda: team.user_token(EMAIL),
        "service": lambda: team.service_token("backup"),
        "org": lambda: team.org_token(EMAIL),
        "meta": team.meta_token,
        "match": team.match_token,
        "saas": lambda: team.sign({"iss": f"{team.team_domain}/cdn-cgi/access/sso/oidc/0123abcd", "sub": "1"}),
        "unknown": lambda: team.sign({"type": "app", "sub": ""}),
    }
    return made[kind]()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("user", "a user's login to an application"),
        ("service", "a service's login to an application"),
        ("org", "a user's session with the team"),
        ("meta", "part of a login redirect"),
        ("match", "describes an application"),
        ("saas", "an ID token of Access for SaaS"),
        ("unknown", "not a kind of token that Access issues"),
    ],
)
def test_it_distinguishes_the_kinds_of_token(cli: Cli, configured: FakeTeam, kind: str, words: str) -> None:
    token = of_kind(configured, kind)
    assert cli("inspect", token, "--json").json["kind"] == kind
    assert words in cli("inspect", token).out


@pytest.mark.parametrize(
    "claims", [{}, {"type": "app"}, {"type": ["app"]}, {"type": "app", "sub": "", "common_name": 5}]
)
def test_other_tokens_are_of_unknown_kind(cli: Cli, configured: FakeTeam, claims: dict[str, object]) -> None:
    assert cli("inspect", configured.sign(claims), "--json").json["kind"] == "unknown"


def test_the_first_line_states_that_nothing_was_verified(cli: Cli, configured: FakeTeam) -> None:
    result = cli("inspect", configured.user_token(EMAIL))
    assert result.out.startswith("Nothing was verified: anyone can write such a token.")
    assert cli("inspect", configured.user_token(EMAIL), "--json").json["verified"] is False


def test_times_are_readable(cli: Cli, configured: FakeTeam) -> None:
    token = configured.user_token(EMAIL, expires_in=7200)
    configured.clock.advance(300)
    out = cli("inspect", token).out
    assert "exp          1767232800 (2026-01-01T02:00:00Z, in 1 hour)\n" in out
    assert "iat          1767225600 (2026-01-01T00:00:00Z, 5 minutes ago)\n" in out
    times = cli("inspect", token, "--json").json["times"]
    assert times == dict.fromkeys(["issued", "not_before"], "2026-01-01T00:00:00Z") | {
        "expires": "2026-01-01T02:00:00Z"
    }


def test_it_compares_team_and_audience_with_the_configuration(cli: Cli, configured: FakeTeam) -> None:
    out = cli("inspect", configured.user_token(EMAIL)).out
    assert f"aud          {configured.audience} (configured)\n" in out
    assert "iss          https://acme.cloudflareaccess.com (configured)\n" in out
    out = cli("inspect", configured.service_token("backup"), "--team", "other", "--audience", "a, bcdefghijklmnop").out
    assert f"aud          {configured.audience} (configured: a, bcdefghi…)\n" in out
    assert "(configured: https://other.cloudflareaccess.com)\n" in out


def test_a_valid_token_is_accepted_if_its_signature_is_valid(cli: Cli, configured: FakeTeam) -> None:
    result = cli("inspect", configured.user_token(EMAIL))
    assert (result.code, result.out.splitlines()[-1]) == (
        0,
        "! this configuration accepts the token if its signature is valid",
    )
    assert cli("inspect", configured.user_token(EMAIL), "--json").json["verdict"]["accepted"] is None


@pytest.mark.parametrize("name", sorted(FORGERIES.keys() - {"empty"}))
def test_it_agrees_with_the_app_about_every_forgery_that_needs_no_key(
    cli: Cli, configured: FakeTeam, name: str
) -> None:
    result = cli("inspect", "-", "--json", stdin=configured.forge(name)).json
    forgery = FORGERIES[name]
    if not issubclass(forgery.error, UNVERIFIED):
        assert (result["verdict"]["accepted"], result["verdict"]["reason"]) == (False, forgery.reason)
        assert result["verdict"]["hint"]
    elif name in {"unknown_kid_expired", "other_team"}:
        assert result["verdict"]["reason"] in {"token_expired", "wrong_issuer"}
    else:
        assert result["verdict"]["accepted"] is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong_issuer", "it is https://evil.cloudflareaccess.com, not https://acme.cloudflareaccess.com"),
        ("wrong_audience", "it is ffffffff…, not "),
        ("org", "its type is org"),
        ("expired", "2025-12-31T23:00:00Z, 1 hour ago"),
        ("not_yet_valid", "2026-01-01T01:00:00Z, in 1 hour"),
        ("alg_none_signed", "the algorithm is not RS256"),
    ],
)
def test_a_rejection_names_the_value_that_does_not_match(cli: Cli, configured: FakeTeam, name: str, words: str) -> None:
    assert words in cli("inspect", configured.forge(name)).out


def test_only_the_first_of_many_audiences_are_named(cli: Cli, configured: FakeTeam) -> None:
    token = configured.user_token(EMAIL, claims={"aud": list("abcde")})
    assert "it is a, b, c, …, not " in cli("inspect", token).out


@pytest.mark.parametrize("cut", [10, 300, 420])
def test_the_complete_parts_of_a_truncated_token_are_decoded(cli: Cli, configured: FakeTeam, cut: int) -> None:
    result = cli("inspect", configured.user_token(EMAIL)[:cut])
    assert result.code == 1
    assert "claims       cannot be decoded" in result.out
    assert ("header       cannot be decoded" in result.out) == (cut < 100)
    assert "(malformed_token)" in result.out


def test_a_payload_that_is_not_json_is_malformed(cli: Cli, configured: FakeTeam) -> None:
    result = cli("inspect", configured.forge("payload_not_json"), "--json")
    assert (result.code, result.json["claims"], result.json["verdict"]["reason"]) == (1, None, "malformed_token")


def test_a_token_that_is_too_long_is_not_decoded(cli: Cli, configured: FakeTeam) -> None:
    result = cli("inspect", "-", "--json", stdin=configured.forge("oversized")).json
    assert (result["header"], result["verdict"]["text"]) == (None, "the token is too long")


def test_without_a_configuration_it_decodes_and_names_the_missing_setting(cli: Cli, team: FakeTeam) -> None:
    result = cli("inspect", team.user_token(EMAIL, groups=["admin"], claims={"amr": [], "level": 5, "ok": True}))
    assert result.code == 0
    assert "aud          " + team.audience + "\n" in result.out
    assert 'custom       {"groups": ["admin"]}\n' in result.out
    assert "amr          []\n" in result.out
    assert "level        5\n" in result.out
    assert "ok           true\n" in result.out
    assert "the decision of the app is not known: team_domain is missing: pass --team or set CF_ACCESS" in result.out


def test_an_invalid_time_is_shown_unchanged(cli: Cli, configured: FakeTeam) -> None:
    out = cli("inspect", configured.forge("exp_out_of_range")).out
    assert "exp          1000000000000000\n" in out
    assert cli("inspect", configured.forge("exp_text"), "--json").json["times"]["expires"] is None


def test_nothing_is_fetched(cli: Cli, configured: FakeTeam, certs: object) -> None:
    cli("inspect", configured.user_token(EMAIL))
    assert getattr(certs, "fetches", None) == 0


@pytest.mark.parametrize(
    ("token", "text", "hint"),
    [
        ("hello", "it has 1 part, and a token has 3, separated by dots", "copy the whole token again"),
        ("a.b", "it has 2 parts, and a token has 3, separated by dots", "copy the whole token again"),
        ("a.b.c.d", "it has 4 parts, and a token has 3, separated by dots", "copy the whole token again"),
        ("a.b.c", "not canonical base64url", "copy the whole token again"),
        ("oauth:abc123", "an opaque token of Managed OAuth", "verify the token that reaches the app"),
    ],
)
def test_the_advice_fits_what_is_not_a_token(cli: Cli, configured: FakeTeam, token: str, text: str, hint: str) -> None:
    for command in ("inspect", "verify"):
        verdict = cli(command, token, "--json").json["verdict"]
        assert text in verdict["text"]
        assert verdict["hint"].startswith(hint)


def test_an_id_token_of_access_for_saas_is_not_for_the_app(cli: Cli, configured: FakeTeam) -> None:
    verdict = cli("inspect", of_kind(configured, "saas"), "--json").json["verdict"]
    assert verdict["hint"].startswith("this is an ID token of Access for SaaS")


def test_an_issuer_that_can_be_no_team_domain_is_not_proposed_as_a_setting(cli: Cli, configured: FakeTeam) -> None:
    foreign = configured.user_token(EMAIL, claims={"iss": "https://login.example.com"})
    other = configured.user_token(EMAIL, claims={"iss": "https://other.cloudflareaccess.com"})
    hints = [cli("inspect", token, "--json").json["verdict"]["hint"] for token in (foreign, other)]
    assert hints[0].startswith("its issuer is not a team domain, which ends with .cloudflareaccess.com")
    assert hints[1].startswith("set CF_ACCESS_TEAM_DOMAIN")


def test_personal_data_is_announced_and_an_identity_is_shown_as_a_size(cli: Cli, configured: FakeTeam) -> None:
    warning = "! do not paste this into a ticket or a chat: it contains personal data\n"
    token = configured.forge("org")
    shown = cli("inspect", token).out
    assert warning in shown
    assert re.search(r"^  identity     \d+ bytes of personal data, not shown; --json shows them$", shown, re.MULTILINE)
    assert "identity" in cli("inspect", token, "--json").json["claims"]
    assert warning in cli("inspect", configured.user_token("ada@example.com")).out
    assert warning not in cli("inspect", configured.service_token("backup")).out
