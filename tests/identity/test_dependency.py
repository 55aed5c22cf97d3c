"""`access.identity`, policies that need an identity, and rechecked sessions, as an app meets them."""

import logging
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient, WebSocketDenialResponse

from fastapi_cloudflare_access import (
    AccessHTTPException,
    CloudflareAccess,
    ConfigurationError,
    ServiceClaims,
    UserClaims,
)
from fastapi_cloudflare_access._identity.limits import USER_BURST
from fastapi_cloudflare_access.errors import TokenRevoked
from fastapi_cloudflare_access.identity import Geo, Identity, IdentityProvider
from fastapi_cloudflare_access.policies import (
    Anyone,
    Claim,
    Country,
    Decision,
    Email,
    EmailDomain,
    Group,
    Policy,
    Predicate,
    ServiceToken,
)
from fastapi_cloudflare_access.testing import FakeTeam, override

ADMINS, BANNED = Group("admins"), ~Group("banned")


class Rig:
    """An app whose routes ask for identities, over a patched team."""

    def __init__(self, **options: Any) -> None:
        self.team = FakeTeam("acme")
        self.access = CloudflareAccess(team_domain="acme", audience=self.team.audience, **options)
        access, self.app = self.access, FastAPI()
        roles = access.roles({"admin": ADMINS, "staff": EmailDomain("acme.example"), "not banned": BANNED})

        @self.app.get("/identity")
        def identity(identity: Annotated[Identity, Depends(access.identity)]) -> Identity:
            return identity

        @self.app.get("/roles")
        def names(names: Annotated[frozenset[str], Depends(roles)]) -> list[str]:
            return sorted(names)

        for path, policy in {"/admins": ADMINS, "/banned": BANNED, "/staff": EmailDomain("acme.example")}.items():
            self.app.add_api_route(path, lambda: "let in", dependencies=[Depends(access.require(policy))])
        self.app.add_api_route("/user", lambda: "let in", dependencies=[Depends(access.user)])

        @self.app.websocket("/socket")
        async def socket(websocket: WebSocket, identity: Annotated[Identity, Depends(access.identity)]) -> None:
            await websocket.accept()
            await websocket.send_text(str(identity.email))

    def get(self, path: str, email: str = "ada@acme.example", **options: Any) -> tuple[int, Any]:
        response = TestClient(self.app).get(path, headers=self.team.headers(self.team.user(email, **options)))
        return response.status_code, response.json() if response.status_code == 200 else response.headers.get(
            "www-authenticate", "retry-after" in response.headers
        )


SESSION_GONE = (
    401,
    'Cloudflare-Access error="invalid_token", error_description="The Cloudflare Access token is not acceptable"',
)
FORBIDDEN = (403, 'Cloudflare-Access error="insufficient_scope"')
UNAVAILABLE = (503, True)


def test_a_handler_gets_the_identity_of_its_user() -> None:
    rig = Rig()
    rig.team.set_identity("ada@acme.example", groups=["admins"], idp={"id": "1", "type": "okta"}, geo={"country": "DE"})
    with rig.team.patch(rig.access) as certs:
        status, body = rig.get("/identity")
        assert (status, body["email"], body["idp"]["type"], body["groups"]) == (
            200,
            "ada@acme.example",
            "okta",
            ["admins"],
        )
        headers = rig.team.headers(rig.team.user("ada@acme.example"))
        with TestClient(rig.app).websocket_connect("/socket", headers=headers) as socket:
            assert socket.receive_text() == "ada@acme.example"
        assert certs.identity.fetches == 1


@pytest.mark.conformance(76)
def test_a_service_gets_403_a_gone_session_401_and_an_outage_503() -> None:
    rig = Rig()
    with rig.team.patch(rig.access) as certs:
        service = TestClient(rig.app).get("/identity", headers=rig.team.headers(rig.team.service("bot")))
        assert (service.status_code, certs.identity.fetches) == (403, 0)
        rig.team.end_sessions("gone@acme.example")
        assert rig.get("/identity", "gone@acme.example") == SESSION_GONE
        certs.identity.fail_with(500)
        assert rig.get("/identity") == UNAVAILABLE
        assert TestClient(rig.app).get("/identity").status_code == 401


