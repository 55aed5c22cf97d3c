"""WebSockets and streams that end with the token of their caller, also if it is revoked.

A stream is the body of a handler under `async with access.while_valid(caller)`, or a whole ASGI app under
`run_while_valid`. Its end cancels the task that runs it as `asyncio.timeout` does: a cancellation from elsewhere is
never swallowed.
"""

from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access._requests.guarded_streams import GuardedResponse, GuardedWebSocket
from fastapi_cloudflare_access._requests.open_streams import Validity
from fastapi_cloudflare_access._requests.responses import AccessWebSocketException
from fastapi_cloudflare_access._requests.stream_block import StreamBlock, checked_validity
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError, TokenRevoked

C = TypeVar("C", bound=UserClaims | ServiceClaims)


class Lease(Generic[C]):
    """The block of `async with access.while_valid(caller) as lease`: it ends with the token of its caller.

    Its end cancels the body at the `await` where it waits, as `asyncio.timeout` does. On a WebSocket the block then
    raises `AccessWebSocketException`, so the socket is closed with 1008 and the reason code. In an HTTP handler or the
    generator of a stream the block ends without an exception.
    """

    __slots__ = ("_block",)

    def __init__(self, authenticator: Authenticator[Any], validity: Validity) -> None:
        """Create a lease; `access.while_valid` does."""
        self._block = StreamBlock(authenticator, validity)

    @property
    def caller(self) -> C:
        """The claims of the newest token."""
        newest: C = self._block.validity.newest
        return newest

    @property
    def ended(self) -> str | None:
        """The reason code for which the lease ended, such as `token_expired`; None as long as it has not."""
        error = self._block.error
        return None if error is None else error.reason

    async def renew(self, token: str | bytes) -> C:
        """Return the claims of a fresh token of the same caller, and go on until that token ends.

        The policies that admitted the caller of the request are asked again. All leases of the connection are renewed.
        A token that ends earlier than the present one changes nothing.

        Raises:
            CredentialError: The token is not valid, or the lease has ended.
            TemporarilyUnavailable: The token cannot be checked right now.
            PolicyDenied: The token is of another caller, or a policy refuses its claims.
            ConfigurationError: The lease is used outside its block.
        """
        self._check_open()
        block, validity = self._block, self._block.validity
        caller: Any = await block.authenticator.verify_again(token, validity)
        self._check_open()  # it may have ended meanwhile
        if block.authenticator.verifier.is_revoked(caller):  # also meanwhile
            raise TokenRevoked("the token was revoked")
        ends_at = block.authenticator.verifier.end_of(caller)
        if validity.ends_at is not None and ends_at > validity.ends_at:
            validity.newest, validity.ends_at = caller, ends_at
        renewed: C = caller
        return renewed

    def _check_open(self) -> None:
        if (error := self._block.error) is not None:
            raise type(error)(str(error))  # the object itself is shared by all streams that ended with this one
        if not self._block.is_open:
            raise ConfigurationError("a lease is renewed inside its block: `async with access.while_valid(…) as lease`")

    async def __aenter__(self) -> Self:
        """Begin to time the block."""
        self._block.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """End the block; raise the close of a WebSocket if the token ended it.

        A body that suppresses the cancellation of a WebSocket and returns is closed too.
        """
        block = self._block
        ended = block.leave(kind) or (block.was_cancelled and kind is None)
        if ended and block.error is not None and block.validity.is_websocket:
            raise AccessWebSocketException(block.error, reason=block.error.reason) from None
        return ended


def lease(authenticator: Authenticator[Any], caller: C) -> Lease[C]:
    """Return the lease of a caller that was verified in the current context.

    Raises:
        ConfigurationError: The caller is None, no claims, or of another object or connection.
    """
    return Lease(*checked_validity(authenticator, caller))


async def run_while_valid(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, authenticator: Authenticator[Any], caller: Any
) -> None:
    """Run an ASGI app, and end its WebSocket or stream with the token of the caller.

    A stream is a response without `Content-Length`. Its body ends as if the app had ended it. A response that has not
    begun, or whose length is known, is completed: a request that was valid when it came gets its response.

    Raises:
        ConfigurationError: The caller was not verified for this connection.
    """
    kind = GuardedWebSocket if scope["type"] == "websocket" else GuardedResponse
    await kind(*checked_validity(authenticator, caller), receive, send).run(app, scope)
