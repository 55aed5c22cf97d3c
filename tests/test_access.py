"""The face: one object as dependency, on every kind of route."""

import inspect
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from traceback import walk_tb
from typing import Annotated, Any, NamedTuple

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Security, WebSocket
from openapi_spec_validator import validate
from pydantic import BaseModel, model_validator
from starlette.responses import JSONResponse, StreamingResponse
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cloudflare_access import (
    AccessHTTPException,
    Claims,
    CloudflareAccess,
    ConfigurationError,
    ServiceClaims,
    UserClaims,
)
from fastapi_cloudflare_access._policy import policy_name
from fastapi_cloudflare_access._verification.token import verify as real_verify
from fastapi_cloudflare_access.events import AccessEvent, RequestRejected
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch, SystemClock

TEAM = FakeTeam("acme")
ADA = TEAM.headers(TEAM.user_token("ada@example.com", groups=["engines"]))
BOT = TEAM.headers(TEAM.service_token("deploy-bot"))
NOBODY: dict[str, str] = {}
BAD = {"Cf-Access-Jwt-Assertion": "a.b.c"}


def make(**options: Any) -> CloudflareAccess[Any]:
    given: dict[str, Any] = {
        "team_domain": TEAM.team_domain,
        "audience": TEAM.audience,
        "fetch": MemoryFetch(TEAM),
        "clock": TEAM.clock,
        "user_model": UserClaims,
    }
    return CloudflareAccess(**(given | options))


def is_ada(caller: Claims) -> bool:
    return isinstance(caller, UserClaims) and caller.email == "ada@example.com"


@pytest.fixture
def access() -> CloudflareAccess[Any]:
    return make()


@pytest.fixture
def app(access: CloudflareAccess[Any]) -> FastAPI:
    """Every dependency of the tree, on a route and on a WebSocket each."""
    app = FastAPI(lifespan=access.lifespan)
    nodes = {
        "access": access,
        "user": access.user,
        "service": access.service,
        "optional": access.optional,
        "require": access.require(is_ada),
        "require-user": access.require_user(is_ada),
        "require-service": access.require_service(lambda caller: caller.common_name.endswith(".access")),
    }
    for name, node in nodes.items():

        @app.get(f"/{name}")
        async def route(caller: Annotated[Any, Depends(node)]) -> str:
            return type(caller).__name__

        @app.websocket(f"/{name}")
        async def socket(socket: WebSocket, caller: Annotated[Any, Depends(node)]) -> None:
            await socket.accept()
            await socket.send_text(type(caller).__name__)
            await socket.close()

    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


OUTCOMES = [
    ("access", ADA, 200, "UserClaims"),
    ("access", BOT, 200, "ServiceClaims"),
    ("access", NOBODY, 401, None),
    ("access", BAD, 401, None),
    ("user", ADA, 200, "UserClaims"),
    ("user", BOT, 403, None),
    ("user", NOBODY, 401, None),
    ("user", BAD, 401, None),
    ("service", ADA, 403, None),
    ("service", BOT, 200, "ServiceClaims"),
    ("service", NOBODY, 401, None),
    ("service", BAD, 401, None),
    ("optional", ADA, 200, "UserClaims"),
    ("optional", BOT, 200, "ServiceClaims"),
    ("optional", NOBODY, 200, "NoneType"),
    ("optional", BAD, 401, None),
    ("require", ADA, 200, "UserClaims"),
    ("require", BOT, 403, None),
    ("require", NOBODY, 401, None),
    ("require-user", ADA, 200, "UserClaims"),
    ("require-user", TEAM.headers(TEAM.user_token("bob@example.com")), 403, None),
    ("require-user", BOT, 403, None),
    ("require-user", NOBODY, 401, None),
    ("require-service", BOT, 200, "ServiceClaims"),
    ("require-service", ADA, 403, None),
    ("require-service", NOBODY, 401, None),
]


@pytest.mark.conformance(36, 42)
@pytest.mark.parametrize(
    ("name", "headers", "status", "body"), OUTCOMES, ids=[f"{i}-{row[0]}" for i, row in enumerate(OUTCOMES)]
)
def test_a_route_admits_the_callers_of_its_dependency(
    client: TestClient, name: str, headers: dict[str, str], status: int, body: str | None
) -> None:
    response = client.get(f"/{name}", headers=headers)
    assert response.status_code == status
    assert response.json() == body if body else set(response.json()) == {"detail"}


