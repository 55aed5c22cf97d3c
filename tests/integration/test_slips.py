"""Nothing is open by a slip: each is found early or refuses every request, and what is written well goes on to work."""

import asyncio
import json
import logging
import pickle
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from copy import copy, deepcopy
from dataclasses import dataclass
from http.client import HTTPConnection
from inspect import isfunction
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, cast

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, Body, Depends, FastAPI, Request, Security, WebSocket
from fastapi.exceptions import FastAPIError
from fastapi.security import SecurityScopes
from openapi_spec_validator import validate
from pydantic import BaseModel, TypeAdapter
from starlette.types import Receive, Scope, Send
from support.answer_servers import PATIENCE, uvicorn_serving
from support.slips import (
    CASES,
    FAULTS,
    HAS_FRONTEND,
    INCLUDES_LATE,
    PARAMETERS,
    Attempt,
    Broken,
    Case,
    Fault,
    Moment,
    Program,
    Protocol,
    Typed,
    attempts,
    ordinary,
    protector,
    start,
)
from typing_extensions import TypeAliasType
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_cloudflare_access import Claims, ConfigurationError, UserClaims
from fastapi_cloudflare_access.testing import FakeTeam

T = TypeVar("T")
TEAM = FakeTeam("acme")
ATTEMPTS = attempts(TEAM)
ACCESS = protector(TEAM)

pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'alias' attribute with value:UserWarning"  # FastAPI makes it of a model that is built late
)


class Stage:
    """Serves the app of one test after another."""

    app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Client:
    """Sends requests to the app on a stage.

    Attributes:
        stage: Where the app is.
        address: Where the stage is served.
        browser: For requests whose answer counts.
    """

    def __init__(self, stage: Stage, address: str) -> None:
        self.stage = stage
        self.address = address
        self.browser = httpx.Client(base_url=f"http://{address}", trust_env=False)
        self._connection = HTTPConnection(address, timeout=PATIENCE)

    def status(self, attempt: Attempt, protocol: Protocol) -> int:
        """Return the status code of the answer; 101 if a WebSocket was accepted."""
        self._connection.request(*attempt.sent(protocol))
        response = self._connection.getresponse()
        if protocol == "http":
            response.read()
        if protocol == "websocket" or response.status == 500:
            self.close()
        return response.status

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        self._connection.close()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client of a real server, which logs no traceback: Python 3.11 cannot format them in two threads."""
    stage, logger = Stage(), logging.getLogger("uvicorn.error")
    with (
        uvicorn_serving(stage, http="httptools", loop="auto", lifespan="off") as address,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(logger, "disabled", True)
        client = Client(stage, address)
        with client.browser:
            yield client
        client.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files to serve."""
    site = tmp_path_factory.mktemp("site")
    (site / "index.html").write_text("RAN")
    return site


def in_places(broken: Broken) -> list[Any]:
    """Return the cases of each slip, without those that are known to break."""
    faulty = {str(case) for fault in FAULTS for case in fault.cases(broken)}
    sound = [case for case in CASES if case.can_be(broken) and str(case) not in faulty]
    rows = {row: [*cases] for row, cases in groupby(sound, lambda case: case.row)}
    return [pytest.param(cases, id=row) for row, cases in rows.items()]


@pytest.fixture
def new_program(site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Program]:
    def new() -> Program:
        program = Program(ACCESS, str(site))
        monkeypatch.setitem(sys.modules, program.module.__name__, program.module)  # for forward references
        return program

    return new


# Found before a request


def moment_of(source: str, program: Program) -> tuple[Moment, Exception | None]:
    """Return when the slip is found, and the error."""
    try:
        program.define(source)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return "at definition", error
    try:
        start(program.app)
    except Exception as error:  # noqa: BLE001 - the same
        return "at start", error
    return "refused", None


def complaint(case: Case, program: Program) -> str | None:
    """Return what is wrong with the moment or with the error; None if nothing is."""
    moment, error = moment_of(case.source, program)
    if moment != case.expects:
        return f"{moment} instead of {case.expects}: {error!r}"
    if error is not None and (not isinstance(error, case.slip.error) or case.slip.says not in str(error)):
        return f"{case.slip.says!r} is not in {error!r}"
    return None


