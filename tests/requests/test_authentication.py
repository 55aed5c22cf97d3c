"""What happens to one request, whatever asks: once, in a private place, logged and told."""

import gc
import logging
from typing import Annotated, Any, Protocol
from unittest.mock import MagicMock

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from starlette.testclient import TestClient

from fastapi_cloudflare_access import (
    AccessHTTPException,
    Claims,
    CloudflareAccess,
    ConfigurationError,
    ServiceClaims,
    UserClaims,
)
from fastapi_cloudflare_access._requests.authentication import replace_headers
from fastapi_cloudflare_access._routes.check import misuses
from fastapi_cloudflare_access.dependencies import Dependency
from fastapi_cloudflare_access.errors import (
    AccessError,
    InvalidSignature,
    KeyUnconfirmed,
    MalformedToken,
    MissingToken,
    TokenExpired,
)
from fastapi_cloudflare_access.events import AccessEvent, RequestAccepted, RequestRejected
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

pytestmark = pytest.mark.anyio

TEAM = FakeTeam("acme")
ADA, BOT = TEAM.user_token("ada@example.com"), TEAM.service_token("deploy-bot")
HEADER = "Cf-Access-Jwt-Assertion"


class Rig:
    """An object whose events are kept, and an app with a route for each of its dependencies."""

    def __init__(self, **options: Any) -> None:
        self.events: list[AccessEvent] = []
        self.certs = MemoryFetch(TEAM)
        given: dict[str, Any] = {"fetch": self.certs, "clock": TEAM.clock, "listeners": [self.events.append], **options}
        self.access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain=TEAM.team_domain, audience=TEAM.audience, **given
        )
        self.app = FastAPI()
        for name in ("user", "service", "optional"):
            self.app.add_api_route(f"/{name}", who, dependencies=[Depends(getattr(self.access, name))])
        self.client = TestClient(self.app)

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        response = self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return response.status_code, response.json()

    def refusals(self) -> list[RequestRejected]:
        return [event for event in self.events if isinstance(event, RequestRejected)]

    def accepted(self) -> list[RequestAccepted]:
        return [event for event in self.events if isinstance(event, RequestAccepted)]


async def who(request: Request) -> str | None:
    caller = getattr(request.state, "cloudflare_access", None)
    return caller.principal.subject if caller else None


@pytest.fixture
def rig(caplog: pytest.LogCaptureFixture) -> Rig:
    caplog.set_level(logging.INFO, "fastapi_cloudflare_access")
    return Rig()


# events


def test_an_accepted_request_is_one_event_with_the_kind_of_caller_and_the_digest(rig: Rig) -> None:
    router = APIRouter(dependencies=[Depends(rig.access)])
    router.add_api_route("/both", who, dependencies=[Depends(rig.access.user), Depends(rig.access.optional)])
    rig.app.include_router(router)
    assert rig.get("/both", **{HEADER: ADA})[0] == 200
    assert rig.get("/service", **{HEADER: BOT})[0] == 200
    assert [event.caller for event in rig.accepted()] == ["user", "service"]
    assert [len(event.token_digest) for event in rig.accepted()] == [12, 12]
    assert rig.refusals() == []


def test_a_caller_of_the_wrong_kind_was_accepted_and_is_then_refused(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    assert rig.get("/user", **{HEADER: BOT})[0] == 403
    assert "the route is for users, and the caller is a service" in caplog.text
    (accepted,), (refused,) = rig.accepted(), rig.refusals()
    assert refused.reason == "wrong_caller"
    assert refused.token_digest == accepted.token_digest


def test_a_user_on_a_route_for_services_is_named_in_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    assert rig.get("/service", **{HEADER: ADA})[0] == 403
    assert "the route is for services, and the caller is a user" in caplog.text


def test_without_listeners_no_event_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        pytest.fail("an event was made")

    monkeypatch.setattr("fastapi_cloudflare_access._requests.authentication.RequestAccepted", fail)
    monkeypatch.setattr("fastapi_cloudflare_access._requests.authentication.RequestRejected", fail)
    rig = Rig(listeners=())
    assert [rig.get("/user", **{HEADER: token})[0] for token in (ADA, BOT, "x")] == [200, 403, 401]


def test_every_listener_is_called_though_one_before_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: AccessEvent) -> None:
        raise ZeroDivisionError

    seen: list[AccessEvent] = []
    rig = Rig(listeners=[fail, seen.append])
    assert rig.get("/user", **{HEADER: ADA})[0] == 200
    assert "request_accepted" in [event.name for event in seen]
    assert "called a listener that failed at the event request_accepted" in caplog.text


