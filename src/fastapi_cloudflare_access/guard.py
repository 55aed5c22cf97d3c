"""Middleware that protects what dependencies do not reach, and keeps answers to callers out of shared caches."""

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Annotated, Any, TypeAlias, cast

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cloudflare_access._access_base import AccessBase
from fastapi_cloudflare_access._calls import or_write
from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access._not_a_dependency import NotADependency, forbid_as_dependency
from fastapi_cloudflare_access._requests.authentication import OUTCOMES
from fastapi_cloudflare_access._requests.login_redirect import LoginRedirect
from fastapi_cloudflare_access._requests.refusing import refuse
from fastapi_cloudflare_access._requests.responses import AccessHTTPException, AccessWebSocketException
from fastapi_cloudflare_access._routes.guarded_app import GuardedApp, check_exempt
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.dependencies import CALLERS, Dependency
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.streams import run_while_valid

PRIVATE = "private, no-cache"
"""The default `Cache-Control` of an answer to a verified caller."""

logger = logging.getLogger("fastapi_cloudflare_access")

_Outcomes: TypeAlias = Mapping[Any, tuple[Any, ...]]
_Field: TypeAlias = tuple[bytes, bytes]

_CACHE_CONTROL = b"cache-control"
_SHARED = re.compile(r"(?:^|[,\s])(?:public|s-maxage)\b", re.IGNORECASE)
"""The directives that let a shared cache keep an answer (RFC 9111 sections 5.2.2.9 and 5.2.2.10)."""
_GUARD = "AccessGuard is not a dependency: write app.add_middleware(AccessGuard, access=access)"
_PRIVATE_RESPONSES = "PrivateResponses is not a dependency: write app.add_middleware(PrivateResponses)"


class AccessGuard:
    """ASGI middleware that admits only callers that Cloudflare Access has authenticated, for HTTP and WebSockets.

    It protects every path behind it: routes, mounted apps, static files, the documentation pages, `/openapi.json`, and
    paths that do not exist. Add it to an app, or wrap one app before you mount it. Dependencies behind it reuse its
    verification.

    A refusal is what a dependency sends, through the exception handlers of the app. `OPTIONS` needs a token too: add
    `CORSMiddleware` after the guard, so that it answers preflights before the guard sees them.

    Examples:
        ```python
        from fastapi import FastAPI

        from fastapi_cloudflare_access import CloudflareAccess
        from fastapi_cloudflare_access.guard import AccessGuard

        access = CloudflareAccess()
        app = FastAPI(lifespan=access.lifespan)
        app.add_middleware(AccessGuard, access=access, exempt=["/healthz"])
        ```
    """

    @or_write(
        "AccessGuard takes access by name: write app.add_middleware(AccessGuard, access=access), or "
        "AccessGuard(app, access=access) around a mounted app"
    )
    def __init__(
        self,
        app: ASGIApp,
        *,
        access: AccessBase[Any],
        policy: Callable[[Any], bool] | None = None,
        exempt: Collection[str] = (),
        login_redirect: str | None = None,
        end_streams: bool = False,
        cache_control: str | None = PRIVATE,
    ) -> None:
        """Check the arguments; nothing is fetched.

        Args:
            app: The app to protect.
            access: The object that verifies tokens, or several as `first | second`.
            policy: Decides which callers are admitted; by default all.
            exempt: Paths that need no token over HTTP. Each is compared as a whole with the path that the app sees,
                which does not contain `root_path`.
            login_redirect: The public host of the app, such as `app.example.com`. If it is given, a browser that opens
                a page without a token, or with an expired one, is redirected to the login.
            end_streams: Whether WebSockets and streams behind the guard end with the token of their caller.
            cache_control: The `Cache-Control` of an answer to a verified caller, if the app sets none; None leaves such
                an answer as it is.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        self.app = _check_app(app, "AccessGuard", "AccessGuard(app, access=access)")
        _check_access(access)
        self._dependency: Dependency[Any] = access if policy is None else access.require(policy)
        self._access = access
        self._ends_streams = _check_flag(end_streams)
        self._exempt = check_exempt(exempt)
        self._login = None if login_redirect is None else _login_redirect(access, login_redirect)
        self._cache_control = _check_cache_control(cache_control)
        self._guarded = GuardedApp(app)

    @property
    def dependency(self) -> Dependency[Any]:
        """The dependency that decides which callers are admitted."""
        return self._dependency

    @property
    def exempt(self) -> frozenset[str]:
        """The paths that need no token over HTTP, as the app sees them."""
        return self._exempt

    @property
    def ends_streams(self) -> bool:
        """Whether WebSockets and streams behind the guard end with the token of their caller."""
        return self._ends_streams

    async def __call__(self, scope: Annotated[Scope, NotADependency(_GUARD)], receive: Receive, send: Send) -> None:
        """Pass on a request whose caller is admitted, and every request to an exempt path.

        Raises:
            ConfigurationError: The connection is of an unknown type.
        """
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, self._reporting(send))
            return
        if kind not in ("http", "websocket"):
            raise ConfigurationError("AccessGuard knows HTTP, WebSocket and lifespan: use no other protocol behind it")
        refusal = caller = None
        if not (self._exempt and kind == "http" and self._guarded.path_of(scope) in self._exempt):
            try:
                caller = await self._dependency(connection=HTTPConnection(scope))
            except (AccessHTTPException, AccessWebSocketException) as raised:
                refusal = raised.with_traceback(None)
        send = _private(scope, send, self._cache_control)
        if refusal is not None:
            await self._refuse(refusal, scope, receive, send)
            return
        if caller is None or not self._ends_streams:
            await self.app(scope, receive, send)
            return
        authenticator = self._access._authenticator  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - made for here
        await run_while_valid(self.app, scope, receive, send, authenticator=authenticator, caller=caller)

    async def _refuse(self, refusal: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            self._login
            and isinstance(refusal, AccessHTTPException)
            and (to_login := self._login.response(refusal, scope))
        ):
            await to_login(scope, receive, send)
        else:
            await refuse(refusal, self.app, scope, receive, send)

    def _reporting(self, send: Send) -> Send:
        """Return a `send` that logs exempt paths that the app does not serve, once the app has started."""

        async def report(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                for path in self.unserved():
                    log(logger, logging.WARNING, "the exempt path %s is not served by the app behind the guard", path)
            await send(message)

        return report

    def unserved(self) -> list[str]:
        """Return the exempt paths for which the app has no route; routes of unknown apps are not known."""
        return sorted(path for path in self._exempt if not self._guarded.serves(path))


class PrivateResponses:
    """ASGI middleware that marks answers to verified callers as private, unless the app sets `Cache-Control`.

    Cloudflare caches files such as `.csv`, `.pdf` and `.png` by their extension if a response says nothing about
    caching. `AccessGuard` does the same; this class is for apps that are protected by dependencies.

    Examples:
        ```python
        from fastapi import FastAPI

        from fastapi_cloudflare_access import CloudflareAccess
        from fastapi_cloudflare_access.guard import PrivateResponses

        access = CloudflareAccess()
        app = FastAPI(lifespan=access.lifespan)
        app.add_middleware(PrivateResponses)
        ```
    """

    @or_write("PrivateResponses takes nothing but cache_control: write app.add_middleware(PrivateResponses)")
    def __init__(self, app: ASGIApp, *, cache_control: str | None = PRIVATE) -> None:
        """Check the arguments.

        Args:
            app: The app whose answers are marked.
            cache_control: The `Cache-Control` that they get; None leaves them as they are.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        self.app = _check_app(app, "PrivateResponses", "PrivateResponses(app)")
        self._cache_control = _check_cache_control(cache_control)

    async def __call__(
        self, scope: Annotated[Scope, NotADependency(_PRIVATE_RESPONSES)], receive: Receive, send: Send
    ) -> None:
        """Pass on a connection, and mark the answer if its caller is verified by then."""
        await self.app(scope, receive, _private(scope, send, self._cache_control))