@pytest.mark.conformance(101, 102)
@pytest.mark.parametrize("cases", in_places("found"))
def test_a_slip_is_found_when_it_can_be_known_and_the_error_says_what_to_write(
    cases: list[Case], new_program: Callable[[], Program]
) -> None:
    complaints = {case.place: complaint(case, new_program()) for case in cases}
    assert {place: text for place, text in complaints.items() if text} == {}


def methods() -> list[str]:
    """Return the public methods of the object and of its key source, as an app names them."""
    owners = {"access": type(ACCESS), "access.keys": type(ACCESS.keys)}
    public = [(owner, kind, name) for owner, kind in owners.items() for name in dir(kind) if not name.startswith("_")]
    return [f"{owner}.{name}" for owner, kind, name in public if isfunction(getattr(kind, name))]


@pytest.mark.parametrize("name", methods())
def test_no_method_is_a_dependency(name: str, new_program: Callable[[], Program]) -> None:
    source = f"app = FastAPI(lifespan=access.lifespan, dependencies=[Depends({name})])\napp.get('/')(handler)\n"
    moment, error = moment_of(source, new_program())
    assert moment in {"at definition", "at start"}
    assert isinstance(error, ConfigurationError | FastAPIError)


@pytest.mark.conformance(102)
def test_uvicorn_does_not_serve_an_app_whose_slip_is_found_at_start(new_program: Callable[[], Program]) -> None:
    program = new_program()
    program.define(next(case.source for case in CASES if case.expects == "at start"))
    server = uvicorn.Server(uvicorn.Config(program.app, port=0, log_config=None))
    with suppress(SystemExit):
        asyncio.run(server.serve())
    assert not server.started


# Requests


def attempts_for(case: Case) -> list[Attempt]:
    """Return the requests for a case: a handshake has no body, and a dependency without parameters reads none."""
    if case.is_late:
        return ATTEMPTS[:2]  # FastAPI fails before it looks at a request
    is_parameter = case.slip in PARAMETERS
    reads_body = is_parameter and case.protocol == "http"
    takes_variants = not is_parameter or case.place == "handler"
    tried = [attempt for attempt in ATTEMPTS if reads_body or attempt.body is None]
    return [attempt for attempt in tried if takes_variants or not attempt.is_variant]


def passed(case: Case, client: Client, program: Program) -> dict[str, int]:
    """Return what got past the slip, with its status; a run with no claims at all is none where the row says so."""
    program.define(case.source)
    client.stage.app = program.app
    statuses = {attempt.name: client.status(attempt, case.protocol) for attempt in attempts_for(case)}
    admitted = {200, 101} if case.slip.runs_empty else set()
    wrong = {name: status for name, status in statuses.items() if status not in case.statuses | admitted}
    counts = {"claims in a handler": len(program.claims()), "runs": 0 if admitted else len(program.ran)}
    return wrong | {what: count for what, count in counts.items() if count}


@pytest.mark.conformance(101)
@pytest.mark.parametrize("cases", in_places("past"))
def test_no_request_gets_past_a_slip(cases: list[Case], client: Client, new_program: Callable[[], Program]) -> None:
    assert {case.place: past for case in cases if (past := passed(case, client, new_program()))} == {}


NEVER_FILLED = {  # not even with ordinary models
    "user: InstanceOf[UserClaims]",
    "user: type[UserClaims]",
    "user: Annotated[UserClaims, Cookie()]",  # a cookie is no list
    "user: Annotated[Json[UserClaims], Form()]",
    "user: Annotated[list[UserClaims], Form()] = []",
    "user: Annotated[UserClaims, Depends(access.user)] = Depends(access)",
    "user: 'Annotated[UserClaims, Depends(unknown.user)]'",
    "user: 'Annotated[UserClaims, Depends(unknown.user)]' = None",
}
SINCE_LATER = re.compile(r"Json.*(Query|Header|Cookie)|None, Form")
"""What FastAPI could not fill in older versions."""
OUTSIDE_BODY = re.compile(r"Query|Header|Optional, Cookie|Optional = Depends")


def of_ordinary_models() -> list[Any]:
    """Return the cases whose parameter an ordinary model would get from a request; a handshake has no body."""
    in_handler = [case for case in CASES if case.place == "handler" and ordinary(case).source != case.source]
    named = [case for case in in_handler if case.slip.code not in NEVER_FILLED]
    known = [case for case in named if INCLUDES_LATE or not SINCE_LATER.search(case.slip.code)]
    cases = [case for case in known if case.protocol == "http" or OUTSIDE_BODY.search(case.slip.code)]
    return [pytest.param(case, id=case.row) for case in cases]


