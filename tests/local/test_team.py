"""The team signs with stored keys, and accepts only its own tokens."""

from typing import Any

import pytest
from support.local_rig import make_local_access, make_request, make_state

from fastapi_cloudflare_access.local.config import App, Person
from fastapi_cloudflare_access.local.cookies import app_cookie, team_cookie
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.state import Session, State
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam

ADA = Person(email="ada@example.com", name="Ada", groups=("admins",), custom={"department": "x"}, country="GB")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def local_access(clock: FakeClock) -> LocalAccess:
    return make_local_access(clock=clock, people=(ADA,))


def claims_of(local_access: LocalAccess, **options: Any) -> tuple[str, dict[str, Any]]:
    session = local_access.log_in(ADA.email, ip="127.0.0.1")
    token = local_access.team.app_token(session, ADA, local_access.config.apps[0], host="localhost")
    claims = local_access.team.verified_claims(token, "app")
    assert claims is not None
    return token, claims


def test_each_first_start_generates_two_keys() -> None:
    first, second = State(), State()
    for state in (first, second):
        make_local_access(state=state)
    assert len(first.keys) == 2
    assert {key.pem for key in first.keys}.isdisjoint({key.pem for key in second.keys})


def test_a_restart_keeps_the_keys_and_their_ages(local_access: LocalAccess, clock: FakeClock) -> None:
    clock.advance(100)
    again = make_local_access(clock=clock, state=local_access.state)
    assert [key.kid for key in again.team.keys] == [key.kid for key in local_access.team.keys]
    assert again.team.age_of(again.team.current) == clock.now() - 1_767_000_000.0


def test_a_withdrawn_key_does_not_return_after_a_restart(local_access: LocalAccess, clock: FakeClock) -> None:
    local_access.team.withdraw()
    again = make_local_access(clock=clock, state=local_access.state)
    assert [key.kid for key in again.team.keys] == [local_access.team.current.kid]


def test_a_rotation_survives_a_restart(local_access: LocalAccess, clock: FakeClock) -> None:
    before = local_access.team.current.kid
    local_access.team.rotate()
    again = make_local_access(clock=clock, state=local_access.state)
    assert [key.kid for key in again.team.keys] == [before, local_access.team.current.kid]


def test_a_user_token_has_the_claims_of_access(local_access: LocalAccess, clock: FakeClock) -> None:
    _, claims = claims_of(local_access)
    assert claims["aud"] == [local_access.config.apps[0].tag]
    assert claims["custom"] == {"department": "x", "groups": ["admins"]}
    assert (claims["country"], claims["email"], claims["type"]) == ("GB", ADA.email, "app")
    assert claims["exp"] - claims["iat"] == 86_400
    assert claims["identity_nonce"] in local_access.state.sessions


def test_without_groups_there_is_no_custom_member(local_access: LocalAccess) -> None:
    session = local_access.log_in("bob@example.com", ip="")
    token = local_access.team.app_token(
        session, Person(email="bob@example.com"), local_access.config.apps[0], host="localhost"
    )
    assert "custom" not in (local_access.team.verified_claims(token, "app") or {})


def test_tokens_are_valid_until_they_expire(local_access: LocalAccess, clock: FakeClock) -> None:
    token, _ = claims_of(local_access)
    clock.advance(86_399)
    assert local_access.team.verified_claims(token, "app") is not None
    clock.advance(1)
    assert local_access.team.verified_claims(token, "app") is None


def test_a_token_is_valid_only_as_its_own_type(local_access: LocalAccess) -> None:
    token, _ = claims_of(local_access)
    assert local_access.team.verified_claims(token, "org", "meta") is None


def test_a_token_of_a_withdrawn_key_is_not_valid(local_access: LocalAccess) -> None:
    token, _ = claims_of(local_access)
    local_access.team.rotate()
    assert local_access.team.verified_claims(token, "app") is not None
    local_access.team.withdraw()
    assert local_access.team.verified_claims(token, "app") is None


def test_tokens_that_the_team_did_not_sign_are_not_valid(local_access: LocalAccess) -> None:
    token, claims = claims_of(local_access)
    stranger = FakeTeam("stranger")
    foreign = stranger.sign(claims, header={"alg": "RS256", "kid": local_access.team.current.kid})
    other_issuer = local_access.team.sign({**claims, "iss": "http://127.0.0.1:1"})
    endless = local_access.team.sign({name: value for name, value in claims.items() if name != "exp"})
    no_json = local_access.team.sign(b"{")
    for bad in (foreign, stranger.sign(claims), other_issuer, endless, no_json, token[:-2], "", "ü", "a.b.c"):
        assert local_access.team.verified_claims(bad, "app") is None


