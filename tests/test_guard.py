"""The guard protects every path of an app, and answers to callers are private."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from traceback import walk_tb
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from fastapi_cloudflare_access import (
    AccessHTTPException,
    AccessWebSocketException,
    CloudflareAccess,
    ConfigurationError,
    UserClaims,
)
from fastapi_cloudflare_access._verifier import Verifier
from fastapi_cloudflare_access.events import AccessEvent, RequestAccepted, RequestRejected
from fastapi_cloudflare_access.guard import AccessGuard, PrivateResponses
from fastapi_cloudflare_access.policies import Email, Group
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam, MemoryFetch, override

TEAM = FakeTeam("acme")
ADA = TEAM.headers(TEAM.user_token("ada@example.com", groups=["engines"]))
BOB = TEAM.headers(TEAM.user_token("bob@example.com"))
BOT = TEAM.headers(TEAM.service_token("deploy-bot"))
PRIVATE = "private, no-cache"
SECRET = "a secret"


def make(**options: Any) -> CloudflareAccess[Any]:
    given: dict[str, Any] = {
        "team_domain": TEAM.team_domain,
        "audience": TEAM.audience,
        "fetch": MemoryFetch(TEAM),
        "clock": TEAM.clock,
        "user_model": UserClaims,
    }
    return CloudflareAccess(**(given | options))


@pytest.fixture
def access() -> CloudflareAccess[Any]:
    return make()


async def secret() -> str:
    return SECRET


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(SECRET)
    await socket.close()


def is_ada(caller: object) -> bool:
    return isinstance(caller, UserClaims) and caller.email == "ada@example.com"


def app_of(access: CloudflareAccess[Any], **options: Any) -> FastAPI:
    """An app with everything that an app can have, behind the guard."""
    app = FastAPI(lifespan=access.lifespan)
    app.add_api_route("/", secret)
    app.add_api_route("/healthz", secret)
    app.add_api_websocket_route("/healthz", talk)
    app.add_api_websocket_route("/feed", talk)
    app.add_route("/plain", lambda _: PlainTextResponse(SECRET))
    inner = FastAPI()
    inner.add_api_route("/", secret)
    inner.add_api_route("/healthz", secret)
    inner.add_api_websocket_route("/feed", talk)
    app.mount("/inner", inner)
    app.mount("/files", PlainTextResponse(SECRET))
    app.add_middleware(AccessGuard, access=access, **options)
    return app


EVERYTHING = [
    "/",
    "/healthz",
    "/plain",
    "/inner/",
    "/inner/docs",
    "/files/a.csv",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
    "/openapi.json",
]


@pytest.mark.conformance(51, 108)
@pytest.mark.parametrize("path", EVERYTHING)
def test_every_path_needs_a_token_even_the_documentation_mounts_and_files(
    access: CloudflareAccess[Any], path: str
) -> None:
    with TestClient(app_of(access)) as client:
        refused = client.get(path)
        assert (refused.status_code, refused.json()) == (401, {"detail": "No Cloudflare Access token"})
        assert refused.headers["www-authenticate"] == "Cloudflare-Access"
        assert client.get(path, headers=ADA).status_code == 200


@pytest.mark.conformance(51)
def test_a_path_that_does_not_exist_is_found_out_by_callers_alone(access: CloudflareAccess[Any]) -> None:
    with TestClient(app_of(access)) as client:
        assert client.get("/nothing").status_code == 401
        assert client.delete("/").status_code == 401
        assert client.get("/nothing", headers=ADA).status_code == 404
        assert client.delete("/", headers=ADA).status_code == 405


@pytest.mark.conformance(51)
@pytest.mark.parametrize("path", ["/feed", "/inner/feed", "/healthz", "/nothing"])
def test_a_websocket_needs_a_token_on_every_path(access: CloudflareAccess[Any], path: str) -> None:
    with TestClient(app_of(access, exempt=["/healthz", "/feed"])) as client:
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(path):
            pass
        assert refused.value.status_code == 401
        if path != "/nothing":
            with client.websocket_connect(path, headers=ADA) as socket:
                assert socket.receive_text() == SECRET


@pytest.mark.conformance(52)
def test_exempt_paths_are_whole_paths_and_none_is_exempt_by_default(access: CloudflareAccess[Any]) -> None:
    with TestClient(app_of(access)) as client:
        assert client.get("/healthz").status_code == 401
    with TestClient(app_of(access, exempt=["/healthz", "/inner/healthz"])) as client:
        for path in ("/healthz", "/healthz?next=/", "/inner/healthz"):
            assert (path, client.get(path).text) == (path, f'"{SECRET}"')
        assert client.post("/healthz").status_code == 405
        for path in (
            "/",
            "/healthz/",
            "/healthz;x",
            "/HEALTHZ",
            "/inner/",
            "/inner/healthz/",
            "/healthz2",
            "//healthz",
        ):
            assert (path, client.get(path).status_code) == (path, 401)


@pytest.mark.conformance(52)
def test_an_exempt_path_of_a_mounted_guard_is_the_path_that_the_mounted_app_sees(
    access: CloudflareAccess[Any],
) -> None:
    inner = FastAPI()
    inner.add_api_route("/healthz", secret)
    inner.add_api_route("/inner/healthz", secret)
    app = FastAPI()
    app.mount("/inner", AccessGuard(inner, access=access, exempt=["/healthz"]))
    client = TestClient(app)
    assert client.get("/inner/healthz").status_code == 200
    assert client.get("/inner/inner/healthz").status_code == 401


@pytest.mark.conformance(52)
@pytest.mark.parametrize("root_path", ["/api", "/api/v1"])
def test_the_root_path_is_no_part_of_an_exempt_path(access: CloudflareAccess[Any], root_path: str) -> None:
    client = TestClient(app_of(access, exempt=["/healthz"]), root_path=root_path)
    assert client.get(f"{root_path}/healthz").status_code == 200
    assert client.get(f"{root_path}/{root_path}/healthz").status_code == 401
    assert client.get(f"{root_path}healthz").status_code == 401
    assert client.get(f"{root_path}/").status_code == 401


def test_the_root_path_that_a_wrapped_app_sets_is_the_one_that_counts(access: CloudflareAccess[Any]) -> None:
    app = FastAPI()
    app.root_path = "/api"
    app.add_api_route("/healthz", secret)
    app.add_api_route("/api/healthz", secret)
    client = TestClient(AccessGuard(app, access=access, exempt=["/healthz"]))
    assert client.get("/healthz").status_code == 200
    assert client.get("/api/healthz").status_code == 200
    assert client.get("/api/api/healthz").status_code == 401


@pytest.mark.conformance(61)
def test_options_needs_a_token_and_cors_middleware_outside_answers_preflights(access: CloudflareAccess[Any]) -> None:
    app = app_of(access)
    app.add_middleware(CORSMiddleware, allow_origins=["https://page.example"], allow_methods=["DELETE"])
    client = TestClient(app)
    preflight = {"Origin": "https://page.example", "Access-Control-Request-Method": "DELETE"}
    answered = client.options("/", headers=preflight)
    assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (200, "https://page.example")
    refused = client.get("/", headers={"Origin": "https://page.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://page.example")
    assert client.options("/").status_code == 401
    assert TestClient(app_of(access)).options("/", headers=preflight).status_code == 401


# one verification


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Record each search for a token."""
    seen: list[object] = []
    real = Verifier.authenticate_at_once

    def counting(self: Verifier[Any], headers: Any) -> Any:
        seen.append(headers)
        return real(self, headers)

    monkeypatch.setattr(Verifier, "authenticate_at_once", counting)
    return seen


