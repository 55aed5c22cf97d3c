"""A team for tests is named as the access object names its own, and shares its keys with every other of that name."""

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
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
def test_it_refuses_what_the_access_object_would_refuse(name: str) -> None:
    with pytest.raises(ConfigurationError, match="team_domain"):
        FakeTeam(name)


@pytest.mark.parametrize("audience", ["", [], [""]])
def test_a_team_without_an_audience_is_refused(audience: str | list[str]) -> None:
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


def test_a_new_team_stands_at_a_fixed_time() -> None:
    assert isinstance(FakeTeam().clock, FakeClock)
    assert FakeTeam().user("ada@example.com").issued_at.isoformat() == "2026-01-01T00:00:00+00:00"


def test_user_and_service_are_the_claims_that_a_handler_gets() -> None:
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


@pytest.mark.parametrize("caller", [None, 5, {"email": "ada@example.com"}])
def test_what_is_no_caller_is_refused_with_what_is_one(caller: object) -> None:
    with pytest.raises(ConfigurationError, match=r"team\.user\(…\), team\.service\(…\) or a token"):
        FakeTeam().token(caller)


def test_an_unknown_forgery_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no forgery 'expird'; there are empty, .*, expired, "):
        FakeTeam().forge("expird")


TEAM: Any = FakeTeam()
WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "an option that is none": (
        lambda: TEAM.user("a@b", group=["admins"]),
        "no option group; there are audience, groups, custom, country, expires_in, hostname, claims",
    ),
    "an option of a user for a service": (
        lambda: TEAM.service("x", groups=["admins"]),
        "no option groups; there are audience, expires_in, hostname, claims",
    ),
    "an option that is none, in a token": (
        lambda: TEAM.user_token("a@b", expire_in=5),
        "no option expire_in; there are audience",
    ),
    "groups": (lambda: TEAM.user("a@b", groups="admins"), "groups is a list, not str"),
    "custom": (lambda: TEAM.user("a@b", custom=["x"]), "custom is a mapping of names to values, not list"),
    "claims": (lambda: TEAM.service_token("x", claims=5), "claims is a mapping of names to values, not int"),
    "country": (lambda: TEAM.user("a@b", country=None), "country is text, not NoneType"),
    "expires_in as text": (
        lambda: TEAM.user("a@b", expires_in="1h"),
        "expires_in is a whole number of seconds, not str",
    ),
    "expires_in as a timedelta": (
        lambda: TEAM.service("x", expires_in=timedelta(hours=1)),
        "expires_in is a whole number of seconds, not timedelta",
    ),
    "expires_in as a truth": (lambda: TEAM.user("a@b", expires_in=True), "whole number of seconds, not bool"),
    "expires_in of a session": (lambda: TEAM.org_token("a@b", expires_in=1.5), "whole number of seconds, not float"),
    "a number as address": (lambda: TEAM.user(5), "email is text, not int"),
    "no address": (lambda: TEAM.user(None), "email is text, not NoneType"),
    "no address of a session": (lambda: TEAM.org_token(None), "email is text, not NoneType"),
    "no name": (lambda: TEAM.service(None), "name is text, not NoneType"),
    "a user that no handler gets": (
        lambda: TEAM.user("a@b", claims={"sub": 5, "exp": "never"}),
        "no handler gets such a caller: see exp, sub; user_token,",
    ),
    "a service that no handler gets": (lambda: TEAM.service("x", claims={"aud": 5}), "such a caller: see aud;"),
    "a list of forgeries": (lambda: TEAM.forge(["expired"]), r"no forgery \['expired'\]; there are empty, "),
    "a number as audience": (lambda: FakeTeam(audience=TEAM_OF_NUMBERS), "audience must be"),
    "a function as clock": (lambda: FakeTeam(clock=A_FUNCTION), r"object with now\(\), monotonic\(\) and sleep\(\)"),
    "a class as clock": (lambda: FakeTeam(clock=A_CLASS), r"object with now\(\), monotonic\(\) and sleep\(\)"),
}
TEAM_OF_NUMBERS: Any = 5
A_FUNCTION: Any = time.time
A_CLASS: Any = FakeClock


@pytest.mark.parametrize("what", WRONG)
def test_what_the_kit_does_not_know_is_refused_in_a_sentence_and_never_dropped(what: str) -> None:
    call, sentence = WRONG[what]
    with pytest.raises(ConfigurationError, match=sentence):
        call()


def test_audiences_may_be_any_iterable_and_claims_may_replace_the_audience() -> None:
    team = FakeTeam(audience=(tag for tag in ("a", "b")))
    assert team.audiences == ("a", "b")
    assert team.user("ada@example.com", claims={"aud": "other"}).aud == ("other",)
    assert team.service("bot", claims={"aud": ["other"]}).aud == ("other",)


def test_claims_of_an_own_model_are_named_in_the_token_as_on_the_wire() -> None:
    class Named(UserClaims):
        level: int = Field(alias="https://example.com/level")

    team = FakeTeam()
    user = Named.model_validate(team.user_claims("ada@example.com", claims={"https://example.com/level": 5}))
    payload = json.loads(urlsafe_b64decode(team.token(user).split(".")[1] + "=="))
    assert (payload["https://example.com/level"], "level" in payload) == (5, False)