forbid_as_dependency(AccessGuard, _GUARD)
forbid_as_dependency(PrivateResponses, _PRIVATE_RESPONSES)


def _private(scope: Scope, send: Send, cache_control: _Field | None) -> Send:
    """Return a `send` that adds `Cache-Control` to an answer to a verified caller.

    The results of the verification are kept in a dictionary that is in the scope from now on, so that they are also
    seen if they come from a copy of the scope.
    """
    if cache_control is None or scope["type"] != "http":
        return send
    outcomes: _Outcomes = scope.setdefault(OUTCOMES, {})

    def send_private(message: Message) -> Awaitable[None]:  # without a coroutine of its own: half a microsecond less
        if message["type"] == "http.response.start":
            for kept in outcomes.values():
                if isinstance(kept[1], CALLERS):
                    message = _with_cache_control(message, cache_control)
                    break
        return send(message)

    return send_private


def _with_cache_control(message: Message, field: _Field) -> Message:
    """Return the start of a response with this field, unless it has one; the app may use its headers again."""
    headers: list[_Field] = [*message.get("headers", ())]
    for name, _ in headers:
        if name.lower() == _CACHE_CONTROL:
            return {**message, "headers": headers}
    return {**message, "headers": [*headers, field]}


def _check_app(app: Any, name: str, write: str) -> ASGIApp:
    if not callable(app) or isinstance(app, Dependency | type):
        raise ConfigurationError(f"the first argument of {name} must be the app: write {write}")
    return cast("ASGIApp", app)


def _check_flag(end_streams: Any) -> bool:
    if not isinstance(end_streams, bool):
        raise ConfigurationError("end_streams must be True or False")
    return end_streams


def _check_access(access: Any) -> None:
    if isinstance(access, AccessBase):
        return
    given = f", not {access!r}" if isinstance(access, Dependency) else ""
    raise ConfigurationError(f"access of AccessGuard must be the CloudflareAccess object{given}: write access=access")


def _login_redirect(access: AccessBase[Any], host: str) -> LoginRedirect:
    if isinstance(access, CloudflareAccess):
        return LoginRedirect(access.settings, host)
    raise ConfigurationError(
        "login_redirect needs one team, and there are several: guard each host by an object of its own"
    )


def _check_cache_control(value: Any) -> _Field | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or not value.isascii() or not value.isprintable():
        raise ConfigurationError(f"cache_control must be a value such as {PRIVATE!r}, or None")
    if _SHARED.search(value):
        raise ConfigurationError(f"cache_control must not let shared caches keep answers to callers: write {PRIVATE!r}")
    return _CACHE_CONTROL, value.strip().encode()
