"""The control page and its JSON API."""

from collections.abc import AsyncIterator

from starlette.responses import JSONResponse, RedirectResponse, Response

from fastapi_cloudflare_access.local.control_commands import FAULTS, ControlCommands, ControlError
from fastapi_cloudflare_access.local.control_state import Values, describe_state
from fastapi_cloudflare_access.local.cookies import team_session_cookie
from fastapi_cloudflare_access.local.edge_request import EdgeRequest
from fastapi_cloudflare_access.local.forms import (
    csrf_token,
    has_valid_csrf_token,
    is_same_origin,
    new_team_session,
    read_form,
    read_json,
    team_session,
)
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.open_requests import OpenRequests
from fastapi_cloudflare_access.local.pages import NO_STORE, message, page
from fastapi_cloudflare_access.local.team import GROUP_SHAPES

CONTROL_PATH = "/control/"
API_PATH = "/control/api/"

_SECTIONS = {
    **dict.fromkeys(("expire", "revoke", "cut"), "sessions"),
    **dict.fromkeys(("rotate", "withdraw"), "keys"),
    "rename": "name",
    **dict.fromkeys(("groups", "trim"), "claims"),
    "certs": "certs-endpoint",
    "clock": "clock",
}
"""Sections of the page to return to, by command; without one, its beginning."""


async def control(
    request: EdgeRequest, local_access: LocalAccess, body: AsyncIterator[bytes], open_requests: OpenRequests
) -> Response:
    """Return the response for `/` and for paths below `/control/`."""
    controls = ControlCommands(local_access, open_requests)
    if request.path.startswith(API_PATH):
        return await _api(request, controls, body)
    if request.method == "POST" and request.path.startswith(CONTROL_PATH):
        return await _command(request, controls, body)
    if request.path != "/":
        return message("Page not found", status=404, links={"The control page": "/"})
    return _page(request, controls)


async def _api(request: EdgeRequest, controls: ControlCommands, body: AsyncIterator[bytes]) -> Response:
    headers = {"cache-control": NO_STORE}
    try:
        _check_api(request)
        if request.method == "GET":
            return JSONResponse(describe_state(controls.local_access), headers=headers)
        command, values = request.path.removeprefix(API_PATH), await _values(body)
        return JSONResponse(controls.run(command, values), headers=headers)
    except ControlError as problem:
        return JSONResponse({"error": str(problem)}, problem.status, headers)


async def _values(body: AsyncIterator[bytes]) -> Values:
    values = await read_json(body)
    if values is None:
        raise ControlError("the body must be a JSON object")
    return values


def _check_api(request: EdgeRequest) -> None:
    """Raise `ControlError` unless the request is GET state or a same-origin POST of JSON."""
    if not is_same_origin(request):
        raise ControlError("the request comes from another origin", status=403)
    if request.method == "GET" and request.path == API_PATH + "state":
        return
    if request.method != "POST":
        raise ControlError("use GET for state, and POST for a command", status=405)
    if request.get("content-type").partition(";")[0].strip().lower() != "application/json":
        raise ControlError("the content type must be application/json", status=415)


async def _command(request: EdgeRequest, controls: ControlCommands, body: AsyncIterator[bytes]) -> Response:
    form = await read_form(body)
    if not has_valid_csrf_token(request, controls.local_access, form):
        return message("The form has expired", "Go back and send it again.", status=403, links={"Back": "/"})
    command = request.path.removeprefix(CONTROL_PATH)
    try:
        controls.run(command, form)
    except ControlError as problem:
        return message("The command failed", str(problem), status=problem.status, links={"Back": "/"})
    return RedirectResponse(f"/#{_SECTIONS.get(command, '')}".rstrip("#"), 303)


def _page(request: EdgeRequest, controls: ControlCommands) -> Response:
    local_access = controls.local_access
    session = team_session(request) or new_team_session()
    state = describe_state(local_access)
    response = page("control.html", csrf=csrf_token(local_access, session), faults=FAULTS, shapes=GROUP_SHAPES, **state)
    response.headers.append("set-cookie", team_session_cookie(request, local_access, session))
    return response