@pytest.mark.conformance(58)
def test_dependencies_behind_the_guard_reuse_its_verification_in_mounts_too(
    access: CloudflareAccess[Any], verified: list[object]
) -> None:
    inner = FastAPI(dependencies=[Depends(access)])

    @inner.get("/me")
    async def me(request: Request, user: Annotated[UserClaims, Depends(access.user)]) -> str:
        assert request.state.cloudflare_access is user
        return str(user.email)

    app = app_of(access)
    app.mount("/deep", AccessGuard(inner, access=access, policy=is_ada))
    client = TestClient(app)
    assert client.get("/deep/me", headers=ADA).json() == "ada@example.com"
    assert client.get("/deep/me", headers=BOB).status_code == 403
    assert len(verified) == 2


def test_a_middleware_that_copies_the_scope_shares_the_verification(
    access: CloudflareAccess[Any], verified: list[object]
) -> None:
    class Copying:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope}, receive, send)

    app = FastAPI(dependencies=[Depends(access)])
    app.add_api_route("/", secret)
    client = TestClient(AccessGuard(Copying(app), access=access))
    assert client.get("/", headers=ADA).status_code == 200
    assert len(verified) == 1


@pytest.mark.conformance(58)
def test_what_one_object_accepts_is_not_accepted_by_another(access: CloudflareAccess[Any]) -> None:
    inner = FastAPI()
    inner.add_api_route("/", secret)
    app = app_of(access)
    app.mount("/other", AccessGuard(inner, access=access.with_audience("f" * 64)))
    assert TestClient(app).get("/other/", headers=ADA).status_code == 401


