"""Who goes on to the app, and what the others get: the tables of Access."""

import json
from typing import Any

import pytest
from support.local_rig import a_call, a_realm

from fastapi_cloudflare_access.local.config import App, Person, Policy
from fastapi_cloudflare_access.local.decision import Pass, Stop, decide, read_credentials
from fastapi_cloudflare_access.local.local_access import Realm
from fastapi_cloudflare_access.testing import FakeClock

ALLOW = Policy(everyone=True)
MACHINES = Policy(decision="service_auth", everyone=True)
OTHER_MACHINES = Policy(decision="service_auth", service_tokens=("other",))
TWO = [{"name": "nightly"}, {"name": "other"}]


def a_site(*policies: Policy, strict: bool = False, clock: FakeClock | None = None, **app: Any) -> Realm:
    team = {"strict_service_tokens": strict}
    admin = Person(email="ada@example.com", groups=("admins",), country="GB")
    entry = App(name="app", policies=policies or (ALLOW, MACHINES), **app)
    return a_realm(entry, clock=clock, team=team, people=(admin,), service_tokens=TWO)


def credentials(realm: Realm, name: str = "nightly") -> dict[str, str]:
    client_id = next(client_id for client_id, known in realm.services.items() if known == name)
    return {"cf-access-client-id": client_id, "cf-access-client-secret": realm.secret_of(client_id, name)}


def outcome(realm: Realm, headers: Any = None, **call: Any) -> Pass | Stop:
    return decide(a_call(headers=headers, **call), realm.config.apps[0], realm)


def kind(decision: Pass | Stop) -> str:
    return "pass" if isinstance(decision, Pass) else decision.kind


def user_token(realm: Realm, email: str = "ada@example.com") -> str:
    return realm.team.app_token(realm.log_in(email, ip=""), realm.config.person(email), realm.config.apps[0], host="h")


WRONG = {"cf-access-client-id": "0" * 32 + ".access", "cf-access-client-secret": "x"}
XHR = {"x-requested-with": "XMLHttpRequest"}


@pytest.mark.parametrize(
    ("policies", "headers", "expected"),
    [
        ((MACHINES,), {}, "service_auth"),
        ((MACHINES,), XHR, "service_auth"),
        ((MACHINES,), WRONG, "service_auth"),
        ((ALLOW, MACHINES), {}, "login"),
        ((ALLOW, MACHINES), XHR, "login_needed"),
        ((ALLOW, MACHINES), WRONG, "login"),
        ((ALLOW, MACHINES), {"accept": "application/json", "sec-fetch-mode": "cors"}, "login"),
    ],
    ids=[str(number) for number in range(7)],
)
def test_without_a_login_the_policies_decide_what_a_request_gets(policies: Any, headers: Any, expected: str) -> None:
    assert kind(outcome(a_site(*policies), headers)) == expected
    assert kind(outcome(a_site(*policies), headers, kind="websocket")) == expected


def test_a_service_token_passes_with_a_cookie() -> None:
    realm = a_site()
    passed = outcome(realm, credentials(realm))
    assert isinstance(passed, Pass)
    assert (passed.email, passed.sets_cookie, passed.drop) == (None, True, None)
    assert (realm.team.read(passed.token or "", "app") or {})["sub"] == ""


def test_a_service_token_that_no_policy_includes_is_asked_to_log_in() -> None:
    realm = a_site(ALLOW, OTHER_MACHINES)
    assert kind(outcome(realm, credentials(realm))) == "login"
    assert kind(outcome(realm, credentials(realm, "other"))) == "pass"


STRICT = [
    ({"cf-access-client-secret": "wrong"}, "service_unknown"),
    ({"cf-access-client-id": None}, "service_unknown"),
]


@pytest.mark.parametrize(("change", "expected"), STRICT, ids=["wrong", "incomplete"])
def test_strictly_bad_service_credentials_get_401_even_with_a_good_cookie(change: Any, expected: str) -> None:
    realm = a_site(strict=True)
    sent = {name: value for name, value in {**credentials(realm), **change}.items() if value is not None}
    assert kind(outcome(realm, {**sent, "cookie": f"CF_Authorization={user_token(realm)}"})) == expected


def test_strictly_a_valid_service_token_that_may_not_gets_403_and_one_that_may_no_cookie() -> None:
    realm = a_site(ALLOW, OTHER_MACHINES, strict=True)
    assert kind(outcome(realm, credentials(realm))) == "service_refused"
    passed = outcome(realm, credentials(realm, "other"))
    assert isinstance(passed, Pass)
    assert not passed.sets_cookie


def test_strictly_a_request_without_service_credentials_logs_in_as_ever() -> None:
    realm = a_site(strict=True)
    assert kind(outcome(realm)) == "login"
    assert kind(outcome(realm, {"cookie": f"CF_Authorization={user_token(realm)}"})) == "pass"


def test_credentials_given_twice_are_none() -> None:
    realm = a_site(strict=True)
    pairs = list(credentials(realm).items())
    assert kind(outcome(realm, [*pairs, pairs[0]])) == "service_unknown"


def single(realm: Realm, **change: Any) -> str:
    return json.dumps({**credentials(realm), **change})


def test_both_credentials_may_come_in_one_header_which_the_app_never_sees() -> None:
    realm = a_site(service_token_header="Authorization")
    passed = outcome(realm, {"authorization": single(realm)})
    assert isinstance(passed, Pass)
    assert passed.drop == "authorization"