@pytest.mark.conformance(74)
def test_a_forged_token_never_reaches_get_identity() -> None:
    rig = Rig()
    with rig.team.patch(rig.access) as certs:
        for name in ("tampered_payload", "expired", "wrong_audience"):
            headers = rig.team.headers(rig.team.forge(name))
            for path in ("/identity", "/roles", "/admins"):
                assert TestClient(rig.app).get(path, headers=headers).status_code == 401
        assert certs.identity.fetches == 0


@pytest.mark.parametrize(
    ("groups", "admins", "banned", "fetches"),
    [
        (["admins"], (200, "let in"), (200, "let in"), 0),
        (["users"], FORBIDDEN, (200, "let in"), 0),
        (["banned"], FORBIDDEN, FORBIDDEN, 0),
        ([], FORBIDDEN, (200, "let in"), 0),
        ([5], FORBIDDEN, FORBIDDEN, 0),
        (None, (200, "let in"), (200, "let in"), 1),
    ],
)
def test_get_identity_is_asked_only_where_the_token_leaves_a_policy_open(
    groups: Any, admins: object, banned: object, fetches: int
) -> None:
    rig = Rig()
    rig.team.set_identity("ada@acme.example", groups=[{"id": "1", "name": "admins"}])
    options = {} if groups is None else {"groups": groups}
    with rig.team.patch(rig.access) as certs:
        assert (rig.get("/admins", **options), rig.get("/banned", **options)) == (admins, banned)
        assert certs.identity.fetches == fetches


@pytest.mark.conformance(70)
@pytest.mark.parametrize(
    ("identity", "admins", "banned"),
    [
        ({}, FORBIDDEN, FORBIDDEN),
        ({"groups": None}, FORBIDDEN, FORBIDDEN),
        ({"groups": []}, FORBIDDEN, (200, "let in")),
        ({"groups": ["admins"]}, (200, "let in"), (200, "let in")),
        ({"groups": [{"id": "banned"}, "admins"]}, (200, "let in"), FORBIDDEN),
        ({"groups": "admins,banned"}, FORBIDDEN, (200, "let in")),
        ({"groups": {"banned": True}}, FORBIDDEN, FORBIDDEN),
        ({"groups": [["admins"]]}, FORBIDDEN, FORBIDDEN),
        ({"oidc_fields": {"groups": ["admins"]}, "groups": ["banned"]}, (200, "let in"), (200, "let in")),
        ({"saml": {"groups": ["admins"]}}, (200, "let in"), (200, "let in")),
        ({"oidc_fields": {"groups": None}, "saml": {"groups": ["banned"]}}, FORBIDDEN, FORBIDDEN),
        ({"oidc_fields": "groups"}, FORBIDDEN, FORBIDDEN),
        ({"custom": {"groups": ["admins"]}}, FORBIDDEN, FORBIDDEN),
    ],
)
def test_groups_of_an_identity_decide_as_those_of_a_token(identity: dict[str, Any], admins: Any, banned: Any) -> None:
    rig = Rig()
    rig.team.set_identity("ada@acme.example", **identity)
    with rig.team.patch(rig.access):
        assert (rig.get("/admins"), rig.get("/banned")) == (admins, banned)


@pytest.mark.conformance(76)
def test_a_policy_that_needs_an_identity_gives_503_in_an_outage_and_401_without_a_session() -> None:
    rig = Rig()
    with rig.team.patch(rig.access) as certs:
        certs.identity.fail_with(500)
        assert [rig.get(path) for path in ("/admins", "/banned", "/roles")] == [UNAVAILABLE] * 3
        assert rig.get("/staff") == (200, "let in"), "it needs none"
        certs.identity.recover()
        rig.team.clock.advance(60)
        rig.team.end_sessions("ada@acme.example")
        assert [rig.get(path) for path in ("/admins", "/banned", "/roles")] == [SESSION_GONE] * 3


def test_a_service_without_the_claim_is_refused_without_a_fetch() -> None:
    rig = Rig()
    needs_claim = rig.access.require(Claim("custom.level", 1))
    rig.app.add_api_route("/level", lambda: "let in", dependencies=[Depends(needs_claim)])
    with rig.team.patch(rig.access) as certs:
        headers = rig.team.headers(rig.team.service("bot"))
        assert TestClient(rig.app).get("/level", headers=headers).status_code == 403
        assert TestClient(rig.app).get("/banned", headers=headers).json() == "let in"
        assert certs.identity.fetches == 0


