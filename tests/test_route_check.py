"""What is wrong in the declaration of a route is found before it is asked."""

import logging
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Security, WebSocket
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route
from starlette.testclient import TestClient, WebSocketDenialResponse

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, ServiceClaims, UserClaims
from fastapi_cloudflare_access._route_check import misuse_of, misuses
from fastapi_cloudflare_access.dependencies import Dependency
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


@pytest.mark.parametrize("place", [*PLACES, on_socket, on_included_socket])
def test_scopes_of_a_dependency_of_access_are_an_error_at_the_start_that_says_what_to_write(place: Any) -> None:
    app = place()
    (sentence,) = sentences(app)
    assert sentence.startswith("/x: Security(access.user, scopes=['admin']) asks for scopes")
    assert sentence.endswith("write Depends(access.require(policy))")
    app.router.lifespan_context = access.lifespan
    with pytest.raises(ConfigurationError, match="asks for scopes"), TestClient(app):
        pytest.fail("it started")


@pytest.mark.parametrize("place", PLACES)
def test_without_a_lifespan_they_refuse_everybody(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = TestClient(place())
    assert client.get("/x", headers=ADA).status_code == 403
    assert client.get("/x").status_code == 401
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the route is wrongly declared" in record.getMessage()


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


def test_a_route_that_cannot_be_told_is_refused_where_scopes_are_asked() -> None:
    assert "not known to which route" in str(misuse_of({"app": FastAPI()}, Dependency))


def test_readiness_as_a_dependency_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    app.add_api_route("/x", ok, dependencies=[Depends(access.readiness)])
    assert TestClient(app).get("/x", headers=ADA).status_code == 403
    assert "admits every client: write Depends(access)" in caplog.text
    app.router.lifespan_context = access.lifespan
    with pytest.raises(ConfigurationError, match="admits every client"), TestClient(app):
        pytest.fail("it started")


def test_readiness_as_a_dependency_of_a_websocket_lets_nobody_in() -> None:
    app = FastAPI()
    app.add_api_websocket_route("/x", talk, dependencies=[Depends(access.readiness)])
    with pytest.raises(WebSocketDenialResponse) as caught, TestClient(app).websocket_connect("/x", headers=ADA):
        pytest.fail("accepted")
    assert caught.value.status_code == 403


def test_a_frontend_below_scopes_of_the_whole_app_is_an_error_at_the_start() -> None:
    app = FastAPI(dependencies=[ADMIN])
    assert [sentence[:14] for sentence in sentences(app)] == ["the whole app:"]


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
    write = r"write user: Annotated\[UserClaims.*, Depends\(access\.user\)\]"
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


def test_a_router_that_is_included_again_is_checked_again() -> None:
    app, router = FastAPI(), APIRouter()
    router.add_api_route("/x", ok, dependencies=[Security(current_user, scopes=["own"])])
    app.include_router(router)
    client = TestClient(app)
    assert client.get("/x", headers=ADA).status_code == 200
    app.include_router(router, prefix="/wrong", dependencies=[ADMIN])
    assert client.get("/wrong/x", headers=ADA).status_code == 403


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
