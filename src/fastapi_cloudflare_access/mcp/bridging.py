"""The bridge: it verifies the caller, and passes the request on without its credentials."""

from contextlib import AsyncExitStack
from typing import Annotated, Any

from starlette.authentication import AuthCredentials
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cloudflare_access._access_base import AccessBase
from fastapi_cloudflare_access._not_a_dependency import NotADependency
from fastapi_cloudflare_access._requests.authentication import replace_headers
from fastapi_cloudflare_access._requests.refusing import refuse
from fastapi_cloudflare_access._requests.responses import AccessHTTPException, AccessWebSocketException
from fastapi_cloudflare_access._verification.request_token import without_credentials
from fastapi_cloudflare_access.dependencies import Dependency
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.mcp.calls import current_call
from fastapi_cloudflare_access.mcp.other_schemes import other_scheme
from fastapi_cloudflare_access.mcp.sdk import NOT_A_TOKEN, AccessUser, auth_context_var
from fastapi_cloudflare_access.streams import run_while_valid

_BEARER = (b"authorization", b"Bearer " + NOT_A_TOKEN.encode())
_CONNECTIONS = frozenset({"http", "websocket"})
_NO_SCOPES = AuthCredentials()
_NOT_A_DEPENDENCY = "a bridge is not a dependency: mount it, or serve it, as bridge(app, access)"


def bridge(app: Annotated[ASGIApp, NotADependency(_NOT_A_DEPENDENCY)], access: AccessBase[Any]) -> "Bridge":
    """Return an app that lets only verified callers reach an MCP server, and passes them on as the SDKs read them.

    A request without a valid token gets 401, or 503 if the token cannot be checked right now. The app receives no
    `Authorization`, no assertion and no `CF_Authorization` cookie. A stream ends with the token of its caller.

    The bridge starts the refresh of the keys with the app, if the server or the parent app runs its lifespan.

    Args:
        app: The ASGI app of the SDK, without an auth setting of its own: `MCPServer(…).streamable_http_app()`, or
            `FastMCP(…).http_app()`.
        access: The object that verifies tokens.

    Raises:
        ConfigurationError: The arguments are not an app and an object, or the app has authentication of its own.

    Examples:
        ```python
        from mcp.server import MCPServer

        from fastapi_cloudflare_access import CloudflareAccess
        from fastapi_cloudflare_access.mcp import bridge, get_caller

        server = MCPServer("notes")


        @server.tool()
        def whoami() -> str:
            return get_caller().principal.subject


        app = bridge(server.streamable_http_app(), CloudflareAccess())
        ```
    """
    check_access(access, "bridge(app, access)")
    given: Any = app
    if not callable(given) or isinstance(given, Dependency | type):
        raise ConfigurationError("the first argument of bridge must be the app of the SDK: write bridge(app, access)")
    if sentence := other_scheme(app, access):
        raise ConfigurationError(sentence)
    return Bridge(app, access)


class Bridge:
    """The app that `bridge` returns, and the middleware of `CloudflareAccessProvider`.

    Attributes:
        app: The app behind the bridge.
        protecting_access: The object that verifies tokens.
        is_bridge: Always true, for code that looks for the bridge among the middleware of an app.
    """

    is_bridge = True

    def __init__(
        self,
        app: Annotated[ASGIApp, NotADependency(_NOT_A_DEPENDENCY)],
        access: AccessBase[Any],
        *,
        bearer: bool = False,
    ) -> None:
        """Create a bridge; `bearer` puts a fixed word where an SDK insists on a bearer token."""
        self.app, self.protecting_access = app, access
        self._authenticator = access._authenticator  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self._more_headers = [_BEARER] if bearer else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request whose caller is verified, and refuse any other.

        Raises:
            ConfigurationError: The connection is of an unknown type.
        """
        if scope["type"] not in _CONNECTIONS:
            await self._run_lifespan(scope, receive, send)
            return
        connection, access = HTTPConnection(scope), self.protecting_access
        try:
            caller = await access.authenticate(connection)
            if caller is None:
                caller = await access(connection=connection)  # raises the refusal
        except (AccessHTTPException, AccessWebSocketException) as refusal:
            await refuse(refusal.with_traceback(None), self.app, scope, receive, send)
            return
        headers = without_credentials(scope["headers"])
        headers += self._more_headers
        inner = replace_headers(scope, headers)
        user = AccessUser(caller)
        inner["user"], inner["auth"] = user, _NO_SCOPES
        token, sdk_token = current_call.set((access, connection, caller)), auth_context_var.set(user)
        try:
            await run_while_valid(self.app, inner, receive, send, authenticator=self._authenticator, caller=caller)
        finally:
            auth_context_var.reset(sdk_token)
            current_call.reset(token)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keep the keys fresh as long as the app runs."""
        if scope["type"] != "lifespan":
            raise ConfigurationError("a bridge knows HTTP, WebSocket and lifespan: use no other protocol behind it")
        async with AsyncExitStack() as stack:

            async def receive_and_start() -> Message:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    try:
                        await stack.enter_async_context(self.protecting_access)
                    except Exception as failure:
                        await send({"type": "lifespan.startup.failed", "message": str(failure)})
                        raise
                return message

            async def stop_and_send(message: Message) -> None:
                if message["type"] != "lifespan.startup.complete":
                    await stack.aclose()  # before the server stops the event loop
                await send(message)

            await self.app(scope, receive_and_start, stop_and_send)


def check_access(access: Any, write: str) -> None:
    """Check that `access` is the object that verifies tokens.

    Raises:
        ConfigurationError: It is another object, such as a class, a dependency or None.
    """
    if isinstance(access, AccessBase):
        return
    if isinstance(access, Dependency):
        given = access.expression
        raise ConfigurationError(f"access must be the whole object, not {given}: write {write}")
    given = f"the class {access.__name__}" if isinstance(access, type) else type(access).__name__
    raise ConfigurationError(f"access must be a CloudflareAccess, not {given}: write {write}")