@pytest.mark.conformance(58)
def test_state_that_an_app_or_a_middleware_writes_admits_no_request(access: CloudflareAccess[Any]) -> None:
    caller = TEAM.user("ada@example.com")

    class Spoofing:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            state = {"cloudflare_access": caller, "access": caller, "user": caller}
            outcomes = {"fastapi_cloudflare_access.outcomes": {"access": (scope["headers"], caller)}}
            await self.app({**scope, "state": state, "user": caller, "auth": caller, **outcomes}, receive, send)

    client = TestClient(Spoofing(app_of(access)))
    assert client.get("/").status_code == 401
    app = FastAPI()
    app.mount("/inner", Spoofing(AccessGuard(PlainTextResponse(SECRET), access=access)))
    assert TestClient(app).get("/inner/").status_code == 401


def test_one_event_per_request_says_what_became_of_it() -> None:
    events: list[AccessEvent] = []
    access = make(listeners=[events.append])
    client = TestClient(app_of(access, policy=Email("ada@example.com")))
    client.get("/", headers=ADA)
    client.get("/")
    client.get("/", headers=BOB)
    accepted, missing, accepted_again, refused = [
        event for event in events if isinstance(event, RequestAccepted | RequestRejected)
    ]
    assert isinstance(accepted, RequestAccepted)
    assert isinstance(accepted_again, RequestAccepted)
    assert isinstance(missing, RequestRejected)
    assert isinstance(refused, RequestRejected)
    assert (missing.reason, missing.method, missing.route) == ("missing_token", "GET", None)
    assert (refused.reason, refused.policy) == ("forbidden", repr(Email("ada@example.com")))


def test_an_override_replaces_the_caller_of_the_guard_too(access: CloudflareAccess[Any]) -> None:
    client = TestClient(app_of(access, policy=is_ada))
    with override(access, TEAM.user("ada@example.com")):
        assert client.get("/inner/").status_code == 200
    with override(access, TEAM.user("bob@example.com")):
        assert client.get("/").status_code == 403
    with override(access, None):
        assert client.get("/", headers=ADA).status_code == 401


# policies


@pytest.mark.parametrize(
    "policy", [is_ada, Email("ada@example.com"), Group("engines")], ids=["function", "email", "group"]
)
def test_a_policy_admits_only_the_callers_for_which_it_is_true(access: CloudflareAccess[Any], policy: Any) -> None:
    client = TestClient(app_of(access, policy=policy, exempt=["/healthz"]))
    assert client.get("/", headers=ADA).status_code == 200
    for caller in (BOB, BOT):
        refused = client.get("/", headers=caller)
        assert (refused.status_code, refused.json()) == (403, {"detail": "This caller is not allowed here"})
    assert client.get("/").status_code == 401
    assert client.get("/healthz", headers=BOB).status_code == 200


@pytest.mark.conformance(72)
def test_a_policy_that_fails_refuses(access: CloudflareAccess[Any]) -> None:
    def broken(caller: object) -> bool:
        raise RuntimeError(str(caller))

    assert TestClient(app_of(access, policy=broken)).get("/", headers=ADA).status_code == 403


# refusals


SENT: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "two headers": [("Cf-Access-Jwt-Assertion", "a.b.c"), ("Cf-Access-Jwt-Assertion", "a.b.c")],
    "empty cookie": [("Cookie", "CF_Authorization=")],
    "bearer": [("Authorization", f"Bearer {ADA['Cf-Access-Jwt-Assertion']}")],
    **{name: [("Cf-Access-Jwt-Assertion", TEAM.forge(name))] for name in FORGERIES},
}


@pytest.fixture(scope="module")
def both() -> Iterator[TestClient]:
    """The same object as a dependency, and as a guard."""
    access = make()
    app = FastAPI(lifespan=access.lifespan)
    app.add_api_route("/dependency", secret, dependencies=[Depends(access)])
    app.add_api_websocket_route("/dependency", talk, dependencies=[Depends(access)])
    app.mount("/guard", AccessGuard(FastAPI(), access=access))
    with TEAM.patch(access), TestClient(app) as client:
        yield client


@pytest.mark.parametrize("sent", SENT.values(), ids=list(SENT))
def test_a_refusal_is_what_a_dependency_sends(both: TestClient, sent: list[tuple[str, str]]) -> None:
    by_dependency, by_guard = (both.get(path, headers=sent) for path in ("/dependency", "/guard/"))
    assert by_guard.status_code == 401
    assert (by_guard.headers, by_guard.json()) == (by_dependency.headers, by_dependency.json())
    for path in ("/dependency", "/guard/"):
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            both.websocket_connect(path, headers=type(both.headers)(sent)),
        ):
            pass
        assert (refused.value.status_code, refused.value.json()) == (401, by_dependency.json())


def test_without_keys_the_answer_is_503() -> None:
    fetch = MemoryFetch(TEAM)
    fetch.fail_with(500)
    access = make(fetch=fetch)
    refused = TestClient(app_of(access)).get("/", headers=ADA)
    assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)