def test_a_reason_from_unverified_claims_is_marked_in_log_and_event(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    assert rig.get("/user", **{HEADER: TEAM.forge("unknown_kid_expired")})[0] == 401
    assert rig.get("/user", **{HEADER: ADA})[0] == 200, "which fetches the keys"
    assert rig.get("/user", **{HEADER: TEAM.forge("expired")})[0] == 401
    assert [(event.reason, event.unverified) for event in rig.refusals()] == [
        ("token_expired", True),
        ("token_expired", False),
    ]
    assert [record.__dict__["unverified"] for record in caplog.records if "reason" in record.__dict__] == [True, False]
    assert caplog.text.count("token_expired (the token has expired; the signature was not checked)") == 1


@pytest.mark.parametrize(
    ("sources", "header", "said"),
    [
        ("header", "Cookie", "there is no token in the header; the cookie CF_Authorization is present, and "),
        ("cookie", HEADER, "there is no token in the cookie; the header Cf-Access-Jwt-Assertion is present, and "),
    ],
)
def test_a_token_in_the_place_that_is_not_read_is_named_in_the_log(
    sources: Any, header: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastapi_cloudflare_access")
    rig = Rig(token_sources=sources)
    value = f"CF_Authorization={ADA}" if header == "Cookie" else ADA
    assert rig.get("/user", **{header: value})[0] == 401
    assert rig.get("/user", Cookie="other=1")[0] == 401
    assert [record.getMessage() for record in caplog.records if "missing_token" in record.getMessage()] == [
        f"cf-access refused GET /user: missing_token ({said}token_sources does not read it), token none",
        "cf-access refused GET /user: missing_token (there is no token), token none",
    ]


def test_the_first_missing_token_is_a_warning_where_the_log_drops_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "fastapi_cloudflare_access")
    rig = Rig()
    assert [rig.get("/user")[0] for _ in range(3)] == [401] * 3
    (record,) = [record for record in caplog.records if "reason" in record.__dict__]
    assert (record.levelno, record.__dict__["reason"]) == (logging.WARNING, "missing_token")
    assert record.getMessage() == (
        "cf-access refused GET /user: missing_token (there is no token), token none; "
        "further requests without a token are logged at INFO only"
    )


def test_a_mistyped_audience_without_keys_is_named_and_costs_no_fetch() -> None:
    rig = Rig()
    other = rig.access.with_audience("mistyped")
    rig.app.add_api_route("/mistyped", who, dependencies=[Depends(other)])
    for _ in range(3):
        assert rig.get("/mistyped", **{HEADER: ADA})[0] == 401
    assert [event.reason for event in rig.refusals()] == ["wrong_audience"] * 3
    assert rig.certs.fetches == 0


# the cookie of a public page


@pytest.mark.parametrize("forgery", ["expired", "other_team", "wrong_audience", "wrong_key", "two_segments", "org"])
def test_on_a_public_page_a_cookie_that_is_refused_is_no_caller_an_event_and_no_warning(
    rig: Rig, forgery: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = TEAM.forge(forgery)
    assert rig.get("/optional", Cookie=f"CF_Authorization={token}") == (200, None)
    (refused,) = rig.refusals()
    assert (refused.optional, bool(refused.token_digest)) == (True, True)
    assert [record.levelno for record in caplog.records if "reason" in record.__dict__] == [logging.INFO]
    assert rig.get("/optional", **{HEADER: token})[0] == 401
    assert rig.get("/optional", **{HEADER: token, "Cookie": f"CF_Authorization={ADA}"})[0] == 401
    assert rig.get("/user", Cookie=f"CF_Authorization={token}")[0] == 401


@pytest.mark.parametrize("cookie", ["CF_Authorization=", "CF_Authorization=a; CF_Authorization=b"])
def test_an_emptied_cookie_and_two_of_them_are_no_caller_on_a_public_page(rig: Rig, cookie: str) -> None:
    assert rig.get("/optional", Cookie=cookie) == (200, None)
    assert rig.get("/user", Cookie=cookie)[0] == 401


def test_a_token_that_cannot_be_checked_stays_503_on_a_public_page(rig: Rig) -> None:
    rig.certs.fail_with(500)
    assert rig.get("/optional", Cookie=f"CF_Authorization={ADA}")[0] == 503


def test_where_only_the_cookie_is_read_a_header_makes_no_difference() -> None:
    rig = Rig(token_sources="cookie")
    headers = {HEADER: "nonsense", "Cookie": f"CF_Authorization={TEAM.forge('expired')}"}
    assert rig.get("/optional", **headers) == (200, None)


async def test_authenticate_distinguishes_an_old_cookie_from_no_token(rig: Rig) -> None:
    @rig.app.get("/by-hand")
    async def by_hand(request: Request) -> bool:
        return await rig.access.authenticate(request) is None

    assert rig.get("/by-hand") == (200, True)
    assert rig.get("/by-hand", Cookie=f"CF_Authorization={TEAM.forge('expired')}")[0] == 401


# blanks around the header's value


@pytest.mark.parametrize("value", [" {}", "{} ", "{}\t", "\t {} \t"])
async def test_blanks_around_the_value_of_the_header_are_no_part_of_it(rig: Rig, value: str) -> None:
    scope = {"type": "http", "headers": [(HEADER.lower().encode(), value.format(ADA).encode())]}
    caller = await rig.access.authenticate(Request(scope))
    assert isinstance(caller, UserClaims)


async def test_a_header_of_blanks_is_malformed(rig: Rig) -> None:
    assert rig.get("/user", **{HEADER: "  "})[0] == 401
    assert rig.refusals()[0].reason == "malformed_token"


# verify


async def test_verify_returns_what_a_request_with_the_token_would_get(rig: Rig) -> None:
    user = await rig.access.verify(ADA)
    assert isinstance(user, UserClaims)
    assert user is await rig.access.verify(ADA.encode()), "the same cache"
    assert isinstance(await rig.access.verify(BOT), ServiceClaims)
    assert [event.caller for event in rig.accepted()] == ["user", "user", "service"]


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("", MalformedToken),
        (b"", MalformedToken),
        ("a.b.c", MalformedToken),
        ("ä", MalformedToken),
        ("\ud800", MalformedToken),
        ("a" * 100_000, MalformedToken),
        (5, MalformedToken),
        (bytearray(b"a.b.c"), MalformedToken),
        (None, MissingToken),
        (TEAM.forge("expired"), TokenExpired),
        (TEAM.forge("wrong_key"), InvalidSignature),
    ],
    ids=[*"abcdefghijk"],
)
async def test_verify_raises_the_typed_error_and_emits_it_as_for_a_request(
    rig: Rig, token: Any, error: type[AccessError], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(error):
        await rig.access.verify(token)
    (refused,) = rig.refusals()
    assert refused.reason == error.reason
    assert f"refused a token in a call of verify: {error.reason}" in caplog.text
    if isinstance(token, str | bytes) and len(token) > 20:
        text = token if isinstance(token, str) else token.decode()
        assert text not in caplog.text + repr(rig.events)


async def test_verify_cannot_tell_where_the_key_cannot_be_fetched(rig: Rig) -> None:
    await rig.access.verify(ADA)
    rig.certs.fail_with(500)
    with pytest.raises(KeyUnconfirmed) as caught:
        await TEAM.clock.run_until(rig.access.verify(TEAM.forge("unknown_kid")))
    assert caught.value.retry_after >= 1


# copies for other applications


class Mine(CloudflareAccess[UserClaims]):
    """A subclass with a dependency, a state and an `__init__` of its own."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(**options)
        self.name = name
        self.is_ada = self.require_user(is_ada)


def is_ada(user: Any) -> bool:
    return bool(user.email == "ada@example.com")


def everything_of(access: Mine) -> dict[str, Any]:
    return {
        "access": access,
        "user": access.user,
        "optional": access.optional,
        "require": access.require(is_ada),
        "require_user": access.require_user(is_ada),
        "of the subclass": access.is_ada,
    }


@pytest.mark.conformance(81)
def test_a_copy_for_another_audience_refuses_what_the_first_accepted_on_every_dependency() -> None:
    mine = Mine(
        "mine", team_domain="acme", audience=TEAM.audience, fetch=MemoryFetch(TEAM), clock=TEAM.clock, listeners=()
    )
    mine.require_user(is_ada)
    other = mine.with_audience("other")
    assert (type(other), other.name, other.keys) == (Mine, "mine", mine.keys)
    app = FastAPI()
    for name, dependency in everything_of(mine).items():
        app.add_api_route(f"/mine/{name}", who, dependencies=[Depends(dependency)])
        app.add_api_route(f"/both/{name}", who, dependencies=[Depends(dependency), Depends(everything_of(other)[name])])
        app.add_api_route(f"/other/{name}", who, dependencies=[Depends(everything_of(other)[name])])

        @app.websocket(f"/other/{name}")
        async def socket(socket: WebSocket, caller: Annotated[Any, Depends(everything_of(other)[name])]) -> None:
            pytest.fail("accepted")

    client, headers = TestClient(app), {HEADER: ADA}
    for name in everything_of(mine):
        assert client.get(f"/mine/{name}", headers=headers).status_code == 200, name
        assert client.get(f"/other/{name}", headers=headers).status_code == 401, name
        assert client.get(f"/both/{name}", headers=headers).status_code == 401, name


@pytest.mark.conformance(81)
def test_a_copy_accepts_its_own_audience_on_every_dependency_and_shares_nothing_but_the_keys() -> None:
    certs = MemoryFetch(TEAM)
    mine = Mine("mine", team_domain="acme", audience=TEAM.audience, fetch=certs, clock=TEAM.clock, listeners=())
    other = mine.with_audience("other")
    theirs = FakeTeam("acme", audience="other", clock=TEAM.clock).user_token("ada@example.com", key=TEAM.current)
    app = FastAPI()
    for name, dependency in everything_of(other).items():
        app.add_api_route(f"/{name}", who, dependencies=[Depends(dependency)])
    client = TestClient(app)
    statuses = {name: client.get(f"/{name}", headers={HEADER: theirs}).status_code for name in everything_of(other)}
    assert set(statuses.values()) == {200}
    assert certs.fetches == 1
    for name, dependency in everything_of(other).items():
        assert dependency is not everything_of(mine)[name]
    assert mine.settings.audience == (TEAM.audience,)


class Staff(CloudflareAccess[UserClaims]):
    """A subclass that narrows a dependency, and keeps another team's object."""

    def __init__(self, **options: Any) -> None:
        super().__init__(team_domain="acme", audience=TEAM.audience, **options)
        self.user = self.require_user(is_ada)
        self.partner = Rig().access
        self.partner_user = self.partner.user


def test_a_copy_keeps_what_a_subclass_has_narrowed_and_leaves_other_objects_alone() -> None:
    staff = Staff(fetch=MemoryFetch(TEAM), clock=TEAM.clock)
    other = staff.with_audience("other")
    assert (other.partner, other.partner_user) == (staff.partner, staff.partner_user)
    issuer = FakeTeam("acme", audience="other", clock=TEAM.clock)
    app = FastAPI()
    app.add_api_route("/", who, dependencies=[Depends(other.user)])
    client = TestClient(app)
    tokens = [issuer.user_token(f"{name}@example.com", key=TEAM.current) for name in ("ada", "bob")]
    assert [client.get("/", headers={HEADER: token}).status_code for token in tokens] == [200, 403]


@pytest.mark.parametrize(
    "container", [list, tuple, lambda items: dict(enumerate(items))], ids=["list", "tuple", "dict"]
)
def test_dependencies_in_a_container_cannot_be_copied_and_the_error_says_what_to_do(container: Any) -> None:
    staff = Staff(fetch=MemoryFetch(TEAM), clock=TEAM.clock)
    vars(staff)["table"] = container([staff.service])
    with pytest.raises(
        ConfigurationError,
        match=r"^with_audience cannot copy the attribute table.*outside of the object$",
    ):
        staff.with_audience("other")


# what an app sees of the object


def test_repr_shows_team_and_audiences_and_how_a_dependency_is_written(rig: Rig) -> None:
    assert repr(rig.access) == (
        f"<CloudflareAccess team_domain='https://acme.cloudflareaccess.com' audience='{TEAM.audience}'>"
    )
    assert repr(rig.access.user) == "access.user"
    assert repr(rig.access.require(lambda caller: True)) == "access.require(…)"


def test_a_dependency_is_equal_to_itself_alone_and_can_be_a_key() -> None:
    one, other = Rig().access, Rig().access
    assert {one: 1, one.user: 2, other: 3, other.user: 4} == {one: 1, one.user: 2, other: 3, other.user: 4}
    assert one != other
    assert one.user != other.user


@pytest.mark.conformance(58)
async def test_a_copy_of_the_scope_with_other_headers_is_verified_anew(rig: Rig) -> None:
    scope: dict[str, Any] = {"type": "http", "headers": [(HEADER.lower().encode(), ADA.encode())]}
    first = await rig.access.authenticate(Request(scope))
    assert await rig.access.authenticate(Request({**scope})) is first
    assert await rig.access.authenticate(Request({**scope, "headers": []})) is None
    other = await rig.access.authenticate(Request({**scope, "headers": [(HEADER.lower().encode(), BOT.encode())]}))
    assert isinstance(other, ServiceClaims)
    assert await rig.access.authenticate(Request(scope)) is first


async def test_a_list_of_the_same_headers_is_not_verified_anew(rig: Rig) -> None:
    """Starlette replaces the list in the scope by an equal one whenever headers are read."""
    headers = [(HEADER.lower().encode(), ADA.encode())]
    scope: dict[str, Any] = {"type": "http", "headers": headers, "path": "/", "method": "GET"}
    await rig.access(connection=Request(scope))
    scope["headers"] = list(scope["headers"])
    await rig.access(connection=Request(scope))
    assert len(rig.accepted()) == 1


async def test_a_scope_whose_headers_are_replaced_keeps_the_caller(rig: Rig) -> None:
    headers = [(HEADER.lower().encode(), ADA.encode())]
    scope = {"type": "http", "headers": headers, "path": "/", "method": "GET"}
    caller = await rig.access(connection=Request(scope))
    replaced = replace_headers(scope, [(b"a", b"b")])
    assert await rig.access(connection=Request(replaced)) is caller
    assert (scope["headers"], replaced["headers"]) == (headers, [(b"a", b"b")])
    assert await rig.access(connection=Request(scope)) is caller
    assert len(rig.accepted()) == 1


@pytest.mark.conformance(58)
async def test_a_caller_of_other_headers_does_not_stay_if_headers_are_replaced(rig: Rig) -> None:
    scope: dict[str, Any] = {"type": "http", "headers": [(HEADER.lower().encode(), ADA.encode())], "path": "/"}
    assert await rig.access.authenticate(Request(scope))
    for without in (replace_headers(scope | {"headers": []}, []), replace_headers({"type": "http", "headers": []}, [])):
        assert await rig.access.authenticate(Request(without)) is None


def test_hasattr_and_mocks_can_look_at_a_dependency(rig: Rig) -> None:
    assert not hasattr(rig.access.user, "dependency")
    assert MagicMock(spec=rig.access).settings


def test_what_a_router_does_to_its_responses_changes_no_other(rig: Rig) -> None:
    rig.access.responses[401]["description"] = "changed"
    assert rig.access.responses[401]["description"] != "changed"


async def test_leaving_without_having_entered_says_what_to_write(rig: Rig) -> None:
    with pytest.raises(ConfigurationError, match="write `async with access:`"):
        await rig.access.__aexit__(None, None, None)


@pytest.mark.conformance(58)
async def test_claims_of_one_object_are_not_those_of_another(rig: Rig) -> None:
    other = Rig().access.with_audience("other")
    scope: dict[str, Any] = {"type": "http", "headers": [(HEADER.lower().encode(), ADA.encode())]}
    request = Request(scope)
    first: Claims | None = await rig.access.authenticate(request)
    assert first is not None
    with pytest.raises(Exception, match="401"):
        await other.authenticate(request)
    assert await rig.access.authenticate(request) is first


# what else is asked


class HasEmail(Protocol):
    """A protocol that cannot be checked at run time."""

    email: str | None


def has_email(caller: HasEmail) -> bool:
    return bool(caller.email)


def test_a_policy_may_take_a_protocol_and_an_unknown_name_is_refused(rig: Rig) -> None:
    assert isinstance(rig.access.require_user(has_email), Dependency)
    with pytest.raises(ConfigurationError, match="there is no setting teamdomain; did you mean team_domain"):
        CloudflareAccess(teamdomain="acme")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"in a route write Depends\(access\.user\)$"):
        rig.access.user(5)  # type: ignore[arg-type, unused-coroutine]