@pytest.mark.conformance(50)
@pytest.mark.parametrize(
    ("name", "headers", "status", "body"), OUTCOMES, ids=[f"{i}-{row[0]}" for i, row in enumerate(OUTCOMES)]
)
def test_a_websocket_admits_the_callers_of_its_dependency(
    client: TestClient, name: str, headers: dict[str, str], status: int, body: str | None
) -> None:
    if body:
        with client.websocket_connect(f"/{name}", headers=headers) as socket:
            assert socket.receive_text() == body
    else:
        with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect(f"/{name}", headers=headers):
            pytest.fail("accepted")
        assert caught.value.status_code == status


def test_a_whole_router_and_a_whole_app_are_protected(access: CloudflareAccess[Any]) -> None:
    app = FastAPI(dependencies=[Depends(access)])
    router = APIRouter(prefix="/jobs", dependencies=[Depends(access.service)])

    @app.get("/")
    @router.get("/start")
    async def route() -> str:
        return "ok"

    app.include_router(router)
    client = TestClient(app)
    assert [client.get("/", headers=headers).status_code for headers in (ADA, BOT, NOBODY)] == [200, 200, 401]
    assert [client.get("/jobs/start", headers=headers).status_code for headers in (ADA, BOT, NOBODY)] == [403, 200, 401]


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []

    def counted(parsed: Any, **options: Any) -> Any:
        seen.append(parsed.kid)
        return real_verify(parsed, **options)

    monkeypatch.setattr("fastapi_cloudflare_access._verifier.verify", counted)
    return seen


def test_a_request_is_verified_once_however_many_ask(access: CloudflareAccess[Any], verifications: list[str]) -> None:
    app = FastAPI(dependencies=[Depends(access)])
    router = APIRouter(dependencies=[Depends(access.user), Depends(access.require(is_ada))])

    @router.get("/", dependencies=[Depends(access.optional), Depends(access, use_cache=False), Security(access)])
    async def route(
        a: Annotated[UserClaims, Depends(access.user)],
        b: Annotated[Claims, Depends(access.require_user(is_ada))],
        c: Annotated[Claims | None, Depends(access.optional, use_cache=False)],
    ) -> bool:
        return a is b is c

    app.include_router(router)
    client = TestClient(app)
    assert client.get("/", headers=ADA).json() is True
    assert len(verifications) == 1
    assert client.get("/", headers=TEAM.headers(TEAM.user("ada@example.com"))).json() is True
    assert len(verifications) == 2


def test_one_object_never_believes_what_another_accepted() -> None:
    first, second = make(), make(audience="0" * 64)
    app = FastAPI(dependencies=[Depends(first)])

    @app.get("/", dependencies=[Depends(second)])
    async def route() -> None:
        pytest.fail("let in")

    response = TestClient(app).get("/", headers=ADA)
    assert response.status_code == 401


def test_a_sibling_accepts_its_own_audience_over_the_same_keys(access: CloudflareAccess[Any]) -> None:
    other = FakeTeam("acme", audience=[TEAM.audience, "other"], clock=TEAM.clock)
    sibling = access.with_audience("other")
    app = FastAPI(lifespan=access.lifespan)
    app.add_api_route("/", _ok, dependencies=[Depends(access)])
    app.add_api_route("/other", _ok, dependencies=[Depends(sibling)])
    theirs = TEAM.headers(other.user_token("ada@example.com", audience="other", key=TEAM.current))
    with TestClient(app) as client:
        assert [client.get(path, headers=ADA).status_code for path in ("/", "/other")] == [200, 401]
        assert [client.get(path, headers=theirs).status_code for path in ("/", "/other")] == [401, 200]
    assert sibling.keys is access.keys
    with pytest.raises(ConfigurationError, match="audience"):
        access.with_audience()


async def _ok() -> str:
    return "ok"


def test_the_cookie_counts_where_there_is_no_header(client: TestClient) -> None:
    token = TEAM.user_token("ada@example.com")
    assert client.get("/user", headers={"cookie": f"CF_Authorization={token}"}).status_code == 200
    assert client.get("/user", headers={"cookie": f"CF_Authorization={token}", **BAD}).status_code == 401
    assert client.get("/user", headers={"cookie": "CF_Authorization=x", **ADA}).status_code == 200