@pytest.mark.anyio
@pytest.mark.parametrize(("keys", "code"), [(True, 1008), (False, 1013)])
async def test_a_server_that_can_only_close_closes_before_it_accepts(keys: bool, code: int) -> None:  # noqa: FBT001
    fetch = MemoryFetch(TEAM)
    if not keys:
        fetch.fail_with(500)
    guard = AccessGuard(app_of(make()), access=make(fetch=fetch))
    scope = {"type": "websocket", "path": "/feed", "query_string": b"", "subprotocols": []}
    headers = [] if keys else [(name.lower().encode(), value.encode()) for name, value in ADA.items()]
    (message,) = await messages(guard, {**scope, "headers": headers})
    assert (message["type"], message["code"]) == ("websocket.close", code)


async def messages(app: ASGIApp, scope: Scope) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def problem(request: Request, refused: Exception) -> JSONResponse:
    assert isinstance(refused, AccessHTTPException)
    return JSONResponse({"reason": refused.error.reason, "app": request.app.title}, refused.status_code)


async def broken_handler(_: Request, refused: Exception) -> JSONResponse:
    raise RuntimeError(type(refused).__name__)


@pytest.mark.parametrize("kind", [AccessHTTPException, HTTPException, 401])
def test_a_refusal_goes_through_the_exception_handlers_of_the_app(access: CloudflareAccess[Any], kind: Any) -> None:
    app = app_of(access)
    app.title = "mine"
    app.add_exception_handler(kind, problem)
    refused = TestClient(app).get("/")
    assert (refused.status_code, refused.json()) == (401, {"reason": "missing_token", "app": "mine"})


def test_a_mounted_app_has_its_own_handlers_and_other_apps_those_of_the_app_around(
    access: CloudflareAccess[Any],
) -> None:
    inner = FastAPI(title="inner")
    inner.add_exception_handler(AccessHTTPException, problem)
    app = FastAPI(title="outer")
    app.add_exception_handler(AccessHTTPException, problem)
    app.mount("/inner", AccessGuard(BaseHTTPMiddleware(inner), access=access))
    app.mount("/default", AccessGuard(FastAPI(), access=access))
    app.mount("/files", AccessGuard(StaticFiles(directory="."), access=access))
    app.mount("/routes", Mount("/", routes=[], middleware=[Middleware(AccessGuard, access=access)]))
    client = TestClient(app)
    assert client.get("/inner/").json() == {"reason": "missing_token", "app": "inner"}
    assert client.get("/default/").json() == {"detail": "No Cloudflare Access token"}
    assert client.get("/files/").json() == {"reason": "missing_token", "app": "outer"}
    assert client.get("/routes/").json() == {"reason": "missing_token", "app": "outer"}


def test_handlers_of_server_errors_are_not_for_refusals_and_see_the_errors_of_a_handler(
    access: CloudflareAccess[Any],
) -> None:
    app = app_of(access)
    app.add_exception_handler(Exception, lambda *_: JSONResponse("broken", 500))
    app.add_exception_handler(500, lambda *_: JSONResponse("broken", 500))
    client = TestClient(app, raise_server_exceptions=False)
    assert client.get("/").status_code == 401
    app.add_exception_handler(AccessHTTPException, broken_handler)
    answered = client.get("/")
    assert (answered.status_code, answered.json()) == (500, "broken")


def test_an_exception_handler_gets_no_frame_that_holds_the_token(access: CloudflareAccess[Any]) -> None:
    frames: list[str] = []

    def record(_: Request, refused: Exception) -> JSONResponse:
        frames.extend(frame.f_code.co_filename for frame, _ in walk_tb(refused.__traceback__))
        assert refused.__context__ is None
        return JSONResponse({}, 401)

    app = app_of(access)
    app.add_exception_handler(AccessHTTPException, record)
    assert TestClient(app).get("/", headers=TEAM.headers(TEAM.forge("expired"))).status_code == 401
    assert frames
    assert [frame for frame in frames if frame.endswith(("guard.py", "dependencies.py", "_authentication.py"))] == []


def test_a_close_of_a_handshake_goes_through_a_handler_too(access: CloudflareAccess[Any]) -> None:
    async def close(socket: WebSocket, refused: Exception) -> None:
        assert isinstance(refused, AccessWebSocketException)
        await socket.close(4401, refused.error.reason)

    class WithoutDenials:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "extensions": {}}, receive, send)

    app = app_of(access)
    app.add_exception_handler(AccessWebSocketException, close)
    client = TestClient(WithoutDenials(app))
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/feed"):
        pass
    assert (closed.value.code, closed.value.reason) == (4401, "missing_token")


def test_an_app_of_any_framework_is_guarded(access: CloudflareAccess[Any]) -> None:
    plain = TestClient(AccessGuard(PlainTextResponse(SECRET), access=access))
    assert plain.get("/").json() == {"detail": "No Cloudflare Access token"}
    assert plain.get("/", headers=ADA).text == SECRET
    routes = [Route("/", lambda _: PlainTextResponse(SECRET))]
    app = Starlette(routes=routes, middleware=[Middleware(AccessGuard, access=access)])
    assert TestClient(app).get("/").json() == {"detail": "No Cloudflare Access token"}
    assert TestClient(app).get("/", headers=ADA).text == SECRET


