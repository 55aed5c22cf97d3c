"""The reverse proxy for HTTP, which streams requests and responses."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator

import h11
import httpcore
from starlette.types import Message, Receive, Scope, Send

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.certs import CLOSE_CONNECTION
from fastapi_cloudflare_access.local.config import Origin
from fastapi_cloudflare_access.local.edge_request import EdgeRequest, RawHeaders, end_to_end
from fastapi_cloudflare_access.local.upstream_stream import ReadingWhileWriting
from fastapi_cloudflare_access.local.websocket_proxy import bad_gateway, describe, proxy_websocket

logger = logging.getLogger("fastapi_cloudflare_access.local")

CONNECT_TIMEOUT = 15.0
"""Seconds to connect to the app."""

_NO_BODY_STATUSES = frozenset({204, 304})
"""Statuses without a body; the server would wait for the body that `Content-Length` announces."""
_UPSTREAM_ERRORS = (
    h11.LocalProtocolError,  # httpcore does not wrap it if the body causes it
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    ssl.SSLError,  # older versions of httpcore do not wrap it
)


class ClientDisconnected(Exception):
    """The disconnect of the client before the end of the response."""


class Upstream:
    """A server that the edge forwards to."""

    def __init__(self, origin: str, *, ca: str | None = None) -> None:
        """Parse the origin of the server, and read its certificate authority if a file with one is named.

        Raises:
            ConfigurationError: The text is not a valid origin, or the file has no certificate.
        """
        try:
            self.origin = Origin.parse(origin)
        except ValueError as problem:
            raise ConfigurationError(f"an upstream {problem}") from None
        self._tls = ssl_context(ca) if self.origin.scheme == "https" else None
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def start(self) -> None:
        """Create an unlimited connection pool."""
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            max_connections=None,
            max_keepalive_connections=100,
            keepalive_expiry=5,
            network_backend=ReadingWhileWriting(),
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            await self._pool.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a request or a handshake to the server."""
        if scope["type"] == "websocket":
            await proxy_websocket(self.origin, scope, receive, send, tls=self._tls)
            return
        tracker = _SendTracker(send)
        try:
            await self._forward(scope, receive, tracker)
        except ClientDisconnected:
            pass
        except _UPSTREAM_ERRORS as problem:
            await self._report(problem, tracker, scope, receive)

    async def _report(self, problem: Exception, tracker: "_SendTracker", scope: Scope, receive: Receive) -> None:
        """Send an error page, or close the connection if the response has started."""
        logger.warning("%s does not answer: %s", self.origin, describe(problem))
        if not tracker.has_started:
            await bad_gateway(self.origin, problem)(scope, receive, tracker)
        elif close_connection := scope.get("state", {}).get(CLOSE_CONNECTION):
            close_connection()
        else:
            raise problem

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the request, and stream both bodies."""
        request = EdgeRequest(scope)
        client = _Client(receive, has_body=_has_body(request))
        upstream_request = httpcore.Request(
            request.method,
            httpcore.URL(
                scheme=self.origin.scheme,
                host=self.origin.host,
                port=self.origin.port,
                target=request.target.encode("latin-1"),
            ),
            headers=[*end_to_end(scope["headers"]), *_framing(request)],
            content=client.body() if _has_body(request) else None,
            extensions={"timeout": {"connect": CONNECT_TIMEOUT}},
        )
        await client.run_until_disconnect(asyncio.ensure_future(self._exchange(upstream_request, send)))

    async def _exchange(self, upstream_request: httpcore.Request, send: Send) -> None:
        assert self._pool is not None, "the backend was not started"  # noqa: S101 - the edge starts it
        response = await self._pool.handle_async_request(upstream_request)
        try:
            headers = end_to_end(response.headers)
            if response.status in _NO_BODY_STATUSES:
                headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            async for chunk in response.aiter_stream():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await response.aclose()


def ssl_context(ca: str | None) -> ssl.SSLContext:
    """Return a context that trusts the computer's authorities, and those of a file.

    Raises:
        ConfigurationError: The file has no certificate.
    """
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except OSError:  # the errors of TLS are among them
            raise ConfigurationError(f"{ca} is not a file with a certificate in PEM") from None
    return context


class _SendTracker:
    """A `send` that records whether the response has started."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_started = False

    async def __call__(self, event: Message) -> None:
        self.has_started = True
        await self._send(event)


def _framing(request: EdgeRequest) -> RawHeaders:
    """Return the header for a body of unknown length, if any."""
    return [(b"transfer-encoding", b"chunked")] if request.get_all("transfer-encoding") else []


def _has_body(request: EdgeRequest) -> bool:
    return bool(request.get_all("transfer-encoding")) or request.get("content-length") not in ("", "0")


class _Client:
    """The client of a request: its body and its disconnect."""

    def __init__(self, receive: Receive, *, has_body: bool) -> None:
        self._receive = receive
        self._body_received = asyncio.Event()
        if not has_body:
            self._body_received.set()

    async def body(self) -> AsyncIterator[bytes]:
        while not self._body_received.is_set():
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientDisconnected
            if not event.get("more_body"):
                self._body_received.set()
            yield event.get("body", b"")

    async def run_until_disconnect(self, exchange: "asyncio.Future[None]") -> None:
        """Wait for the exchange; if the client disconnects first, cancel it and raise `ClientDisconnected`."""
        watcher = asyncio.ensure_future(self._wait_for_disconnect())
        try:
            await asyncio.wait({exchange, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done():
                raise ClientDisconnected
            exchange.result()
        finally:
            for task in (exchange, watcher):
                task.cancel()
            await asyncio.wait({exchange, watcher})

    async def _wait_for_disconnect(self) -> None:
        await self._body_received.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
