"""The edge forwards a request or responds itself, as Access documents."""

import json
from typing import Any

import pytest
from support.local_rig import make_local_access, make_request

from fastapi_cloudflare_access.local.config import App, Person, Policy
from fastapi_cloudflare_access.local.decision import Forward, Respond, decide, read_credentials
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.testing import FakeClock

ALLOW = Policy(everyone=True)
MACHINES = Policy(decision="service_auth", everyone=True)
OTHER_MACHINES = Policy(decision="service_auth", service_tokens=("other",))
TWO = [{"name": "nightly"}, {"name": "other"}]


def make_site(*policies: Policy, strict: bool = False, clock: FakeClock | None = None, **app: Any) -> LocalAccess:
    team = {"strict_service_tokens": strict}
    admin = Person(email="ada@example.com", groups=("admins",), country="GB")
    entry = App(name="app", policies=policies or (ALLOW, MACHINES), **app)
    return make_local_access(entry, clock=clock, team=team, people=(admin,), service_tokens=TWO)


def credentials(local_access: LocalAccess, name: str = "nightly") -> dict[str, str]:
    client_id = next(client_id for client_id, known in local_access.services.items() if known == name)
    return {"cf-access-client-id": client_id, "cf-access-client-secret": local_access.service_secret(client_id, name)}


def outcome(local_access: LocalAccess, headers: Any = None, **request: Any) -> Forward | Respond:
    return decide(make_request(headers=headers, **request), local_access.config.apps[0], local_access)


def forwarded(decision: Forward | Respond) -> tuple[str | None, str | None, str]:
    """Return the token, the address and the country of a forwarded request."""
    assert isinstance(decision, Forward)
    return decision.token, decision.email, decision.country


def kind(decision: Forward | Respond) -> str:
    return "pass" if isinstance(decision, Forward) else decision.kind


def user_token(local_access: LocalAccess, email: str = "ada@example.com") -> str:
    return local_access.team.app_token(
        local_access.log_in(email, ip=""), local_access.config.person(email), local_access.config.apps[0], host="h"
    )


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
def test_the_policies_decide_the_response_to_a_request_without_a_login(
    policies: Any, headers: Any, expected: str
) -> None:
    assert kind(outcome(make_site(*policies), headers)) == expected
    assert kind(outcome(make_site(*policies), headers, kind="websocket")) == expected


def test_a_service_token_is_forwarded_and_gets_a_cookie() -> None:
    local_access = make_site()
    decision = outcome(local_access, credentials(local_access))
    assert isinstance(decision, Forward)
    assert (decision.email, decision.sets_cookie, decision.credential_header) == (None, True, None)
    assert (local_access.team.verified_claims(decision.token or "", "app") or {})["sub"] == ""


def test_a_service_token_that_no_policy_includes_gets_the_login() -> None:
    local_access = make_site(ALLOW, OTHER_MACHINES)
    assert kind(outcome(local_access, credentials(local_access))) == "login"
    assert kind(outcome(local_access, credentials(local_access, "other"))) == "pass"


STRICT = [
    ({"cf-access-client-secret": "wrong"}, "service_unknown"),
    ({"cf-access-client-id": None}, "service_unknown"),
]


@pytest.mark.parametrize(("change", "expected"), STRICT, ids=["wrong", "incomplete"])
def test_strict_mode_rejects_bad_service_credentials_despite_a_valid_cookie(change: Any, expected: str) -> None:
    local_access = make_site(strict=True)
    sent = {name: value for name, value in {**credentials(local_access), **change}.items() if value is not None}
    assert kind(outcome(local_access, {**sent, "cookie": f"CF_Authorization={user_token(local_access)}"})) == expected


def test_strict_mode_rejects_a_service_token_without_a_policy_and_sets_no_cookie() -> None:
    local_access = make_site(ALLOW, OTHER_MACHINES, strict=True)
    assert kind(outcome(local_access, credentials(local_access))) == "service_refused"
    decision = outcome(local_access, credentials(local_access, "other"))
    assert isinstance(decision, Forward)
    assert not decision.sets_cookie