@pytest.mark.conformance(59)
@pytest.mark.anyio
async def test_a_connection_of_an_unknown_type_is_not_passed_on(access: CloudflareAccess[Any]) -> None:
    with pytest.raises(ConfigurationError, match="no other protocol"):
        await messages(app_of(access), {"type": "webtransport", "path": "/", "headers": []})


# exempt paths that are not served


async def lifespan(app: ASGIApp, *, at_shutdown: Callable[[], object] = lambda: None) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        if not sent:
            return {"type": "lifespan.startup"}
        at_shutdown()
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "lifespan", "state": {}}, receive, send)
    return sent


@pytest.mark.conformance(109)
@pytest.mark.anyio
async def test_an_exempt_path_that_is_not_served_is_logged_when_the_app_has_started(
    access: CloudflareAccess[Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(access, exempt=["/healthz", "/health", "/inner/healthz", "/inner/health", "/files/a.css", "/docs"])
    logged: list[str] = []
    sent = await lifespan(app, at_shutdown=lambda: logged.extend(caplog.messages))
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert logged == caplog.messages
    assert logged == [
        f"the exempt path {path} is not served by the app behind the guard" for path in ("/health", "/inner/health")
    ]


@pytest.mark.anyio
async def test_an_app_that_does_not_start_logs_nothing_about_exempt_paths(
    access: CloudflareAccess[Any], caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def broken(_: FastAPI) -> AsyncIterator[None]:
        raise OSError
        yield

    seen: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        seen.append(message)

    guard = AccessGuard(FastAPI(lifespan=broken), access=access, exempt=["/health"])
    with pytest.raises(OSError, match=r"^$"):
        await guard({"type": "lifespan", "state": {}}, receive, send)
    assert [message["type"] for message in seen] == ["lifespan.startup.failed"]
    assert guard.unserved() == ["/health"]
    assert caplog.messages == []


def test_a_guard_has_attributes_for_what_it_was_given(access: CloudflareAccess[Any]) -> None:
    guard = AccessGuard(FastAPI(), access=access, exempt=["/health"], end_streams=True)
    assert guard.dependency is access
    assert (guard.exempt, guard.ends_streams) == (frozenset({"/health"}), True)
    only_ada = AccessGuard(FastAPI(), access=access, policy=is_ada)
    assert only_ada.dependency is access.require(is_ada)
    assert (only_ada.exempt, only_ada.ends_streams) == (frozenset(), False)


# private answers


@pytest.fixture
def files(tmp_path: Any) -> Any:
    (tmp_path / "report.csv").write_text("a,b\n")
    return tmp_path


def answering(access: CloudflareAccess[Any], files: Any) -> FastAPI:
    """An app with each kind of answer."""
    app = FastAPI()
    router = APIRouter(dependencies=[Depends(access)])
    router.add_api_route("/json", secret)
    router.add_api_route("/file", lambda: FileResponse(files / "report.csv"), response_model=None)
    router.add_api_route("/redirect", lambda: RedirectResponse("/json"), response_model=None)
    shared = PlainTextResponse("shared")
    router.add_api_route("/shared", lambda: shared, response_model=None)

    async def parts() -> AsyncIterator[str]:
        yield "part"

    router.add_api_route("/stream", lambda: StreamingResponse(parts()), response_model=None)

    def failing() -> None:
        raise HTTPException(418)

    router.add_api_route("/failing", failing)
    for name, value in (("own", "public, max-age=60"), ("OWN", "no-store")):
        response = PlainTextResponse("own", headers={"Cache-Control": value})
        router.add_api_route(f"/{name}", lambda response=response: response, response_model=None)
    app.include_router(router)

    @app.get("/optional")
    async def optional(caller: Annotated[Any, Depends(access.optional)]) -> str:
        return type(caller).__name__

    app.mount("/files", StaticFiles(directory=files))
    return app


ANSWERS = [
    ("/json", 200, PRIVATE),
    ("/file", 200, PRIVATE),
    ("/redirect", 307, PRIVATE),
    ("/shared", 200, PRIVATE),
    ("/stream", 200, PRIVATE),
    ("/failing", 418, PRIVATE),
    ("/own", 200, "public, max-age=60"),
    ("/OWN", 200, "no-store"),
    ("/optional", 200, PRIVATE),
]


@pytest.mark.conformance(60)
@pytest.mark.parametrize(("path", "status", "value"), ANSWERS)
@pytest.mark.parametrize("middleware", [PrivateResponses, AccessGuard])
def test_an_answer_to_a_caller_is_private_unless_the_app_says_otherwise(
    access: CloudflareAccess[Any], files: Any, middleware: Any, path: str, status: int, value: str
) -> None:
    app = answering(access, files)
    app.add_middleware(middleware, **({"access": access} if middleware is AccessGuard else {}))
    client = TestClient(app, follow_redirects=False)
    for _ in range(2):
        answer = client.get(path, headers=ADA)
        assert (answer.status_code, answer.headers.get_list("cache-control")) == (status, [value])


@pytest.mark.conformance(60)
def test_static_files_404_405_and_304_behind_the_guard_are_private(access: CloudflareAccess[Any], files: Any) -> None:
    app = answering(access, files)
    app.add_middleware(AccessGuard, access=access)
    client = TestClient(app)
    first = client.get("/files/report.csv", headers=ADA)
    again = client.get("/files/report.csv", headers={**ADA, "If-None-Match": first.headers["etag"]})
    answers = [first, again, client.get("/files/none.csv", headers=ADA), client.delete("/json", headers=ADA)]
    assert [answer.status_code for answer in answers] == [200, 304, 404, 405]
    assert {answer.headers.get("cache-control") for answer in answers} == {PRIVATE}


def test_an_answer_without_a_caller_stays_as_it_is(access: CloudflareAccess[Any], files: Any) -> None:
    app = answering(access, files)
    app.add_middleware(PrivateResponses)
    client = TestClient(app)
    for path, headers in (("/optional", {}), ("/files/report.csv", {}), ("/files/report.csv", ADA), ("/nothing", ADA)):
        assert "cache-control" not in client.get(path, headers=headers).headers
    old = {"Cookie": f"CF_Authorization={TEAM.forge('expired')}"}
    assert "cache-control" not in client.get("/optional", headers=old).headers
    assert client.get("/json").headers["cache-control"] == "no-store"
    app = answering(access, files)
    app.add_middleware(AccessGuard, access=access, exempt=["/optional", "/files/report.csv"])
    client = TestClient(app)
    assert "cache-control" not in client.get("/optional").headers
    assert "cache-control" not in client.get("/files/report.csv", headers=ADA).headers
    assert client.get("/optional", headers=ADA).headers["cache-control"] == PRIVATE


@pytest.mark.conformance(60)
def test_a_caller_that_a_copy_of_the_scope_knows_makes_the_answer_private(access: CloudflareAccess[Any]) -> None:
    class Copying:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope}, receive, send)

    inner = FastAPI(dependencies=[Depends(access)])
    inner.add_api_route("/", secret)
    client = TestClient(PrivateResponses(Copying(inner)))
    assert client.get("/", headers=ADA).headers["cache-control"] == PRIVATE


@pytest.mark.parametrize("wrap", ["around", "inside"])
def test_a_500_is_private_if_the_middleware_is_around_the_whole_app(access: CloudflareAccess[Any], wrap: str) -> None:
    app = FastAPI()

    def crash() -> None:
        raise RuntimeError

    app.add_api_route("/", crash, dependencies=[Depends(access)])
    if wrap == "inside":
        app.add_middleware(PrivateResponses)
    served: ASGIApp = PrivateResponses(app) if wrap == "around" else app
    answer = TestClient(served, raise_server_exceptions=False).get("/", headers=ADA)
    assert (answer.status_code, answer.headers.get("cache-control")) == (500, PRIVATE if wrap == "around" else None)


@pytest.mark.conformance(60)
def test_the_answer_to_a_refused_caller_is_private_too(access: CloudflareAccess[Any]) -> None:
    app = app_of(access, policy=is_ada)
    app.add_exception_handler(AccessHTTPException, lambda *_: JSONResponse("there is no such page", 404))
    client = TestClient(app)
    bob = client.get("/report.pdf", headers=TEAM.headers(TEAM.user("bob@acme.example")))
    assert (bob.status_code, bob.headers["cache-control"]) == (404, "private, no-cache")
    assert "cache-control" not in client.get("/report.pdf").headers


@pytest.mark.parametrize(("value", "sent"), [(None, None), (" no-store ", "no-store")])
def test_the_value_is_a_setting(access: CloudflareAccess[Any], value: str | None, sent: str | None) -> None:
    client = TestClient(app_of(access, cache_control=value))
    assert client.get("/", headers=ADA).headers.get("cache-control") == sent
    app = FastAPI(dependencies=[Depends(access)])
    app.add_api_route("/", secret)
    app.add_middleware(PrivateResponses, cache_control=value)
    assert TestClient(app).get("/", headers=ADA).headers.get("cache-control") == sent


@pytest.mark.anyio
async def test_headers_of_the_app_may_be_any_iterable_in_any_case_and_are_not_changed(
    access: CloudflareAccess[Any],
) -> None:
    own = ((b"X-Own", b"1"),)

    def sending(headers: Any) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200} | headers)
            await send({"type": "http.response.body"})

        return app

    headers = [(name.lower().encode(), value.encode()) for name, value in ADA.items()]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    added = (b"cache-control", PRIVATE.encode())
    for given, expected in (
        ({}, [added]),
        ({"headers": own}, [*own, added]),
        ({"headers": iter(own)}, [*own, added]),
        ({"headers": [(b"CACHE-Control", b"public")]}, [(b"CACHE-Control", b"public")]),
    ):
        start, _ = await messages(AccessGuard(sending(given), access=access), {**scope})
        assert start["headers"] == expected


