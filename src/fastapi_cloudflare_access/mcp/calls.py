"""The request that the current code runs for, and its caller."""

from contextvars import ContextVar
from typing import Any, NamedTuple

from starlette.requests import HTTPConnection

from fastapi_cloudflare_access._access_base import AccessBase
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError


class Call(NamedTuple):
    """A request that the bridge let pass.

    Attributes:
        access: The object that verified its token.
        connection: The request as it arrived, with its token.
        caller: The verified claims.
    """

    access: AccessBase[Any]
    connection: HTTPConnection
    caller: UserClaims | ServiceClaims


current_call: ContextVar[tuple[AccessBase[Any], HTTPConnection, UserClaims | ServiceClaims] | None] = ContextVar(
    "fastapi_cloudflare_access_mcp_call", default=None
)
"""The request of the current context. The SDKs run each message of a session in the context of its own request."""


def get_caller() -> UserClaims | ServiceClaims:
    """Return the verified caller of the current request, for tools, resources and prompts.

    Raises:
        ConfigurationError: No request that the bridge let pass is being handled, such as on stdio.
    """
    return get_call().caller


def get_call() -> Call:
    """Return the request of the current context.

    Raises:
        ConfigurationError: There is none.
    """
    if (call := current_call.get()) is None:
        raise ConfigurationError(
            "there is no caller outside a request that Access verified: serve the app over HTTP, behind "
            "bridge(app, access) or with FastMCP(auth=CloudflareAccessProvider(access))"
        )
    return Call(*call)
