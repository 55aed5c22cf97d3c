"""Logging in and out: the pages of the team domain, and the way back to the app."""

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
    cleared,
    team_cookie,
    team_session_cookie,
)
from fastapi_cloudflare_access.local.edge_request import MAX_TARGET, Call
from fastapi_cloudflare_access.local.forms import csrf_of, is_ours, new_team_session, read_form, team_session
from fastapi_cloudflare_access.local.local_access import NONCE_LIFE, PendingLogin, Realm
from fastapi_cloudflare_access.local.pages import NO_STORE, message, page
from fastapi_cloudflare_access.local.policies import admits_person
from fastapi_cloudflare_access.local.responses import LOGIN_PATH
from fastapi_cloudflare_access.local.state import Session
from fastapi_cloudflare_access.local.team import hash_of

AUTHORIZED_PATH = "/cdn-cgi/access/authorized"
LOGOUT_PATH = "/cdn-cgi/access/logout"

_RELATIVE = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f-\U0010ffff]*")


class WrongLogin(Exception):
    """The login cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login to an app, as its redirect asks for it.

    Attributes:
        app: Which app.
        origin: Where the browser goes back to.
        netloc: The host and port of that.
        target: The path to end at.
        app_session_hash: Of the browser it began in; None where it has to begin anew at the app.
    """

    app: App
    origin: str
    netloc: str
    target: str
    app_session_hash: str | None


async def login(call: Call, realm: Realm, body: AsyncIterator[bytes]) -> Response:
    """Show who can log in, log somebody in, or pass on who is logged in."""
    try:
        wanted = read_login(call, realm)
    except WrongLogin as problem:
        return message("This login does not work", str(problem), status=400)
    if call.method == "POST":
        return await _choose(call, realm, wanted, body)
    session = current_session(call, realm)
    if session is None:
        return _form(call, realm, wanted)
    return _pass_on(realm, wanted, session)


def read_login(call: Call, realm: Realm) -> Login:
    """Check what the redirect says; only what the team signed decides where a login leads.

    Raises:
        WrongLogin: It says something wrong.
    """
    netloc = call.path.removeprefix(LOGIN_PATH)
    query = call.query
    app = realm.app_of(query.get("kid", ""))
    origin = realm.addresses.origins(app.host).get(netloc) if app else None
    if app is None or origin is None:
        raise WrongLogin("There is no such app.")
    target = query.get("redirect_url", "/")
    if not is_relative(target):
        raise WrongLogin("Invalid redirect URL: it must be a path of the app.")
    meta = realm.team.read(query.get("meta", ""), "meta")
    is_bound = meta is not None and (meta.get("aud"), meta.get("hostname"), meta.get("redirect_url")) == (
        app.tag,
        netloc,
        target,
    )
    return Login(app, origin, netloc, target, str(meta["app_session_hash"]) if meta and is_bound else None)


def is_relative(target: str) -> bool:
    """Tell whether this is a path, which no browser takes for another host."""
    return len(target) <= MAX_TARGET and _RELATIVE.fullmatch(target) is not None


def current_session(call: Call, realm: Realm) -> Session | None:
    """Give the login to the team that the browser has."""
    for token in call.cookies(COOKIE)[:8]:
        session = realm.session_of(realm.team.read(token, "org"))
        if session and session.expires > realm.clock.now():
            return session
    return None


def _form(call: Call, realm: Realm, wanted: Login, *, problem: str = "", typed: str = "") -> Response:
    session = team_session(call) or new_team_session()
    response = page(
        "login.html",
        status=400 if problem else 200,
        app=wanted.app,
        place=wanted.origin,
        team=realm.config.team.name,
        people=realm.config.people,
        csrf=csrf_of(realm, session),
        problem=problem,
        typed=typed,
    )
    response.headers.append("set-cookie", team_session_cookie(call, realm, session))
    return response


async def _choose(call: Call, realm: Realm, wanted: Login, body: AsyncIterator[bytes]) -> Response:
    form = await read_form(body)
    if not is_ours(call, realm, form):
        return _form(call, realm, wanted, problem="The form had expired. Choose again.")
    typed = form.get("email", "").strip()
    if not is_email(typed):
        return _form(call, realm, wanted, problem="That is not an email address.", typed=typed[:254])
    session = realm.log_in(typed.lower(), ip=call.client_ip)
    response = RedirectResponse(call.target, 303, headers={"cache-control": NO_STORE})
    token = realm.team.global_token(session, realm.config.person(session.email))
    response.headers.append("set-cookie", team_cookie(call, realm, token, session.expires))
    return response