@pytest.mark.conformance(48)
@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TEAM.user_token('ada@example.com')}"},
        {"Cf-Access-Authenticated-User-Email": "ada@example.com"},
        {"Cf_Access_Jwt_Assertion": TEAM.user_token("ada@example.com")},
        {"Cf-Access-Token": TEAM.user_token("ada@example.com")},
    ],
    ids=["bearer", "email", "underscores", "cf-access-token"],
)
def test_nothing_else_is_believed(client: TestClient, headers: dict[str, str]) -> None:
    response = client.get("/access", headers=headers)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Cloudflare-Access")


def test_token_sources_narrow_what_is_read_and_what_openapi_says() -> None:
    access = make(token_sources=("header",))
    app = FastAPI()
    app.add_api_route("/", _ok, dependencies=[Depends(access)])
    client = TestClient(app)
    cookie = {"cookie": f"CF_Authorization={TEAM.user_token('ada@example.com')}"}
    assert [client.get("/", headers=headers).status_code for headers in (ADA, cookie)] == [200, 401]
    scheme = app.openapi()["components"]["securitySchemes"]["CloudflareAccess"]
    assert (scheme["in"], scheme["description"]) == ("header", "The token that Cloudflare Access adds to a request.")
    app = FastAPI()
    app.add_api_route("/", _ok, dependencies=[Depends(make(token_sources="cookie"))])
    assert [TestClient(app).get("/", headers=headers).status_code for headers in (ADA, cookie)] == [401, 200]
    assert app.openapi()["components"]["securitySchemes"]["CloudflareAccess"]["in"] == "cookie"


# what handlers and middleware see


def test_the_claims_are_on_the_request_for_logging_middleware(access: CloudflareAccess[Any]) -> None:
    seen: list[Any] = []

    class Logging:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)
            if scope["type"] == "http":
                seen.append(getattr(Request(scope).state, "cloudflare_access", None))

    app = FastAPI(lifespan=access.lifespan)
    app.add_middleware(Logging)

    @app.get("/")
    async def route(request: Request, user: Annotated[UserClaims, Depends(access.user)]) -> bool:
        return request.state.cloudflare_access is user

    @app.get("/optional")
    async def optional(caller: Annotated[Any, Depends(access.optional)]) -> bool:
        return caller is None

    with TestClient(app) as client:
        assert client.get("/", headers=ADA).json() is True
        client.get("/optional")
        client.get("/", headers=BAD)
    assert [getattr(claims, "email", None) for claims in seen] == ["ada@example.com", None, None]


class Custom(BaseModel):
    groups: tuple[str, ...] = ()


class MyClaims(UserClaims):
    custom: Custom = Custom()

    @property
    def broken(self) -> str:
        raise RuntimeError


def test_a_model_of_the_apps_own_types_the_custom_claims() -> None:
    access = make(user_model=MyClaims)
    app = FastAPI()

    @app.get("/")
    async def route(user: Annotated[MyClaims, Depends(access.user)]) -> list[str]:
        assert type(user) is MyClaims
        return list(user.custom.groups)

    client = TestClient(app)
    assert client.get("/", headers=ADA).json() == ["engines"]
    wrong = TEAM.headers(TEAM.user_token("ada@example.com", custom={"groups": 5}))
    assert client.get("/", headers=wrong).status_code == 401


