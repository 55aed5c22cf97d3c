"""What is wrong in the declaration of a route is found before it is asked."""

import logging
from collections.abc import Hashable, Iterator
from functools import partial, wraps
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Security, WebSocket
from fastapi.dependencies.models import Dependant
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route
from starlette.testclient import TestClient, WebSocketDenialResponse

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, ServiceClaims, UserClaims
from fastapi_cloudflare_access._routes import check
from fastapi_cloudflare_access._routes.check import _classes, _shown, misuse_of, misuses
from fastapi_cloudflare_access.claims import BaseClaims, Claims
from fastapi_cloudflare_access.dependencies import Dependency
from fastapi_cloudflare_access.policies import Group
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

TEAM = FakeTeam("acme")
ADA = {"Cf-Access-Jwt-Assertion": TEAM.user_token("ada@example.com")}
access = CloudflareAccess(
    team_domain=TEAM.team_domain, audience=TEAM.audience, fetch=MemoryFetch(TEAM), clock=TEAM.clock
)
ADMIN = Security(access.user, scopes=["admin"])


async def ok() -> str:
    return "ok"


async def talk(socket: WebSocket) -> None:
    await socket.accept()


def current_user(user: Annotated[UserClaims, Depends(access.user)]) -> str:
    return str(user.email)


def sentences(app: object) -> list[str]:
    return [*misuses(app, Dependency)]


def on_route() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/x", ok, dependencies=[ADMIN])
    return app


def on_parameter() -> FastAPI:
    app = FastAPI()

    @app.get("/x")
    async def route(user: Annotated[UserClaims, Security(access.user, scopes=["admin"])]) -> str:
        return "ok"

    return app


def on_socket() -> FastAPI:
    app = FastAPI()
    app.add_api_websocket_route("/x", talk, dependencies=[ADMIN])
    return app


def on_router() -> FastAPI:
    app, router = FastAPI(), APIRouter(dependencies=[ADMIN])
    router.add_api_route("/x", ok)
    app.include_router(router)
    return app


def on_include() -> FastAPI:
    app, outer, router = FastAPI(), APIRouter(), APIRouter()
    router.add_api_route("/x", ok)
    outer.include_router(router, dependencies=[ADMIN])
    app.include_router(outer)
    return app


def on_app() -> FastAPI:
    app = FastAPI(dependencies=[ADMIN])
    app.add_api_route("/x", ok)
    return app


def below_a_dependency() -> FastAPI:
    async def own(user: Annotated[UserClaims, Security(access.user, scopes=["admin"])]) -> None: ...

    app = FastAPI()
    app.add_api_route("/x", ok, dependencies=[Depends(own)])
    return app


def on_included_socket() -> FastAPI:
    app, router = FastAPI(), APIRouter()
    router.add_api_websocket_route("/x", talk)
    app.include_router(router, dependencies=[ADMIN])
    return app


PLACES = [on_route, on_parameter, on_router, on_include, on_app, below_a_dependency]


@pytest.mark.conformance(104)
@pytest.mark.parametrize("place", [*PLACES, on_socket, on_included_socket])
def test_scopes_of_a_dependency_of_access_are_an_error_at_the_start_that_says_what_to_write(place: Any) -> None:
    app = place()
    (sentence,) = sentences(app)
    assert sentence.startswith("/x: Security(access.user, scopes=['admin']) asks for scopes")
    assert sentence.endswith("write Depends(access.require(policy))")
    app.router.lifespan_context = access.lifespan
    with pytest.raises(ConfigurationError, match="asks for scopes"), TestClient(app):
        pytest.fail("it started")


