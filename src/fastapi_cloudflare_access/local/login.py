"""Login and logout: the pages of the team domain, and the redirect back to the app."""

import hmac
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from starlette.responses import RedirectResponse, Response

from fastapi_cloudflare_access._verification.request_token import COOKIE
from fastapi_cloudflare_access.local.config import App, is_email
from fastapi_cloudflare_access.local.cookies import (
    APP_SESSION,
    app_cookie,
    expired_token_cookie,
    team_cookie,
    team_session_cookie,
)
from fastapi_cloudflare_access.local.edge_request import MAX_TARGET, EdgeRequest
from fastapi_cloudflare_access.local.forms import (
    csrf_token,
    has_valid_csrf_token,
    new_team_session,
    read_form,
    team_session,
)
from fastapi_cloudflare_access.local.local_access import NONCE_LIFETIME, LocalAccess, PendingLogin
from fastapi_cloudflare_access.local.pages import NO_STORE, message, page
from fastapi_cloudflare_access.local.policies import admits_person
from fastapi_cloudflare_access.local.responses import LOGIN_PATH
from fastapi_cloudflare_access.local.state import Session
from fastapi_cloudflare_access.local.team import sha256_hex

AUTHORIZED_PATH = "/cdn-cgi/access/authorized"
LOGOUT_PATH = "/cdn-cgi/access/logout"

_RELATIVE = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f-\U0010ffff]*")


class InvalidLogin(Exception):
    """A login that is rejected; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """The parameters of a login redirect.

    Attributes:
        app: App to log in to.
        origin: Origin of the app.
        netloc: Host and port of the app.
        target: Path and query to return to.
        app_session_hash: SHA-256 of the `CF_AppSession` cookie; None if the login must restart at the app.
    """

    app: App
    origin: str
    netloc: str
    target: str
    app_session_hash: str | None


async def login(request: EdgeRequest, local_access: LocalAccess, body: AsyncIterator[bytes]) -> Response:
    """Return the login page, the response to its form, or a redirect to the app."""
    try:
        login_request = parse_login(request, local_access)
    except InvalidLogin as problem:
        return message("This login is not valid", str(problem), status=400)
    if request.method == "POST":
        return await submit_form(request, local_access, login_request, body)
    session = current_session(request, local_access)
    if session is None:
        return login_form(request, local_access, login_request)
    return _redirect_to_app(local_access, login_request, session)


def parse_login(request: EdgeRequest, local_access: LocalAccess) -> LoginRequest:
    """Parse a login redirect, and check it against the signed `meta`.

    Raises:
        InvalidLogin: A parameter is not valid.
    """
    netloc = request.path.removeprefix(LOGIN_PATH)
    query = request.query
    app = local_access.app_by_tag(query.get("kid", ""))
    origin = local_access.addresses.origins(app.host).get(netloc) if app else None
    if app is None or origin is None:
        raise InvalidLogin("No app has this address. Open the app again.")
    target = query.get("redirect_url", "/")
    if not is_relative(target):
        raise InvalidLogin("The redirect URL must be a path of the app. Open the app again.")
    meta = local_access.team.verified_claims(query.get("meta", ""), "meta")
    is_bound = meta is not None and (meta.get("aud"), meta.get("hostname"), meta.get("redirect_url")) == (
        app.tag,
        netloc,
        target,
    )
    return LoginRequest(app, origin, netloc, target, str(meta["app_session_hash"]) if meta and is_bound else None)


def is_relative(target: str) -> bool:
    """Return whether the target is a path that no browser reads as another host."""
    return len(target) <= MAX_TARGET and _RELATIVE.fullmatch(target) is not None


def current_session(request: EdgeRequest, local_access: LocalAccess) -> Session | None:
    """Return the browser's session, or None if it has ended."""
    for token in request.cookies(COOKIE)[:8]:
        session = local_access.session_of(local_access.team.verified_claims(token, "org"))
        if session and session.expires > local_access.clock.now():
            return session
    return None


def login_form(
    request: EdgeRequest,
    local_access: LocalAccess,
    login_request: LoginRequest,
    *,
    problem: str = "",
    entered: str = "",
) -> Response:
    """Return the page on which a browser chooses a user."""
    session = team_session(request) or new_team_session()
    response = page(
        "login.html",
        status=400 if problem else 200,
        app=login_request.app,
        place=login_request.origin,
        team=local_access.config.team.name,
        people=local_access.config.people,
        csrf=csrf_token(local_access, session),
        problem=problem,
        entered=entered,
    )
    response.headers.append("set-cookie", team_session_cookie(request, local_access, session))
    return response


