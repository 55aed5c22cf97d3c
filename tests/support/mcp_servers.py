"""MCP servers of both SDKs with the same tools, and the real clients of both."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
from fastmcp import Client as FastMCPClient
from fastmcp import FastMCP
from fastmcp.client.transports import StreamableHttpTransport
from fastmcp.server.dependencies import get_access_token, get_http_request
from mcp.client import Client as OfficialClient
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token as get_official_access_token
from mcp.server.mcpserver import Context
from starlette.types import ASGIApp

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.mcp import CloudflareAccessProvider, bridge, get_caller, requires
from fastapi_cloudflare_access.policies import Group

HEADER = "Cf-Access-Jwt-Assertion"

admins = requires(Group("admins"))


def whoami() -> dict[str, Any]:
    """Return the caller."""
    caller = get_caller()
    email = caller.email if isinstance(caller, UserClaims) else None
    return {"kind": type(caller).__name__, "subject": caller.principal.subject, "email": email}


async def whoami_later() -> dict[str, Any]:
    """Return the caller after other requests had their turn."""
    for _ in range(20):
        await anyio.sleep(0.001)
    return whoami()


def deleting(name: str = "delete_note") -> Callable[[int], str]:
    """Return a new function, since a function that is registered cannot be guarded any more."""

    def delete_note(number: int) -> str:
        """Delete a note."""
        return f"{get_caller().principal.subject} deleted {number}"

    delete_note.__name__ = name
    return delete_note


def _seen(request: Any, token: Any) -> dict[str, Any]:
    return {
        "headers": [f"{name.decode()}: {value.decode()}" for name, value in request.scope["headers"]],
        "user": str(vars(request.user)),
        "token": token.model_dump_json(),
        "claims": token.claims,
        "client_id": token.client_id,
        "word": token.token,
        "expires_at": token.expires_at,
    }


def official_server(**options: Any) -> MCPServer[Any]:
    """Return a server of the official SDK."""
    server: MCPServer[Any] = MCPServer("notes", **options)
    for function in (whoami, whoami_later):
        server.tool()(function)
    server.tool()(admins(deleting()))

    @server.tool()
    def seen(ctx: Context) -> dict[str, Any]:
        return _seen(ctx.request_context.request, get_official_access_token())

    @server.resource("notes://secret")
    @admins
    def secret() -> str:
        return "secret"

    @server.prompt()
    @admins
    def summarize() -> str:
        return "summarize"

    return server


def fastmcp_server(access: CloudflareAccess[Any] | None) -> FastMCP[Any]:
    """Return a server of FastMCP."""
    server: FastMCP[Any] = FastMCP("notes", auth=None if access is None else CloudflareAccessProvider(access))
    for function in (whoami, whoami_later):
        server.tool(function)
    server.tool(deleting(), auth=admins)
    server.tool(admins(deleting("delete_listed")))

    @server.tool
    def seen() -> dict[str, Any]:
        return _seen(get_http_request(), get_access_token())

    @server.resource("notes://secret", auth=admins)
    def secret() -> str:
        return "secret"

    @server.prompt(auth=admins)
    def summarize() -> str:
        return "summarize"

    return server


SERVERS: Mapping[str, Callable[[CloudflareAccess[Any]], ASGIApp]] = {
    "official": lambda access: bridge(official_server().streamable_http_app(), access),
    "fastmcp": lambda access: fastmcp_server(access).http_app(),
    "fastmcp-bridged": lambda access: bridge(fastmcp_server(None).http_app(), access),
}
"""The app of each SDK, by its documented way."""


@dataclass
class Session:
    """A connected client.

    Attributes:
        call: Calls a tool; returns whether that is an error, and the text.
        tools: Returns the names of the listed tools.
        read: Reads a resource.
        statuses: The status of each HTTP response so far.
    """

    call: Callable[..., Awaitable[tuple[bool, str]]]
    tools: Callable[[], Awaitable[list[str]]]
    read: Callable[[str], Awaitable[Any]]
    prompt: Callable[[str], Awaitable[Any]]


@dataclass
class Recorder:
    """The HTTP responses that a client got.

    Attributes:
        responses: Status and `WWW-Authenticate` of each.
        pages: Whether each is a web page, such as the login page that a redirect leads to.
    """

    responses: list[tuple[int, str | None]] = field(default_factory=list)
    pages: list[bool] = field(default_factory=list)

    async def __call__(self, response: httpx2.Response) -> None:
        self.responses.append((response.status_code, response.headers.get("www-authenticate")))
        self.pages.append(response.headers.get("content-type", "").startswith("text/html"))

    def client(self, headers: Mapping[str, str], **options: Any) -> httpx2.AsyncClient:
        hooks: Any = {"response": [self]}
        return httpx2.AsyncClient(headers=headers, event_hooks=hooks, trust_env=False, timeout=20, **options)


@asynccontextmanager
async def official_client(
    address: str, headers: Mapping[str, str], recorder: Recorder, mode: str = "auto"
) -> AsyncIterator[Session]:
    """Connect the client of the official SDK."""
    async with recorder.client(headers) as http:
        transport = streamable_http_client(f"http://{address}/mcp", http_client=http)
        async with OfficialClient(transport, mode=mode) as client:

            async def call(name: str, **arguments: Any) -> tuple[bool, str]:
                result: Any = await client.call_tool(name, arguments)
                return bool(result.is_error), result.content[0].text

            async def tools() -> list[str]:
                return [tool.name for tool in (await client.list_tools()).tools]

            yield Session(call, tools, client.read_resource, client.get_prompt)


@asynccontextmanager
async def fastmcp_client(
    address: str, headers: Mapping[str, str], recorder: Recorder, mode: str = "auto"
) -> AsyncIterator[Session]:
    """Connect the client of FastMCP."""

    def factory(headers: dict[str, str] | None = None, **options: Any) -> httpx2.AsyncClient:
        options.pop("timeout", None)
        return recorder.client(headers or {}, **options)

    options: Any = {"headers": dict(headers), "httpx_client_factory": factory}
    transport = StreamableHttpTransport(f"http://{address}/mcp", **options)
    async with FastMCPClient(transport, mode=mode) as client:

        async def call(name: str, **arguments: Any) -> tuple[bool, str]:
            result: Any = await client.call_tool(name, arguments, raise_on_error=False)
            return bool(result.is_error), result.content[0].text

        async def tools() -> list[str]:
            return [tool.name for tool in await client.list_tools()]

        yield Session(call, tools, client.read_resource, client.get_prompt)


CLIENTS = {"official": official_client, "fastmcp": fastmcp_client}
MODES = ("legacy", "auto")
"""Sessions that begin with `initialize`, and the newest protocol, which has none."""