def test_strict_mode_does_not_change_requests_without_service_credentials() -> None:
    local_access = make_site(strict=True)
    assert kind(outcome(local_access)) == "login"
    assert kind(outcome(local_access, {"cookie": f"CF_Authorization={user_token(local_access)}"})) == "pass"


def test_credentials_that_appear_twice_are_rejected() -> None:
    local_access = make_site(strict=True)
    pairs = list(credentials(local_access).items())
    assert kind(outcome(local_access, [*pairs, pairs[0]])) == "service_unknown"


def single_header(local_access: LocalAccess, **change: Any) -> str:
    return json.dumps({**credentials(local_access), **change})


def test_both_credentials_can_arrive_in_one_header_that_the_app_does_not_receive() -> None:
    local_access = make_site(service_token_header="Authorization")
    decision = outcome(local_access, {"authorization": single_header(local_access)})
    assert isinstance(decision, Forward)
    assert decision.credential_header == "authorization"


def test_the_single_header_is_ignored_without_its_setting() -> None:
    local_access = make_site()
    assert kind(outcome(local_access, {"authorization": single_header(local_access)})) == "login"


@pytest.mark.parametrize(
    "value", ["Bearer x", "{", "{}", "[]", '{"a":1}', "{" * 5000, '{"cf-access-client-id":' + "[" * 4000]
)
def test_other_content_of_the_single_header_is_ignored(value: str) -> None:
    local_access = make_site(strict=True, service_token_header="Authorization")
    assert kind(outcome(local_access, {"authorization": value})) == "login"


def test_strict_mode_rejects_an_ambiguous_or_invalid_single_header() -> None:
    local_access = make_site(strict=True, service_token_header="Authorization")
    good = ("authorization", single_header(local_access))
    for headers in (
        [good, *credentials(local_access).items()],
        [good, good],
        [("authorization", single_header(local_access, **{"cf-access-client-secret": 5}))],
    ):
        assert kind(outcome(local_access, headers)) == "service_unknown"
    assert (
        read_credentials(make_request(headers=[good, good]), local_access.config.apps[0]).credential_header
        == "authorization"
    )


@pytest.mark.parametrize("header", ["cookie", "cf-access-token", "cf-access-jwt-assertion"])
def test_a_user_token_is_accepted_in_every_header_that_access_reads(header: str) -> None:
    local_access = make_site()
    token = user_token(local_access)
    decision = outcome(local_access, {header: f"CF_Authorization={token}" if header == "cookie" else token})
    assert forwarded(decision) == (token, "ada@example.com", "GB")
    assert (decision.policy, decision.caller) == (ALLOW, "ada@example.com")


def test_a_bearer_token_is_not_a_login() -> None:
    local_access = make_site()
    assert kind(outcome(local_access, {"authorization": f"Bearer {user_token(local_access)}"})) == "login"


def test_a_valid_cookie_replaces_a_forged_assertion_which_is_ignored() -> None:
    local_access = make_site()
    token = user_token(local_access)
    bogus = {"cf-access-jwt-assertion": "bogus"}
    decision = outcome(local_access, {**bogus, "cookie": f"CF_Authorization=planted; CF_Authorization={token}"})
    assert isinstance(decision, Forward)
    assert decision.token == token
    assert kind(outcome(local_access, bogus)) == "login"


@pytest.mark.parametrize(
    ("others", "expected"), [(["bogus"] * 20, "pass"), ([*"1234567"], "pass"), ([*"12345678"], "login")]
)
def test_up_to_eight_different_tokens_are_checked(others: list[str], expected: str) -> None:
    local_access = make_site()
    cookies = "; ".join(f"CF_Authorization={token}" for token in (*others, user_token(local_access)))
    assert kind(outcome(local_access, {"cookie": cookies})) == expected


