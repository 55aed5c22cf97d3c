"""The caller of a request as both SDKs read it from the ASGI scope."""

from functools import cached_property

from fastapi_cloudflare_access.claims import Claims, ServiceClaims
from fastapi_cloudflare_access.mcp.versions import check_sdk

check_sdk("mcp")

from mcp.server.auth.middleware.auth_context import auth_context_var  # noqa: E402 - after the check
from mcp.server.auth.middleware.bearer_auth import (  # noqa: E402 - the same
    AuthenticatedUser,
    BearerAuthBackend,
    RequireAuthMiddleware,
)
from mcp.server.auth.provider import AccessToken  # noqa: E402 - the same
from mcp.shared.exceptions import MCPError  # noqa: E402 - the same

__all__ = [
    "FORBIDDEN",
    "NOT_A_TOKEN",
    "AccessToken",
    "AccessUser",
    "BearerAuthBackend",
    "CallRefused",
    "RequireAuthMiddleware",
    "auth_context_var",
]

NOT_A_TOKEN = "cloudflare-access"  # noqa: S105 - what its name says
"""The word that stands where an SDK wants a bearer token. No code accepts it as one."""


FORBIDDEN = -32003
"""The JSON-RPC error code of a call that a policy refuses; of the range for servers, and no code of the SDK."""


class CallRefused(MCPError):
    """The refusal of a call by a policy; the message says nothing about the policy or the caller."""

    def __str__(self) -> str:
        """Return what the client is told."""
        return self.error.message


class AccessUser(AuthenticatedUser):
    """The verified caller, as `request.user` for the SDKs and for custom routes.

    The SDKs bind a session to `client_id`, issuer and subject of `access_token`. A user's client id is the AUD tag of
    the Access application, and a service's is its own. So a service that is named like the id of a user is another
    caller.

    Attributes:
        caller: The verified claims.
    """

    def __init__(self, caller: Claims) -> None:  # pyright: ignore[reportMissingSuperCall] - it would need the token
        """Store the claims; what the SDK reads is made when it is read, since most requests need none of it."""
        self.caller = caller

    @cached_property
    def username(self) -> str:  # type: ignore[override]  # pyright: ignore - the base assigns it
        """The client id: the AUD tag of the application for a user."""
        return self.caller.client_id if isinstance(self.caller, ServiceClaims) else self.caller.aud[0]

    @cached_property
    def scopes(self) -> list[str]:  # type: ignore[override]  # pyright: ignore - the base assigns it
        """The scopes of the token: none."""
        return []

    @cached_property
    def access_token(self) -> AccessToken:  # type: ignore[override]  # pyright: ignore - the base assigns it
        """The claims as the token of the SDK, with the team's current issuer; `token` is a fixed word.

        It has no `expires_at`: the SDK would compare it with the machine's clock, without leeway.
        """
        issuer, subject = self.caller.principal
        claims = {**self.caller.model_dump(mode="json"), "iss": issuer}
        return AccessToken(token=NOT_A_TOKEN, client_id=self.username, scopes=[], subject=subject, claims=claims)
