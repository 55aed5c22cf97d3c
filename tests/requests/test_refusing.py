"""A refusal by middleware is answered by the handlers of the app that it protects, wherever that app is."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from fastapi_cloudflare_access._requests.refusing import app_behind_middleware, refuse

pytestmark = pytest.mark.anyio


class Middleware:
    """Anything around an app."""

    def __init__(self, app: object) -> None:
        self.app = app


class Refused(Exception):
    """A refusal that only a handler of the app can answer."""


def app_that_answers(words: str, *kinds: type[Exception]) -> FastAPI:
    """An app whose handler answers with these words, and with the title of the app that the request is of."""
    app = FastAPI(title=words)

    async def handler(request: Request, error: Any) -> PlainTextResponse:
        return PlainTextResponse(f"{words} for {request.app.title}", status_code=418)

    for kind in kinds:
        app.add_exception_handler(kind, handler)
    return app


async def answer(exception: Exception, behind: Any, **scope: Any) -> tuple[int, str]:
    """The status and the body of the response to a refusal."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        pytest.fail("nothing of the request is read")

    given = {"type": "http", "method": "GET", "path": "/", "headers": [], **scope}
    before = dict(given)
    await refuse(exception, behind, given, receive, send)
    assert {**given, "starlette.exception_handlers": None} == {**before, "starlette.exception_handlers": None}
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:]).decode()


async def test_the_handler_of_the_app_answers_through_any_middleware() -> None:
    app = app_that_answers("mine", Refused, HTTPException)
    for wrapped in (app, Middleware(app), Middleware(Middleware(Middleware(app)))):
        assert await answer(Refused(), wrapped) == (418, "mine for mine")
        assert await answer(HTTPException(403, "no"), wrapped) == (418, "mine for mine")


async def test_an_app_without_such_a_handler_answers_as_fastapi_does() -> None:
    for app in (FastAPI(), Middleware(FastAPI()), app_that_answers("mine", Refused)):
        status, body = await answer(HTTPException(403, "no"), app)
        assert (status, json.loads(body)) == (403, {"detail": "no"})


async def test_the_app_around_a_mount_answers_for_what_has_no_handlers() -> None:
    outer = app_that_answers("outer", Refused)
    assert await answer(Refused(), Middleware(PlainTextResponse("in")), app=outer) == (418, "outer for outer")


async def test_the_app_behind_the_middleware_answers_before_the_one_around_it() -> None:
    outer, inner = app_that_answers("outer", Refused), app_that_answers("inner", Refused)
    assert await answer(Refused(), Middleware(inner), app=outer) == (418, "inner for inner")


async def test_without_any_app_the_answer_is_that_of_fastapi() -> None:
    status, body = await answer(HTTPException(401, "no token"), PlainTextResponse("in"))
    assert (status, json.loads(body)) == (401, {"detail": "no token"})


async def test_what_no_handler_answers_is_raised() -> None:
    with pytest.raises(Refused):
        await answer(Refused(), FastAPI())


def test_the_outermost_app_with_the_attribute_is_the_one() -> None:
    inner, outer = Middleware(None), Middleware(None)
    inner.routes, outer.routes = [], None  # type: ignore[attr-defined]
    outer.app = inner
    assert app_behind_middleware(Middleware(outer), "routes") is outer
    assert app_behind_middleware(inner, "routes") is inner
    assert app_behind_middleware(Middleware(inner), "exception_handlers") is None
    assert app_behind_middleware(None, "routes") is None


def test_middleware_that_wraps_itself_ends_the_search() -> None:
    first, second = Middleware(None), Middleware(None)
    first.app, second.app = second, first
    assert app_behind_middleware(first, "routes") is None
    second.app = second
    assert app_behind_middleware(first, "routes") is None