def test_other_tokens_of_the_team_are_not_a_login() -> None:
    local_access = make_site()
    app, session = local_access.config.apps[0], local_access.log_in("ada@example.com", ip="")
    organisation = local_access.team.global_token(session, local_access.config.person(session.email))
    meta = local_access.team.login_token(app, host="localhost", target="/", app_session="n")
    match = local_access.team.app_metadata(app, host="localhost")
    claims = local_access.team.user_claims(session.email, claims={"identity_nonce": session.id})
    assert kind(outcome(local_access, {"cf-access-token": local_access.team.sign(claims)})) == "pass"
    foreign = local_access.team.sign({**claims, "aud": ["another app of the team"]})
    for token in (organisation, meta, match, foreign):
        assert kind(outcome(local_access, {"cf-access-token": token})) == "login"


def test_policies_are_evaluated_for_every_request() -> None:
    local_access = make_site(Policy(groups=("admins",)))
    assert kind(outcome(local_access, {"cf-access-token": user_token(local_access)})) == "pass"
    assert kind(outcome(local_access, {"cf-access-token": user_token(local_access, "bob@example.com")})) == "forbidden"


def test_a_token_of_an_ended_session_gets_the_login() -> None:
    local_access = make_site()
    token = user_token(local_access)
    local_access.end_sessions("ada@example.com", "revoked")
    assert kind(outcome(local_access, {"cf-access-token": token})) == "login"


def test_a_replayed_service_token_is_forwarded_only_with_an_allow_policy() -> None:
    for policies, expected in (
        ((MACHINES,), "service_auth"),
        ((ALLOW, MACHINES), "pass"),
        ((ALLOW, OTHER_MACHINES), "login"),
    ):
        local_access = make_site(*policies)
        client_id = credentials(local_access)["cf-access-client-id"]
        token = local_access.team.service_app_token(client_id, local_access.config.apps[0], host="h")
        assert kind(outcome(local_access, {"cookie": f"CF_Authorization={token}"})) == expected
    local_access = make_site()
    stranger = local_access.team.service_app_token("f" * 32 + ".access", local_access.config.apps[0], host="h")
    assert kind(outcome(local_access, {"cf-access-token": stranger})) == "login"


PREFLIGHT = {"origin": "http://a.test", "access-control-request-method": "PUT"}


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ({}, "preflight_refused"),
        ({"bypass_options": True}, "pass"),
        ({"cors_origins": ("http://x.test",)}, "preflight_answered"),
    ],
    ids=["neither", "bypass", "answered"],
)
def test_the_login_of_a_preflight_is_ignored(app: Any, expected: str) -> None:
    local_access = make_site(**app)
    headers = {**PREFLIGHT, "cookie": f"CF_Authorization={user_token(local_access)}"}
    decision = outcome(local_access, headers, method="OPTIONS")
    assert kind(decision) == expected
    assert decision == Forward() or expected != "pass"


def test_a_bypass_policy_forwards_every_request_without_a_token() -> None:
    local_access = make_site(Policy(decision="bypass", everyone=True))
    assert forwarded(outcome(local_access, {"cf-access-token": "x", **WRONG})) == (None, None, "US")
    assert forwarded(outcome(local_access, PREFLIGHT, method="OPTIONS")) == (None, None, "US")


def test_bypassed_options_need_no_headers_of_a_preflight() -> None:
    local_access = make_site(bypass_options=True)
    assert kind(outcome(local_access, {}, method="OPTIONS")) == "pass"
    assert kind(outcome(local_access, {}, method="GET")) == "login"


def test_a_refusal_names_the_policy_that_decided() -> None:
    deny = Policy(name="no", decision="deny", everyone=True)
    local_access = make_site(deny)
    decision = outcome(local_access, {"cf-access-token": user_token(local_access)})
    assert decision == Respond("forbidden", deny, "ada@example.com")


def test_every_caller_gets_the_metadata_with_head() -> None:
    local_access = make_site()
    asked = {"cf-access-metadata-request": "true"}
    assert kind(outcome(local_access, asked, method="HEAD")) == "metadata"
    assert kind(outcome(local_access, asked)) == "login"
