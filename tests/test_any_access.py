"""`first | second`: several teams or applications as one, and two objects side by side."""

import json
import logging
from itertools import pairwise
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel
from starlette.testclient import TestClient

from fastapi_cloudflare_access import AnyAccess, CloudflareAccess, ConfigurationError, ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, CredentialError, MalformedToken, WrongAudience, WrongIssuer
from fastapi_cloudflare_access.events import AccessEvent, RequestAccepted, RequestRejected
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.policies import Group
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam, MemoryFetch, override
from fastapi_cloudflare_access.testing._issuer import base64url

pytestmark = pytest.mark.anyio


class Level(BaseModel, extra="allow"):
    level: int = 0


class PartnerClaims(UserClaims):
    """Claims of the second team's users."""

    custom: Level = Level()


class Rig:
    """Two teams, an object for each, and an app that both may reach."""

    def __init__(self) -> None:
        self.events: dict[str, list[AccessEvent]] = {"acme": [], "partner": []}
        self.acme, self.partner = FakeTeam("acme"), FakeTeam("partner")
        self.first = self.access(self.acme)
        self.second = self.access(self.partner, user_model=PartnerClaims, group_claims=("custom.teams",))
        self.either: AnyAccess[Any] = self.first | self.second
        self.app = FastAPI()
        for name in ("user", "service", "optional", "identity"):
            self.app.add_api_route(f"/{name}", who(getattr(self.either, name)))
        self.app.add_api_route("/any", who(self.either))
        self.app.add_api_route("/admins", who(self.either.require(Group("admins"))))
        self.app.add_api_route("/roles", who(self.either.roles({"admin": Group("admins")})))
        self.client = TestClient(self.app)

    def access(self, team: FakeTeam, **options: Any) -> CloudflareAccess[Any]:
        return CloudflareAccess(
            team_domain=team.name,
            audience=team.audience,
            fetch=MemoryFetch(team),
            clock=team.clock,
            listeners=[self.events[team.name].append],
            **options,
        )

    def get(self, path: str, token: str) -> tuple[int, Any]:
        response = self.client.get(path, headers={"Cf-Access-Jwt-Assertion": token})
        return response.status_code, response.json()


def who(node: Any) -> Any:
    async def handler(request: Request, result: Any) -> str:
        return type(result).__name__ if not isinstance(result, frozenset) else ",".join(sorted(result))

    handler.__annotations__["result"] = Annotated[Any, Depends(node)]
    return handler


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_callers_of_either_team_are_admitted_each_with_the_model_of_its_team(rig: Rig) -> None:
    ada, bob, bot = (
        rig.acme.user_token("ada@acme.example"),
        rig.partner.user_token("bob@partner.example"),
        rig.partner.service_token("bot"),
    )
    for path in ("/user", "/any", "/optional"):
        assert [rig.get(path, token) for token in (ada, bob)] == [(200, "UserClaims"), (200, "PartnerClaims")]
    assert rig.get("/service", bot) == (200, "ServiceClaims")
    assert [rig.get("/user", bot)[0], rig.get("/service", ada)[0]] == [403, 403]
    assert rig.client.get("/user").status_code == 401
    assert rig.client.get("/optional").json() == "NoneType"
    assert [len([e for e in each if isinstance(e, RequestAccepted)]) for each in rig.events.values()] == [4, 5]


def test_policies_roles_and_identities_are_those_of_the_chosen_team(rig: Rig) -> None:
    by_teams = rig.partner.user_token("bob@partner.example", custom={"teams": ["admins"]})
    by_groups = rig.partner.user_token("bob@partner.example", groups=["admins"], custom={"teams": []})
    assert [rig.get("/admins", token)[0] for token in (by_teams, by_groups)] == [200, 403]
    assert rig.get("/roles", by_teams) == (200, "admin")
    assert rig.get("/admins", rig.acme.user_token("ada@acme.example", groups=["admins"]))[0] == 200
    assert rig.get("/identity", rig.partner.user_token("bob@partner.example")) == (200, "Identity")
    assert rig.get("/admins", rig.partner.user_token("bob@partner.example"))[0] == 403, "its identity has no teams"