async def test_readiness_may_be_asked_by_a_handler_of_the_apps_own(rig: Rig) -> None:
    @rig.app.get("/own")
    async def own(request: Request) -> int:
        return (await rig.access.readiness(request)).status_code

    assert rig.get("/own") == (200, 200)


def test_a_class_method_of_claims_is_named_where_it_is_found_at_the_start() -> None:
    app = FastAPI()
    app.add_api_route("/", who, dependencies=[Depends(UserClaims.model_json_schema)])
    assert any("UserClaims.model_json_schema" in sentence for sentence in misuses(app, Dependency))


async def test_a_probe_during_back_off_starts_no_fetch_and_a_dead_cache_is_forgotten(rig: Rig) -> None:
    rig.certs.fail_with(500)
    assert [(await rig.access.readiness()).status_code for _ in range(2)] == [503, 503]
    assert rig.access.keys.health().fetches == 1
    copies = [rig.access.with_audience(str(number)) for number in range(3)]
    copies.clear()
    gc.collect()
    rig.certs.recover()
    await TEAM.clock.run_until(rig.access.keys.refresh())
    assert len(rig.access.keys._cache.refreshed) == 1


def test_without_an_event_loop_a_probe_starts_no_fetch(rig: Rig) -> None:
    coroutine = rig.access.keys.fetch_if_unusable()
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert rig.certs.fetches == 0