def test_the_meta_of_a_login_is_bound_to_the_browser(local_access: LocalAccess) -> None:
    app = local_access.config.apps[0]
    meta = local_access.team.verified_claims(
        local_access.team.login_token(app, host="localhost:1", target="/x", app_session="n1"), "meta"
    )
    assert meta is not None
    assert (meta["aud"], meta["hostname"], meta["redirect_url"]) == (app.tag, "localhost:1", "/x")
    assert len(meta["app_session_hash"]) == 64
    assert "iss" not in meta


def test_the_global_session_token_carries_the_identity(local_access: LocalAccess) -> None:
    session = local_access.log_in(ADA.email, ip="127.0.0.9")
    claims = local_access.team.verified_claims(local_access.team.global_token(session, ADA), "org")
    assert claims is not None
    assert claims["identity"]["ip"] == "127.0.0.9"
    assert claims["aud"] != [local_access.config.apps[0].tag]
    assert claims["exp"] == int(session.expires)


MANY = tuple(f"a group with a long name, number {number}" for number in range(200))


def test_a_token_omits_the_last_custom_claims_if_they_exceed_a_cookie(local_access: LocalAccess) -> None:
    custom: dict[str, Any] = {"department": "x", "big": "y" * 1500, "bigger": "z" * 1500, "small": 1}
    person = ADA.model_copy(update={"custom": custom, "groups": MANY})
    session = local_access.log_in(ADA.email, ip="127.0.0.1")
    token = local_access.team.app_token(session, person, local_access.config.apps[0], host="localhost")
    claims = local_access.team.verified_claims(token, "app")
    assert claims is not None
    assert claims["custom"] == {"department": "x", "big": "y" * 1500}
    assert session.tokens[local_access.config.apps[0].tag] == claims
    assert local_access.team.identity(session, person)["oidc_fields"] == custom


@pytest.mark.parametrize("person", [ADA.model_copy(update={"groups": MANY}), Person(email="a" * 64 + "@" + "b" * 189)])
@pytest.mark.parametrize("custom", [{}, *({"x": "y" * length} for length in range(1200, 2600, 100))])
def test_every_cookie_with_a_token_is_below_4096_bytes(
    local_access: LocalAccess, person: Person, custom: dict[str, Any]
) -> None:
    person = person.model_copy(update={"custom": custom, "device_posture": {"check": custom}})
    app = App(name="app", host=".".join(["c" * 60] * 4), path_cookie=True)
    session = local_access.log_in(person.email, ip="127.0.0.1")
    tokens = (
        local_access.team.global_token(session, person),
        local_access.team.app_token(session, person, app, host=app.host),
    )
    lines = (
        team_cookie(make_request(), local_access, tokens[0], session.expires),
        app_cookie(make_request(), local_access, app, tokens[1]),
    )
    assert max(map(len, lines)) < 4096
    assert local_access.team.verified_claims(tokens[0], "org") is not None
    assert local_access.team.verified_claims(tokens[1], "app") is not None


def test_an_identity_contains_more_than_the_token(local_access: LocalAccess) -> None:
    posture = {"check": {"id": "check", "success": True}}
    person = ADA.model_copy(update={"device_posture": posture, "idp": "oidc"})
    identity = local_access.team.identity(Session("n", ADA.email, 5.0, 6.0, "127.0.0.1"), person)
    assert identity["groups"][0]["name"] == "admins"
    assert (identity["idp"]["type"], identity["geo"], identity["name"]) == ("oidc", {"country": "GB"}, "Ada")
    assert (identity["devicePosture"], identity["oidc_fields"], identity["iat"]) == (posture, {"department": "x"}, 5)
    nameless = local_access.team.identity(Session("n", "bob@b", 5.0, 6.0), Person(email="bob@b"))
    assert nameless["name"] == "bob"


def test_a_service_token_lives_a_second_longer_and_has_no_nbf(local_access: LocalAccess) -> None:
    app = App(name="app", session=3600)
    claims = local_access.team.verified_claims(
        local_access.team.service_app_token("0" * 32 + ".access", app, host="localhost"), "app"
    )
    assert claims is not None
    assert claims["exp"] - claims["iat"] == 3601
    assert (claims["aud"], claims["sub"], claims["common_name"]) == (app.tag, "", "0" * 32 + ".access")
    assert "nbf" not in claims


def test_all_states_of_the_tests_share_keys() -> None:
    assert make_state().keys == make_state().keys
