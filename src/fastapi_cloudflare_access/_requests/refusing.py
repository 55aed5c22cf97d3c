"""Refusals by middleware: the exception handlers of the app answer them, as they answer the refusals of a route."""

from collections.abc import Mapping
from typing import Any

from fastapi.exception_handlers import http_exception_handler
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


async def refuse(exception: Exception, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request or a WebSocket handshake with the response to an exception, as if a route raised it.

    Args:
        exception: The refusal, such as `AccessHTTPException`.
        app: The app behind the middleware; its handlers answer, or those of the app that it is mounted in.
        scope: The scope of the connection.
        receive: The channel of messages from the client.
        send: The channel of messages to the client.
    """
    owner = app_behind_middleware(app, "exception_handlers") or scope.get("app")

    async def fail(*_: object) -> None:
        raise exception

    answering = ExceptionMiddleware(fail, handlers=_handlers_of(owner))
    await answering(scope if owner is None else {**scope, "app": owner}, receive, send)


def app_behind_middleware(app: object, attribute: str) -> object | None:
    """Return the first app with this attribute, from the outermost middleware to the innermost app."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        if hasattr(app, attribute):
            return app
        seen.add(id(app))
        app = getattr(app, "app", None)
    return None


def _handlers_of(owner: object) -> dict[Any, Any]:
    own: Mapping[Any, Any] = getattr(owner, "exception_handlers", {})
    return {HTTPException: http_exception_handler, **own}