async def submit_form(
    request: EdgeRequest, local_access: LocalAccess, login_request: LoginRequest, body: AsyncIterator[bytes]
) -> Response:
    """Return the response to the form: a redirect to the same address with a session, or the page again."""
    form = await read_form(body)
    if not has_valid_csrf_token(request, local_access, form):
        return login_form(request, local_access, login_request, problem="The form has expired. Choose again.")
    entered = form.get("email", "").strip()
    if not is_email(entered):
        return login_form(
            request,
            local_access,
            login_request,
            problem="This is not a valid email address. Correct it.",
            entered=entered[:254],
        )
    session = local_access.log_in(entered.lower(), ip=request.client_ip)
    response = RedirectResponse(request.target, 303, headers={"cache-control": NO_STORE})
    token = local_access.team.global_token(session, local_access.config.person(session.email))
    response.headers.append("set-cookie", team_cookie(request, local_access, token, session.expires))
    return response


def _redirect_to_app(local_access: LocalAccess, login_request: LoginRequest, session: Session) -> Response:
    """Redirect the browser to the app with a nonce, if a policy admits the user."""
    if login_request.app_session_hash is None:
        return RedirectResponse(login_request.origin + login_request.target, 302, headers={"cache-control": NO_STORE})
    if not admits_person(login_request.app, local_access.config.person(session.email)):
        return no_access(login_request, session)
    expires = local_access.clock.monotonic() + NONCE_LIFETIME
    pending = PendingLogin(
        session, login_request.app, login_request.netloc, login_request.app_session_hash, login_request.target, expires
    )
    state = {
        "hostname": login_request.netloc,
        "redirectURL": login_request.target,
        "isSSO": True,
        "authDomain": local_access.addresses.issuer,
    }
    query = urlencode(
        {"nonce": local_access.add_pending_login(pending), "state": b64encode(json.dumps(state).encode()).decode()}
    )
    return RedirectResponse(
        f"{login_request.origin}{AUTHORIZED_PATH}?{query}", 302, headers={"cache-control": NO_STORE}
    )


def no_access(login_request: LoginRequest, session: Session) -> Response:
    """Return the page for a user that no policy admits."""
    text = f"You are logged in as {session.email}, but no policy of “{login_request.app.name}” admits you."
    address = f"{LOGOUT_PATH}?{urlencode({'returnTo': login_request.origin + login_request.target})}"
    links = {"Log out, and log in as another user": address}
    return message("That account does not have access", text, status=403, links=links)


def authorized(request: EdgeRequest, local_access: LocalAccess) -> Response:
    """Complete a login; its nonce is valid once, for the same host and browser."""
    pending = local_access.pending_logins.pop(request.query.get("nonce", ""), None)
    if pending is None or not _is_valid(request, local_access, pending):
        text = "The login was used before, has expired, or started in another browser. Open the app again."
        return message("Invalid login session", text, status=400, links={"To the app": "/"})
    person = local_access.config.person(pending.session.email)
    token = local_access.team.app_token(pending.session, person, pending.app, host=request.host)
    response = RedirectResponse(pending.target, 302, headers={"cache-control": NO_STORE})
    response.headers.append("set-cookie", app_cookie(request, local_access, pending.app, token))
    return response


def _is_valid(request: EdgeRequest, local_access: LocalAccess, pending: PendingLogin) -> bool:
    is_in_time = pending.expires > local_access.clock.monotonic() and not pending.session.ended
    expected = pending.app_session_hash
    is_browser = any(hmac.compare_digest(sha256_hex(value), expected) for value in request.cookies(APP_SESSION)[:8])
    return is_in_time and pending.netloc == request.netloc and is_browser


def logout(request: EdgeRequest, local_access: LocalAccess) -> Response:
    """End the user's sessions in all apps, and remove the cookie of this host."""
    return_to = request.query.get("returnTo", "")
    if return_to and not is_team_address(return_to, local_access):
        return message(
            "Invalid redirect URL",
            "The address in returnTo must belong to this team or to one of its apps.",
            status=400,
        )
    for token in request.cookies(COOKIE)[:8]:
        if session := local_access.session_of(local_access.team.verified_claims(token, "app", "org")):
            local_access.end_sessions(session.email, "logged out")
    response = _logged_out(local_access, return_to)
    response.headers.append(
        "set-cookie", expired_token_cookie(request, local_access, local_access.app_at(request.host, "/"))
    )
    return response


def is_team_address(address: str, local_access: LocalAccess) -> bool:
    """Return whether an address belongs to the team or to one of its apps."""
    if any(ord(character) <= 32 or character == "\\" for character in address):  # noqa: PLR2004 - controls and space
        return False
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    origins = {
        local_access.addresses.issuer,
        *(origin for host in local_access.config.hosts for origin in local_access.addresses.origins(host).values()),
    }
    return f"{parts.scheme}://{parts.netloc}" in origins


def _logged_out(local_access: LocalAccess, return_to: str) -> Response:
    if return_to:
        return RedirectResponse(return_to, 302, headers={"cache-control": NO_STORE})
    links = {
        f"Log in to {app.name}": local_access.addresses.origin(app.host) + app.paths[0]
        for app in local_access.config.apps
    }
    return message("You are logged out", "Your sessions in all apps have ended.", status=200, links=links)