@pytest.mark.anyio
async def test_a_message_that_the_app_sends_again_stays_as_it_is(access: CloudflareAccess[Any]) -> None:
    shared: Message = {"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(shared)

    headers = [(name.lower().encode(), value.encode()) for name, value in ADA.items()]
    await messages(AccessGuard(app, access=access), {"type": "http", "method": "GET", "path": "/", "headers": headers})
    assert shared == {"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]}


@pytest.mark.anyio
async def test_trailers_of_a_response_stay_as_they_are(access: CloudflareAccess[Any]) -> None:
    trailers: Message = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send(trailers)

    headers = [(name.lower().encode(), value.encode()) for name, value in ADA.items()]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    assert (await messages(AccessGuard(app, access=access), scope))[1] == trailers


@pytest.mark.anyio
async def test_what_is_no_http_answer_is_passed_on(access: CloudflareAccess[Any]) -> None:
    app = app_of(access)
    app.add_middleware(PrivateResponses)
    assert len(await lifespan(app)) == 2
    with TestClient(app).websocket_connect("/feed", headers=ADA) as socket:
        assert socket.receive_text() == SECRET


@pytest.mark.anyio
async def test_the_types_of_scopes_and_messages_are_compared_as_text(access: CloudflareAccess[Any]) -> None:
    """A server may decode them from bytes, so that equal texts are several objects."""
    sent: list[Message] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        kind = "lifespan.startup.complete" if scope["type"] == "lifespan" else "http.response.start"
        await send({"type": kind.encode().decode(), "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    guard = AccessGuard(inner, access=access)
    headers = [(name.lower().encode(), value.encode()) for name, value in ADA.items()]
    for kind in (b"lifespan", b"http"):
        scope = {"type": kind.decode(), "method": "GET", "path": "/", "headers": headers, "query_string": b""}
        await guard(scope, receive, send)
    assert [message.get("headers") for message in sent] == [[], None, [(b"cache-control", PRIVATE.encode())], None]


# wrong use


class NotAnApp:
    """An object that cannot be called."""


WRONG: list[tuple[Callable[[Any], dict[str, Any]], str]] = [
    (lambda _: {"access": None}, "must be the CloudflareAccess object: write access=access"),
    (lambda _: {"access": CloudflareAccess}, "must be the CloudflareAccess object: write access=access"),
    (lambda access: {"access": access.user}, "CloudflareAccess object, not access.user: write access=access"),
    (lambda access: {"app": access}, "the first argument of AccessGuard must be the app"),
    (lambda _: {"app": FastAPI}, "write AccessGuard(app, access=access)"),
    (lambda _: {"app": NotAnApp()}, "must be the app"),
    (lambda _: {"policy": "ada"}, "a policy is not text: write Group('ada')"),
    (lambda _: {"policy": True}, "a policy must be a plain function"),
    (lambda _: {"policy": talk}, "a policy must be a plain function"),
    (lambda access: {"policy": access.require(is_ada)}, "a policy must be a plain function"),
    (lambda _: {"policy": lambda caller, other: caller is other}, "a policy must be a function of one argument"),
    (lambda _: {"exempt": "/healthz"}, 'write exempt=["/healthz"]'),
    (lambda _: {"exempt": b"/healthz"}, "exempt must be a list of paths"),
    (lambda _: {"exempt": {"/healthz": 1}}, "exempt must be a list of paths"),
    (lambda _: {"exempt": None}, "exempt must be a list of paths"),
    (lambda _: {"exempt": ["healthz"]}, "begins with /, not 'healthz'"),
    (lambda _: {"exempt": [""]}, "begins with /, not ''"),
    (lambda _: {"exempt": [b"/x"]}, "an exempt path must be text that begins with /"),
    (lambda _: {"exempt": [["/x"]]}, "an exempt path must be text that begins with /"),
    (lambda _: {"cache_control": "public, max-age=60"}, "must not let shared caches keep answers"),
    (lambda _: {"cache_control": "private,S-MaxAge=5"}, "must not let shared caches keep answers"),
    (lambda _: {"cache_control": ""}, "cache_control must be a value such as 'private, no-cache', or None"),
    (lambda _: {"cache_control": "a\r\nb: c"}, "cache_control must be a value"),
    (lambda _: {"cache_control": "é"}, "cache_control must be a value"),
    (lambda _: {"cache_control": True}, "cache_control must be a value"),
    (lambda _: {"login_redirect": "app.example.com/"}, "login_redirect, which is 'app.example.com/', must be "),
    (lambda _: {"login_redirect": True}, "login_redirect, which is bool, must be the public host"),
    (lambda _: {"login_redirect": "x" * 64}, f"login_redirect, which is '{'x' * 60}', must be the public host"),
]


@pytest.mark.conformance(59)
@pytest.mark.parametrize(("wrong", "sentence"), WRONG, ids=[f"{i}-{row[1][:24]}" for i, row in enumerate(WRONG)])
def test_a_wrong_argument_is_refused_at_construction(
    access: CloudflareAccess[Any], wrong: Callable[[Any], dict[str, Any]], sentence: str
) -> None:
    arguments: dict[str, Any] = {"app": FastAPI(), "access": access, **wrong(access)}
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        AccessGuard(**arguments)


@pytest.mark.conformance(60)
@pytest.mark.parametrize("arguments", [{"cache_control": "é"}, {"app": NotAnApp()}, {"cache_control": 1}])
def test_a_wrong_argument_of_private_responses_is_refused_too(arguments: dict[str, Any]) -> None:
    given: dict[str, Any] = {"app": FastAPI(), **arguments}
    with pytest.raises(ConfigurationError, match=r"cache_control must be|write PrivateResponses\(app\)"):
        PrivateResponses(**given)


@pytest.mark.conformance(52, 109)
@pytest.mark.parametrize(
    "path",
    [
        "/health*",
        "/{name}",
        "/a?b",
        "/a#b",
        "/a%20b",
        "//a",
        "/a//b",
        "/a/../b",
        "/a/..",
        "/./a",
        "/a b",
        "/a\\b",
        "/a\n",
    ],
)
def test_an_exempt_path_is_no_pattern(access: CloudflareAccess[Any], path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"one whole decoded path, not a pattern: .*; list each path"):
        AccessGuard(FastAPI(), access=access, exempt=["/healthz", path])


def test_the_redirect_needs_one_audience() -> None:
    access = make(audience=["a" * 64, "b" * 64])
    with pytest.raises(ConfigurationError, match=r"write access=access.with_audience\(…\)"):
        AccessGuard(FastAPI(), access=access, login_redirect="app.example.com")


def test_the_redirect_needs_one_team() -> None:
    either = make() | make(audience="f" * 64)
    with pytest.raises(ConfigurationError, match="login_redirect needs one team, and there are several"):
        AccessGuard(FastAPI(), access=either, login_redirect="app.example.com")


@pytest.mark.conformance(59)
def test_without_the_object_there_is_no_guard() -> None:
    app = FastAPI()
    app.add_middleware(AccessGuard)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=r"write app\.add_middleware"), TestClient(app):
        pass


@pytest.mark.parametrize("kind", [AccessGuard, PrivateResponses])
def test_the_middleware_is_not_a_dependency(access: CloudflareAccess[Any], kind: type[Any]) -> None:
    instance = kind(FastAPI(), **({"access": access} if kind is AccessGuard else {}))
    for wrong in (kind, instance, instance.__call__):
        with pytest.raises(ConfigurationError, match=f"write app.add_middleware\\({kind.__name__}"):
            FastAPI().add_api_route("/", secret, dependencies=[Depends(wrong)])


# Streams


@pytest.mark.parametrize("ends", [True, False])
def test_the_guard_ends_websockets_with_their_token_where_it_is_asked_to(*, ends: bool) -> None:
    team = FakeTeam("acme")
    access = make(fetch=MemoryFetch(team), clock=team.clock)
    app = FastAPI()

    @app.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        with suppress(WebSocketDisconnect):
            while True:
                await socket.send_text(await socket.receive_text())

    options: dict[str, Any] = {"end_streams": True} if ends else {}
    app.add_middleware(AccessGuard, access=access, exempt=["/open"], **options)
    app.add_api_route("/open", secret)
    headers = team.headers(team.user("ada@example.com", expires_in=60))
    with TestClient(app) as client, client.websocket_connect("/echo", headers=headers) as socket:
        socket.send_text("before")
        assert socket.receive_text() == "before"
        team.clock.advance(75)
        if ends:
            assert socket.receive() == {"type": "websocket.close", "code": 1008, "reason": "token_expired"}
        else:
            socket.send_text("after")
            assert socket.receive_text() == "after"
    assert TestClient(app).get("/open").json() == SECRET


def test_end_streams_is_a_choice_of_two(access: CloudflareAccess[Any]) -> None:
    wrong: Any = "yes"
    with pytest.raises(ConfigurationError, match="end_streams must be True or False"):
        AccessGuard(FastAPI(), access=access, end_streams=wrong)
