"""The authentication provider for FastMCP."""

import logging
from typing import Any, Never

from starlette.middleware import Middleware
from starlette.routing import Route

from fastapi_cloudflare_access._access_base import AccessBase
from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.mcp.bridging import Bridge, check_access
from fastapi_cloudflare_access.mcp.versions import check_sdk

check_sdk("fastmcp")

from fastmcp.server.auth import AccessToken, AuthProvider  # noqa: E402 - after the check

logger = logging.getLogger("fastapi_cloudflare_access")

_WRITE = "FastMCP(auth=CloudflareAccessProvider(access))"


class CloudflareAccessProvider(AuthProvider):
    """The `auth=` of a FastMCP server behind Access: it contains the bridge.

    The server advertises no OAuth metadata, since clients get that from Cloudflare's edge.

    Attributes:
        protecting_access: The object that verifies tokens.

    Examples:
        ```python
        from fastmcp import FastMCP

        from fastapi_cloudflare_access import CloudflareAccess
        from fastapi_cloudflare_access.mcp import CloudflareAccessProvider, get_caller

        mcp = FastMCP("notes", auth=CloudflareAccessProvider(CloudflareAccess()))


        @mcp.tool
        def whoami() -> str:
            return get_caller().principal.subject
        ```
    """

    def __init__(self, access: AccessBase[Any], **unknown: Never) -> None:
        """Check the arguments; nothing is fetched.

        Args:
            access: The object that verifies tokens.
            **unknown: Not accepted, such as `base_url` and `required_scopes` of other providers.

        Raises:
            ConfigurationError: `access` is another object, or there are other arguments.
        """
        check_access(access, _WRITE)
        if unknown:
            names = ", ".join(sorted(unknown))
            raise ConfigurationError(
                f"CloudflareAccessProvider takes no {names}: clients get OAuth metadata from Cloudflare's edge, and an "
                f"Access token has no scopes: write {_WRITE}"
            )
        super().__init__()
        self.protecting_access = access

    def get_middleware(self) -> list[Middleware]:
        """Return the bridge, which FastMCP puts around its app."""
        return [Middleware(Bridge, self.protecting_access, bearer=True)]

    def get_routes(self, mcp_path: str | None = None) -> list[Route]:  # noqa: ARG002 - there are none at any path
        """Return no routes, so that the server advertises no OAuth metadata."""
        return []

    async def verify_token(self, token: str) -> AccessToken | None:  # noqa: ARG002 - a bearer token is never accepted
        """Refuse every bearer token: FastMCP asks only if the provider is a part of another one."""
        log(
            logger,
            logging.ERROR,
            "a bearer token was refused, since CloudflareAccessProvider stands alone: write %s",
            _WRITE,
        )
        return None
