"""Connections to an upstream that keep a response which arrives before the whole request is sent."""

import asyncio
import socket
from collections.abc import Iterable
from ssl import SSLContext
from typing import Any

import httpcore

CHUNK = 65_536
BODY = 2
"""Number of the write that begins a body; the first one sends the headers."""


class ReadingWhileWriting(httpcore.AsyncNetworkBackend):
    """A backend whose connections read while they write a request body.

    A server may answer in the middle of a body and close the connection. The operating system then discards what was
    not yet read, so the answer would be lost.
    """

    def __init__(self) -> None:
        """Create the backend below."""
        self._backend: Any = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a server."""
        return _Stream(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream, *, is_plain: bool = True) -> None:
        self._stream = stream
        self._is_plain = is_plain
        self._writes = 0
        self._early: asyncio.Task[bytes] | None = None
        self._copy: socket.socket | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Return what arrived early, then what arrives now, then what arrived before the connection broke."""
        self._writes = 0
        early, self._early = self._early, None
        try:
            return await (early or self._stream.read(max_bytes, timeout))
        except httpcore.ReadError:
            if rest := self._rest():
                return rest
            raise

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Write the headers, or a part of the body while a task reads."""
        self._writes += 1
        if self._writes == BODY:
            self._copy_socket()
            self._early = asyncio.ensure_future(self._stream.read(CHUNK))
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection, and stop to read."""
        if self._early is not None:
            self._early.cancel()
            await asyncio.wait({self._early})
            if not self._early.cancelled():
                self._early.exception()
        if self._copy is not None:
            self._copy.close()
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """Continue with TLS."""
        encrypted = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _Stream(encrypted, is_plain=False)

    def get_extra_info(self, info: str) -> Any:
        """Return information about the connection below."""
        return self._stream.get_extra_info(info)

    def _copy_socket(self) -> None:
        """Copy the socket: asyncio closes its own when a write fails, and drops an answer that was not yet read."""
        if self._is_plain and self._copy is None:
            original = self.get_extra_info("socket")
            self._copy = socket.fromfd(original.fileno(), original.family, original.type)
            self._copy.settimeout(0)

    def _rest(self) -> bytes:
        try:
            return self._copy.recv(CHUNK) if self._copy else b""
        except OSError:
            return b""
