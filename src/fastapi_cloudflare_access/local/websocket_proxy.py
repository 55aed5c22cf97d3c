"""The reverse proxy for WebSockets."""

import asyncio
import logging
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from fastapi_cloudflare_access.local.config import Origin
from fastapi_cloudflare_access.local.edge_request import EdgeRequest
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


async def proxy_websocket(origin: Origin, scope: Scope, receive: Receive, send: Send) -> None:
    """Open a WebSocket to the app, and relay messages or its rejection to the client."""
    await receive()  # websocket.connect
    try:
        upstream = await _open(origin, scope)
    except InvalidStatus as refused:
        response = refused.response
        headers = {
            name: value
            for name, value in response.headers.raw_items()
            if name.lower() in ("content-type", "location", "www-authenticate")
        }
        await Response(bytes(response.body or b""), response.status_code, headers)(scope, receive, send)
        return
    except (InvalidURI, ValueError) as problem:
        logger.warning("%s: the handshake cannot be sent: %s", origin, type(problem).__name__)
        text = "Open the WebSocket at a path of the app, without a fragment."
        await message("400: the handshake is not valid", text, status=400)(scope, receive, send)
        return
    except (OSError, TimeoutError, InvalidHandshake) as problem:
        logger.warning("%s did not open a WebSocket: %s", origin, type(problem).__name__)
        await message("502: the app does not answer", f"Start it at {origin}, and try again.", status=502)(
            scope, receive, send
        )
        return
    async with upstream:
        await send(
            {"type": "websocket.accept", "subprotocol": upstream.subprotocol, "headers": _accept_headers(upstream)}
        )
        await _relay(upstream, receive, send)


async def _open(origin: Origin, scope: Scope) -> ClientConnection:
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