def test_without_that_setting_the_header_means_nothing() -> None:
    realm = a_site()
    assert kind(outcome(realm, {"authorization": single(realm)})) == "login"


@pytest.mark.parametrize(
    "value", ["Bearer x", "{", "{}", "[]", '{"a":1}', "{" * 5000, '{"cf-access-client-id":' + "[" * 4000]
)
def test_other_content_of_that_header_is_the_apps_own(value: str) -> None:
    realm = a_site(strict=True, service_token_header="Authorization")
    assert kind(outcome(realm, {"authorization": value})) == "login"


def test_one_header_beside_the_two_or_twice_or_of_wrong_types_is_refused_strictly() -> None:
    realm = a_site(strict=True, service_token_header="Authorization")
    good = ("authorization", single(realm))
    for headers in (
        [good, *credentials(realm).items()],
        [good, good],
        [("authorization", single(realm, **{"cf-access-client-secret": 5}))],
    ):
        assert kind(outcome(realm, headers)) == "service_unknown"
    assert read_credentials(a_call(headers=[good, good]), realm.config.apps[0]).drop == "authorization"


@pytest.mark.parametrize("header", ["cookie", "cf-access-token", "cf-access-jwt-assertion"])
def test_a_users_token_passes_in_any_place_that_access_reads(header: str) -> None:
    realm = a_site()
    token = user_token(realm)
    passed = outcome(realm, {header: f"CF_Authorization={token}" if header == "cookie" else token})
    assert passed == Pass(token, "ada@example.com", "GB")


def test_a_bearer_token_is_no_login() -> None:
    realm = a_site()
    assert kind(outcome(realm, {"authorization": f"Bearer {user_token(realm)}"})) == "login"


def test_a_bogus_assertion_beside_a_good_cookie_is_replaced_and_alone_it_is_nothing() -> None:
    realm = a_site()
    token = user_token(realm)
    bogus = {"cf-access-jwt-assertion": "bogus"}
    passed = outcome(realm, {**bogus, "cookie": f"CF_Authorization=planted; CF_Authorization={token}"})
    assert isinstance(passed, Pass)
    assert passed.token == token
    assert kind(outcome(realm, bogus)) == "login"


def test_other_tokens_of_the_team_are_no_login() -> None:
    realm = a_site()
    app, session = realm.config.apps[0], realm.log_in("ada@example.com", ip="")
    organisation = realm.team.global_token(session, realm.config.person(session.email))
    meta = realm.team.login_token(app, host="localhost", target="/", app_session="n")
    match = realm.team.app_metadata(app, host="localhost")
    claims = realm.team.user_claims(session.email, claims={"identity_nonce": session.id})
    assert kind(outcome(realm, {"cf-access-token": realm.team.sign(claims)})) == "pass"
    foreign = realm.team.sign({**claims, "aud": ["another app of the team"]})
    for token in (organisation, meta, match, foreign):
        assert kind(outcome(realm, {"cf-access-token": token})) == "login"


def test_policies_are_asked_with_every_request() -> None:
    realm = a_site(Policy(groups=("admins",)))
    assert kind(outcome(realm, {"cf-access-token": user_token(realm)})) == "pass"
    assert kind(outcome(realm, {"cf-access-token": user_token(realm, "bob@example.com")})) == "forbidden"


def test_a_token_whose_session_ended_is_a_login_again() -> None:
    realm = a_site()
    token = user_token(realm)
    realm.end("ada@example.com", "revoked")
    assert kind(outcome(realm, {"cf-access-token": token})) == "login"


def test_a_replayed_service_token_passes_only_beside_an_allow_policy() -> None:
    for policies, expected in (
        ((MACHINES,), "service_auth"),
        ((ALLOW, MACHINES), "pass"),
        ((ALLOW, OTHER_MACHINES), "login"),
    ):
        realm = a_site(*policies)
        client_id = credentials(realm)["cf-access-client-id"]
        token = realm.team.machine_token(client_id, realm.config.apps[0], host="h")
        assert kind(outcome(realm, {"cookie": f"CF_Authorization={token}"})) == expected
    realm = a_site()
    stranger = realm.team.machine_token("f" * 32 + ".access", realm.config.apps[0], host="h")
    assert kind(outcome(realm, {"cf-access-token": stranger})) == "login"


PREFLIGHT = {"origin": "http://a.test", "access-control-request-method": "PUT"}


@pytest.mark.parametrize(
    ("app", "expected"),
    [({}, "preflight_refused"), ({"bypass_options": True}, "pass"), ({"cors_origins": ("x",)}, "preflight_answered")],
    ids=["neither", "bypass", "answered"],
)
def test_a_preflight_is_judged_without_its_login(app: Any, expected: str) -> None:
    realm = a_site(**app)
    headers = {**PREFLIGHT, "cookie": f"CF_Authorization={user_token(realm)}"}
    decision = outcome(realm, headers, method="OPTIONS")
    assert kind(decision) == expected
    assert decision == Pass() or expected != "pass"


def test_an_open_app_gets_everybody_and_no_token() -> None:
    realm = a_site(Policy(decision="bypass", everyone=True))
    assert outcome(realm, {"cf-access-token": "x", **WRONG}) == Pass()
    assert outcome(realm, PREFLIGHT, method="OPTIONS") == Pass()


def test_anybody_gets_the_metadata_by_head() -> None:
    realm = a_site()
    asked = {"cf-access-metadata-request": "true"}
    assert kind(outcome(realm, asked, method="HEAD")) == "metadata"
    assert kind(outcome(realm, asked)) == "login"