@pytest.mark.conformance(104)
@pytest.mark.parametrize("place", PLACES)
def test_without_a_lifespan_they_refuse_every_caller(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = TestClient(place())
    assert client.get("/x", headers=ADA).status_code == 403
    assert client.get("/x").status_code == 401
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the route is wrongly declared" in record.getMessage()


@pytest.mark.conformance(104)
@pytest.mark.parametrize("place", [on_socket, on_included_socket])
def test_without_a_lifespan_they_refuse_every_handshake(place: Any) -> None:
    with pytest.raises(WebSocketDenialResponse) as caught, TestClient(place()).websocket_connect("/x", headers=ADA):
        pytest.fail("accepted")
    assert caught.value.status_code == 403


def test_an_anonymous_caller_is_refused_too_where_the_dependency_is_optional() -> None:
    app = FastAPI()
    app.add_api_route("/x", ok, dependencies=[Security(access.optional, scopes=["admin"])])
    assert [TestClient(app).get("/x", headers=headers).status_code for headers in ({}, ADA)] == [403, 403]


def test_scopes_of_the_apps_own_dependency_go_on_to_work() -> None:
    app = FastAPI(lifespan=access.lifespan)

    @app.get("/x", dependencies=[Security(current_user, scopes=["own"])])
    async def route(email: Annotated[str, Security(current_user, scopes=["other"])]) -> str:
        return email

    assert sentences(app) == []
    with TestClient(app) as client:
        assert client.get("/x", headers=ADA).json() == "ada@example.com"
        assert client.get("/x").status_code == 401


def test_an_unknown_route_is_refused_if_it_asks_for_scopes() -> None:
    assert "not known to which route" in str(misuse_of({"app": FastAPI()}, Dependency))


def test_readiness_as_a_dependency_admits_no_caller(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    app.add_api_route("/x", ok, dependencies=[Depends(access.readiness)])
    assert TestClient(app).get("/x", headers=ADA).status_code == 403
    assert "Depends(access.readiness) admits every client: write Depends(access)" in caplog.text
    app.router.lifespan_context = access.lifespan
    with pytest.raises(ConfigurationError, match="admits every client"), TestClient(app):
        pytest.fail("it started")


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        (access.keys.on_refresh, "access.keys.on_refresh"),
        (access.user.__call__, "access.__call__"),
        (UserClaims.model_json_schema, "UserClaims.model_json_schema"),
    ],
    ids=["of the keys", "of a dependency", "of the claims"],
)
def test_a_method_of_the_package_as_a_dependency_is_an_error_at_the_start(method: Any, shown: str) -> None:
    app = FastAPI()
    app.router.dependencies.append(Depends(method))
    assert sentences(app) == [f"the whole app: Depends({shown}) admits every client: write Depends(access)"]


def test_readiness_as_a_dependency_of_a_websocket_admits_no_caller() -> None:
    app = FastAPI()
    app.add_api_websocket_route("/x", talk, dependencies=[Depends(access.readiness)])
    with pytest.raises(WebSocketDenialResponse) as caught, TestClient(app).websocket_connect("/x", headers=ADA):
        pytest.fail("accepted")
    assert caught.value.status_code == 403


def test_a_frontend_below_scopes_of_the_whole_app_is_an_error_at_the_start() -> None:
    app = FastAPI(dependencies=[ADMIN])
    assert [sentence[:14] for sentence in sentences(app)] == ["the whole app:"]


@pytest.mark.conformance(101)
@pytest.mark.parametrize(
    "annotation",
    [
        UserClaims,
        UserClaims | None,
        list[UserClaims],
        UserClaims | ServiceClaims,
        dict[str, list[UserClaims]],
        Annotated[UserClaims, Query()],
    ],
    ids=str,
)
def test_claims_as_a_parameter_are_an_error_at_the_start_that_says_what_to_write(annotation: Any) -> None:
    app = FastAPI(lifespan=access.lifespan)

    async def route(user: Any = None) -> str:
        pytest.fail("it ran")

    route.__annotations__["user"] = annotation
    app.add_api_route("/x", route, methods=["POST"])
    write = r"write user: Annotated\[UserClaims.*, Depends\(access(\.user)?\)\]"
    with (
        pytest.raises(ConfigurationError, match=rf"^/x: the parameter user takes UserClaims .*{write}"),
        TestClient(app),
    ):
        pytest.fail("it started")


def test_mounted_apps_are_looked_into() -> None:
    app, plain = FastAPI(), Starlette(routes=[Route("/", lambda request: None), Mount("/inner", on_route())])
    app.mount("/mounted", plain)
    assert len(sentences(app)) == 1


def test_apps_behind_middleware_and_apps_mounted_in_themselves_are_looked_into() -> None:
    app = FastAPI()
    app.mount("/zipped", GZipMiddleware(on_route()))
    app.mount("/again", app)
    assert len(sentences(app)) == 1


