"""MCP servers behind Access, for the official Python SDK `mcp` and for FastMCP.

Both SDKs read `Authorization: Bearer` alone, and Access sends its token in another header. `bridge` verifies that
token, and passes the caller on as the SDKs read it. Inside a tool `get_caller()` returns the verified claims.
"""

from typing import TYPE_CHECKING, Any

from fastapi_cloudflare_access.mcp.bridging import Bridge, bridge
from fastapi_cloudflare_access.mcp.calls import get_caller
from fastapi_cloudflare_access.mcp.requirements import Requirement, requires
from fastapi_cloudflare_access.mcp.sdk import AccessUser

if TYPE_CHECKING:
    from fastapi_cloudflare_access.mcp.provider import CloudflareAccessProvider

__all__ = ["AccessUser", "Bridge", "CloudflareAccessProvider", "Requirement", "bridge", "get_caller", "requires"]


def __getattr__(name: str) -> Any:
    """Import the provider when it is asked for, since it needs FastMCP."""
    if name != "CloudflareAccessProvider":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastapi_cloudflare_access.mcp.provider import CloudflareAccessProvider  # noqa: PLC0415 - only on demand

    return CloudflareAccessProvider
