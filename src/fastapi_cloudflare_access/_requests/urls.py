"""URLs of the login and the logout, and the paths that a browser may return to."""

import re
from typing import Any
from urllib.parse import quote, unquote, urlencode

from starlette.types import Scope

from fastapi_cloudflare_access._setting_values import MAX_PORT
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.settings import Settings

LOGIN_PATH = "/cdn-cgi/access/login/"
"""Path of the login, below the issuer; the public host of the app follows."""
LOGOUT_PATH = "/cdn-cgi/access/logout"
"""Path of the logout, below the issuer and below the public host of each app."""
MAX_RETURN = 4096
"""Number of characters of an address to return to, at most."""

_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[::1\])(?::([1-9][0-9]{{0,4}}))?")
_MAX_HOST = 253
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_VISIBLE = re.compile(r"[!-~]+")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_RESERVED_SEGMENT = "cdn-cgi"


def login_url(settings: Settings, host: str, *, return_to: str = "/", audience: str | None = None) -> str:
    """Return the URL at which a browser logs in to an app, as the edge itself redirects to it.

    Args:
        settings: The settings with the team and the audiences.
        host: The public host of the app, with its port if that is not the default one.
        return_to: Path and query of the page after the login; one that `safe_path` does not accept becomes `/`.
        audience: The AUD tag of the app, if the settings have several.

    Raises:
        ConfigurationError: The host or the audience is wrong.
    """
    kid = _audience_of(settings, audience)
    query = urlencode({"kid": kid, "redirect_url": safe_path(return_to)})
    return f"{settings.issuer}{LOGIN_PATH}{public_host(host, 'host of login_url')}?{query}"


def logout_url(settings: Settings, *, host: str | None = None, return_to: str | None = None) -> str:
    """Return the URL at which a browser logs out of all apps of the team.

    Args:
        settings: The settings with the team.
        host: The public host of the app whose cookie is then deleted; by default the cookie of the team is deleted.
        return_to: The URL of the page after the logout, of an app of the team; by default a page of Access.

    Raises:
        ConfigurationError: The host is wrong, or `return_to` is not the URL of a page.
    """
    scheme = "http" if settings.is_local else "https"
    url = (settings.issuer if host is None else f"{scheme}://{public_host(host, 'host of logout_url')}") + LOGOUT_PATH
    if return_to is None:
        return url
    if not _is_url(return_to, local=settings.is_local):
        raise ConfigurationError(
            "return_to must be the URL of a page of your app, such as 'https://app.example.com/goodbye'"
        )
    return f"{url}?{urlencode({'returnTo': return_to})}"


def safe_path(text: str) -> str:
    """Return a path, query and fragment in ASCII, or `/` if a browser could leave the app by it.

    The text may come from a request. `/` replaces other hosts, dot segments, backslashes, control characters, the
    paths of Cloudflare itself (`/cdn-cgi/`), and texts above `MAX_RETURN`.

    Raises:
        ConfigurationError: It is not text.
    """
    given: Any = text
    if not isinstance(given, str):
        raise ConfigurationError("return_to must be the path of a page of your app, such as '/reports?year=2026'")
    if len(given) > MAX_RETURN or not given.startswith("/") or _UNSAFE.search(given):
        return "/"
    encoded = quote(given, safe=_PRINTABLE, errors="replace")
    path = unquote(re.split("[?#]", encoded)[0])
    segments = path.split("/")
    is_safe = not (path.startswith("//") or _UNSAFE.search(path) or {".", ".."} & {*segments})
    is_of_the_app = segments[1].lower() != _RESERVED_SEGMENT
    return encoded if is_safe and is_of_the_app and len(encoded) <= MAX_RETURN else "/"


def requested_path(scope: Scope) -> str:
    """Return the path and query of a request, to return to after a login; `/` if they are not safe."""
    raw_path: bytes = scope.get("raw_path") or quote(scope["path"], errors="replace").encode()
    query: bytes = scope.get("query_string") or b""
    return safe_path((raw_path + b"?" + query if query else raw_path).decode("latin-1"))


def public_host(host: Any, argument: str = "the host") -> str:
    """Return the public host of an app in lower case, such as `app.example.com` or `localhost:8787`.

    Args:
        host: The host.
        argument: The name of the argument, for the error.

    Raises:
        ConfigurationError: It is not a host.
    """
    given = host.strip().lower() if isinstance(host, str) else ""
    if not is_host(given):
        raise ConfigurationError(
            f"{argument} must be the public host of your app, without a scheme, a path or a slash, such as "
            "'app.example.com', in ASCII"
        )
    return given


def is_host(text: str) -> bool:
    """Return whether a text is a host in lower case, with or without a port."""
    if not (found := _HOST.fullmatch(text)):
        return False
    host, port = found.groups()
    return len(host) <= _MAX_HOST and (not port or int(port) <= MAX_PORT)


def _audience_of(settings: Settings, audience: str | None) -> str:
    first, *others = settings.audience
    if audience is None and others:
        raise ConfigurationError(
            "login_url needs the AUD tag of the app, since several are configured: pass audience=…"
        )
    if audience is not None and audience not in settings.audience:
        raise ConfigurationError("the audience of login_url must be one of the configured AUD tags")
    return audience or first


def _is_url(text: Any, *, local: bool) -> bool:
    if not isinstance(text, str) or len(text) > MAX_RETURN or not _VISIBLE.fullmatch(text) or "\\" in text:
        return False
    scheme, _, rest = text.partition("://")
    host = re.split("[/?#]", rest)[0]
    return scheme in (("https", "http") if local else ("https",)) and is_host(host.lower())