def test_scopes_of_the_apps_own_work_on_a_mounted_router_and_beside_a_wrong_route() -> None:
    app, raw = FastAPI(), APIRouter()
    raw.add_api_route("/", ok, dependencies=[Security(current_user, scopes=["own"])])
    app.mount("/raw", raw)
    app.add_api_route("/good", ok, dependencies=[Security(current_user, scopes=["own"])])
    app.add_api_route("/bad", ok, dependencies=[ADMIN])
    client = TestClient(app)
    statuses = {path: client.get(path, headers=ADA).status_code for path in ("/raw/", "/good", "/bad", "/good", "/bad")}
    assert statuses == {"/raw/": 200, "/good": 200, "/bad": 403}


def test_a_wrong_route_that_is_never_reached_refuses_no_caller_of_an_equal_one() -> None:
    app = FastAPI()
    for dependency in (Security(current_user, scopes=["own"]), ADMIN):
        app.add_api_route("/x", ok, dependencies=[dependency])
    assert TestClient(app).get("/x", headers=ADA).status_code == 200


def test_a_router_that_is_included_again_is_checked_again() -> None:
    app, router = FastAPI(), APIRouter()
    router.add_api_route("/x", ok, dependencies=[Security(current_user, scopes=["own"])])
    app.include_router(router)
    client = TestClient(app)
    assert client.get("/x", headers=ADA).status_code == 200
    app.include_router(router, prefix="/wrong", dependencies=[ADMIN])
    assert client.get("/wrong/x", headers=ADA).status_code == 403


def test_a_router_that_another_app_includes_too_is_checked_there() -> None:
    router, statuses = APIRouter(), []
    router.add_api_route("/x", ok, dependencies=[Security(current_user, scopes=["own"])])
    for dependencies in ([], [ADMIN], []):
        app = FastAPI()
        app.include_router(router, dependencies=dependencies)
        statuses.append(TestClient(app).get("/x", headers=ADA).status_code)
    assert statuses == [200, 403, 200]


def test_a_router_that_replaces_several_routes_is_checked() -> None:
    app, router = FastAPI(), APIRouter()
    router.add_api_route("/x", ok, dependencies=[Security(current_user, scopes=["own"])])
    app.include_router(router)
    client = TestClient(app)
    assert client.get("/x", headers=ADA).status_code == 200
    app.router.routes.clear()
    app.include_router(router, dependencies=[ADMIN])
    assert client.get("/x", headers=ADA).status_code == 403


@pytest.mark.parametrize("size", [1, 300])
def test_a_route_is_checked_once_for_each_app_as_long_as_the_app_does_not_change(monkeypatch: Any, size: int) -> None:
    looked_at: list[object] = []

    def wrong(dependant: object, _: object) -> Iterator[str]:
        looked_at.append(dependant)
        yield "wrong"

    monkeypatch.setattr(check, "_mistakes", wrong)
    route = SimpleNamespace(dependant=Dependant())
    scopes: Any = [{"route": route, "app": SimpleNamespace(routes=[None] * size)} for _ in range(2)]
    assert [misuse_of(scope, Dependency) for _ in range(3) for scope in scopes] == ["wrong"] * 6
    assert looked_at == [route.dependant] * 2


def test_a_partial_of_a_dependency_is_looked_into() -> None:
    app = FastAPI()
    app.add_api_route("/x", ok, dependencies=[Security(partial(access.user), scopes=["admin"])])
    assert len(sentences(app)) == 1
    assert TestClient(app).get("/x", headers=ADA).status_code == 403


def test_an_annotation_that_cannot_be_resolved_is_an_error_at_the_start() -> None:
    async def route(user: Any = None) -> None: ...

    route.__annotations__["user"] = "Annotated[UserClaims, Depends(nowhere.user)]"
    app = FastAPI()
    app.add_api_route("/x", route)
    (sentence,) = sentences(app)
    assert sentence.startswith("/x: the annotation of the parameter user cannot be resolved")