def _pass_on(realm: Realm, wanted: Login, session: Session) -> Response:
    """Send the browser back to the app with a nonce, where the policies let this person in."""
    if wanted.app_session_hash is None:
        return RedirectResponse(wanted.origin + wanted.target, 302, headers={"cache-control": NO_STORE})
    if not admits_person(wanted.app, realm.config.person(session.email)):
        return _no_access(wanted, session)
    expires = realm.clock.monotonic() + NONCE_LIFE
    pending = PendingLogin(session, wanted.app, wanted.netloc, wanted.app_session_hash, wanted.target, expires)
    state = {
        "hostname": wanted.netloc,
        "redirectURL": wanted.target,
        "isSSO": True,
        "authDomain": realm.addresses.issuer,
    }
    query = urlencode({"nonce": realm.remember(pending), "state": b64encode(json.dumps(state).encode()).decode()})
    return RedirectResponse(f"{wanted.origin}{AUTHORIZED_PATH}?{query}", 302, headers={"cache-control": NO_STORE})


def _no_access(wanted: Login, session: Session) -> Response:
    text = f"You are {session.email}; no policy of “{wanted.app.name}” lets you in."
    again = f"{LOGOUT_PATH}?{urlencode({'returnTo': wanted.origin + wanted.target})}"
    links = {"Log out, and log in as somebody else": again}
    return message("That account does not have access", text, status=403, links=links)


def authorized(call: Call, realm: Realm) -> Response:
    """Take a login at the app: the nonce once, in time, on the host and in the browser where it began."""
    pending = realm.pending.pop(call.query.get("nonce", ""), None)
    if pending is None or not _fits(call, realm, pending):
        text = "It was used already, took too long, or began in another browser. Open the page again."
        return message("Invalid login session", text, status=400, links={"To the app": "/"})
    person = realm.config.person(pending.session.email)
    token = realm.team.app_token(pending.session, person, pending.app, host=call.host)
    response = RedirectResponse(pending.target, 302, headers={"cache-control": NO_STORE})
    response.headers.append("set-cookie", app_cookie(call, realm, pending.app, token))
    return response


def _fits(call: Call, realm: Realm, pending: PendingLogin) -> bool:
    is_in_time = pending.expires > realm.clock.monotonic() and not pending.session.ended
    wanted = pending.app_session_hash
    is_browser = any(hmac.compare_digest(hash_of(value), wanted) for value in call.cookies(APP_SESSION)[:8])
    return is_in_time and pending.netloc == call.netloc and is_browser


def logout(call: Call, realm: Realm) -> Response:
    """End the person's sessions in all apps, and take the cookie of this host away."""
    return_to = call.query.get("returnTo", "")
    if return_to and not is_known(return_to, realm):
        return message("Invalid redirect URL", "It leads to no app of this team.", status=400)
    for token in call.cookies(COOKIE)[:8]:
        if session := realm.session_of(realm.team.read(token, "app", "org")):
            realm.end(session.email, "logged out")
    response = _logged_out(realm, return_to)
    response.headers.append("set-cookie", cleared(call, realm, realm.app_at(call.host, "/")))
    return response


def is_known(address: str, realm: Realm) -> bool:
    """Tell whether an address is the team's or one of its apps'."""
    if any(ord(character) <= 32 or character == "\\" for character in address):  # noqa: PLR2004 - controls and space
        return False
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    origins = {
        realm.addresses.issuer,
        *(origin for host in realm.config.hosts for origin in realm.addresses.origins(host).values()),
    }
    return f"{parts.scheme}://{parts.netloc}" in origins


def _logged_out(realm: Realm, return_to: str) -> Response:
    if return_to:
        return RedirectResponse(return_to, 302, headers={"cache-control": NO_STORE})
    links = {f"Log in to {app.name}": realm.addresses.origin(app.host) + app.paths[0] for app in realm.config.apps}
    return message("You are logged out", "Your sessions in all apps have ended.", status=200, links=links)
