"""Refusals as problem details, `application/problem+json` (RFC 9457)."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from http import HTTPStatus
from typing import Any, cast

from fastapi.exceptions import RequestValidationError, WebSocketException, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from fastapi.utils import is_body_allowed_for_status_code
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from fastapi_cloudflare_access._requests.responses import RESPONSES
from fastapi_cloudflare_access.errors import ConfigurationError

__all__ = ["problem_details", "problem_responses"]

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 100
"""Number of validation errors in a response, at most."""
MAX_TEXT = 1000
"""Number of characters of a message, or of a name, in a validation error."""

_INVALID_TAG = "union_tag_invalid"

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "ProblemDetails",
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "default": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status"],
}


async def problem_details(connection: HTTPConnection, refused: Exception) -> Response:  # noqa: ARG001 - every handler takes both
    """Return the response to a refusal as problem details, with the status and the headers of the refusal.

    Add it with `app.add_exception_handler(AccessHTTPException, problem_details)` to the app, and to each FastAPI app
    that is mounted in it. It also answers the refusals of WebSocket handshakes and of middleware. If it is added for
    `HTTPException`, it answers the other errors of the app too.

    For `RequestValidationError` it sends 422 and the member `errors`, with type, place and message of at most
    `MAX_ERRORS` errors, and never the input; the messages of your own validators are sent as they are. For `Exception`
    it sends 500 and nothing of the exception, which Starlette raises again, so that the server logs it. In a handler of
    your own write `return await problem_details(…)`.

    Raises:
        ConfigurationError: The exception is one of WebSockets, which has no response.
    """
    if isinstance(refused, WebSocketException | WebSocketRequestValidationError):
        raise ConfigurationError(
            "problem_details answers no exceptions of WebSockets: "
            "write app.add_exception_handler(AccessHTTPException, problem_details)"
        ) from refused
    if isinstance(refused, RequestValidationError):
        return _problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, errors=[_error(error) for error in refused.errors()[:MAX_ERRORS]]
        )
    if not isinstance(refused, HTTPException):
        return _problem(HTTPStatus.INTERNAL_SERVER_ERROR)
    if not is_body_allowed_for_status_code(refused.status_code):
        return Response(status_code=refused.status_code, headers=refused.headers)
    detail: Any = refused.detail
    more = {"detail": detail} if isinstance(detail, str) else {}
    return _problem(refused.status_code, refused.headers, **more)


def problem_responses() -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a router or route: OpenAPI then documents 401, 403 and 503 as problem details."""
    responses = deepcopy(dict(RESPONSES))
    for response in responses.values():
        response["content"] = {MEDIA_TYPE: {"schema": deepcopy(_SCHEMA)}}
    return responses


def _problem(status: int, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    body = {"type": "about:blank", "title": _title(status), "status": status, **more}
    return JSONResponse(body, status, headers, media_type=MEDIA_TYPE)


def _error(error: Any) -> dict[str, Any]:
    """Return the members of a validation error without the input, its context and the address of a page.

    An app may raise errors of its own, which have other members.
    """
    given = cast("Mapping[str, Any]", error) if isinstance(error, Mapping) else {"msg": error}
    kind, place, message = given.get("type", "value_error"), given.get("loc", ()), given.get("msg", "")
    if kind == _INVALID_TAG:  # its message has the tag of the client
        message = "Input tag is none of the expected tags"
    parts = cast("Sequence[object]", place) if isinstance(place, list | tuple) else (place,)
    return {"type": _text(kind), "loc": [_part(part) for part in parts], "msg": _text(message)}


def _part(part: object) -> int | str:
    return part if isinstance(part, int) else _text(part)


def _text(value: object) -> str:
    """Return a text that can be encoded; names of members in `loc` come from the client."""
    return str(value)[:MAX_TEXT].encode(errors="replace").decode()


def _title(status: int) -> str:
    """Return the reason phrase of a status, which is the title of a problem without a type of its own."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