@pytest.mark.parametrize("case", of_ordinary_models())
def test_the_same_requests_would_fill_an_ordinary_model(
    case: Case, client: Client, new_program: Callable[[], Program]
) -> None:
    program = new_program()
    passed(ordinary(case), client, program)
    assert any(given not in (None, [], {}) for given in program.given)


# What is known to be open


def known(broken: Broken) -> list[Any]:
    return [pytest.param(fault, id=fault.why) for fault in FAULTS if broken in fault.breaks and fault.cases(broken)]


@pytest.mark.parametrize("fault", known("found"))
def test_a_slip_that_is_known_to_be_missed_is_still_missed(fault: Fault, new_program: Callable[[], Program]) -> None:
    mended = [str(case) for case in fault.cases("found") if complaint(case, new_program()) is None]
    assert mended == []
    pytest.xfail(fault.why)


@pytest.mark.parametrize("fault", known("past"))
def test_a_slip_that_requests_are_known_to_get_past_is_still_open(
    fault: Fault, client: Client, new_program: Callable[[], Program]
) -> None:
    mended = [str(case) for case in fault.cases("past") if passed(case, client, new_program()) == {}]
    assert mended == []
    pytest.xfail(fault.why)


# What goes on working

ADA_TOKEN = TEAM.user_token("ada@example.com", custom={"department": "engines"}, claims={"more": 5})
ADA = TEAM.user("ada@example.com", custom={"department": "engines"}, claims={"more": 5})
ADA_JSON = ADA.model_dump(mode="json")
EMAIL = "ada@example.com"


class Page(BaseModel):
    user: UserClaims
    others: list[Claims] = []


class Envelope(BaseModel, Generic[T]):
    data: T


@dataclass
class Row:
    user: UserClaims


class Department(BaseModel):
    department: str


class Engineer(UserClaims):
    custom: Department


class Repository:
    def __init__(self, user: Annotated[UserClaims, Depends(ACCESS.user)]) -> None:
        self.owner = user.email


CurrentUser = Annotated[UserClaims, Depends(ACCESS.user)]
CurrentUserType = TypeAliasType("CurrentUserType", CurrentUser)


def returns_claims(app: FastAPI) -> None:
    @app.get("/", responses=ACCESS.responses)
    async def me(user: CurrentUser) -> UserClaims:
        return user


def returns_claims_by_response_model(app: FastAPI) -> None:
    @app.get("/", response_model=UserClaims, response_model_include={"email"})
    async def me(user: CurrentUser) -> Any:
        return user


def returns_either_kind(app: FastAPI) -> None:
    @app.get("/")
    async def me(caller: Annotated[Claims, Depends(ACCESS)]) -> Claims:
        return caller


def returns_a_list(app: FastAPI) -> None:
    @app.get("/")
    async def me(user: CurrentUser) -> list[UserClaims]:
        return [user]


def returns_a_model(app: FastAPI) -> None:
    @app.get("/")
    async def me(user: CurrentUser) -> Page:
        return Page(user=user, others=[user])


def returns_a_generic_model(app: FastAPI) -> None:
    @app.get("/")
    async def me(user: CurrentUser) -> Envelope[UserClaims]:
        return Envelope[UserClaims](data=user)


def returns_a_dataclass(app: FastAPI) -> None:
    @app.get("/")
    async def me(user: CurrentUser) -> Row:
        return Row(user)


def has_a_model_of_its_own(app: FastAPI) -> None:
    access = protector(TEAM, user_model=Engineer)

    @app.get("/")
    async def me(user: Annotated[Engineer, Depends(access.user)]) -> Engineer:
        assert type(user) is Engineer
        assert user.custom == Department(department="engines")
        return user


def has_a_generic_model_of_its_own(app: FastAPI) -> None:
    access = protector(TEAM, user_model=Typed[int])

    @app.get("/")
    async def me(user: Annotated[Typed[int], Depends(access.user)]) -> int | None:
        return user.more


def copies_claims(app: FastAPI) -> None:
    @app.get("/")
    async def me(user: CurrentUser) -> list[bool]:
        copies = [copy(user), deepcopy(user), user.model_copy(deep=True), pickle.loads(pickle.dumps(user))]  # noqa: S301
        return [again == user and type(again) is UserClaims for again in copies]


