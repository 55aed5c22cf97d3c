"""Apps whose routes are open or protected in ways that are hard to see, with the truth about each route."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response, WebSocket, routing
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import BaseRoute, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.guard import AccessGuard
from fastapi_cloudflare_access.policies import EmailDomain, Group
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

TEAM = FakeTeam("acme")
access = CloudflareAccess(
    team_domain=TEAM.team_domain, audience=TEAM.audience, fetch=MemoryFetch(TEAM), clock=TEAM.clock
)
other = access.with_audience("1" * 64)
CurrentUser = Annotated[UserClaims, Depends(access.user)]
STAFF = EmailDomain("acme.example") & ~Group("contractors")

ran: list[str] = []
"""The handlers and dependencies of the app that ran."""


A = TypeVar("A", FastAPI, APIRouter)
STRICT: Any = {"dependencies": [Depends(access.user)]}


def handler() -> str:
    ran.append("handler")
    return "secret"


async def page(request: Request) -> Response:
    ran.append("page")
    return Response("secret")


async def talk(socket: WebSocket) -> None:
    ran.append("talk")
    await socket.accept()
    await socket.close()


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    ran.append("raw")
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await Response("secret")(scope, receive, send)


def plain(**settings: Any) -> FastAPI:
    return FastAPI(openapi_url=None, **settings)


def with_route(app: A, path: str = "/x", **options: Any) -> A:
    app.add_api_route(path, handler, **options)
    return app


# the traps: each returns an app, and each route of it is named with what it really does


def no_dependency() -> FastAPI:
    return with_route(plain())


def one_segment_before_many() -> FastAPI:
    """The first route serves only the paths of one segment."""
    app = with_route(plain(), "/x/{id}", **STRICT)
    app.add_api_websocket_route("/ws/{id}", talk, dependencies=STRICT["dependencies"])
    app.add_api_websocket_route("/ws/{rest:path}", talk)
    return with_route(app, "/x/{rest:path}")


def one_and_two_segments_before_many() -> FastAPI:
    app = with_route(with_route(plain(), "/x/{id}", **STRICT), "/x/{id}/{part}", **STRICT)
    return with_route(app, "/x/{rest:path}")


def whole_numbers_before_others() -> FastAPI:
    return with_route(with_route(plain(), "/x/{number:int}", **STRICT), "/x/{ratio:float}")


def many_segments_before_one() -> FastAPI:
    return with_route(with_route(plain(), "/x/{rest:path}", **STRICT), "/x/{id}")


class UnderV1:
    """Middleware that leads every request to another path."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "path": f"/v1{scope['path']}"}, receive, send)


def rewritten_paths() -> FastAPI:
    app = plain()
    app.add_route("/v1/page", page)
    app.add_middleware(UnderV1)
    return app


def overridden() -> FastAPI:
    app = with_route(plain(), **STRICT)
    app.dependency_overrides[access.user] = handler
    return app


def own_dependency_overridden() -> FastAPI:
    async def current(user: CurrentUser) -> str:
        pytest.fail("it ran")

    app = with_route(plain(), dependencies=[Depends(current)])
    app.dependency_overrides[current] = handler
    return app


def overridden_by_another_of_ours() -> FastAPI:
    app = with_route(plain(), dependencies=[Depends(access)])
    app.dependency_overrides[access] = access.user
    return app


def overridden_in_a_chain() -> FastAPI:
    """FastAPI applies one override, not the override of that."""
    app = overridden_by_another_of_ours()
    app.dependency_overrides[access.user] = handler
    return app


def optional() -> FastAPI:
    app = plain()

    @app.get("/x")
    def route(caller: Annotated[Any, Depends(access.optional)]) -> str:
        return handler()

    return app


def optional_beside_strict() -> FastAPI:
    app = plain(dependencies=[Depends(access.user)])

    @app.get("/x")
    def route(caller: Annotated[Any, Depends(access.optional)]) -> str:
        return handler()

    return app


def other_object() -> FastAPI:
    return with_route(plain(), dependencies=[Depends(other.user)])


def on_include() -> FastAPI:
    app, outer, inner = plain(), APIRouter(prefix="/outer"), APIRouter()
    with_route(inner)
    inner.add_api_websocket_route("/ws", talk)
    outer.include_router(inner, **STRICT)
    app.include_router(outer)
    return app