def test_a_model_that_fails_refuses_the_token(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(UserClaims):
        def model_post_init(self, context: Any, /) -> None:
            raise KeyError(self.email)

    app = FastAPI()
    app.add_api_route("/", _ok, dependencies=[Depends(make(user_model=Failing))])
    assert TestClient(app).get("/", headers=ADA).status_code == 401
    (record,) = [record for record in caplog.records if hasattr(record, "reason")]
    assert record.__dict__["reason"] == "invalid_claims"
    assert "KeyError" in record.getMessage()
    assert "ada@" not in record.getMessage()


@pytest.mark.parametrize("given", [None, {}, TEAM.service("bot"), TEAM.user("eve@example.com")], ids=type)
def test_a_model_that_gives_something_else_than_itself_refuses_the_token(given: Any) -> None:
    class Odd(UserClaims):
        @model_validator(mode="wrap")
        @classmethod
        def odd(cls, _: Any, __: Any) -> Any:
            return given

    app = FastAPI()
    access = make(user_model=Odd)
    app.add_api_route("/optional", _ok, dependencies=[Depends(access.optional)])
    app.add_api_route("/service", _ok, dependencies=[Depends(access.service)])
    client = TestClient(app)
    assert [client.get(path, headers=ADA).status_code for path in ("/optional", "/service")] == [401, 401]


@pytest.mark.parametrize("model", [None, dict, ServiceClaims, BaseModel, "UserClaims", UserClaims.model_construct()])
def test_a_claims_model_that_is_none_is_refused_at_construction(model: Any) -> None:
    with pytest.raises(ConfigurationError, match="subclass of UserClaims"):
        make(user_model=model)


def test_a_refusal_is_an_event_with_its_reason_and_the_digest_of_the_token() -> None:
    events: list[AccessEvent] = []
    access = make(listeners=[events.append])
    app = FastAPI()
    app.add_api_route("/", _ok, dependencies=[Depends(access.user)])
    app.add_api_route("/sibling", _ok, dependencies=[Depends(access.with_audience("other"))])
    client = TestClient(app)
    for path, headers in (("/", ADA), ("/", NOBODY), ("/", BOT), ("/sibling", ADA)):
        client.get(path, headers=headers)
    refused = [event for event in events if isinstance(event, RequestRejected)]
    assert [event.reason for event in refused] == ["missing_token", "wrong_caller", "wrong_audience"]
    assert [event.token_digest for event in refused] == [None, _digest_of(BOT), _digest_of(ADA)]
    assert {event.timestamp for event in refused} == {TEAM.clock.now()}


def test_a_failing_listener_changes_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: AccessEvent) -> None:
        raise ZeroDivisionError

    app = FastAPI()
    app.add_api_route("/", _ok, dependencies=[Depends(make(listeners=[fail]))])
    assert TestClient(app).get("/").status_code == 401
    assert "called a listener that failed at the event request_rejected" in caplog.text


def _digest_of(headers: dict[str, str]) -> str:
    return sha256(headers["Cf-Access-Jwt-Assertion"].encode()).hexdigest()[:12]


# policies


def test_require_gives_the_same_callable_for_equal_policies(access: CloudflareAccess[Any]) -> None:
    assert access.require(is_ada) is access.require(is_ada)
    assert access.require(is_ada) is not access.require_user(is_ada)
    assert access.require(is_ada) is not make().require(is_ada)


class HasGroup(NamedTuple):
    value: Any

    def __call__(self, caller: UserClaims) -> bool:
        return self.value in caller.custom["groups"]


class HasEmail(NamedTuple):
    value: str

    def __call__(self, caller: UserClaims) -> bool:
        return caller.email == self.value


def test_policies_of_different_types_are_never_one_though_they_compare_equal(access: CloudflareAccess[Any]) -> None:
    group: Any = HasGroup("x")
    email: Any = HasEmail("x")
    assert group == email
    assert access.require_user(group) is not access.require_user(email)
    again: Any = HasGroup("x")
    assert access.require_user(group) is access.require_user(again)


def test_what_a_policy_raises_takes_no_claim_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def look_up(caller: UserClaims) -> bool:
        return {"bob@example.com": True}[str(caller.email)]

    app = FastAPI()
    app.add_api_route("/", _ok, dependencies=[Depends(make().require_user(look_up))])
    assert TestClient(app).get("/", headers=ADA).status_code == 403
    assert "asked a policy that failed with KeyError at " in caplog.text
    assert __file__ in caplog.text
    assert "ada@" not in caplog.text + repr([vars(record) for record in caplog.records])


def _raises(caller: Claims) -> bool:
    raise ZeroDivisionError


def _truthy(caller: Claims) -> Any:
    return "yes"


def _none(caller: Claims) -> Any:
    return None


def _awaitable(caller: Claims) -> Any:
    return _asynchronous(caller)


