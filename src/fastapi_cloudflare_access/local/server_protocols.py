"""The protocols of the servers: uvicorn's, without the limits that an edge does not have."""

import asyncio
from typing import Any
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from fastapi_cloudflare_access.local.certs import CLOSE_CONNECTION
from fastapi_cloudflare_access.local.edge_request import RawHeaders

MAX_MESSAGE = 1 << 30
"""Largest WebSocket message from a client, in bytes."""

_READ_BY_WEBSOCKETS = frozenset(
    {
        b"connection",
        b"host",
        b"origin",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"upgrade",
    }
)
_BAD_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class HttpProtocol(HttpToolsProtocol):
    """An HTTP protocol that lets the edge close the connection, which ASGI cannot express."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Add the function that closes the connection to the state of each request."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, CLOSE_CONNECTION: transport.close}

    def handle_websocket_upgrade(self) -> None:
        """Continue with the WebSocket protocol."""
        self.connections.discard(self)
        protocol = WebSocketProtocol(
            config=self.config, server_state=self.server_state, app_state=self.app_state, _loop=self.loop
        )
        protocol.connection_made(self.transport)
        protocol.receive_handshake(str(self.scope["method"]).encode(), self.url, list(self.scope["headers"]))
        self.transport.set_protocol(protocol)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket protocol that accepts every handshake that the HTTP protocol has parsed.

    The library limits each line of a handshake to 8 KiB, and hangs if a line is longer. So it parses only the headers
    that it needs.
    """

    def receive_handshake(self, method: bytes, target: bytes, headers: RawHeaders) -> None:
        """Parse the headers of the handshake itself, and keep the others for the app."""
        self._target, self._headers = target, headers
        lines = [name + b": " + value for name, value in headers if name in _READ_BY_WEBSOCKETS]
        self.data_received(b"\r\n".join([method + b" / HTTP/1.1", *lines, b"", b""]))
        if not self.handshake_initiated:  # uvicorn leaves a handshake unanswered that the library cannot parse
            self.handshake_complete = self.close_sent = True
            self.transport.write(b"".join(self.conn.data_to_send()) or _BAD_HANDSHAKE)
            self.transport.close()

    def handle_connect(self, event: Any) -> None:
        """Start the app with the original target and headers."""
        super().handle_connect(event)
        if not self.close_sent:
            path, _, query = self._target.partition(b"?")
            self.scope["path"] = unquote(path.decode("latin-1"))
            self.scope["raw_path"], self.scope["query_string"], self.scope["headers"] = path, query, self._headers

    async def send(self, message: Any) -> None:
        """Send an event; a complete refusal completes the handshake, so that uvicorn does not log an error."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True