@pytest.mark.conformance(80)
def test_a_token_of_a_third_team_or_of_another_application_is_refused(rig: Rig, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "fastapi_cloudflare_access")
    stranger = FakeTeam("stranger", audience=rig.acme.audience).user_token("eve@evil.example")
    other = rig.acme.sign(rig.acme.user_claims("ada@acme.example", claims={"aud": [rig.partner.audience]}))
    for token, reason in ((stranger, "wrong_issuer"), (other, "wrong_audience")):
        assert rig.get("/user", token)[0] == 401
        refused = rig.events["acme"][-1]
        assert isinstance(refused, RequestRejected)
        assert (refused.reason, refused.unverified, refused.route) == (reason, True, "/user")
        assert f"{reason} (the " in caplog.text
        assert "; the signature was not checked)" in caplog.text


@pytest.mark.conformance(80)
@pytest.mark.parametrize("name", FORGERIES)
def test_no_forgery_passes_whichever_team_it_claims(rig: Rig, name: str) -> None:
    for team in (rig.acme, rig.partner):
        assert rig.get("/user", team.forge(name))[0] in (401, 503)
        assert rig.get("/optional", team.forge(name))[0] in (401, 503)


@pytest.mark.conformance(80)
def test_what_the_choice_reads_is_never_believed(rig: Rig) -> None:
    """A key of one team with the claims of the other: the chosen object verifies everything."""
    claims = rig.acme.user_claims("root@acme.example")
    mixed = rig.partner.sign(claims)
    as_partner = rig.acme.sign(rig.partner.user_claims("root@partner.example"))
    assert [rig.get("/user", token)[0] for token in (mixed, as_partner)] == [401, 401]


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"not json", MalformedToken),
        (b"[]", MalformedToken),
        (b"{}", WrongIssuer),
        (b'{"iss":["https://acme.cloudflareaccess.com"]}', WrongIssuer),
        (b'{"iss":"https://acme.cloudflareaccess.com"}', WrongAudience),
        (b'{"iss":"https://acme.cloudflareaccess.com","aud":{"a":1}}', WrongAudience),
        (b'{"iss":"https://acme.cloudflareaccess.com","aud":[5,null]}', WrongAudience),
        (b'{"iss":"https://acme.cloudflareaccess.com","iss":"x"}', MalformedToken),
        (b'{"a":"' + b"x" * 9_000 + b'"}', MalformedToken),
    ],
)
async def test_a_payload_that_fits_no_object_is_refused_without_a_traceback(
    rig: Rig, payload: bytes, kind: type[AccessError]
) -> None:
    header = base64url(json.dumps({"alg": "RS256", "kid": rig.acme.current.kid}).encode())
    token = f"{header}.{base64url(payload)}.{base64url(bytes(256))}"
    assert rig.get("/user", token)[0] == 401
    with pytest.raises(kind) as caught:
        await rig.either.verify(token)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


async def test_verify_and_authenticate_choose_too(rig: Rig) -> None:
    bob = rig.partner.user_token("bob@partner.example")
    for token in (bob, bob.encode()):
        assert isinstance(await rig.either.verify(token), PartnerClaims)
    request = Request({"type": "http", "headers": [(b"cf-access-jwt-assertion", bob.encode())]})
    assert isinstance(await rig.either.authenticate(request), PartnerClaims)
    assert await rig.either.authenticate(Request({"type": "http", "headers": []})) is None
    wrong: list[Any] = [None, 5, "", "x" * 20_000, b"\xff"]
    for each in wrong:
        with pytest.raises(CredentialError):
            await rig.either.verify(each)


def test_a_cookie_that_fits_no_object_is_no_caller_on_a_public_page(rig: Rig) -> None:
    stranger = FakeTeam("stranger").user_token("eve@evil.example")
    client = TestClient(rig.app, cookies={"CF_Authorization": stranger})
    assert client.get("/optional").json() == "NoneType"
    client = TestClient(rig.app, cookies={"CF_Authorization": rig.partner.forge("expired")})
    assert client.get("/optional").json() == "NoneType"
    assert [event.optional for event in rig.events["partner"] if isinstance(event, RequestRejected)] == [True]
    two = [("Cookie", "CF_Authorization=a"), ("Cookie", "CF_Authorization=b")]
    assert TestClient(rig.app).get("/user", headers=two).status_code == 401
    for path in ("/identity", "/roles"):
        assert TestClient(rig.app).get(path, headers=two).status_code == 401