class _Awaitable:
    async def __call__(self, caller: Claims) -> bool:
        return True


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(
    "policy",
    [_raises, _truthy, _none, _awaitable],
    ids=["raises", "truthy", "none", "awaitable"],
)
def test_only_a_plain_true_admits_a_caller(policy: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    app.add_api_route("/", _ok, dependencies=[Depends(make().require(policy))])
    assert TestClient(app).get("/", headers=ADA).status_code == 403
    assert any(record.levelno == logging.ERROR and "policy" in record.getMessage() for record in caplog.records)


def _of_a_request(request: Request) -> bool:
    return True


def _of_text(item: str) -> bool:
    return True


async def _asynchronous(caller: Claims) -> bool:
    return True


@pytest.mark.parametrize(
    "policy",
    [
        None,
        True,
        "admin",
        _asynchronous,
        _Awaitable(),
        HasGroup(["x"]),
        type("Unhashable", (), {"__call__": _truthy, "__hash__": None})(),
        lambda caller, group: True,
        lambda: True,
        lambda *, caller: True,
        lambda caller="": True,
        lambda: "a handler",
        _of_a_request,
        _of_text,
    ],
    ids=[
        "none",
        "true",
        "text",
        "asynchronous",
        "awaitable",
        "unhashable inside",
        "unhashable",
        "two parameters",
        "no parameter",
        "a keyword",
        "a default",
        "a handler",
        "a request",
        "a query parameter",
    ],
)
def test_what_cannot_be_a_policy_is_refused_where_it_is_given(access: CloudflareAccess[Any], policy: Any) -> None:
    for require in (access.require, access.require_user, access.require_service):
        with pytest.raises(ConfigurationError, match=r"a policy (must be|is not text)"):
            require(policy)


def annotated(claims: Any) -> bool:
    return True


@pytest.mark.parametrize(
    "policy", [max, int.__call__, lambda caller, group="x": True, lambda *callers: True, annotated], ids=[*"abcde"]
)
def test_a_function_that_can_be_called_with_the_claims_is_a_policy(access: CloudflareAccess[Any], policy: Any) -> None:
    assert access.require(policy) is access.require(policy)


def test_a_model_that_forbids_extra_claims_is_refused_with_the_reason() -> None:
    class Strict(UserClaims, extra="forbid"):
        """A model that knows every claim, as it believes."""

    with pytest.raises(ConfigurationError, match=r"^user_model Strict has extra='forbid', which refuses every token"):
        make(user_model=Strict)


@pytest.mark.parametrize(
    ("port", "value"),
    [
        ("fetch", 5),
        ("fetch", _asynchronous),
        ("clock", 5),
        ("clock", time.time),
        ("clock", SystemClock),
        ("listeners", 5),
        ("listeners", [5]),
        ("listeners", [_asynchronous]),
        ("listeners", _asynchronous),
    ],
)
def test_a_port_of_the_wrong_shape_is_refused_at_construction(port: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{port} must be a"):
        make(**{port: value})


def test_a_dependency_called_without_a_connection_says_what_to_write(access: CloudflareAccess[Any]) -> None:
    without: Any = access.user
    with pytest.raises(ConfigurationError, match=r"write Depends\(access\.user\), without \(\) after the name$"):
        without()
    with pytest.raises(ConfigurationError, match=r"^access\.require\(…\) was called with FastAPI instead of a request"):
        access.require(is_ada)(FastAPI())  # type: ignore[arg-type, unused-coroutine]


@pytest.mark.parametrize("name", ["access", "access.user", "access.optional", "access.require(…)", "access.roles(…)"])
def test_a_handler_that_calls_a_dependency_and_forgets_to_await_it_admits_no_client(
    access: CloudflareAccess[Any], name: str
) -> None:
    every: list[Any] = [access, access.user, access.optional, access.require(is_ada), access.roles({"ada": is_ada})]
    (dependency,) = [each for each in every if each.expression == name]
    app = FastAPI()

    @app.get("/")
    def route(request: Request) -> str:
        return "open" if dependency(request) else "closed"

    @app.websocket("/")
    async def talk(socket: WebSocket) -> None:
        if not dependency(socket):
            return
        await socket.accept()

    sentence = f"in a route write Depends({name}), elsewhere await {name}(connection=request)"
    with TestClient(app) as client:
        for headers in (ADA, NOBODY, BAD):
            with pytest.raises(
                ConfigurationError, match=f"^{re.escape(name)} was called directly, .*: {re.escape(sentence)}$"
            ):
                client.get("/", headers=headers)
        with pytest.raises(ConfigurationError, match="was called directly"), client.websocket_connect("/"):
            pytest.fail("it was accepted")


def test_what_fastapi_reads_of_a_dependency_has_no_positional_argument(access: CloudflareAccess[Any]) -> None:
    for dependency in (access, access.user, access.optional, access.identity, access.require(is_ada)):
        parameters = inspect.signature(dependency).parameters.values()
        assert [each.name for each in parameters] == ["connection", "security_scopes"]
        assert {each.kind for each in parameters} == {inspect.Parameter.KEYWORD_ONLY}


def test_a_dependency_can_be_awaited_in_a_dependency_of_the_apps_own(access: CloudflareAccess[Any]) -> None:
    async def by_hand(request: Request) -> str:
        return str((await access.user(connection=request)).email)

    app = FastAPI()

    @app.get("/")
    async def route(email: Annotated[str, Depends(by_hand)]) -> str:
        return email

    client = TestClient(app)
    assert client.get("/", headers=ADA).json() == "ada@example.com"
    assert [client.get("/", headers=headers).status_code for headers in (BOT, NOBODY, BAD)] == [403, 401, 401]


# overrides


@pytest.mark.parametrize("name", ["access", "user", "service", "optional"])
def test_an_override_replaces_exactly_the_callable_that_a_route_names(
    app: FastAPI, access: CloudflareAccess[Any], name: str
) -> None:
    app.dependency_overrides[access if name == "access" else getattr(access, name)] = lambda: TEAM.service("bot")
    client = TestClient(app)
    replaced = {other for other in ("access", "user", "service", "require") if client.get(f"/{other}").is_success}
    assert replaced == {name} - {"optional"}
    assert client.get("/optional").json() == ("ServiceClaims" if name == "optional" else "NoneType")
    with client.websocket_connect(f"/{name}") as socket:
        assert socket.receive_text() == "ServiceClaims"


def test_an_override_that_yields_ends_after_the_answer_was_sent(access: CloudflareAccess[Any]) -> None:
    app, seen = FastAPI(), list[str]()

    async def body() -> AsyncIterator[bytes]:
        seen.append("body")
        yield b"."

    @app.get("/", dependencies=[Depends(access.user)])
    async def streamed() -> StreamingResponse:
        return StreamingResponse(body())

    async def override() -> AsyncIterator[Claims]:
        yield TEAM.user("ada@example.com")
        seen.append("end")

    app.dependency_overrides[access.user] = override
    assert TestClient(app).get("/").content == b"."
    assert seen == ["body", "end"]


# OpenAPI


@pytest.mark.conformance(49)
def test_openapi_shows_one_scheme_whose_description_names_the_cookie_and_is_valid(app: FastAPI) -> None:
    document = app.openapi()
    validate(document)
    assert document["components"]["securitySchemes"] == {
        "CloudflareAccess": {
            "type": "apiKey",
            "in": "header",
            "name": "Cf-Access-Jwt-Assertion",
            "description": "The token that Cloudflare Access adds to a request; also read from CF_Authorization.",
        },
    }
    for name in ("access", "user", "service", "optional", "require", "require-user", "require-service"):
        assert document["paths"][f"/{name}"]["get"]["security"] == [{"CloudflareAccess": []}]


def test_openapi_documents_the_refusals_where_a_router_asks_for_it(access: CloudflareAccess[Any]) -> None:
    app = FastAPI()
    router = APIRouter(dependencies=[Depends(access)], responses=access.responses)
    router.add_api_route("/", _ok)
    app.include_router(router)
    document = app.openapi()
    validate(document)
    responses = document["paths"]["/"]["get"]["responses"]
    assert responses["401"]["headers"]["WWW-Authenticate"]["example"] == "Cloudflare-Access"
    assert responses["503"]["headers"]["Retry-After"]["example"] == "1"
    for status in ("401", "403", "503"):
        assert responses[status]["content"]["application/json"]["schema"]["required"] == ["detail"]


def test_openapi_can_say_that_anonymous_callers_are_welcome(access: CloudflareAccess[Any]) -> None:
    app = FastAPI()
    app.add_api_route("/", _ok, dependencies=[Depends(access.optional)], openapi_extra=access.optional.openapi_extra)
    document = app.openapi()
    validate(document)
    assert document["paths"]["/"]["get"]["security"] == [{"CloudflareAccess": []}, {}]


def test_openapi_shows_no_parameters_for_the_dependencies(app: FastAPI) -> None:
    for path in app.openapi()["paths"].values():
        assert "parameters" not in path["get"]


# lifespan


def test_the_lifespan_keeps_the_keys_fresh_and_ends(access: CloudflareAccess[Any], app: FastAPI) -> None:
    assert access.keys.health().state == "cold"
    with TestClient(app):
        health = access.keys.health()
        assert (health.state, health.refresher_alive, health.fetches) == ("ok", True, 1)
    assert not access.keys.health().refresher_alive


@pytest.mark.parametrize(
    ("audience", "shown"),
    [
        ("2effaf07" * 8, "audience 2effaf07…"),
        (["shop", "2effaf07" * 8], "audiences shop, 2effaf07…"),
        ([f"app-{number}" for number in range(6)], "audiences app-0, app-1, app-2, …"),
    ],
)
def test_the_start_logs_once_which_tokens_are_accepted(audience: Any, shown: str, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "fastapi_cloudflare_access")
    access = CloudflareAccess(team_domain="acme", audience=audience, fetch=MemoryFetch(TEAM), clock=TEAM.clock)
    for _ in range(2):
        with TestClient(FastAPI(lifespan=access.lifespan)):
            pass
    said = f"cf-access accepts tokens of https://acme.cloudflareaccess.com for the {shown}"
    assert [(each.levelname, each.getMessage()) for each in caplog.records if "accepts" in each.getMessage()] == [
        ("INFO", said)
    ]


def test_a_lifespan_of_ones_own_enters_the_object() -> None:
    access = make()
    order: list[str] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        async with access:
            order.append("begun")
            yield {"own": "state"}
            order.append("ended")

    app = FastAPI(lifespan=lifespan)

    @app.get("/", dependencies=[Depends(access)])
    async def route(request: Request) -> str:
        return str(request.state.own)

    with TestClient(app) as client:
        assert client.get("/", headers=ADA).json() == "state"
    assert order == ["begun", "ended"]


def test_entered_twice_it_ends_with_the_last() -> None:
    access = make()
    outer, inner = FastAPI(lifespan=access.lifespan), FastAPI(lifespan=access.lifespan)
    with TestClient(outer):
        with TestClient(inner):
            assert access.keys.health().refresher_alive
        assert access.keys.health().refresher_alive
    assert not access.keys.health().refresher_alive


@pytest.mark.anyio
async def test_entered_twice_in_one_loop_the_keys_stay_fresh_until_it_was_left_twice() -> None:
    access = make()
    async with access:
        async with access:
            assert access.keys.health().refresher_alive
        assert access.keys.health().refresher_alive
    assert not access.keys.health().refresher_alive


def test_without_a_lifespan_keys_are_fetched_on_the_way() -> None:
    access = make()
    app = FastAPI()
    app.add_api_route("/", _ok, dependencies=[Depends(access)])
    client = TestClient(app)
    assert [client.get("/", headers=ADA).status_code for _ in range(3)] == [200, 200, 200]
    health = access.keys.health()
    assert (health.state, health.refresher_alive, health.fetches) == ("ok", False, 1)


@pytest.mark.conformance(24, 44)
def test_no_keys_give_503_with_retry_after_and_never_401() -> None:
    fetch = MemoryFetch(TEAM)
    fetch.fail_with(500)
    app = FastAPI()
    app.add_api_route("/", _ok, dependencies=[Depends(make(fetch=fetch))])
    app.add_api_websocket_route("/", _socket, dependencies=[Depends(make(fetch=fetch))])
    response = TestClient(app).get("/", headers=ADA)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert "www-authenticate" not in response.headers


async def _socket(socket: WebSocket) -> None:
    await socket.accept()


@pytest.mark.parametrize("add", ["add_api_route", "add_route"])
def test_a_readiness_route_is_ready_made(access: CloudflareAccess[Any], add: str) -> None:
    fetch: Any = access.keys._fetcher._fetch
    fetch.fail_with(500)
    app = FastAPI()
    getattr(app, add)("/ready", access.readiness)
    client = TestClient(app)
    cold = client.get("/ready")
    assert (cold.status_code, cold.json()) == (503, {"ready": False, "state": "cold"})
    access.keys.seed(TEAM.certs_body(), fetched_at=TEAM.clock.now())
    warm = client.get("/ready")
    assert (warm.status_code, warm.json()) == (200, {"ready": True, "state": "ok"})
    assert warm.headers["cache-control"] == "no-store"


def test_a_readiness_probe_fetches_the_keys_where_no_lifespan_does(access: CloudflareAccess[Any]) -> None:
    app = FastAPI(dependencies=[Depends(access)])
    app.add_route("/ready", access.readiness)
    app.add_api_route("/covered", access.readiness)
    client = TestClient(app)
    assert client.get("/covered").status_code == 401
    assert (client.get("/ready").status_code, access.keys.health().fetches) == (200, 1)
    assert (client.get("/ready").status_code, access.keys.health().fetches) == (200, 1)


@pytest.mark.anyio
async def test_readiness_can_be_asked_without_a_request(access: CloudflareAccess[Any]) -> None:
    assert (await access.readiness()).status_code == 200


def test_a_local_team_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    make(team_domain="http://127.0.0.1:8788")
    assert "local" in caplog.text
    assert "http://127.0.0.1:8788" in caplog.text
    caplog.clear()
    make()
    assert not caplog.records


# what escapes


@pytest.mark.conformance(53)
@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (TEAM.user_token("ada@example.com", expires_in=-60), "token_expired"),
        (TEAM.user_token("ada@example.com") + "=", "malformed_token"),
    ],
    ids=["expired", "malformed"],
)
def test_the_refusal_holds_neither_the_token_nor_a_trace_of_it(token: str, reason: str, app: FastAPI) -> None:
    """A collector that walks the chain of exceptions and the locals of their frames finds no token."""
    caught: list[AccessHTTPException] = []

    @app.exception_handler(AccessHTTPException)
    async def collect(_: Request, refused: AccessHTTPException) -> Any:
        caught.append(refused)
        frames.extend(
            frame.f_locals for frame, _ in walk_tb(refused.__traceback__) if "cloudflare" in frame.f_code.co_filename
        )
        return JSONResponse({}, 418)

    frames: list[dict[str, Any]] = []
    with TestClient(app) as client:
        assert client.get("/access", headers=TEAM.headers(token)).status_code == 418
    (refused,) = caught
    assert refused.error.reason == reason
    assert not any(
        (refused.error.__traceback__, refused.error.__context__, refused.error.__cause__, refused.__context__)
    )
    assert frames
    assert token[:12] not in repr(
        [{name: vars(value) if name == "error" else value for name, value in frame.items()} for frame in frames]
    )