def test_an_app_without_a_mistake_and_what_is_no_app_have_none() -> None:
    app = FastAPI(dependencies=[Depends(access)])
    app.add_api_route("/ready", access.readiness)

    @app.get("/me")
    async def me(request: Request, user: Annotated[UserClaims, Depends(access.user)], q: str = "") -> UserClaims:
        return user

    assert [*sentences(app), *sentences(None), *sentences(object())] == []


class Employee(UserClaims):
    """A model of the app's own."""


class Contractor(UserClaims):
    """Another one."""


def written(annotation: str, dependency: str) -> str:
    return f"caller: Annotated[{annotation}, Depends(access.{dependency})]"


EITHER = "caller: Annotated[UserClaims | ServiceClaims, Depends(access)]"
ANYONE, SERVICE = written("UserClaims | ServiceClaims | None", "optional"), written("ServiceClaims", "service")
MODEL = "CloudflareAccess(user_model=Employee)"
STAFF = CloudflareAccess(team_domain="acme", audience=TEAM.audience, user_model=Employee)


@pytest.mark.conformance(105)
@pytest.mark.parametrize(
    ("annotation", "dependency", "ends"),
    [
        (UserClaims, "optional", f"also returns ServiceClaims | None: write {ANYONE}, or use access.user"),
        (UserClaims | None, "optional", f"also returns ServiceClaims: write {ANYONE}"),
        (UserClaims | ServiceClaims, "optional", f"also returns None: write {ANYONE}, or use access"),
        (UserClaims, "access", f"also returns ServiceClaims: write {EITHER}, or use access.user"),
        (None | UserClaims, "access", f"also returns ServiceClaims: write {EITHER}, or use access.user"),
        (ServiceClaims, "access", f"also returns UserClaims: write {EITHER}, or use access.service"),
        (ServiceClaims, "user", f"returns UserClaims: write {written('UserClaims', 'user')}, or use access.service"),
        (UserClaims, "service", f"returns ServiceClaims: write {SERVICE}, or use access.user"),
        (Employee, "service", f"returns ServiceClaims: write {SERVICE}, or use access.user"),
        (UserClaims, "identity", f"returns Identity: write {written('Identity', 'identity')}, or use access.user"),
        (Employee, "user", f"returns UserClaims: write {MODEL}"),
        (Employee, "access", f"returns UserClaims | ServiceClaims: write {MODEL}"),
        (Employee | None, "optional", f"also returns UserClaims | ServiceClaims: write {MODEL}"),
        (Employee | Contractor, "user", f"returns UserClaims: write {MODEL}"),
    ],
)  # fmt: skip
def test_a_parameter_that_is_annotated_with_less_than_it_receives_is_an_error_at_the_start(
    annotation: Any, dependency: str, ends: str
) -> None:
    access = CloudflareAccess(team_domain="acme", audience=TEAM.audience)
    node = access if dependency == "access" else getattr(access, dependency)
    app = FastAPI(lifespan=access.lifespan)

    async def handler(caller: Any) -> None: ...

    handler.__annotations__["caller"] = Annotated[annotation, Depends(node)]
    app.add_api_route("/", handler)
    with pytest.raises(ConfigurationError) as wrong, TestClient(app):
        pass
    start = f"/: the parameter caller is annotated with {_shown(_classes(annotation))}, and {node.expression}"
    assert str(wrong.value) == f"{start} {ends}"


class Manager(Employee):
    """A model below that of the app."""


def test_a_parameter_with_another_model_than_that_of_the_app_is_told_the_model_of_the_app() -> None:
    app = FastAPI()

    @app.get("/")
    async def handler(caller: Annotated[Manager, Depends(STAFF.user)]) -> None: ...

    (sentence,) = sentences(app)
    assert sentence.endswith(f"with Manager, and access.user returns Employee: write {written('Employee', 'user')}")


@pytest.mark.parametrize(
    ("annotation", "node"),
    [
        (UserClaims | ServiceClaims | None, STAFF.optional), (Employee | ServiceClaims, STAFF), (Employee, STAFF.user),
        (UserClaims, STAFF.user), (BaseClaims, STAFF), (Claims, STAFF), (Any, STAFF.optional), (object, STAFF.optional),
        ("Any", STAFF), (Hashable, STAFF), (list[UserClaims], STAFF), (UserClaims | str, STAFF),
    ],
    ids=range(12),
)  # fmt: skip
def test_an_annotation_that_covers_the_result_or_says_nothing_of_claims_is_admitted(annotation: Any, node: Any) -> None:
    app = FastAPI(lifespan=STAFF.lifespan)

    async def handler(caller: Any) -> None: ...

    handler.__annotations__["caller"] = Annotated[annotation, Depends(node)]
    app.add_api_route("/", handler)
    assert [*misuses(app, Dependency)] == []


