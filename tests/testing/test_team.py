"""A fake team takes the same names as the access object, and shares its keys with other teams of that name."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import Field

from fastapi_cloudflare_access import ConfigurationError, ServiceClaims, UserClaims
from fastapi_cloudflare_access._keys.jwks import parse_jwks
from fastapi_cloudflare_access._verification.token import parse, verify
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam
from fastapi_cloudflare_access.testing.team import shared_key


@pytest.mark.parametrize(
    ("name", "issuer"),
    [
        ("acme", "https://acme.cloudflareaccess.com"),
        ("acme.fed.cloudflareaccess.com", "https://acme.fed.cloudflareaccess.com"),
        ("http://127.0.0.1:8787", "http://127.0.0.1:8787"),
    ],
)
def test_it_takes_every_form_of_a_team_domain(name: str, issuer: str) -> None:
    team = FakeTeam(name)
    assert (team.issuer, team.team_domain) == (issuer, issuer)


@pytest.mark.parametrize("name", ["evil.com", "", "Acme"])
def test_an_invalid_team_domain_is_rejected(name: str) -> None:
    with pytest.raises(ConfigurationError, match="team_domain"):
        FakeTeam(name)


@pytest.mark.parametrize("audience", ["", [], [""]])
def test_a_team_without_an_audience_is_rejected(audience: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match="audience"):
        FakeTeam(audience=audience)


def test_its_audience_is_a_tag_that_is_the_same_in_every_run() -> None:
    assert FakeTeam("acme").audience == "5f89da0438fa1b1767532b58bd38cda2396f39889ab9e492e7f8f20d22fc9e9f"
    assert FakeTeam("other").audience != FakeTeam("acme").audience


def test_teams_of_one_name_share_their_keys_and_nothing_else() -> None:
    first, second = FakeTeam("acme"), FakeTeam("acme")
    assert first.keys == second.keys
    first.rotate()
    assert second.keys == FakeTeam("acme").keys
    second.rotate()
    assert first.keys == second.keys


def test_teams_of_different_names_have_different_keys() -> None:
    assert not {key.kid for key in FakeTeam("acme").keys} & {key.kid for key in FakeTeam("other").keys}


def test_a_key_is_made_once_even_if_threads_ask_together() -> None:
    with ThreadPoolExecutor(4) as threads:
        keys = list(threads.map(lambda _: shared_key("asked together", 0), range(4)))
    assert len({key.kid for key in keys}) == 1


def test_a_new_team_has_a_fixed_time() -> None:
    assert isinstance(FakeTeam().clock, FakeClock)
    assert FakeTeam().user("ada@example.com").issued_at.isoformat() == "2026-01-01T00:00:00+00:00"


def test_user_and_service_are_the_claims_that_a_handler_receives() -> None:
    team = FakeTeam()
    user, service = team.user("ada@example.com", groups=["admins"]), team.service("deploy-bot")
    assert (type(user), type(service)) == (UserClaims, ServiceClaims)
    assert (user.email, user.custom["groups"]) == ("ada@example.com", ["admins"])
    assert service.common_name == team.client_id("deploy-bot")


@pytest.mark.parametrize("kind", ["user", "service"])
def test_headers_and_cookies_carry_a_token_that_verifies_to_the_same_claims(kind: str) -> None:
    team = FakeTeam()
    caller = team.user("ada@example.com", custom={"level": [5]}) if kind == "user" else team.service("deploy-bot")
    token = team.headers(caller)["Cf-Access-Jwt-Assertion"]
    assert team.cookies(caller) == {"CF_Authorization": token}
    settings = Settings.load(team_domain=team.team_domain, audience=team.audience)
    parsed = parse(token.encode())
    claims = verify(parsed, key=parse_jwks(team.certs_body()).keys[parsed.kid], settings=settings, now=team.clock.now())
    assert type(caller).model_validate(claims) == caller


def test_a_service_keeps_its_text_audience_on_the_wire() -> None:
    team = FakeTeam()
    payload = team.token(team.service("deploy-bot")).split(".")[1]
    assert json.loads(urlsafe_b64decode(payload + "=="))["aud"] == team.audience


def test_a_token_is_sent_as_it_is() -> None:
    assert FakeTeam().headers("a.b.c") == {"Cf-Access-Jwt-Assertion": "a.b.c"}


def test_an_unknown_forgery_is_rejected_with_the_known_names() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown forgery 'expird'; the forgeries are empty, .*, expired, "):
        FakeTeam().forge("expird")


TEAM: Any = FakeTeam()
INVALID: dict[str, tuple[Callable[[], object], str]] = {
    "an unknown option": (
        lambda: TEAM.user("a@b", group=["admins"]),
        "unknown option group; the options are audience, groups, custom, country, expires_in, hostname, claims",
    ),
    "an option of a user for a service": (
        lambda: TEAM.service("x", groups=["admins"]),
        "unknown option groups; the options are audience, expires_in, hostname, claims",
    ),
    "an unknown option of a token": (
        lambda: TEAM.user_token("a@b", expire_in=5),
        "unknown option expire_in; the options are audience",
    ),
    "groups as text": (lambda: TEAM.user("a@b", groups="admins"), "groups must be a list, not str"),
    "an invalid option of a user": (lambda: TEAM.user("a@b", expires_in=1.5), "the claims are not valid: see exp;"),
    "invalid claims of a user": (
        lambda: TEAM.user("a@b", claims={"sub": 5, "exp": "never"}),
        "the claims are not valid: see exp, sub; user_token,",
    ),
    "invalid claims of a service": (
        lambda: TEAM.service("x", claims={"aud": 5}),
        "the claims are not valid: see aud;",
    ),
}


@pytest.mark.parametrize("what", INVALID)
def test_an_invalid_argument_is_rejected_in_one_sentence(what: str) -> None:
    call, error = INVALID[what]
    with pytest.raises(ConfigurationError, match=error):
        call()


def test_audiences_may_be_any_iterable_and_claims_may_replace_the_audience() -> None:
    team = FakeTeam(audience=(tag for tag in ("a", "b")))
    assert team.audiences == ("a", "b")
    assert team.user("ada@example.com", claims={"aud": "other"}).aud == ("other",)
    assert team.service("bot", claims={"aud": ["other"]}).aud == ("other",)


def test_claims_of_a_user_model_are_named_in_the_token_as_on_the_wire() -> None:
    class Named(UserClaims):
        level: int = Field(alias="https://example.com/level")

    team = FakeTeam()
    user = Named.model_validate(team.user_claims("ada@example.com", claims={"https://example.com/level": 5}))
    payload = json.loads(urlsafe_b64decode(team.token(user).split(".")[1] + "=="))
    assert (payload["https://example.com/level"], "level" in payload) == (5, False)


@pytest.mark.parametrize("make", ["headers", "cookies", "token"])
def test_an_address_or_nothing_in_place_of_a_caller_is_an_error_that_says_what_to_write(make: str) -> None:
    made: Any = getattr(FakeTeam(), make)
    with pytest.raises(ConfigurationError, match=r"^'a@b\.c' is an address, not a token: write team\.user\('a@b\.c'\)"):
        made("a@b.c")
    with pytest.raises(ConfigurationError, match=r"not NoneType: write one$"):
        made(None)
    assert "a.b.c" in str(made("a.b.c"))
