"""`Set-Cookie` lines with the attributes that Access documents."""

from collections.abc import Iterator
from email.utils import formatdate

from fastapi_cloudflare_access._verification.request_token import COOKIE
from fastapi_cloudflare_access.local.config import DAY, App
from fastapi_cloudflare_access.local.edge_request import Call
from fastapi_cloudflare_access.local.local_access import Realm

APP_SESSION, TEAM_SESSION = "CF_AppSession", "CF_Session"
TEAM_SESSION_LIFE = 4 * 3600


def app_cookie(call: Call, realm: Realm, app: App, token: str) -> str:
    """The application token, on the app's host."""
    path = next(path for path in app.paths) if app.path_cookie else "/"
    return _cookie(call, realm, COOKIE, token, app.session, path=path, http_only=app.http_only, same_site=app.same_site)


def machine_cookie(call: Call, realm: Realm, token: str) -> str:
    """What a service token gets beside the answer of the app: `Secure; SameSite=none`, for a day."""
    return _cookie(call, realm, COOKIE, token, DAY, http_only=False, same_site="none")


def team_cookie(call: Call, realm: Realm, token: str, expires: float) -> str:
    """The organisation token, on the team domain, until this time on the team's clock."""
    return _cookie(call, realm, COOKIE, token, expires - realm.clock.now(), same_site="none")


def app_session_cookie(call: Call, realm: Realm, value: str) -> str:
    """What binds a login to the browser it began in, on the app's host."""
    return _cookie(call, realm, APP_SESSION, value, DAY)


def team_session_cookie(call: Call, realm: Realm, value: str) -> str:
    """What the login form is bound to, on the team domain."""
    return _cookie(call, realm, TEAM_SESSION, value, TEAM_SESSION_LIFE, same_site="none")


def cleared(call: Call, realm: Realm, app: App | None) -> str:
    """Take the token's cookie away."""
    path = app.paths[0] if app and app.path_cookie else "/"
    return _cookie(call, realm, COOKIE, "", -realm.clock.machine_now(), path=path, same_site="none")


def _cookie(
    call: Call,
    realm: Realm,
    name: str,
    value: str,
    life: float,
    *,
    path: str = "/",
    http_only: bool = True,
    same_site: str | None = None,
) -> str:
    return "; ".join(
        [
            f"{name}={value}",
            f"Expires={formatdate(realm.clock.machine_now() + life, usegmt=True)}",
            f"Path={path}",
            *_attributes(is_secure=_keeps_secure(call, realm), http_only=http_only, same_site=same_site),
        ]
    )


def _attributes(*, is_secure: bool, http_only: bool, same_site: str | None) -> Iterator[str]:
    if is_secure:
        yield "Secure"
    if http_only:
        yield "HttpOnly"
    if same_site:
        yield f"SameSite={same_site if is_secure or same_site != 'none' else 'lax'}"


def _keeps_secure(call: Call, realm: Realm) -> bool:
    """Browsers keep a `Secure` cookie of a loopback host on plain HTTP as well; Safari does not."""
    agent = call.get("user-agent")
    is_safari = "Safari/" in agent and "Chrome/" not in agent and "Chromium/" not in agent
    return call.scheme == "https" or (realm.config.team.secure_cookies and not is_safari)