def test_if_two_objects_fit_the_first_is_chosen(rig: Rig) -> None:
    mine, theirs = rig.access(rig.acme), rig.access(rig.acme, user_model=PartnerClaims)
    app = FastAPI()
    app.add_api_route("/", who((mine | theirs).user))
    token = rig.acme.user_token("ada@acme.example")
    assert TestClient(app).get("/", headers={"Cf-Access-Jwt-Assertion": token}).json() == "UserClaims"


def test_a_former_name_chooses_the_team_that_had_it(rig: Rig) -> None:
    renamed = rig.access(rig.partner, former_team_domains="oldpartner")
    app = FastAPI()
    app.add_api_route("/", who((rig.first | renamed).user))
    token = rig.partner.user_token("bob@partner.example", claims={"iss": "https://oldpartner.cloudflareaccess.com"})
    assert TestClient(app).get("/", headers={"Cf-Access-Jwt-Assertion": token}).json() == "UserClaims"


def test_the_choice_follows_headers_that_middleware_replaced(rig: Rig) -> None:
    app = FastAPI()

    @app.get("/")
    async def twice(request: Request) -> list[str]:
        found = []
        for token in (rig.acme.user_token("ada@acme.example"), rig.partner.user_token("bob@partner.example")):
            scope = dict(request.scope) | {"headers": [(b"cf-access-jwt-assertion", token.encode())]}
            found.append(type(await rig.either.authenticate(Request(scope))).__name__)
        return found

    assert TestClient(app).get("/").json() == ["UserClaims", "PartnerClaims"]


def test_the_lifespan_starts_and_stops_every_object(rig: Rig) -> None:
    app = FastAPI(lifespan=rig.either.lifespan)
    app.add_route("/ready", rig.either.readiness)
    with TestClient(app) as client:
        assert [each.keys.health().refresher_alive for each in (rig.first, rig.second)] == [True, True]
        assert client.get("/ready").status_code == 200
    assert [each.keys.health().refresher_alive for each in (rig.first, rig.second)] == [False, False]


def test_readiness_is_503_if_one_team_cannot_be_verified(rig: Rig) -> None:
    certs = MemoryFetch(rig.partner)
    certs.fail_with(503)
    dark = CloudflareAccess(team_domain="partner", audience="x", fetch=certs, clock=rig.partner.clock)
    app = FastAPI()
    app.add_api_route("/ready", (rig.first | dark).readiness)
    assert TestClient(app).get("/ready").status_code == 503
    assert TestClient(app).get("/ready").json() == {"ready": False, "state": "cold"}


async def test_async_with_enters_every_object(rig: Rig) -> None:
    async with rig.either as entered:
        assert entered is rig.either
        assert rig.second.keys.health().refresher_alive
    assert not rig.second.keys.health().refresher_alive
    with pytest.raises(ConfigurationError, match="without being entered"):
        await rig.either.__aexit__(None, None, None)


def test_a_route_that_admits_everyone_is_an_error_at_start(rig: Rig) -> None:
    app = FastAPI(lifespan=rig.either.lifespan)
    app.add_api_route("/", lambda: None, dependencies=[Depends(rig.either.optional)])
    with pytest.raises(ConfigurationError, match="guards nothing"), TestClient(app):
        pass


def test_a_third_object_joins_and_names_show_all(rig: Rig) -> None:
    third = rig.access(rig.acme.__class__("acme", audience="third"))
    all_of_them = rig.either | third
    assert all_of_them.members == (rig.first, rig.second, third)
    assert (rig.first | (rig.second | third)).members == all_of_them.members
    assert repr(rig.either) == f"{rig.first!r} | {rig.second!r}"
    assert rig.either.responses == rig.first.responses