def route_without_dependencies_on_a_protected_router() -> FastAPI:
    """Routes of Starlette on a router do not get its dependencies."""
    app, router = plain(), APIRouter(prefix="/r", **STRICT)
    with_route(router)
    router.add_route("/r/page", page)
    router.add_websocket_route("/r/ws", talk)
    app.include_router(router)
    return app


def http_only() -> FastAPI:
    """A dependency that takes a Request, on the HTTP route alone."""

    async def check(request: Request) -> None:
        await access.user(connection=request)

    app = plain()
    with_route(app, dependencies=[Depends(check), Depends(access.user)])
    app.add_api_websocket_route("/ws", talk)
    return app


def http_middleware() -> FastAPI:
    """A middleware for HTTP lets WebSockets pass."""

    async def check(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            await access.user(connection=request)
        except HTTPException as refusal:
            return JSONResponse({}, refusal.status_code)
        return await call_next(request)

    app = plain()
    app.add_middleware(BaseHTTPMiddleware, dispatch=check)
    app.add_route("/page", page)
    app.router.add_websocket_route("/ws", talk)
    return app


def mounts() -> FastAPI:
    """Dependencies of the whole app do not reach a mounted app; a guard around it does."""
    app = plain(**STRICT)
    with_route(app)
    app.mount("/open", raw)
    app.mount("/guarded", AccessGuard(raw, access=access))
    app.mount("/zipped", GZipMiddleware(AccessGuard(raw, access=access)))
    return app


def guard_inside_the_outer_app() -> Starlette:
    """A mount beside the guarded app is in front of the guard."""
    inner = with_route(plain())
    inner.mount("/files", raw)
    inner.add_middleware(AccessGuard, access=access)
    return Starlette(routes=[Mount("/beside", raw), Mount("/app", inner)])


def guard_around_the_whole_app() -> Any:
    app = with_route(FastAPI())
    app.mount("/files", raw)
    app.add_api_websocket_route("/ws", talk)
    return AccessGuard(app, access=access)


def guard_of_another_object() -> FastAPI:
    app = plain()
    app.add_route("/page", page)
    app.add_middleware(AccessGuard, access=other)
    return app


def guard_with_exempt_paths() -> FastAPI:
    app = with_route(plain(), "/health")
    with_route(app)
    app.add_api_websocket_route("/ws", talk)
    app.add_middleware(AccessGuard, access=access, exempt=["/health", "/files/public", "/ws"])

    @app.get("/files/{name}")
    def read(name: int, wanted: str) -> str:
        return handler()

    return app


def guard_of_a_mount_with_an_exempt_path() -> FastAPI:
    app = plain()
    app.mount("/m", AccessGuard(raw, access=access, exempt=["/public"]))
    return app


def exempt_path_that_a_dependency_protects() -> FastAPI:
    app = with_route(plain(), **STRICT)
    app.add_middleware(AccessGuard, access=access, exempt=["/x"])
    return app


def protected_after_it_was_included() -> FastAPI:
    app, router = plain(), APIRouter()
    with_route(router)
    app.include_router(router)
    router.dependencies.append(Depends(access.user))
    return app


def included_twice() -> FastAPI:
    app, router = plain(), APIRouter()
    with_route(router)
    app.include_router(router, prefix="/a", **STRICT)
    app.include_router(router, prefix="/b")
    return app


def mounted_twice() -> FastAPI:
    app, inner = plain(), with_route(plain())
    app.mount("/a", AccessGuard(inner, access=access))
    app.mount("/b", inner)
    return app


def a_page_mounted_twice() -> FastAPI:
    app, inner = plain(), plain()
    inner.add_route("/page", page)
    app.mount("/a", inner)
    app.mount("/b", inner)
    return app


def mounted_in_itself() -> FastAPI:
    app = with_route(plain(), **STRICT)
    app.mount("/again", app)
    return app


def sub_app_with_middleware() -> FastAPI:
    app, inner, other_inner = plain(), with_route(plain()), with_route(plain())
    inner.add_middleware(AccessGuard, access=access)
    other_inner.add_middleware(GZipMiddleware)
    app.mount("/a", inner)
    app.mount("/b", other_inner)
    return app


def returns_the_dependency() -> FastAPI:
    return with_route(plain(), dependencies=[Depends(lambda: access.user)])


def without_await() -> FastAPI:
    def check(request: Request) -> None:
        access.user(connection=request).close()

    return with_route(plain(), dependencies=[Depends(check)])


def swallows_the_refusal() -> FastAPI:
    async def check(request: Request) -> UserClaims | None:
        ran.append("check")
        try:
            return await access.user(connection=request)
        except HTTPException:
            return None

    return with_route(plain(), dependencies=[Depends(check)])


def swallows_in_a_generator() -> FastAPI:
    """FastAPI answers 500 if a generator swallows the refusal of a later dependency; no handler runs."""

    async def session() -> Any:
        ran.append("session")
        with suppress(HTTPException):
            yield

    return with_route(plain(), dependencies=[Depends(session), Depends(access.user)])


def a_default_that_catches() -> FastAPI:
    async def current(request: Request, fallback: str = "guest") -> str:
        ran.append("current")
        try:
            return str((await access.user(connection=request)).email)
        except Exception:  # noqa: BLE001 - the trap
            return fallback

    app = plain()

    @app.get("/x")
    async def route(email: Annotated[str, Depends(current)]) -> str:
        return handler()

    return app


def wrapped_in_a_partial() -> FastAPI:
    return with_route(plain(), dependencies=[Depends(partial(access.user))])


def below_the_apps_own_dependency() -> FastAPI:
    def current(user: CurrentUser, q: str) -> str:
        ran.append("current")
        return q

    app = plain()

    @app.post("/x/{number}")
    async def route(
        number: int, body: dict[str, int], q: Annotated[str, Depends(current)], h: Annotated[int, Header()]
    ) -> str:
        return handler()

    return app


def added_twice() -> FastAPI:
    app = with_route(plain(), "/a", **STRICT)
    with_route(app, "/a")
    with_route(app, "/b")
    with_route(app, "/b", **STRICT)
    return app


def other_methods() -> FastAPI:
    app = with_route(plain(), methods=["GET"], **STRICT)
    with_route(app, methods=["HEAD"])
    with_route(app, methods=["OPTIONS"])
    with_route(app, methods=["POST"], **STRICT)
    return app


def behind_a_parameter() -> FastAPI:
    """A protected route with a parameter serves the path of a later open route."""
    app = with_route(plain(), "/u/{name}", **STRICT)
    with_route(app, "/u/me")
    with_route(app, "/n/{number:int}", **STRICT)
    with_route(app, "/n/{name}")
    return app


class Swallowing(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Any]:
        original = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await original(request)
            except HTTPException:
                return Response("swallowed")

        return handle


class Logging(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Any]:
        original = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await original(request)

        return handle


class Shortcut(APIRoute):
    """Calls the endpoint and no dependency."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            return Response(endpoint())

        return partial(handle)


class LateShortcut(APIRoute):
    """Calls the endpoint too, which it looks up for each request."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            return Response(self.endpoint())

        return handle


class OwnHandle(APIRoute):
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response(handler())(scope, receive, send)


class OwnMatch(Route):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL, {}) if scope["path"].startswith("/own") else (Match.NONE, {})


