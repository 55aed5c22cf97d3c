"""Which paths the app behind the guard serves, by its routes."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.testclient import TestClient

from fastapi_cloudflare_access._routes.guarded_app import GuardedApp, check_exempt

RESPONSE = PlainTextResponse("x")
HAS_FRONTEND = hasattr(FastAPI, "frontend")
NEEDS_FRONTEND = pytest.mark.skipif(not HAS_FRONTEND, reason="this FastAPI serves no frontend")


async def endpoint() -> str:
    return "x"


class Unusual(BaseRoute):
    """A route of the app's own class, which needs more of the scope."""

    def matches(self, scope: Any) -> Any:
        return scope["client"]


def app_of(*routes: BaseRoute) -> Router:
    return Router(routes=[*routes])


def fastapi_app(folder: Any) -> FastAPI:
    (folder / "index.html").write_text("x")
    app = FastAPI(redoc_url=None)
    app.add_api_route("/items/{number}", endpoint)
    nested, router = APIRouter(prefix="/nested"), APIRouter(prefix="/router")
    nested.add_api_route("/deep", endpoint, methods=["POST"])
    nested.mount("/mount", app_of(Route("/a", RESPONSE)))
    router.include_router(nested)
    router.add_api_websocket_route("/socket", endpoint)
    if HAS_FRONTEND:
        router.frontend("/pages", directory=folder)
    app.include_router(router)
    app.mount("/static", RESPONSE)
    app.mount("/inner", GZipMiddleware(app_of(Route("/b", RESPONSE), Mount("/c", app_of(Route("/d", RESPONSE))))))
    app.host("api.example.com", app_of(Route("/host", RESPONSE)))
    return app


def status(app: FastAPI, path: str) -> int:
    host = "api.example.com" if path == "/host" else "x"
    return TestClient(app, base_url=f"http://{host}", follow_redirects=False).get(path).status_code


@pytest.mark.parametrize(
    "path",
    [
        "/items/1",
        "/router/nested/deep",
        pytest.param("/router/mount/a", marks=NEEDS_FRONTEND),  # older versions leave out mounts of routers
        pytest.param("/router/pages/index.html", marks=NEEDS_FRONTEND),
        "/static/any.css",
        "/inner/b",
        "/inner/c/d",
        "/host",
        "/docs",
        "/openapi.json",
    ],
)
def test_a_path_that_a_route_a_mount_or_a_frontend_matches_is_served(tmp_path: Any, path: str) -> None:
    app = fastapi_app(tmp_path)
    assert GuardedApp(app).serves(path)
    assert GuardedApp(GZipMiddleware(app)).serves(path)
    assert status(app, path) in ((200,) if path != "/router/nested/deep" else (405,))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/items",
        "/items/1/",
        "/redoc",
        "/router/socket",
        "/router/nested/deep/",
        "/router/mount/b",
        "/router/page",
        "/pages/index.html",
        "/static",
        "/inner/",
        "/inner/c/b",
        "/b",
    ],
)
def test_any_other_path_is_not_served(tmp_path: Any, path: str) -> None:
    app = fastapi_app(tmp_path)
    assert not GuardedApp(app).serves(path)
    assert status(app, path) in (404, 307)


@NEEDS_FRONTEND
def test_a_frontend_of_the_whole_app_serves_every_path(tmp_path: Any) -> None:
    app = FastAPI()
    app.frontend("/", directory=tmp_path)
    assert GuardedApp(app).serves("/favicon.ico")


def test_an_app_whose_routes_are_not_known_may_serve_each_path() -> None:
    for app in (RESPONSE, GZipMiddleware(RESPONSE), app_of(Unusual())):
        assert GuardedApp(app).serves("/x")


@pytest.mark.parametrize("routes", [None, 5, {}, lambda: ["/a"]], ids=["none", "number", "dict", "method"])
def test_an_attribute_of_another_framework_is_not_taken_for_routes(routes: Any) -> None:
    app: Any = type("Other", (), {"routes": routes, "__call__": endpoint})()
    assert GuardedApp(app).serves("/x")


def test_an_app_that_wraps_itself_is_looked_at_once() -> None:
    app = GZipMiddleware(RESPONSE)
    app.app = app
    assert GuardedApp(app).serves("/x")


def test_exempt_paths_may_come_in_any_collection() -> None:
    for paths in (["/a", "/b"], ("/a", "/b"), {"/a", "/b"}, frozenset({"/a", "/b"})):
        assert check_exempt(paths) == {"/a", "/b"}
    assert check_exempt(["/", "/.well-known/x", "/a.b/é;c"]) == {"/", "/.well-known/x", "/a.b/é;c"}


def test_middleware_of_a_route_is_looked_through() -> None:
    mount = Mount("/a", routes=[Route("/b", RESPONSE)], middleware=[Middleware(GZipMiddleware)])
    assert GuardedApp(app_of(mount)).serves("/a/b")
    assert not GuardedApp(app_of(mount)).serves("/a/c")