class AllowList:
    """A policy of the app whose repr has addresses and secrets."""

    def __call__(self, claims: Any) -> bool:
        return False

    def __repr__(self) -> str:
        return "AllowList('ada@example.com', key='secret')"

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)


def in_group(claims: Any, key: str = "") -> bool:
    return False


def test_a_policy_is_named_by_its_function_or_class_and_never_by_its_repr() -> None:
    policies = (in_group, partial(in_group, key="secret"), AllowList(), AllowList, len, lambda _: True)
    names = [policy_name(policy).rpartition(".")[2] for policy in policies]
    assert names[:5] == ["in_group", "in_group", "AllowList", "AllowList", "len"]
    assert re.fullmatch(r"lambda at test_access\.py:\d+", policy_name(policies[5]))
    in_group.__qualname__ = "a\nb" + "c" * 500
    try:
        assert policy_name(in_group).endswith("a?b" + "c" * (200 - 3 - len(f"{__name__}.")))
    finally:
        in_group.__qualname__ = "in_group"


def about_users(user: UserClaims) -> bool:
    return user.email == "ada@example.com"


def about_services(service: ServiceClaims) -> bool:
    return service.client_id == "x.access"


@pytest.mark.parametrize(
    ("require", "policy", "write"),
    [
        (
            "require",
            about_users,
            "does not take ServiceClaims, .* write access.require_user",
        ),
        (
            "require",
            about_services,
            "does not take UserClaims, .* write access.require_service",
        ),
        ("require_user", about_services, "does not take UserClaims"),
        ("require_service", about_users, "does not take ServiceClaims"),
    ],
)
def test_a_policy_about_one_kind_of_caller_is_not_asked_about_the_other(
    access: CloudflareAccess[Any], require: str, policy: Any, write: str
) -> None:
    with pytest.raises(ConfigurationError, match=write):
        getattr(access, require)(policy)
    assert repr(access.require_user(about_users)) == "access.require_user(…)"
    assert repr(access.require_service(about_services)) == "access.require_service(…)"