class Raising(Route):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raise ValueError


def a_class_that_raises() -> FastAPI:
    app = plain()
    app.router.routes.append(Raising("/raises", page))
    with_route(app)
    return with_route(app, "/safe", **STRICT)


class Unknown(BaseRoute):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL, {}) if scope["path"] == "/unknown" else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await raw(scope, receive, send)


def of_class(kind: type[APIRoute]) -> FastAPI:
    app, router = plain(), APIRouter(route_class=kind, **STRICT)
    with_route(router, "/included")
    app.include_router(router)
    app.router.route_class = kind
    return with_route(app, **STRICT)


def swallowing_route_class() -> FastAPI:
    return of_class(Swallowing)


def logging_route_class() -> FastAPI:
    return of_class(Logging)


def route_class_that_calls_the_endpoint() -> FastAPI:
    return of_class(Shortcut)


def route_class_that_looks_up_the_endpoint() -> FastAPI:
    return of_class(LateShortcut)


def own_handler_at_an_exempt_path() -> FastAPI:
    app = plain()
    app.router.route_class = OwnHandle
    with_route(app, "/{name}")
    app.add_middleware(AccessGuard, access=access, exempt=["/public"])
    return app


def route_class_with_its_own_handler() -> FastAPI:
    return of_class(OwnHandle)


