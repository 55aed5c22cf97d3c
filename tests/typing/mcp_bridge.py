"""What type checkers see of the bridge for MCP servers: never executed, read by mypy and pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from fastmcp import FastMCP
from mcp.server import MCPServer
from starlette.applications import Starlette

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access.mcp import Bridge, CloudflareAccessProvider, bridge, get_caller, requires
from fastapi_cloudflare_access.policies import Group

access = CloudflareAccess(team_domain="acme", audience="tag")
admins = requires(Group("admins"))
provider = CloudflareAccessProvider(access)
server: FastMCP[None] = FastMCP("notes", auth=provider)
official: MCPServer[Any] = MCPServer("notes")

assert_type(get_caller(), UserClaims | ServiceClaims)
assert_type(bridge(Starlette(), access), Bridge)


@server.tool(auth=admins)
def delete_note(number: int) -> str:
    return f"deleted {number}"


@admins
def synchronous(number: int) -> str:
    return str(number)


@admins
async def asynchronous(number: int) -> str:
    return str(number)


async def called() -> None:
    assert_type(await synchronous(1), str)
    assert_type(await asynchronous(1), str)
    await synchronous("text")  # type: ignore[arg-type]


guarded: Callable[[int], Coroutine[Any, Any, str]] = synchronous

# what must be an error

bridge(Starlette())  # type: ignore[call-arg]
bridge(Starlette(), access.user)  # type: ignore[arg-type]
bridge(Starlette(), CloudflareAccess)  # type: ignore[arg-type]
CloudflareAccessProvider()  # type: ignore[call-arg]
CloudflareAccessProvider(access, required_scopes=["x"])  # type: ignore[arg-type]
requires("admins")  # type: ignore[arg-type]