def test_the_record_of_a_refusal_names_the_policy_and_no_claim(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    with rig.team.patch(rig.access):
        assert rig.get("/admins") == FORBIDDEN
    [record] = [record for record in caplog.records if hasattr(record, "reason")]
    assert "the policy Group('admins') needs a claim that is not known of the caller" in record.getMessage()
    assert vars(record)["policy"] == "Group('admins')"


# Roles


def test_roles_are_the_names_of_the_policies_that_are_true() -> None:
    rig = Rig()
    rig.team.set_identity("ada@acme.example", groups=["admins"])
    with rig.team.patch(rig.access) as certs:
        assert rig.get("/roles") == (200, ["admin", "not banned", "staff"])
        assert rig.get("/roles", "eve@evil.example", groups=["users"]) == (200, ["not banned"])
        assert rig.get("/roles", "eve@evil.example", groups=["banned"]) == (200, [])
        assert rig.get("/roles", "eve@acme.example", groups=[5]) == (200, ["staff"])
        assert certs.identity.fetches == 1, "the others have groups in their tokens"
        service = TestClient(rig.app).get("/roles", headers=rig.team.headers(rig.team.service("bot")))
        assert service.json() == ["not banned"]
        assert TestClient(rig.app).get("/roles").status_code == 401


def test_a_role_that_stays_unknown_is_one_that_the_caller_does_not_have() -> None:
    rig = Rig()
    with rig.team.patch(rig.access):
        assert rig.get("/roles") == (200, ["staff"])


# Rechecked sessions

RECHECK: dict[str, Any] = {"recheck_session": 60, "recheck_unavailable": "allow", "recheck_grace": 60}


@pytest.mark.conformance(78)
@pytest.mark.parametrize("cache", [0, 1024])
def test_a_logout_reaches_every_dependency_within_the_interval(cache: int) -> None:
    rig = Rig(**RECHECK, token_cache_size=cache)
    rig.team.set_identity("ada@acme.example", groups=["admins"])
    paths = ["/user", "/staff", "/admins", "/roles", "/identity"]
    with rig.team.patch(rig.access) as certs:
        ada = rig.team.user("ada@acme.example")
        client, headers = TestClient(rig.app), rig.team.headers(ada)
        assert [client.get(path, headers=headers).status_code for path in paths] == [200] * 5
        assert certs.identity.fetches == 1
        rig.team.end_sessions("ada@acme.example")
        rig.team.clock.advance(61)
        assert [client.get(path, headers=headers).status_code for path in paths] == [401] * 5
        assert certs.identity.fetches == 2
        with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/socket", headers=headers):
            pass


def test_a_service_has_no_session_to_recheck() -> None:
    rig = Rig(**RECHECK)
    everyone = FastAPI()
    everyone.add_api_route("/", lambda: "let in", dependencies=[Depends(rig.access)])
    with rig.team.patch(rig.access) as certs:
        assert TestClient(everyone).get("/", headers=rig.team.headers(rig.team.service("bot"))).json() == "let in"
        assert certs.identity.fetches == 0


def test_on_a_public_page_a_cookie_of_a_gone_session_is_no_caller() -> None:
    rig = Rig(**RECHECK)

    @rig.app.get("/public")
    def public(user: Annotated[UserClaims | ServiceClaims | None, Depends(rig.access.optional)]) -> bool:
        return user is not None

    rig.team.end_sessions("ada@acme.example")
    with rig.team.patch(rig.access):
        client = TestClient(rig.app, cookies=rig.team.cookies(rig.team.user("ada@acme.example")))
        assert client.get("/public").json() is False
        headers = rig.team.headers(rig.team.user("ada@acme.example"))
        assert TestClient(rig.app).get("/public", headers=headers).status_code == 401


@pytest.mark.anyio
async def test_verify_rechecks_the_session_too() -> None:
    rig = Rig(**RECHECK)
    rig.team.end_sessions("gone@acme.example")
    with rig.team.patch(rig.access):
        ada, gone = (rig.team.user(name) for name in ("ada@acme.example", "gone@acme.example"))
        assert (await rig.access.verify(rig.team.token(ada))).principal == ada.principal
        with pytest.raises(TokenRevoked):
            await rig.access.verify(rig.team.token(gone))


def test_copies_for_other_audiences_share_what_is_known_of_a_session() -> None:
    rig = Rig(**RECHECK)
    other = rig.access.with_audience("other")
    assert other._authenticator.verifier.identities is rig.access._authenticator.verifier.identities


# Two steps


def identities() -> st.SearchStrategy[Identity]:
    group = st.sampled_from(["a", "b", {"id": "1", "name": "a"}, {"id": "a"}, 5, ["a"], {}])
    return st.builds(
        lambda groups, country: Identity.model_validate(
            {"user_uuid": "x", "groups": groups, "geo": {"country": country}, "oidc_fields": {"level": 1}}
        ),
        st.one_of(st.none(), st.lists(group, max_size=2), st.just("a"), st.just(5)),
        st.sampled_from([None, "DE", "US"]),
    )


def callers() -> st.SearchStrategy[UserClaims]:
    base = FakeTeam("acme").user_claims("ada@acme.example")
    groups = st.one_of(st.none(), st.lists(st.sampled_from(["a", "b", 5]), max_size=2))
    return st.builds(
        lambda groups, country, email: UserClaims.model_validate(
            base | {"custom": {"groups": groups}, "country": country, "email": email}
        ),
        groups,
        st.sampled_from([None, "DE"]),
        st.sampled_from([None, "ada@acme.example"]),
    )


LEAVES: list[Policy] = [
    Anyone(),
    Group("a"),
    Group("b"),
    Country("DE"),
    Email("ada@acme.example"),
    Claim("custom.level", 1),
    Predicate(lambda _: True, name="yes"),
]


def expressions(depth: int = 3) -> st.SearchStrategy[Policy]:
    if not depth:
        return st.sampled_from(LEAVES)
    inner = expressions(depth - 1)
    return st.one_of(
        inner,
        st.builds(lambda left, right: left & right, inner, inner),
        st.builds(lambda left, right: left | right, inner, inner),
        st.builds(lambda part: ~part, inner),
    )


@pytest.mark.conformance(68)
@given(expressions(), callers(), identities())
def test_with_an_identity_at_hand_the_decision_is_that_of_the_two_steps(
    policy: Policy, caller: UserClaims, identity: Identity
) -> None:
    """The second step evaluates the whole expression: never its open parts alone, whose negation would be lost."""
    first = policy.evaluate(caller)
    two_steps = first if first is not Decision.UNKNOWN else policy.evaluate(caller, identity=identity)
    assert policy.evaluate(caller, identity=identity) is two_steps
    filled = caller.model_copy(
        update={
            "custom": caller.custom | {"groups": caller.custom["groups"] or identity.groups, "level": 1},
            "country": caller.country or (identity.geo and identity.geo.country),
        }
    )
    if first is Decision.UNKNOWN and caller.custom["groups"] is None:
        assert two_steps is policy.evaluate(filled)


@pytest.mark.conformance(68)
@pytest.mark.parametrize(
    ("policy", "decision"),
    [
        (~(Group("a") & Group("b")), Decision.ALLOW),
        (~Group("a") & ~Group("b"), Decision.DENY),
        (~(Group("a") | Email("nobody@acme.example")), Decision.DENY),
        (~(~Group("a") | ServiceToken("x.access")), Decision.ALLOW),
        (Group("a") & (~Group("a") | Anyone()), Decision.ALLOW),
        (~(Anyone() & ~Group("a")), Decision.ALLOW),
    ],
)
def test_a_negation_around_an_open_part_is_evaluated_with_the_identity(policy: Policy, decision: Decision) -> None:
    caller = FakeTeam("acme").user("ada@acme.example")
    identity = Identity(user_uuid="x", groups=["a"])
    assert policy.evaluate(caller) is Decision.UNKNOWN
    assert policy.evaluate(caller, identity=identity) is decision


def test_every_policy_reads_what_only_an_identity_has() -> None:
    claims = FakeTeam("acme").user_claims("ada@acme.example") | {"email": None, "country": None}
    caller = UserClaims.model_validate(claims)
    identity = Identity(
        user_uuid="x",
        email="ada@acme.example",
        geo=Geo(country="DE"),
        idp=IdentityProvider(type="okta"),
        oidc_fields={"level": 2},
        amr=["mfa"],
    )
    for policy in (
        Email("ada@acme.example"),
        EmailDomain("acme.example"),
        Country("DE"),
        Claim("custom.level", 2),
        Claim("idp.type", "okta"),
        Claim("amr", "mfa"),
    ):
        assert policy.evaluate(caller) is Decision.UNKNOWN, policy
        assert policy.evaluate(caller, identity=identity) is Decision.ALLOW, policy
        assert (~policy).evaluate(caller, identity=identity) is Decision.DENY, policy
    assert Country("DE").evaluate(caller, identity=Identity(user_uuid="x")) is Decision.UNKNOWN


# Overrides, and what must not be declared


def test_an_override_has_an_identity_without_groups_or_the_given_one() -> None:
    rig = Rig(**RECHECK)
    ada = rig.team.user("ada@acme.example")
    client = TestClient(rig.app)
    with override(rig.access, ada):
        assert client.get("/identity").json()["user_uuid"] == ada.sub
        assert client.get("/admins").status_code == 403
    with override(rig.access, ada, identity=Identity(user_uuid=ada.sub, groups=["admins"])):
        assert client.get("/admins").status_code == 200
        assert client.get("/roles").json() == ["admin", "not banned", "staff"]
    with override(rig.access, None):
        assert client.get("/identity").status_code == 401
    wrong: Any = {"groups": ["admins"]}
    with (
        pytest.raises(ConfigurationError, match="must be an Identity of the user"),
        override(rig.access, ada, identity=wrong),
    ):
        pass
    service: Any = rig.team.service("bot")
    given = Identity(user_uuid="x")
    with (
        pytest.raises(ConfigurationError, match="must be an Identity of the user"),
        override(rig.access, service, identity=given),
    ):
        pass


@pytest.mark.conformance(74)
@pytest.mark.anyio
async def test_headers_that_change_after_the_verification_cause_no_other_identity_and_no_500() -> None:
    rig = Rig()
    ada, bob = (rig.team.token(rig.team.user(f"{name}@acme.example")).encode() for name in ("ada", "bob"))
    with rig.team.patch(rig.access):
        for change in ([(b"cf-access-jwt-assertion", bob)], [(b"cf-access-jwt-assertion", bob)] * 2, []):
            headers = [(b"cf-access-jwt-assertion", ada)]
            request = Request({"type": "http", "method": "GET", "path": "/", "headers": headers})
            await rig.access.user(connection=request)
            headers[:] = change
            with pytest.raises(AccessHTTPException) as refused:
                await rig.access.identity(connection=request)
            assert refused.value.status_code in (401, 503)


def test_an_identity_never_comes_from_a_request() -> None:
    rig = Rig()
    app = FastAPI(lifespan=rig.access.lifespan)

    @app.post("/")
    def create(identity: Identity) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Depends\(access\.identity\)"), TestClient(app):
        pass
    with pytest.raises(ConfigurationError, match=r"Annotated\[Identity, Depends\(access\.identity\)\]"):
        FastAPI().add_api_route("/", lambda: None, dependencies=[Depends(Identity)])


def test_a_parameter_for_an_identity_with_another_annotation_is_an_error_at_start() -> None:
    rig = Rig()
    app = FastAPI(lifespan=rig.access.lifespan)

    @app.get("/")
    def read(user: Annotated[UserClaims, Depends(rig.access.identity)]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"access\.identity returns Identity"), TestClient(app):
        pass


def test_the_names_in_the_app_are_shown() -> None:
    access = Rig().access
    assert [repr(access.identity), repr(access.roles({"a": Anyone()}))] == ["access.identity", "access.roles(…)"]
    assert USER_BURST == 10
    with pytest.raises(ConfigurationError, match="roles is not a dependency"):
        FastAPI().add_api_route("/", lambda: None, dependencies=[Depends(access.roles)])


def test_events_and_records_never_have_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastapi_cloudflare_access")
    rig = Rig()
    with rig.team.patch(rig.access) as certs:
        certs.identity.fail_with(500)
        token = rig.team.token(rig.team.user("ada@acme.example"))
        TestClient(rig.app).get("/identity", headers={"Cf-Access-Jwt-Assertion": token})
        said = " ".join(record.getMessage() for record in caplog.records)
        assert "cf-access could not ask get-identity: a response with HTTP status 500" in said
        assert token not in said
        assert token.split(".")[2] not in repr([vars(record) for record in caplog.records])
