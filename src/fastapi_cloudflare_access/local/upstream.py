"""The reverse proxy: HTTP streams both ways to a server of any kind."""

import asyncio
import logging
from collections.abc import AsyncIterator

import h11
import httpcore
from starlette.types import Message, Receive, Scope, Send

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.config import Origin
from fastapi_cloudflare_access.local.edge_request import Call, RawHeaders, named_by_connection
from fastapi_cloudflare_access.local.pages import message
from fastapi_cloudflare_access.local.tunnel import tunnel

logger = logging.getLogger("fastapi_cloudflare_access.local")

CONNECT_LIMIT = 15.0

_HOP_BY_HOP = frozenset(
    {
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


_WITHOUT_BODY = frozenset({204, 304})
"""Whose length, that of a body which does not come, servers take for a promise."""
_PROBLEMS = (
    h11.LocalProtocolError,  # of a body, where httpcore does not make it one of its own
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Upstream:
    """A server behind the edge, at an origin of its own."""

    def __init__(self, origin: str) -> None:
        """Stand in front of it.

        Raises:
            ConfigurationError: It is no origin.
        """
        try:
            self.origin = Origin.parse(origin)
        except ValueError as problem:
            raise ConfigurationError(f"an upstream {problem}") from None
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def start(self) -> None:
        """Make the pool; it is as large as it has to be, and no answer is too slow."""
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=None, max_keepalive_connections=100, keepalive_expiry=5
        )

    async def stop(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            await self._pool.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or a handshake on."""
        if scope["type"] == "websocket":
            await tunnel(self.origin, scope, receive, send)
            return
        begun = _Begun(send)
        try:
            await self._pass_on(scope, receive, begun)
        except ClientGone:
            pass
        except _PROBLEMS as problem:
            logger.warning("%s does not answer: %s", self.origin, type(problem).__name__)
            if begun.has_begun:
                raise
            await message("502: the app does not answer", f"Is it running at {self.origin}?", status=502)(
                scope, receive, send
            )

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the request; its body goes up as it comes in, and the answer comes down in the same way."""
        call = Call(scope)
        client = _Client(receive, has_body=_has_body(call))
        place = self.origin
        request = httpcore.Request(
            call.method,
            httpcore.URL(scheme=place.scheme, host=place.host, port=place.port, target=call.target.encode("latin-1")),
            headers=[*end_to_end(scope["headers"]), *_framing(call)],
            content=client.body() if _has_body(call) else None,
            extensions={"timeout": {"connect": CONNECT_LIMIT}},
        )
        await client.stays_for(asyncio.ensure_future(self._exchange(request, send)))

    async def _exchange(self, request: httpcore.Request, send: Send) -> None:
        assert self._pool is not None, "the backend was not started"  # noqa: S101 - the edge starts it
        response = await self._pool.handle_async_request(request)
        try:
            headers = end_to_end(response.headers)
            if response.status in _WITHOUT_BODY:
                headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            async for piece in response.aiter_stream():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await response.aclose()


class _Begun:
    """A `send` that knows whether the answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, event: Message) -> None:
        self.has_begun = True
        await self._send(event)


def end_to_end(headers: RawHeaders) -> RawHeaders:
    """Leave out what is about one connection alone (RFC 9110 section 7.6.1), and `Expect`, which was answered."""
    dropped = _HOP_BY_HOP | named_by_connection(headers) | {b"expect"}
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def _framing(call: Call) -> RawHeaders:
    """A body of unknown length goes up as it came."""
    return [(b"transfer-encoding", b"chunked")] if call.all("transfer-encoding") else []


def _has_body(call: Call) -> bool:
    return bool(call.all("transfer-encoding")) or call.get("content-length") not in ("", "0")


class _Client:
    """Who sent the request: gives its body, and may go away."""

    def __init__(self, receive: Receive, *, has_body: bool) -> None:
        self._receive = receive
        self._has_sent = asyncio.Event()
        if not has_body:
            self._has_sent.set()

    async def body(self) -> AsyncIterator[bytes]:
        while not self._has_sent.is_set():
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientGone
            if not event.get("more_body"):
                self._has_sent.set()
            yield event.get("body", b"")

    async def stays_for(self, exchange: "asyncio.Future[None]") -> None:
        """Wait for the exchange; where the client goes away, cancel it and raise `ClientGone`."""
        watcher = asyncio.ensure_future(self._leaves())
        try:
            await asyncio.wait({exchange, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done():
                raise ClientGone
            exchange.result()
        finally:
            for task in (exchange, watcher):
                task.cancel()
            await asyncio.wait({exchange, watcher})

    async def _leaves(self) -> None:
        await self._has_sent.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
