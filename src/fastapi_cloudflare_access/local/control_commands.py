"""The commands of the control page: they change sessions, keys, names, tokens, clock and certs of a local Access."""

from collections.abc import Callable

from fastapi_cloudflare_access.local.config import App, is_email
from fastapi_cloudflare_access.local.control_state import Values
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.open_requests import OpenRequests
from fastapi_cloudflare_access.local.policies import admits_person, admits_service
from fastapi_cloudflare_access.local.team import GROUP_SHAPES

MAX_SHIFT = 400 * 86_400.0
"""Largest shift of the clock, in seconds."""
MAX_LAG = 600.0
"""Longest delay of the certs endpoint, and largest `Retry-After`, in seconds."""

FAULTS = {
    "fail": "answers 503",
    "limited": "answers 429 with Retry-After",
    "missing": "answers 404",
    "hang": "never answers",
    "lag": "answers late",
    "garbage": "answers with bytes that are not JSON",
    "html": "answers with an HTML page",
    "no_keys": "answers with no keys",
    "reset": "closes the connection in the middle of the answer",
    "refuse": "closes the connection at once",
}
"""Faults of the certs endpoint, with the text for the control page."""


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

    def __init__(self, local_access: LocalAccess, open_requests: OpenRequests | None = None) -> None:
        """Store the local Access to change, and the requests that can be ended."""
        self.local_access = local_access
        self._open_requests = open_requests or OpenRequests()
        self.commands: dict[str, Callable[[Values], object]] = {
            "rotate": self.rotate,
            "withdraw": self.withdraw,
            "certs": self.certs,
            "clock": self.clock,
            "rename": self.rename,
            "groups": self.groups,
            "trim": self.trim,
            "expire": self.expire,
            "revoke": self.revoke,
            "cut": self.cut,
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
        """Set the `fault` of the certs endpoint, with `seconds` for `lag` and `limited`; `none` removes it."""
        certs, fault = self.local_access.certs, values.get("fault")
        seconds = _number(values, "seconds", 5.0, 0.0, MAX_LAG)
        actions: dict[str, Callable[[], None]] = {
            "none": certs.recover,
            "fail": certs.fail_with,
            "missing": lambda: certs.fail_with(404),
            "limited": lambda: certs.answer_with(b"", status=429, headers={"retry-after": f"{seconds:.0f}"}),
            "lag": lambda: certs.slow(seconds),
            **{name: getattr(certs, name) for name in ("hang", "garbage", "html", "no_keys", "reset", "refuse")},
        }
        if not isinstance(fault, str) or fault not in actions:
            raise ControlError(f"fault must be one of {', '.join(actions)}")
        actions[fault]()
        self.local_access.fault = "" if fault == "none" else fault

    def clock(self, values: Values) -> None:
        """Set the team's clock `seconds` ahead of the computer's."""
        self.local_access.clock.shift = _number(values, "seconds", 0.0, -MAX_SHIFT, MAX_SHIFT)

    def rename(self, _: Values) -> Values:
        """Rename the team; the second call makes new tokens carry the new name too."""
        local_access = self.local_access
        if local_access.addresses.is_renamed and local_access.team.issuer == local_access.addresses.issuer:
            raise ControlError("the team has its new name already; reset gives it the old one back")
        if not local_access.addresses.is_renamed:
            local_access.rename()
        else:
            local_access.team.issuer = local_access.addresses.issuer
        return {"issuer": local_access.addresses.issuer, "token_issuer": local_access.team.issuer}

    def groups(self, values: Values) -> None:
        """Set the `shape` of groups in new tokens: `list`, `text` or `objects`."""
        shape = values.get("shape")
        if not isinstance(shape, str) or shape not in GROUP_SHAPES:
            raise ControlError(f"shape must be one of {', '.join(GROUP_SHAPES)}")
        self.local_access.team.group_shape = shape

    def trim(self, values: Values) -> None:
        """Leave the `custom` claims out of new tokens of the user with this `email`; with `"trimmed": false`, stop."""
        is_trimmed = values.get("trimmed", True) not in (False, "false")
        (self.local_access.team.trimmed.add if is_trimmed else self.local_access.team.trimmed.discard)(_email(values))

    def expire(self, values: Values) -> None:
        """Expire the session with this `session` id."""
        session = self._session(values)
        self.local_access.state.sessions[session].ended = "expired"
        self.local_access.state.save()

    def revoke(self, values: Values) -> Values:
        """Revoke every session of the user with this `email`."""
        return {"ended": self.local_access.end_sessions(_email(values), "revoked")}

    def cut(self, values: Values) -> Values:
        """Expire the session with this `session` id, and close its open streams and WebSockets."""
        self.expire(values)
        return {"closed": self._open_requests.end_session(self._session(values))}

    def token(self, values: Values) -> Values:
        """Create a token for an `app`, of a user by `email` or of a `service`, if a policy admits the caller."""
        app = self._app(values)
        if "service" in values:
            return {"token": self._service_token(values["service"], app)}
        local_access, email = self.local_access, _email(values)
        person = local_access.config.person(email)
        if not admits_person(app, person):
            raise ControlError("no policy of the app admits this user, so a login would get no token", status=403)
        session = local_access.log_in(email, ip="127.0.0.1")
        return {"token": local_access.team.app_token(session, person, app, host=app.host)}

    def reset(self, values: Values) -> None:
        """Remove all trouble, and all sessions unless `"sessions": "keep"`; publish two keys again."""
        local_access = self.local_access
        if values.get("sessions") != "keep":
            local_access.state.sessions.clear()
        local_access.restore_name()
        local_access.team.group_shape = "list"
        local_access.team.trimmed.clear()
        oauth = local_access.state.oauth
        for grants in (oauth.codes, oauth.access, oauth.refresh):
            grants.clear()
        local_access.state.save()
        if local_access.team.previous is None:
            local_access.team.rotate()
        self.clock({"seconds": 0})
        self.certs({"fault": "none"})

    def _session(self, values: Values) -> str:
        session = str(values.get("session"))
        if session not in self.local_access.state.sessions:
            raise ControlError("no session has this id; GET state lists the sessions")
        return session

    def _app(self, values: Values) -> App:
        apps = self.local_access.config.apps
        app = next((app for app in apps if app.name == values.get("app", apps[0].name)), None)
        if app is None:
            raise ControlError("no app has this name; GET state lists the apps")
        return app

    def _service_token(self, name: object, app: App) -> str:
        client_id = next((found for found, known in self.local_access.services.items() if known == name), None)
        if client_id is None:
            raise ControlError("no service token has this name; GET state lists the service tokens")
        if not admits_service(app, str(name)):
            raise ControlError("no policy of the app admits this service token, so it would get no token", status=403)
        return self.local_access.team.service_app_token(client_id, app, host=app.host)


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