def own_classes_of_routes() -> FastAPI:
    app = plain()
    app.router.routes += [OwnMatch("/own/1", page), Unknown()]
    return app


def own_classes_behind_a_guard() -> FastAPI:
    app = own_classes_of_routes()
    app.add_middleware(AccessGuard, access=access)
    return app


def hosts() -> FastAPI:
    app, api = plain(), with_route(plain())
    app.host("api.example.com", api)
    app.host("{name}.safe.example.com", AccessGuard(api, access=access))
    app.host("raw.example.com", raw)
    return app


class Endpoint(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return await page(request)


def starlette_routes() -> Starlette:
    guarded = [Middleware(AccessGuard, access=access)]
    return Starlette(
        routes=[
            Route("/page", page, methods=["POST"]),
            Route("/class", Endpoint),
            WebSocketRoute("/ws", talk),
            Route("/guarded", page, middleware=guarded),
            WebSocketRoute("/guarded/ws", talk, middleware=guarded),
            Mount("/mount", routes=[Route("/page", page)], middleware=guarded),
            Route("/app", raw_object),
        ]
    )


class RawObject:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await raw(scope, receive, send)


raw_object = RawObject()


def own_handler_for_unknown_paths() -> FastAPI:
    app = with_route(plain(), **STRICT)
    app.router.default = raw
    app.mount("/m", Router(default=raw))
    app.mount("/g", AccessGuard(Router(default=raw), access=access))
    return app


def exception_handler_that_answers_200() -> FastAPI:
    app = with_route(plain(), **STRICT)
    app.add_api_websocket_route("/ws", talk, **STRICT)

    @app.exception_handler(401)
    async def lenient(request: Request, error: Exception) -> Response:
        return Response("welcome")

    return app


def exception_handler_that_redirects() -> FastAPI:
    app = with_route(plain(), **STRICT)

    @app.exception_handler(401)
    async def to_login(request: Request, error: Exception) -> Response:
        return Response(status_code=302, headers={"Location": "/login"})

    return app


def middleware_that_answers_first() -> FastAPI:
    async def cached(request: Request, call_next: Any) -> Response:
        return Response("cached")

    app = with_route(plain(), **STRICT)
    app.add_middleware(BaseHTTPMiddleware, dispatch=cached)
    return app


def middleware_that_refuses() -> FastAPI:
    """A refusal of another kind proves nothing."""

    async def refuse(request: Request, call_next: Any) -> Response:
        if request.headers.get("x-csrf"):
            return cast("Response", await call_next(request))
        return Response(status_code=403)

    app = with_route(plain(), **STRICT)
    app.add_route("/page", page)
    app.add_middleware(BaseHTTPMiddleware, dispatch=refuse)
    return app


def middleware_that_needs_the_lifespan() -> FastAPI:
    async def broken(request: Request, call_next: Any) -> Response:
        return Response(request.app.state.pool)

    app = with_route(plain(), **STRICT)
    app.add_route("/page", page)
    app.add_middleware(BaseHTTPMiddleware, dispatch=broken)
    return app


def trusted_hosts_and_https() -> FastAPI:
    app = with_route(plain(), **STRICT)
    app.add_middleware(AccessGuard, access=access)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["*.example.com"])
    app.add_middleware(HTTPSRedirectMiddleware)
    app.add_route("/page", page)
    return app


def slashes() -> FastAPI:
    """A redirect to a path with a slash is no refusal."""
    app = plain()
    app.mount("/files", raw)
    app.add_route("/page/", page)
    return app


def exempt_paths_of_other_routes() -> FastAPI:
    """An exempt path is open for each method of each route that serves it, not for a WebSocket."""
    app = with_route(plain(), "/x", **STRICT)
    app.add_api_websocket_route("/x", talk)
    with_route(app, "/{name}", methods=["POST"])
    app.mount("/t/{tenant}", AccessGuard(raw, access=access, exempt=["/public"]))
    app.mount("/s/{it:nine}", AccessGuard(raw, access=access, exempt=["/public"]))
    app.host("api.example.com", AccessGuard(raw_object, access=access, exempt=["/public"]))
    app.add_middleware(AccessGuard, access=access, exempt=["/x"])
    return app


