"""Which objects around an app are looked into, for its routes."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cloudflare_access._routes.tree import behind, levels, walk


async def endpoint() -> str:
    return "x"


def app_with_a_route() -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_api_route("/x", endpoint)
    return app


@pytest.mark.parametrize(("times", "found"), [(0, ["/x"]), (100, ["/x"]), (101, [])])
def test_an_app_is_found_behind_at_most_a_hundred_objects(times: int, found: list[str]) -> None:
    app: Any = app_with_a_route()
    for _ in range(times):
        app = GZipMiddleware(app)
    assert [node.path for node in walk(app)] == found
    assert len(behind(app)) == min(times, 100) + 1


@pytest.mark.parametrize(("name", "found"), [("A", ["/x"]), ("z", ["/x"]), ("WSGIMiddleware", [])])
def test_an_object_of_any_class_but_the_one_for_wsgi_is_looked_into(name: str, found: list[str]) -> None:
    around = type(name.encode().decode(), (GZipMiddleware,), {})
    assert [node.path for node in walk(around(app_with_a_route()))] == found


def test_an_object_that_is_no_app_has_no_routes() -> None:
    for around in (None, 5, object(), type("Keeping", (), {"app": 5})(), type("Keeping", (), {"app": None})()):
        assert [*levels(around)] == []


def test_a_request_is_matched_in_full_only() -> None:
    (node,) = walk(app_with_a_route())
    scope = {"type": "http", "path": "/x", "root_path": "", "headers": []}
    assert [node.matches({**scope, "method": method}) for method in ("GET", "POST")] == [True, False]
    assert not node.matches({})


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="this FastAPI serves no frontend")
@pytest.mark.parametrize(
    ("prefix", "path", "found"),
    [("", "/", "/"), ("", "/pages", "/pages"), ("/app", "/", "/app"), ("/app", "/pages", "/app/pages")],
)
def test_a_frontend_has_its_path_in_the_app(tmp_path: Any, prefix: str, path: str, found: str) -> None:
    (tmp_path / "index.html").write_text("x")
    app, router = FastAPI(openapi_url=None), APIRouter()
    router.frontend(path, directory=tmp_path)
    app.include_router(router, prefix=prefix)
    assert {node.path for node in walk(app)} == {found}


def test_a_level_and_a_node_cannot_be_changed() -> None:
    (node,) = walk(app_with_a_route())
    for one in (node, node.level):
        with pytest.raises(AttributeError):
            setattr(one, next(iter(type(one).__slots__)), None)
