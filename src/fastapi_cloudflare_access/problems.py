"""Refusals as problem details, `application/problem+json` (RFC 9457)."""

from copy import deepcopy
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from fastapi.utils import is_body_allowed_for_status_code
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from fastapi_cloudflare_access._requests.responses import RESPONSES
from fastapi_cloudflare_access.errors import ConfigurationError

__all__ = ["problem_details", "problem_responses"]

MEDIA_TYPE = "application/problem+json"

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

    Raises:
        ConfigurationError: The exception is not an `HTTPException`.
    """
    if not isinstance(refused, HTTPException):
        raise ConfigurationError(
            "problem_details answers HTTP errors only: "
            "write app.add_exception_handler(AccessHTTPException, problem_details)"
        ) from refused
    if not is_body_allowed_for_status_code(refused.status_code):
        return Response(status_code=refused.status_code, headers=refused.headers)
    body: dict[str, Any] = {"type": "about:blank", "title": _title(refused.status_code), "status": refused.status_code}
    detail: Any = refused.detail
    if isinstance(detail, str):
        body["detail"] = detail
    return JSONResponse(body, refused.status_code, refused.headers, media_type=MEDIA_TYPE)


def problem_responses() -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a router or route: OpenAPI then documents 401, 403 and 503 as problem details."""
    responses = deepcopy(dict(RESPONSES))
    for response in responses.values():
        response["content"] = {MEDIA_TYPE: {"schema": deepcopy(_SCHEMA)}}
    return responses


def _title(status: int) -> str:
    """Return the reason phrase of a status, which is the title of a problem without a type of its own."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