def test_a_probe_inside_a_patched_team_finds_keys_without_a_fetch(rig: Rig) -> None:
    rig.app.add_route("/ready", rig.access.readiness)
    with TEAM.patch(rig.access):
        assert rig.client.get("/ready").status_code == 200
    assert rig.certs.fetches == 0


def test_a_known_token_is_accepted_where_no_asyncio_event_loop_runs(rig: Rig) -> None:
    """Such as on Trio: only streams need asyncio, and they say so."""
    assert rig.get("/user", **{HEADER: ADA})[0] == 200
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(HEADER.lower().encode(), ADA.encode())]}
    work = rig.access.authenticate(Request(scope))
    with pytest.raises(StopIteration) as ended:
        work.send(None)
    assert ended.value.value.email == "ada@example.com"


async def test_a_request_with_another_credential_is_refused_with_a_note_that_does_not_repeat_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    secret = b"Bearer very-secret"
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": [(b"authorization", secret)]})
    caplog.set_level(logging.INFO, "fastapi_cloudflare_access")
    with pytest.raises(AccessHTTPException) as refused:
        await rig.access.user(connection=request)
    assert (refused.value.status_code, refused.value.detail) == (401, "No Cloudflare Access token")
    note = "there is no token; Authorization is not read, since Access sends Cf-Access-Jwt-Assertion"
    assert note in caplog.text
    assert "very-secret" not in caplog.text