LOST = {
    "optional": (lambda access: access.optional, r"access\.optional in dependencies=\[…\] guards nothing"),
    "roles": (
        lambda access: access.roles({"admin": Group("admins")}),
        r"access\.roles\(…\) in dependencies=\[…\] admits callers without a role too.*receive the roles in a parameter",
    ),
    "roles of either": (
        lambda access: (access | access.with_audience("2" * 64)).roles({"admin": Group("admins")}),
        r"access\.roles\(…\) in dependencies=\[…\] admits callers without a role too",
    ),
    "partial": (
        lambda access: partial(access.roles({"admin": Group("admins")})),
        r"access\.roles\(…\) in dependencies=\[…\] admits callers without a role too",
    ),
}


@pytest.mark.conformance(105)
@pytest.mark.parametrize("place", ["route", "router", "router in a router", "include", "app", "mounted app"])
@pytest.mark.parametrize(("node", "sentence"), LOST.values(), ids=LOST)
def test_a_dependency_that_refuses_too_few_where_its_result_is_lost_is_an_error_there(
    place: str, node: Any, sentence: str
) -> None:
    access = CloudflareAccess(team_domain="acme", audience=TEAM.audience)
    lost = [Depends(node(access))]
    places = ("route", "router", "router in a router", "include", "app", "mounted app")
    given: dict[str, list[Any]] = {one: lost if one == place else [] for one in places}
    app = FastAPI(lifespan=access.lifespan, dependencies=given["app"])
    inner, router = APIRouter(dependencies=given["router in a router"]), APIRouter(dependencies=given["router"])
    inner.add_api_route("/", lambda: None, dependencies=given["route"])
    router.include_router(inner)
    app.include_router(router, dependencies=given["include"])
    mounted = FastAPI(dependencies=given["mounted app"])
    mounted.add_api_route("/", lambda: None)
    app.mount("/mounted", mounted)
    with pytest.raises(ConfigurationError, match=sentence), TestClient(app):
        pass


def test_roles_that_a_function_receives_are_no_mistake_wherever_that_function_is() -> None:
    access = CloudflareAccess(team_domain="acme", audience=TEAM.audience)
    roles = access.roles({"admin": Group("admins")})

    def admins_only(found: Annotated[frozenset[str], Depends(roles)]) -> None: ...

    app = FastAPI(dependencies=[Depends(admins_only)])
    app.add_api_route("/", lambda: None)
    assert [*misuses(app, Dependency)] == []


@pytest.mark.parametrize(
    ("annotation", "write"),
    [
        (ServiceClaims, "Annotated[ServiceClaims, Depends(access.service)]"),
        (UserClaims | ServiceClaims, "Annotated[UserClaims | ServiceClaims, Depends(access)]"),
        (UserClaims, "Annotated[UserClaims, Depends(access.user)]"),
    ],
)
def test_the_advice_for_claims_as_a_parameter_fits_their_kind(annotation: Any, write: str) -> None:
    app = FastAPI()

    async def handler(caller: Any) -> None: ...

    handler.__annotations__["caller"] = annotation
    app.add_api_route("/", handler, methods=["POST"])
    (mistake,) = misuses(app, Dependency)
    assert mistake.endswith(f"write caller: {write}")


# methods

AS_A_METHOD = "write a function, and take the caller in a parameter: user: Annotated[UserClaims, Depends(access.user)]"