def validates_claims_itself(app: FastAPI) -> None:
    @app.get("/")
    async def me(user: CurrentUser) -> list[bool]:
        kept = user.model_dump(mode="json")
        read = [UserClaims.model_validate(kept), UserClaims.model_validate_json(json.dumps(kept)), UserClaims(**kept)]
        read += [TypeAdapter(UserClaims).validate_python(user), Page(user=user).user]
        return [again.model_dump() == user.model_dump() for again in read]


def has_dependencies_on_the_route(app: FastAPI) -> None:
    app.add_api_route("/", email_of_the_request, dependencies=[Depends(ACCESS.user)])


def has_dependencies_on_the_app(_: FastAPI) -> FastAPI:
    app = FastAPI(lifespan=ACCESS.lifespan, dependencies=[Depends(ACCESS)])
    app.add_api_route("/", email_of_the_request)
    return app


def has_dependencies_on_the_router(app: FastAPI) -> None:
    router = APIRouter(dependencies=[Depends(ACCESS.user)])
    router.add_api_route("/", email_of_the_request)
    app.include_router(router)


def has_dependencies_where_the_router_is_included(app: FastAPI) -> None:
    router = APIRouter()
    router.add_api_route("/", email_of_the_request)
    app.include_router(router, dependencies=[Depends(ACCESS.require(is_ada))])


def has_dependencies_in_a_mounted_app(app: FastAPI) -> None:
    app.mount("/", has_dependencies_on_the_app(app))


async def email_of_the_request(request: Request) -> str:
    return str(request.state.cloudflare_access.email)


def is_ada(caller: Claims) -> bool:
    return isinstance(caller, UserClaims) and caller.email == EMAIL


def uses_a_default(app: FastAPI) -> None:
    @app.get("/")
    async def me(user: UserClaims = Depends(ACCESS.user)) -> str | None:  # noqa: B008, FAST002 - the older style
        return user.email


def uses_a_type_alias(app: FastAPI) -> None:
    @app.get("/")
    async def me(user: CurrentUserType) -> str | None:
        return user.email


def uses_a_text_as_annotation(app: FastAPI) -> None:
    @app.get("/")
    async def me(user: "CurrentUser") -> "str | None":
        return user.email


def uses_no_cache(app: FastAPI) -> None:
    @app.get("/", dependencies=[Depends(ACCESS, use_cache=False)])
    async def me(
        one: CurrentUser,
        two: Annotated[UserClaims, Depends(ACCESS.user, use_cache=False)],
        three: Annotated[UserClaims, Depends(ACCESS.require_user(is_ada), use_cache=False)],
    ) -> bool:
        return one is two is three


def uses_a_copy_for_an_audience(app: FastAPI) -> None:
    other = ACCESS.with_audience(TEAM.audience)

    @app.get("/")
    async def me(user: Annotated[UserClaims, Depends(other.user)]) -> str | None:
        return user.email


def uses_a_dependency_of_its_own(app: FastAPI) -> None:
    async def owner(user: CurrentUser) -> AsyncIterator[str | None]:
        yield user.email

    @app.get("/")
    async def me(email: Annotated[str | None, Depends(owner)]) -> str | None:
        return email


def uses_a_class_of_its_own(app: FastAPI) -> None:
    @app.get("/")
    async def me(repository: Annotated[Repository, Depends()]) -> str | None:
        return repository.owner


def reads_a_body_beside(app: FastAPI) -> None:
    @app.get("/")
    async def me(user: CurrentUser, item: Annotated[Department | None, Body()] = None) -> str | None:
        return user.email if item is None else item.department


def is_optional(app: FastAPI) -> None:
    @app.get("/", openapi_extra=ACCESS.optional.openapi_extra)
    async def me(caller: Annotated[Claims | None, Depends(ACCESS.optional)]) -> str | None:
        return caller.email if isinstance(caller, UserClaims) else None


def calls_the_dependency_by_hand(app: FastAPI) -> None:
    @app.get("/")
    async def me(request: Request) -> bool:
        return await ACCESS.user(connection=request) is await ACCESS.authenticate(request)


def overrides_the_dependency(app: FastAPI) -> None:
    returns_claims(app)
    app.dependency_overrides[ACCESS.user] = lambda: ADA


