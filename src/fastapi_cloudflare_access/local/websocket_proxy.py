"""The reverse proxy for WebSockets."""

import asyncio
import logging
import ssl
from typing import Any

import httpcore
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from fastapi_cloudflare_access.local.config import Origin
from fastapi_cloudflare_access.local.edge_request import EdgeRequest, end_to_end
from fastapi_cloudflare_access.local.pages import message

logger = logging.getLogger("fastapi_cloudflare_access.local")

OPEN_TIMEOUT = 10.0
"""Seconds for the handshake with the app."""
CLOSE_TIMEOUT = 1.0
"""Seconds for the closing handshake."""

_HANDSHAKE_HEADERS = frozenset(
    {
        b"connection",
        b"host",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"upgrade",
    }
)
_NO_STATUS, _ABNORMAL, _TLS_FAILURE = 1005, 1006, 1015
"""Close codes that no close frame may contain (RFC 6455 section 7.4.1)."""
_NORMAL, _INTERNAL_ERROR = 1000, 1011


class _Connect(connect):
    """A connection that passes redirects to the client instead of following them."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def proxy_websocket(
    origin: Origin, scope: Scope, receive: Receive, send: Send, *, tls: ssl.SSLContext | None = None
) -> None:
    """Open a WebSocket to the app, and relay messages or its rejection to the client."""
    await receive()  # websocket.connect
    try:
        upstream = await _open(origin, scope, tls)
    except InvalidStatus as refused:
        await _rejection(refused)(scope, receive, send)
        return
    except (OSError, TimeoutError, InvalidHandshake) as problem:
        logger.warning("%s did not open a WebSocket: %s", origin, describe(problem))
        await bad_gateway(origin, problem)(scope, receive, send)
        return
    except (InvalidURI, ValueError) as problem:
        logger.warning("%s: the handshake cannot be sent: %s", origin, type(problem).__name__)
        text = "Open the WebSocket at a path of the app, without a fragment."
        await message("400: the handshake is not valid", text, status=400)(scope, receive, send)
        return
    async with upstream:
        await send(
            {"type": "websocket.accept", "subprotocol": upstream.subprotocol, "headers": _accept_headers(upstream)}
        )
        await _relay(upstream, receive, send)


def bad_gateway(origin: Origin, problem: Exception) -> Response:
    """Return the page for an app that does not answer, with what to do."""
    if _is_certificate(problem):
        title = "502: the certificate of the app is not trusted"
        text = "Name the file of its authority with --upstream-ca, or as upstream_ca in access.toml."
    elif isinstance(problem, (OSError, httpcore.ConnectError)):
        title, text = "502: the app does not answer", f"Start it at {origin}, and try again."
    else:
        title = "502: the app did not answer completely"
        text = f"It is at {origin}. Read its log: it closed the connection, or broke the protocol."
    return message(title, text, status=502)


def describe(problem: Exception) -> str:
    """Return the kind of a problem, for the log."""
    return "its certificate is not trusted" if _is_certificate(problem) else type(problem).__name__


def _is_certificate(problem: BaseException | None) -> bool:
    """Return whether a problem comes from a certificate that is not trusted."""
    while problem is not None and not isinstance(problem, ssl.SSLCertVerificationError):
        problem = problem.__cause__ or problem.__context__
    return problem is not None


def _rejection(refused: InvalidStatus) -> Response:
    """Return the app's response to the handshake, with all of its end-to-end headers."""
    response = refused.response
    built = Response(bytes(response.body or b""), response.status_code)
    received = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.headers.raw_items()]
    kept = [entry for entry in end_to_end(received) if entry[0] != b"content-length"]
    built.raw_headers += kept
    return built


async def _open(origin: Origin, scope: Scope, tls: ssl.SSLContext | None) -> ClientConnection:
    request = EdgeRequest(scope)
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name not in _HANDSHAKE_HEADERS
    ]
    return await _Connect(
        f"{'wss' if origin.scheme == 'https' else 'ws'}://{request.netloc}{request.target}",
        host=origin.host,
        port=origin.port,
        ssl=tls,
        additional_headers=headers,
        subprotocols=[Subprotocol(name) for name in scope.get("subprotocols", ())] or None,
        user_agent_header=None,
        proxy=None,
        compression=None,
        open_timeout=OPEN_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
        ping_interval=None,
        max_size=None,
    )


def _accept_headers(upstream: ClientConnection) -> list[tuple[bytes, bytes]]:
    response = upstream.response
    items = response.headers.raw_items() if response else ()
    return [(b"set-cookie", value.encode("latin-1")) for name, value in items if name.lower() == "set-cookie"]


async def _relay(upstream: ClientConnection, receive: Receive, send: Send) -> None:
    directions = [
        asyncio.ensure_future(_client_to_app(upstream, receive)),
        asyncio.ensure_future(_app_to_client(upstream, send)),
    ]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)


async def _client_to_app(upstream: ClientConnection, receive: Receive) -> None:
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            await upstream.close(_sendable_code(event.get("code") or _NORMAL), event.get("reason") or "")
            return
        try:
            await upstream.send(_content(event))
        except ConnectionClosed:
            await asyncio.Event().wait()  # the other direction sends the close to the client


def _content(event: Any) -> str | bytes:
    text: str | None = event.get("text")
    content: str | bytes = event["bytes"] if text is None else text
    return content


async def _app_to_client(upstream: ClientConnection, send: Send) -> None:
    try:
        async for content in upstream:
            kind = "text" if isinstance(content, str) else "bytes"
            await send({"type": "websocket.send", kind: content})
    except ConnectionClosed:
        pass
    code, reason = upstream.close_code or _INTERNAL_ERROR, upstream.close_reason or ""
    await send({"type": "websocket.close", "code": _sendable_code(code), "reason": reason})


def _sendable_code(code: int) -> int:
    return {_NO_STATUS: _NORMAL, _ABNORMAL: _INTERNAL_ERROR, _TLS_FAILURE: _INTERNAL_ERROR}.get(code, code)