class View:
    """Routes in a class, as other frameworks have them."""

    router = APIRouter()
    user: UserClaims = Depends(access.user)

    @router.get("/method")
    def method(self, page: int = 1) -> str:
        return "ok"

    @router.websocket("/socket")
    async def socket(self, socket: WebSocket) -> None: ...

    @router.post("/body")
    def body(self: dict[str, str]) -> None: ...  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]

    @router.get("/path/{self}")
    def path(self) -> None: ...

    @router.get("/default")
    def default(self: Any = None) -> None: ...

    @classmethod
    @router.get("/class")
    def of_the_class(cls) -> None: ...

    @staticmethod
    @router.get("/static")
    def static(item: str) -> None: ...

    def bound(self, page: int = 1) -> None: ...

    def __call__(self, page: int = 1) -> None: ...


def test_a_method_that_is_registered_as_a_function_is_an_error_at_the_start_that_says_what_to_write() -> None:
    app = FastAPI(lifespan=access.lifespan)
    app.include_router(View.router)
    names = {"/method": "method", "/socket": "socket", "/body": "body", "/path/{self}": "path", "/default": "default"}
    expected = [f"{path}: View.{name} is a method, and takes self from the request: {AS_A_METHOD}"
                for path, name in names.items()]  # fmt: skip
    of_the_class = f"/class: View.of_the_class is a method, and takes cls from the request: {AS_A_METHOD}"
    assert sentences(app) == [*expected, of_the_class]
    with pytest.raises(ConfigurationError, match=r"^/method: View\.method is a method"), TestClient(app):
        pytest.fail("it started")


def test_a_method_is_named_without_the_function_around_its_class() -> None:
    class Inner:
        def me(self) -> None: ...

    app = FastAPI()
    app.add_api_route("/", ok, dependencies=[Depends(Inner.me)])
    assert sentences(app) == [f"/: Inner.me is a method, and takes self from the request: {AS_A_METHOD}"]


def test_a_method_without_its_class_is_still_one() -> None:
    moved: dict[str, Any] = {}
    exec("def moved(self): ...", moved)  # noqa: S102 - without an annotation, unlike the functions of this module
    app = FastAPI()
    method: Any = View.bound
    app.add_api_route("/partial", partial(method, self=None))
    app.add_api_route("/moved", moved["moved"])
    assert [sentence.partition(",")[0] for sentence in sentences(app)] == [
        "/partial: View.bound is a method",
        "/moved: moved is a method",
    ]


def test_what_has_its_object_and_a_parameter_that_is_only_named_self_are_admitted() -> None:
    app = FastAPI(dependencies=[Depends(View)])
    for path, function in (("/bound", View().bound), ("/called", View()), ("/partial", partial(View.bound, View()))):
        app.add_api_route(path, function)

    @app.get("/caller")
    async def caller(self: Annotated[UserClaims, Depends(access.user)]) -> None: ...

    @app.get("/text")
    async def text(self: str, cls: Annotated[str, Query()] = "first") -> None: ...

    assert sentences(app) == []


class Search:
    """Functions with a filter that is named `cls`; the class has the filter as a parameter too."""

    def __init__(self, cls: str = "") -> None: ...

    def __call__(self, cls: str = "") -> None: ...

    def of_object(self, cls: str = "") -> None: ...

    @wraps(of_object)
    def wrapped(self, *values: Any, **named: Any) -> None: ...

    @staticmethod
    def without_object(cls: str) -> None: ...  # noqa: PLW0211  # pyright: ignore[reportSelfClsParameterName]


class OtherSelf:
    """A function with a filter that is named `self`."""

    def __call__(this, self) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001, N805  # pyright: ignore[reportSelfClsParameterName, reportMissingParameterType]


class Outer:
    """A class with another one in it."""

    class Inner(Search):
        """A class whose name has a dot."""


def test_a_filter_named_cls_is_admitted_wherever_its_function_has_its_object_or_needs_none() -> None:
    loose: dict[str, Any] = {}
    without_annotations = "def last(page, cls): ...\ndef last_too(always, self): ...\ndef default(cls=None): ..."
    exec(without_annotations, loose)  # noqa: S102
    one, inner = Search(), Outer.Inner()
    functions = (one.of_object, one.wrapped, partial(Search.of_object, one), Search.without_object, Outer.Inner, inner)
    app = FastAPI()
    for number, function in enumerate((*functions, loose["last"], loose["last_too"], loose["default"], OtherSelf())):
        app.add_api_route(f"/{number}", ok, dependencies=[Depends(function)])
    assert sentences(app) == []
