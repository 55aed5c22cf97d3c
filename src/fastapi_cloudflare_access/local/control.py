"""The control page and its JSON API: sessions, keys, clock and faults of a local Access."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from fastapi_cloudflare_access.local.config import is_email
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
from fastapi_cloudflare_access.local.pages import NO_STORE, message, page

CONTROL_PATH = "/control/"
API_PATH = "/control/api/"
MAX_SHIFT = 400 * 86_400.0
"""Largest shift of the clock, in seconds."""
MAX_LAG = 600.0
"""Longest delay of the certs endpoint, in seconds."""

FAULTS = {
    "fail": "answers 503",
    "hang": "never answers",
    "lag": "answers late",
    "garbage": "answers with bytes that are not JSON",
    "html": "answers with an HTML page",
    "no_keys": "answers with no keys",
    "reset": "closes the connection in the middle of the answer",
    "refuse": "closes the connection at once",
}
"""Faults of the certs endpoint, with the text for the control page."""

Values = dict[str, Any]


class ControlError(Exception):
    """A command that fails; the message gives the reason.

    Attributes:
        status: HTTP status code of the response.
    """

    def __init__(self, problem: str, *, status: int = 400) -> None:
        """Store the reason and the status."""
        super().__init__(problem)
        self.status = status


class ControlCommands:
    """The commands of the control page."""

    def __init__(self, local_access: LocalAccess) -> None:
        """Store the local Access to change."""
        self.local_access = local_access
        self.commands: dict[str, Callable[[Values], object]] = {
            "rotate": self.rotate,
            "withdraw": self.withdraw,
            "certs": self.certs,
            "clock": self.clock,
            "expire": self.expire,
            "revoke": self.revoke,
            "token": self.token,
            "reset": self.reset,
        }

    def run(self, name: str, values: Values) -> Values:
        """Run a command, and return its result.

        Raises:
            ControlError: The command is unknown, or it fails.
        """
        if name not in self.commands:
            raise ControlError(f"unknown command; use one of {', '.join(self.commands)}")
        result = self.commands[name](values)
        return {"done": name, **(result if isinstance(result, dict) else {})}

    def rotate(self, _: Values) -> None:
        """Add a new signing key; the old one stays published."""
        self.local_access.team.rotate()

    def withdraw(self, _: Values) -> None:
        """Remove the previous key from the certs."""
        self.local_access.team.withdraw()

    def certs(self, values: Values) -> None:
        """Set the `fault` of the certs endpoint, with `seconds` for `lag`; `none` removes it."""
        certs, fault = self.local_access.certs, values.get("fault")
        actions: dict[str, Callable[[], None]] = {
            "none": certs.recover,
            "fail": certs.fail_with,
            "lag": lambda: certs.slow(_number(values, "seconds", 5.0, 0.0, MAX_LAG)),
            **{name: getattr(certs, name) for name in ("hang", "garbage", "html", "no_keys", "reset", "refuse")},
        }
        if not isinstance(fault, str) or fault not in actions:
            raise ControlError(f"fault must be one of {', '.join(actions)}")
        actions[fault]()
        self.local_access.fault = "" if fault == "none" else fault

    def clock(self, values: Values) -> None:
        """Set the team's clock `seconds` ahead of the computer's."""
        self.local_access.clock.shift = _number(values, "seconds", 0.0, -MAX_SHIFT, MAX_SHIFT)

    def expire(self, values: Values) -> None:
        """Expire the session with this `session` id."""
        session = self.local_access.state.sessions.get(str(values.get("session")))
        if session is None:
            raise ControlError("no session has this id; GET state lists the sessions")
        session.ended = "expired"
        self.local_access.state.save()

    def revoke(self, values: Values) -> Values:
        """Revoke every session of the user with this `email`."""
        return {"ended": self.local_access.end_sessions(_email(values), "revoked")}

    def token(self, values: Values) -> Values:
        """Create a token for an `app`, of a user by `email` or of a `service`."""
        local_access = self.local_access
        apps = local_access.config.apps
        app = next((app for app in apps if app.name == values.get("app", apps[0].name)), None)
        if app is None:
            raise ControlError("no app has this name; GET state lists the apps")
        if "service" in values:
            client_id = next(
                (found for found, name in local_access.services.items() if name == values["service"]), None
            )
            if client_id is None:
                raise ControlError("no service token has this name; GET state lists the service tokens")
            return {"token": local_access.team.service_app_token(client_id, app, host=app.host)}
        session = local_access.log_in(_email(values), ip="127.0.0.1")
        return {
            "token": local_access.team.app_token(session, local_access.config.person(session.email), app, host=app.host)
        }

    def reset(self, _: Values) -> None:
        """Remove all sessions, the shift of the clock and the fault of the certs endpoint."""
        self.local_access.state.sessions.clear()
        self.local_access.state.save()
        self.clock({"seconds": 0})
        self.certs({"fault": "none"})

    def state(self) -> Values:
        """Return the whole state, without tokens and secrets."""
        local_access = self.local_access
        return {
            "team": {
                "name": local_access.config.team.name,
                "issuer": local_access.addresses.issuer,
                "now": local_access.clock.now(),
                "shift": local_access.clock.shift,
            },
            "certs": {"fault": local_access.fault, "fetches": local_access.certs.fetches},
            "keys": [
                {
                    "kid": key.kid,
                    "is_current": key is local_access.team.current,
                    "age": round(local_access.team.age_of(key)),
                }
                for key in reversed(local_access.team.keys)
            ],
            "apps": [
                {
                    "name": app.name,
                    "origin": local_access.addresses.origin(app.host),
                    "paths": list(app.paths),
                    "audience": app.tag,
                }
                for app in local_access.config.apps
            ],
            "people": [person.model_dump(mode="json") for person in local_access.config.people],
            "service_tokens": [
                {"name": name, "client_id": client_id} for client_id, name in local_access.services.items()
            ],
            "sessions": [_session(entry) for entry in reversed(local_access.state.sessions.values())],
        }


def _session(session: Any) -> Values:
    return {
        "id": session.id,
        "email": session.email,
        "created": session.created,
        "expires": session.expires,
        "ended": session.ended,
        "tokens": session.tokens,
    }


async def control(request: EdgeRequest, local_access: LocalAccess, body: AsyncIterator[bytes]) -> Response:
    """Return the response for `/` and for paths below `/control/`."""
    controls = ControlCommands(local_access)
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
            return JSONResponse(controls.state(), headers=headers)
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
    try:
        controls.run(request.path.removeprefix(CONTROL_PATH), form)
    except ControlError as problem:
        return message("The command failed", str(problem), status=400, links={"Back": "/"})
    return RedirectResponse("/", 303)


def _page(request: EdgeRequest, controls: ControlCommands) -> Response:
    local_access = controls.local_access
    session = team_session(request) or new_team_session()
    response = page("control.html", csrf=csrf_token(local_access, session), faults=FAULTS, **controls.state())
    response.headers.append("set-cookie", team_session_cookie(request, local_access, session))
    return response


def _number(values: Values, name: str, default: float, minimum: float, maximum: float) -> float:
    try:
        number = float(values.get(name, default))
    except (TypeError, ValueError, OverflowError):
        raise ControlError(f"{name} must be a number") from None
    if not minimum <= number <= maximum:
        raise ControlError(f"{name} must be from {minimum:.0f} to {maximum:.0f}")
    return number


def _email(values: Values) -> str:
    email = values.get("email")
    if not isinstance(email, str) or not is_email(email):
        raise ControlError("email must be an email address")
    return email.lower()