def exempt_paths_of_mounts() -> FastAPI:
    app = plain()
    app.mount("/t/{tenant}", AccessGuard(raw, access=access, exempt=["/public"]))
    app.mount("/s/{it:nine}", AccessGuard(raw, access=access, exempt=["/public"]))
    app.host("api.example.com", AccessGuard(raw_object, access=access, exempt=["/public"]))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["audit.example.com", "api.example.com"])
    return app


def swallowed_before_another_refusal() -> FastAPI:
    """Middleware asks access and ignores the refusal; another answer than a refusal proves nothing."""

    async def log(request: Request, call_next: Any) -> Response:
        with suppress(HTTPException):
            await access.user(connection=request)
        if request.headers.get("x-csrf"):
            return cast("Response", await call_next(request))
        return Response(status_code=403)

    app = plain()
    app.add_route("/page", page)
    app.add_middleware(BaseHTTPMiddleware, dispatch=log)
    return app


class Breaking:
    """Middleware that begins an answer and fails."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError


def middleware_that_breaks_its_answer() -> FastAPI:
    app = with_route(plain(), **STRICT)
    app.add_middleware(Breaking)
    return app


def middleware_that_passes_on() -> FastAPI:
    async def pass_on(request: Request, call_next: Any) -> Response:
        return cast("Response", await call_next(request))

    app = with_route(plain(), **STRICT)
    app.add_route("/page", page)
    app.mount("/m", raw)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    return app


class OwnRouter(APIRouter):
    """A router that serves its routes under a second prefix."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        scope["path"] = scope["path"].removeprefix("/v1")
        return super().matches(scope)