def has_security_without_scopes(app: FastAPI) -> None:
    @app.get("/", dependencies=[Security(ACCESS)])
    async def me(user: Annotated[UserClaims, Security(ACCESS.user)]) -> str | None:
        return user.email


async def scopes_of_user(user: CurrentUser, scopes: SecurityScopes) -> list[str]:
    assert user.email == EMAIL
    return scopes.scopes


Scopes = Annotated[list[str], Security(scopes_of_user, scopes=["read"])]


def inherits_scopes(app: FastAPI) -> None:
    @app.get("/", dependencies=[Security(scopes_of_user, scopes=["write"])])
    async def me(scopes: Scopes) -> list[str]:
        return scopes


def inherits_scopes_in_a_router(app: FastAPI) -> None:
    router = APIRouter()

    @router.get("/")
    async def me(scopes: Scopes) -> list[str]:
        return scopes

    app.include_router(router, dependencies=[Security(scopes_of_user, scopes=["write"])])


def inherits_scopes_from_the_app(_: FastAPI) -> FastAPI:
    app = FastAPI(lifespan=ACCESS.lifespan, dependencies=[Security(scopes_of_user, scopes=["write"])])

    @app.get("/")
    async def me(scopes: Scopes) -> list[str]:
        return scopes

    return app


def inherits_scopes_in_a_mounted_app(app: FastAPI) -> None:
    app.mount("/", inherits_scopes_from_the_app(app))


def inherits_scopes_in_a_mounted_router(app: FastAPI) -> None:
    router = APIRouter()

    @router.get("/")
    async def me(scopes: Scopes) -> list[str]:
        return scopes

    app.mount("/", router)


def is_ready(app: FastAPI) -> None:
    app.add_api_route("/", ACCESS.readiness)


def is_ready_without_dependencies(_: FastAPI) -> FastAPI:
    app = FastAPI(lifespan=ACCESS.lifespan, dependencies=[Depends(ACCESS)])
    app.add_route("/", ACCESS.readiness)
    return app


def has_a_lifespan_of_its_own(_: FastAPI) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with ACCESS:
            yield

    app = FastAPI(lifespan=lifespan)
    returns_claims(app)
    return app


Build = Callable[[FastAPI], FastAPI | None]

WORKS: dict[Build, tuple[Any, int]] = {
    returns_claims: (ADA_JSON, 401),
    returns_claims_by_response_model: ({"email": EMAIL}, 401),
    returns_either_kind: (ADA_JSON, 401),
    returns_a_list: ([ADA_JSON], 401),
    returns_a_model: ({"user": ADA_JSON, "others": [ADA_JSON]}, 401),
    returns_a_generic_model: ({"data": ADA_JSON}, 401),
    returns_a_dataclass: ({"user": ADA_JSON}, 401),
    has_a_model_of_its_own: (ADA_JSON, 401),
    has_a_generic_model_of_its_own: (5, 401),
    copies_claims: ([True] * 4, 401),
    validates_claims_itself: ([True] * 5, 401),
    has_dependencies_on_the_route: (EMAIL, 401),
    has_dependencies_on_the_app: (EMAIL, 401),
    has_dependencies_on_the_router: (EMAIL, 401),
    has_dependencies_where_the_router_is_included: (EMAIL, 401),
    has_dependencies_in_a_mounted_app: (EMAIL, 401),
    uses_a_default: (EMAIL, 401),
    uses_a_type_alias: (EMAIL, 401),
    uses_a_text_as_annotation: (EMAIL, 401),
    uses_no_cache: (True, 401),
    uses_a_copy_for_an_audience: (EMAIL, 401),
    uses_a_dependency_of_its_own: (EMAIL, 401),
    uses_a_class_of_its_own: (EMAIL, 401),
    reads_a_body_beside: (EMAIL, 401),
    is_optional: (EMAIL, 200),
    calls_the_dependency_by_hand: (True, 401),
    overrides_the_dependency: (ADA_JSON, 200),
    has_security_without_scopes: (EMAIL, 401),
    inherits_scopes: (["read"], 401),
    inherits_scopes_in_a_router: (["read"], 401),
    inherits_scopes_from_the_app: (["read"], 401),
    inherits_scopes_in_a_mounted_app: (["read"], 401),
    inherits_scopes_in_a_mounted_router: (["read"], 401),
    is_ready: ({"ready": True, "state": "ok"}, 200),
    is_ready_without_dependencies: ({"ready": True, "state": "ok"}, 200),
    has_a_lifespan_of_its_own: (ADA_JSON, 401),
}
"""What the answer is for a user, and the status code without a token."""


