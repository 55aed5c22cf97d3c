"""The team signs with keys that are kept, and reads back only what it signed."""

from typing import Any

import pytest
from support.local_rig import a_call, a_realm, a_state

from fastapi_cloudflare_access.local.config import App, Person
from fastapi_cloudflare_access.local.cookies import app_cookie, team_cookie
from fastapi_cloudflare_access.local.local_access import Realm
from fastapi_cloudflare_access.local.state import Session, State
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam

ADA = Person(email="ada@example.com", name="Ada", groups=("admins",), custom={"department": "x"}, country="GB")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def realm(clock: FakeClock) -> Realm:
    return a_realm(clock=clock, people=(ADA,))


def claims_of(realm: Realm, **options: Any) -> tuple[str, dict[str, Any]]:
    session = realm.log_in(ADA.email, ip="127.0.0.1")
    token = realm.team.app_token(session, ADA, realm.config.apps[0], host="localhost")
    claims = realm.team.read(token, "app")
    assert claims is not None
    return token, claims


def test_the_first_start_makes_two_keys_that_no_other_start_has() -> None:
    first, second = State(), State()
    for state in (first, second):
        a_realm(state=state)
    assert len(first.keys) == 2
    assert {key.pem for key in first.keys}.isdisjoint({key.pem for key in second.keys})


def test_a_restart_goes_on_with_the_same_keys_and_their_ages(realm: Realm, clock: FakeClock) -> None:
    clock.advance(100)
    again = a_realm(clock=clock, state=realm.state)
    assert [key.kid for key in again.team.keys] == [key.kid for key in realm.team.keys]
    assert again.team.age_of(again.team.current) == clock.now() - 1_767_000_000.0


def test_a_withdrawn_key_does_not_come_back_with_a_restart(realm: Realm, clock: FakeClock) -> None:
    realm.team.withdraw()
    again = a_realm(clock=clock, state=realm.state)
    assert [key.kid for key in again.team.keys] == [realm.team.current.kid]


def test_a_rotation_is_kept(realm: Realm, clock: FakeClock) -> None:
    before = realm.team.current.kid
    realm.team.rotate()
    again = a_realm(clock=clock, state=realm.state)
    assert [key.kid for key in again.team.keys] == [before, realm.team.current.kid]


def test_a_user_token_says_who_it_is_as_access_does(realm: Realm, clock: FakeClock) -> None:
    _, claims = claims_of(realm)
    assert claims["aud"] == [realm.config.apps[0].tag]
    assert claims["custom"] == {"department": "x", "groups": ["admins"]}
    assert (claims["country"], claims["email"], claims["type"]) == ("GB", ADA.email, "app")
    assert claims["exp"] - claims["iat"] == 86_400
    assert claims["identity_nonce"] in realm.state.sessions


def test_without_groups_there_is_no_custom_member(realm: Realm) -> None:
    session = realm.log_in("bob@example.com", ip="")
    token = realm.team.app_token(session, Person(email="bob@example.com"), realm.config.apps[0], host="localhost")
    assert "custom" not in (realm.team.read(token, "app") or {})


def test_tokens_are_read_until_they_expire(realm: Realm, clock: FakeClock) -> None:
    token, _ = claims_of(realm)
    clock.advance(86_399)
    assert realm.team.read(token, "app") is not None
    clock.advance(1)
    assert realm.team.read(token, "app") is None


def test_a_token_is_read_as_what_it_is_alone(realm: Realm) -> None:
    token, _ = claims_of(realm)
    assert realm.team.read(token, "org", "meta") is None


def test_a_token_of_a_withdrawn_key_is_read_no_more(realm: Realm) -> None:
    token, _ = claims_of(realm)
    realm.team.rotate()
    assert realm.team.read(token, "app") is not None
    realm.team.withdraw()
    assert realm.team.read(token, "app") is None


def test_nothing_is_read_that_the_team_did_not_sign(realm: Realm) -> None:
    token, claims = claims_of(realm)
    stranger = FakeTeam("stranger")
    foreign = stranger.sign(claims, header={"alg": "RS256", "kid": realm.team.current.kid})
    other_issuer = realm.team.sign({**claims, "iss": "http://127.0.0.1:1"})
    endless = realm.team.sign({name: value for name, value in claims.items() if name != "exp"})
    no_json = realm.team.sign(b"{")
    for bad in (foreign, stranger.sign(claims), other_issuer, endless, no_json, token[:-2], "", "ü", "a.b.c"):
        assert realm.team.read(bad, "app") is None