class AnyPath(APIRoute):
    """A route that ignores its path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or not scope["path"].startswith("/any"):
            return Match.NONE, {}
        return Match.FULL, {"endpoint": self.endpoint, "path_params": {}, "route": self}


def own_class_of_a_router() -> FastAPI:
    app, router = plain(), OwnRouter()
    with_route(router)
    app.include_router(router)
    app.add_middleware(AccessGuard, access=access, exempt=["/v1/x"])
    return app


def an_included_route_that_ignores_its_path() -> FastAPI:
    app, router = plain(), APIRouter(route_class=AnyPath)
    with_route(router)
    app.include_router(router)
    app.add_middleware(AccessGuard, access=access, exempt=["/anything"])
    return app


def own_code_mounted_twice() -> FastAPI:
    app, inner = plain(), plain()
    inner.router.route_class = Shortcut
    with_route(inner, **STRICT)
    app.mount("/a", AccessGuard(inner, access=access))
    app.mount("/b", inner)
    return app


def root_paths() -> FastAPI:
    app, inner = plain(), plain()
    app.root_path = "/api"
    app.add_route("/api/page", page)
    with_route(app, "/api/x")
    with_route(app, **STRICT)
    with_route(inner)
    app.mount("/sub", AccessGuard(inner, access=access))
    app.add_middleware(GZipMiddleware)
    return app


def app_wide_dependency_and_docs() -> FastAPI:
    return with_route(FastAPI(**STRICT))


def parameters_of_every_kind() -> FastAPI:
    app = plain()
    app.add_route("/a/{number:int}/{ratio:float}/{id:uuid}/{rest:path}", page)
    app.mount("/tenants/{tenant}", AccessGuard(raw, access=access))
    return app


class Nine(Convertor[str]):
    regex = "x{9}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("nine", Nine())


def parameters_of_an_own_kind() -> FastAPI:
    """The audit knows no value that fits, so it believes the tree alone."""
    app = with_route(with_route(plain(), "/a/{it:nine}"), "/b/{it:nine}", **STRICT)
    app.add_route("/c/{it:nine}", page)
    app.mount("/d/{it:nine}", with_route(plain()))
    app.mount("/e/{it:nine}", AccessGuard(raw, access=access, exempt=["/public"]))
    return app


def an_app_as_an_endpoint() -> Starlette:
    """The inner app sees the whole path, so its other routes are never reached."""
    inner = with_route(plain(), "/app")
    inner.add_route("/page", page)
    inner.add_api_websocket_route("/ws", talk, **STRICT)
    return Starlette(routes=[Route("/app", inner)])


class Accepting:
    """Middleware that accepts, or closes, each handshake itself."""

    def __init__(self, app: Any, event: str) -> None:
        self.app, self.event = app, event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": self.event})
        await send({"type": "websocket.close"})


def middleware_that_accepts() -> FastAPI:
    app = plain()
    app.add_api_websocket_route("/ws", talk, **STRICT)
    app.add_middleware(Accepting, event="websocket.accept")
    return app


def middleware_that_closes() -> FastAPI:
    app = plain()
    app.add_api_websocket_route("/ws", talk, **STRICT)
    app.router.add_websocket_route("/raw", talk)
    app.add_middleware(Accepting, event="websocket.close")
    app.add_middleware(TrustedHostMiddleware)
    return app


def overrides_in_a_circle() -> FastAPI:
    def first(it: Annotated[str, Depends(handler)]) -> None: ...

    app = with_route(plain(), dependencies=[Depends(handler), Depends(access.user)])
    app.dependency_overrides[handler] = first
    return app


def frontends() -> FastAPI:
    app, router = plain(), APIRouter(prefix="/r", **STRICT)
    folder = Path(__file__).parent
    app.frontend("/ui", directory=folder)
    app.frontend("/ui/more", directory=folder)
    router.frontend("/", directory=folder)
    router.frontend("/more", directory=folder)
    app.include_router(router, prefix="/p")
    app.mount("/m", with_frontend(plain(**STRICT)))
    return app


def frontends_behind_a_guard() -> FastAPI:
    app = with_frontend(plain())
    app.frontend("/more", directory=Path(__file__).parent)
    app.add_middleware(AccessGuard, access=access, exempt=["/logo.png"])
    return app


def with_frontend(app: FastAPI) -> FastAPI:
    app.frontend("/", directory=Path(__file__).parent)
    return app


OPEN, SAFE, NEVER = "open", "safe", "never"
TRAPS: dict[Callable[[], Any], dict[str, str]] = {
    no_dependency: {"GET /x": OPEN},
    overridden: {"GET /x": OPEN},
    own_dependency_overridden: {"GET /x": OPEN},
    rewritten_paths: {"GET /v1/page": OPEN},
    overridden_by_another_of_ours: {"GET /x": SAFE},
    overridden_in_a_chain: {"GET /x": SAFE},
    a_page_mounted_twice: {"GET /a/page": OPEN, "GET /b/page": OPEN},
    optional: {"GET /x": OPEN},
    optional_beside_strict: {"GET /x": SAFE},
    other_object: {"GET /x": OPEN},
    on_include: {"GET /outer/x": SAFE, "WS /outer/ws": SAFE},
    route_without_dependencies_on_a_protected_router: {"GET /r/x": SAFE, "GET /r/page": OPEN, "WS /r/ws": OPEN},
    http_only: {"GET /x": SAFE, "WS /ws": OPEN},
    http_middleware: {"GET /page": SAFE, "WS /ws": OPEN},
    mounts: {"GET /x": SAFE, "ANY /open/*": OPEN, "ANY /guarded/*": SAFE, "ANY /zipped/*": SAFE},
    guard_inside_the_outer_app: {"ANY /beside/*": OPEN, "GET /app/x": SAFE, "ANY /app/files/*": SAFE},
    guard_around_the_whole_app: {
        "GET /openapi.json": SAFE,
        "GET /docs": SAFE,
        "GET /docs/oauth2-redirect": SAFE,
        "GET /redoc": SAFE,
        "GET /x": SAFE,
        "ANY /files/*": SAFE,
        "WS /ws": SAFE,
    },
    guard_of_another_object: {"GET /page": OPEN},
    guard_with_exempt_paths: {
        "GET /health": OPEN,
        "GET /x": SAFE,
        "GET /files/{name}": SAFE,
        "WS /ws": SAFE,
        "GET /files/public": OPEN,
    },
    guard_of_a_mount_with_an_exempt_path: {"ANY /m/*": SAFE, "ANY /m/public": OPEN},
    exempt_path_that_a_dependency_protects: {"GET /x": SAFE},
    protected_after_it_was_included: {"GET /x": OPEN},
    included_twice: {"GET /a/x": SAFE, "GET /b/x": OPEN},
    mounted_twice: {"GET /a/x": SAFE, "GET /b/x": OPEN},
    mounted_in_itself: {"GET /x": SAFE},
    sub_app_with_middleware: {"GET /a/x": SAFE, "GET /b/x": OPEN},
    returns_the_dependency: {"GET /x": OPEN},
    without_await: {"GET /x": OPEN},
    swallows_the_refusal: {"GET /x": OPEN},
    swallows_in_a_generator: {"GET /x": SAFE},
    a_default_that_catches: {"GET /x": OPEN},
    wrapped_in_a_partial: {"GET /x": SAFE},
    below_the_apps_own_dependency: {"POST /x/{number}": SAFE},
    added_twice: {"GET /a": SAFE, "GET /a#2": NEVER, "GET /b": OPEN, "GET /b#2": NEVER},
    other_methods: {"GET /x": SAFE, "HEAD /x": OPEN, "OPTIONS /x": OPEN, "POST /x": SAFE},
    behind_a_parameter: {"GET /u/{name}": SAFE, "GET /u/me": NEVER, "GET /n/{number:int}": SAFE, "GET /n/{name}": OPEN},
    swallowing_route_class: {"GET /included": OPEN, "GET /x": OPEN},
    logging_route_class: {"GET /included": SAFE, "GET /x": SAFE},
    route_class_that_calls_the_endpoint: {"GET /included": OPEN, "GET /x": OPEN},
    route_class_that_looks_up_the_endpoint: {"GET /included": OPEN, "GET /x": OPEN},
    own_handler_at_an_exempt_path: {"GET /{name}": SAFE, "ANY /public": OPEN},
    route_class_with_its_own_handler: {"GET /included": OPEN, "GET /x": OPEN},
    a_class_that_raises: {"GET /raises": OPEN, "GET /x": OPEN, "GET /safe": SAFE},
    own_classes_of_routes: {"GET /own/1": OPEN, "ANY (Unknown)": OPEN},
    own_classes_behind_a_guard: {"GET /own/1": SAFE, "ANY (Unknown)": SAFE},
    hosts: {
        "ANY raw.example.com/*": OPEN,
        "GET api.example.com/x": OPEN,
        "GET {name}.safe.example.com/x": SAFE,
    },
    starlette_routes: {
        "POST /page": OPEN,
        "ANY /class": OPEN,
        "WS /ws": OPEN,
        "GET /guarded": SAFE,
        "WS /guarded/ws": SAFE,
        "ANY /app": OPEN,
        "GET /mount/page": SAFE,
    },
    own_handler_for_unknown_paths: {"GET /x": SAFE, "ANY /*": OPEN, "ANY /m/*": OPEN, "ANY /g/*": SAFE},
    exception_handler_that_answers_200: {"GET /x": OPEN, "WS /ws": OPEN},
    exception_handler_that_redirects: {"GET /x": SAFE},
    middleware_that_answers_first: {"GET /x": OPEN},
    middleware_that_refuses: {"GET /x": SAFE, "GET /page": OPEN},
    middleware_that_needs_the_lifespan: {"GET /x": SAFE, "GET /page": OPEN},
    trusted_hosts_and_https: {"GET /x": SAFE, "GET /page": SAFE},
    slashes: {"ANY /files/*": OPEN, "GET /page/": OPEN},
    root_paths: {"GET /api/page": OPEN, "GET /api/x": OPEN, "GET /x": SAFE, "GET /sub/x": SAFE},
    app_wide_dependency_and_docs: {
        "GET /openapi.json": OPEN,
        "GET /docs": OPEN,
        "GET /docs/oauth2-redirect": OPEN,
        "GET /redoc": OPEN,
        "GET /x": SAFE,
    },
    parameters_of_every_kind: {
        "GET /a/{number:int}/{ratio:float}/{id:uuid}/{rest:path}": OPEN,
        "ANY /tenants/{tenant}/*": SAFE,
    },
    parameters_of_an_own_kind: {
        "GET /a/{it:nine}": OPEN,
        "GET /b/{it:nine}": SAFE,
        "GET /c/{it:nine}": OPEN,
        "ANY /e/{it:nine}/*": SAFE,
        "ANY /e/{it:nine}/public": OPEN,
        "GET /d/{it:nine}/x": OPEN,
    },
    an_app_as_an_endpoint: {"GET /app": OPEN, "GET /page": NEVER, "WS /ws": NEVER},
    exempt_paths_of_other_routes: {
        "GET /x": SAFE,
        "WS /x": SAFE,
        "POST /{name}": SAFE,
        "POST /x": OPEN,
        "ANY /t/{tenant}/*": SAFE,
        "ANY /s/{it:nine}/*": SAFE,
        "ANY /s/{it:nine}/public": OPEN,
        "ANY api.example.com/*": SAFE,
    },
    exempt_paths_of_mounts: {
        "ANY /t/{tenant}/*": SAFE,
        "ANY /t/{tenant}/public": OPEN,
        "ANY /s/{it:nine}/*": SAFE,
        "ANY /s/{it:nine}/public": OPEN,
        "ANY api.example.com/*": SAFE,
        "ANY api.example.com/public": OPEN,
    },
    swallowed_before_another_refusal: {"GET /page": OPEN},
    middleware_that_breaks_its_answer: {"GET /x": OPEN},
    middleware_that_passes_on: {"GET /x": SAFE, "GET /page": OPEN, "ANY /m/*": OPEN},
    an_included_route_that_ignores_its_path: {"GET /x": SAFE, "GET /anything": OPEN},
    own_code_mounted_twice: {"GET /a/x": SAFE, "GET /b/x": OPEN},
    middleware_that_accepts: {"WS /ws": OPEN},
    middleware_that_closes: {"WS /ws": SAFE, "WS /raw": OPEN},
    overrides_in_a_circle: {"GET /x": SAFE},
    one_segment_before_many: {
        "WS /ws/{id}": SAFE,
        "WS /ws/{rest:path}": OPEN,
        "GET /x/{id}": SAFE,
        "GET /x/{rest:path}": OPEN,
    },
    one_and_two_segments_before_many: {"GET /x/{id}": SAFE, "GET /x/{id}/{part}": SAFE, "GET /x/{rest:path}": OPEN},
    whole_numbers_before_others: {"GET /x/{number:int}": SAFE, "GET /x/{ratio:float}": OPEN},
    many_segments_before_one: {"GET /x/{rest:path}": SAFE, "GET /x/{id}": NEVER},
}


if hasattr(routing, "iter_route_contexts"):  # before, FastAPI copied the routes of included routers
    TRAPS[own_class_of_a_router] = {"GET /x": SAFE, "GET /v1/x": OPEN}
if hasattr(FastAPI, "frontend"):
    TRAPS[frontends] = {
        "GET /ui/*": OPEN,
        "GET /ui/more/*": OPEN,
        "GET /p/r/*": SAFE,
        "GET /p/r/more/*": SAFE,
        "GET /m/*": SAFE,
    }
    TRAPS[frontends_behind_a_guard] = {"GET /*": SAFE, "GET /more/*": SAFE, "ANY /logo.png": OPEN}

UNSEEN = {
    (rewritten_paths, "GET /v1/page"): "a request for /page reaches it",
    (middleware_that_refuses, "GET /page"): "a header opens it",
    (middleware_that_needs_the_lifespan, "GET /page"): "it has no lifespan here",
    (guard_of_another_object, "GET /page"): "it is protected, by an object that the audit was not given",
    (other_object, "GET /x"): "the same",
    (own_classes_of_routes, "ANY (Unknown)"): "its path is not known",
    (own_classes_behind_a_guard, "ANY (Unknown)"): "the same",
    (middleware_that_closes, "WS /raw"): "its middleware may accept another handshake",
    (swallowed_before_another_refusal, "GET /page"): "a header opens it",
    (middleware_that_breaks_its_answer, "GET /x"): "the client of the test raises",
    (exempt_paths_of_other_routes, "ANY /s/{it:nine}/public"): "the audit knows no path that fits, so it cannot ask",
    (guard_with_exempt_paths, "GET /files/public"): "it lacks a parameter",
    (overrides_in_a_circle, "GET /x"): "FastAPI does not end",
    (a_class_that_raises, "GET /raises"): "it raises",
    (a_class_that_raises, "GET /x"): "the same",
    (frontends_behind_a_guard, "ANY /logo.png"): "the folder has no file of that name",
    (frontends, "GET /ui/more/*"): "the same",
    (frontends, "GET /ui/*"): "the folder has no file of that name",
}
"""The routes of which a plain request does not show what the audit says."""