@pytest.mark.parametrize(
    ("combine", "sentence"),
    [
        (lambda rig: rig.first | rig.first, "combines two different access objects"),
        (lambda rig: rig.first | rig.first.user, "combines access objects"),
        (lambda rig: rig.first | None, "use .user of the result"),
        (lambda rig: rig.first | rig.access(rig.partner, token_sources="header"), "the same token_sources"),
        (lambda rig: rig.first | rig.access(rig.partner, auth_scheme="Other"), "the same auth_scheme"),
        (lambda rig: AnyAccess(), "combines two different"),
        (lambda rig: rig.acme.patch(rig.either), "patch each one"),
        (lambda rig: FastAPI().add_api_route("/", who(rig.either.authenticate)), "would admit clients"),
        (lambda rig: FastAPI().add_api_route("/", who(rig.either.lifespan)), "admits every client"),
        (lambda rig: FastAPI().add_api_route("/", who(AnyAccess)), "AnyAccess is a class"),
        (lambda rig: rig.either(None), "not a dependency"),
    ],
)
def test_a_wrong_combination_is_an_error_that_says_what_to_write(rig: Rig, combine: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        combine(rig).__enter__()


def test_an_override_replaces_the_caller_of_every_object(rig: Rig) -> None:
    bob = rig.partner.user("bob@partner.example", groups=["admins"])
    identity = Identity(user_uuid=bob.sub, groups=["admins"])
    with override(rig.either, bob, identity=identity) as caller:
        assert rig.client.get("/user").json() == type(caller).__name__
        assert rig.get("/user", rig.partner.forge("expired"))[0] == 200
        assert rig.client.get("/admins").status_code == 200
        assert rig.client.get("/roles").json() == "admin"
    assert rig.client.get("/user").status_code == 401


def test_an_override_fits_the_model_of_each_object(rig: Rig) -> None:
    rig.app.add_api_route("/second", who(rig.second.user))
    with override(rig.either, rig.partner.user("bob@partner.example")):
        assert rig.client.get("/second").json() == "PartnerClaims"
        assert rig.client.get("/user").json() == "UserClaims"


# Two objects side by side


@pytest.mark.conformance(80)
def test_objects_in_one_app_never_take_each_others_results() -> None:
    team = FakeTeam("acme", audience=["public", "admin"])
    certs = MemoryFetch(team)
    public = CloudflareAccess(team_domain="acme", audience="public", fetch=certs, clock=team.clock)
    admin = CloudflareAccess(team_domain="acme", audience="admin", fetch=certs, clock=team.clock)
    sibling = public.with_audience("admin")
    app = FastAPI(dependencies=[Depends(public.user)])
    for path, access in {"/admin": admin, "/sibling": sibling}.items():
        app.add_api_route(path, lambda: "let in", dependencies=[Depends(access.user)])
    app.add_api_route("/public", lambda: "let in")
    client = TestClient(app)
    for_public = team.headers(team.user("ada@acme.example", audience="public"))
    for_both = {
        "Cf-Access-Jwt-Assertion": team.sign(team.user_claims("ada@acme.example") | {"aud": ["public", "admin"]})
    }
    statuses = [[client.get(path, headers=headers).status_code for path in ("/public", "/admin", "/sibling")]
                for headers in (for_public, for_both)]  # fmt: skip
    assert statuses == [[200, 401, 401], [200, 200, 200]]
    assert all(before is not after for before, after in pairwise((public, admin, sibling)))


def test_beside_another_scheme_a_request_without_a_token_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastapi_cloudflare_access")
    team = FakeTeam("acme")
    access = CloudflareAccess(team_domain="acme", audience=team.audience, fetch=MemoryFetch(team), clock=team.clock)
    app = FastAPI()

    async def principal(
        request: Request, caller: Annotated[UserClaims | ServiceClaims | None, Depends(access.optional)]
    ) -> str:
        if caller is not None:
            return caller.principal.subject
        return request.headers["x-api-key"]

    app.add_api_route("/", principal)
    assert TestClient(app).get("/", headers={"x-api-key": "key"}).json() == "key"
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


@pytest.mark.parametrize(
    "held",
    [lambda either: either, lambda either: either.user, lambda either: [either]],
    ids=["itself", "a dependency", "a list"],
)
def test_a_copy_for_another_audience_does_not_keep_a_combination_with_the_first_audience(held: Any) -> None:
    first = CloudflareAccess(team_domain="acme", audience="0" * 64)
    first_or_other: Any = first
    first_or_other.either = held(first | CloudflareAccess(team_domain="other", audience="1" * 64))
    with pytest.raises(ConfigurationError, match="cannot copy the attribute either"):
        first.with_audience("2" * 64)