def test_the_meta_of_a_login_is_bound_to_the_browser(realm: Realm) -> None:
    app = realm.config.apps[0]
    meta = realm.team.read(realm.team.login_token(app, host="localhost:1", target="/x", app_session="n1"), "meta")
    assert meta is not None
    assert (meta["aud"], meta["hostname"], meta["redirect_url"]) == (app.tag, "localhost:1", "/x")
    assert len(meta["app_session_hash"]) == 64
    assert "iss" not in meta


def test_the_organisation_token_carries_the_identity(realm: Realm) -> None:
    session = realm.log_in(ADA.email, ip="127.0.0.9")
    claims = realm.team.read(realm.team.global_token(session, ADA), "org")
    assert claims is not None
    assert claims["identity"]["ip"] == "127.0.0.9"
    assert claims["aud"] != [realm.config.apps[0].tag]
    assert claims["exp"] == int(session.expires)


MANY = tuple(f"a group with a long name, number {number}" for number in range(200))


def test_a_token_leaves_out_the_last_custom_claims_where_a_cookie_has_no_room(realm: Realm) -> None:
    custom: dict[str, Any] = {"department": "x", "big": "y" * 1500, "bigger": "z" * 1500, "small": 1}
    person = ADA.model_copy(update={"custom": custom, "groups": MANY})
    session = realm.log_in(ADA.email, ip="127.0.0.1")
    token = realm.team.app_token(session, person, realm.config.apps[0], host="localhost")
    claims = realm.team.read(token, "app")
    assert claims is not None
    assert claims["custom"] == {"department": "x", "big": "y" * 1500}
    assert session.tokens[realm.config.apps[0].tag] == claims
    assert realm.team.identity(session, person)["oidc_fields"] == custom


@pytest.mark.parametrize("person", [ADA.model_copy(update={"groups": MANY}), Person(email="a" * 64 + "@" + "b" * 189)])
@pytest.mark.parametrize("custom", [{}, *({"x": "y" * length} for length in range(1200, 2600, 100))])
def test_a_browser_keeps_every_cookie_with_a_token(realm: Realm, person: Person, custom: dict[str, Any]) -> None:
    person = person.model_copy(update={"custom": custom, "device_posture": {"check": custom}})
    app = App(name="app", host=".".join(["c" * 60] * 4), path_cookie=True)
    session = realm.log_in(person.email, ip="127.0.0.1")
    tokens = (realm.team.global_token(session, person), realm.team.app_token(session, person, app, host=app.host))
    lines = (team_cookie(a_call(), realm, tokens[0], session.expires), app_cookie(a_call(), realm, app, tokens[1]))
    assert max(map(len, lines)) < 4096
    assert realm.team.read(tokens[0], "org") is not None
    assert realm.team.read(tokens[1], "app") is not None


def test_an_identity_tells_more_than_the_token(realm: Realm) -> None:
    posture = {"check": {"id": "check", "success": True}}
    person = ADA.model_copy(update={"device_posture": posture, "idp": "oidc"})
    identity = realm.team.identity(Session("n", ADA.email, 5.0, 6.0, "127.0.0.1"), person)
    assert identity["groups"][0]["name"] == "admins"
    assert (identity["idp"]["type"], identity["geo"], identity["name"]) == ("oidc", {"country": "GB"}, "Ada")
    assert (identity["devicePosture"], identity["oidc_fields"], identity["iat"]) == (posture, {"department": "x"}, 5)
    nameless = realm.team.identity(Session("n", "bob@b", 5.0, 6.0), Person(email="bob@b"))
    assert nameless["name"] == "bob"


def test_a_service_token_lives_a_second_longer_and_has_no_nbf(realm: Realm) -> None:
    app = App(name="app", session=3600)
    claims = realm.team.read(realm.team.machine_token("0" * 32 + ".access", app, host="localhost"), "app")
    assert claims is not None
    assert claims["exp"] - claims["iat"] == 3601
    assert (claims["aud"], claims["sub"], claims["common_name"]) == (app.tag, "", "0" * 32 + ".access")
    assert "nbf" not in claims


def test_the_pool_of_the_tests_is_no_state_of_its_own() -> None:
    assert a_state().keys == a_state().keys