def built(build: Build) -> FastAPI:
    app = FastAPI(lifespan=ACCESS.lifespan)
    return build(app) or app


@pytest.mark.parametrize("build", WORKS, ids=lambda build: build.__name__)
def test_what_is_declared_well_starts_and_answers(build: Build, client: Client) -> None:
    app = built(build)
    start(app)
    answer, anonymous = WORKS[build]
    client.stage.app = app
    admitted = client.browser.get("/", headers=TEAM.headers(ADA_TOKEN))
    assert (admitted.status_code, admitted.json()) == (200, answer)
    assert client.browser.get("/").status_code == anonymous
    assert ADA.identity_nonce
    assert ADA.identity_nonce not in admitted.text


@pytest.mark.parametrize(
    "build", [returns_claims, returns_a_model, has_a_generic_model_of_its_own, is_optional, inherits_scopes]
)
def test_the_openapi_document_is_valid(build: Build) -> None:
    validate(built(build).openapi())


# WebSockets


def accepts_a_user(app: FastAPI) -> None:
    @app.websocket("/")
    async def me(socket: WebSocket, user: CurrentUser) -> None:
        await answer(socket, user.email)


def accepts_in_a_router(app: FastAPI) -> None:
    router = APIRouter(dependencies=[Depends(ACCESS.user)])

    @router.websocket("/")
    async def me(socket: WebSocket) -> None:
        await answer(socket, socket.state.cloudflare_access.email)

    app.include_router(router, dependencies=[Depends(ACCESS)])


def accepts_by_hand(app: FastAPI) -> None:
    @app.websocket("/")
    async def me(socket: WebSocket) -> None:
        await answer(socket, (await ACCESS.user(connection=socket)).email)


def accepts_inherited_scopes(app: FastAPI) -> None:
    router = APIRouter(dependencies=[Security(scopes_of_user, scopes=["write"])])

    @router.websocket("/")
    async def me(socket: WebSocket, scopes: Scopes) -> None:
        await answer(socket, EMAIL if scopes == ["read"] else None)

    app.include_router(router)


async def answer(socket: WebSocket, text: str | None) -> None:
    await socket.accept()
    await socket.send_text(str(text))
    await socket.close()


@pytest.mark.parametrize("build", [accepts_a_user, accepts_in_a_router, accepts_by_hand, accepts_inherited_scopes])
def test_a_websocket_that_is_declared_well_starts_and_answers(build: Build, client: Client) -> None:
    client.stage.app = built(build)
    start(client.stage.app)
    with connect(f"ws://{client.address}/", additional_headers=TEAM.headers(ADA_TOKEN), proxy=None) as socket:
        assert socket.recv() == EMAIL
    with pytest.raises(InvalidStatus, match="401"), connect(f"ws://{client.address}/", proxy=None):
        pytest.fail("accepted")


# Frontends


def of_app(site: Path, dependency: Any) -> FastAPI:
    app: Any = FastAPI(lifespan=ACCESS.lifespan, dependencies=[dependency])
    app.frontend("/", directory=site)
    return cast("FastAPI", app)


def of_router(site: Path, dependency: Any) -> FastAPI:
    app, router = FastAPI(lifespan=ACCESS.lifespan), cast("Any", APIRouter(dependencies=[dependency]))
    router.frontend("/", directory=site)
    app.include_router(router)
    return app


@pytest.mark.skipif(not HAS_FRONTEND, reason="this FastAPI serves no frontend")
@pytest.mark.parametrize("build", [of_app, of_router])
@pytest.mark.parametrize(
    "dependency",
    [
        pytest.param(Depends(ACCESS.user), id="a dependency"),
        pytest.param(
            Security(scopes_of_user, scopes=["read"]),
            id="inherited scopes",
            marks=pytest.mark.xfail(reason="a frontend has no endpoint, so the route check cannot find it"),
        ),
    ],
)
def test_a_frontend_is_served_to_a_user_only(
    build: Callable[[Path, Any], FastAPI], dependency: Any, client: Client, site: Path
) -> None:
    client.stage.app = build(site, dependency)
    start(client.stage.app)
    assert client.browser.get("/", headers=TEAM.headers(ADA_TOKEN)).text == "RAN"
    assert client.browser.get("/").status_code == 401
