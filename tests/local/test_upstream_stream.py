"""A connection to an upstream keeps what arrived, and reports what did not."""

import asyncio
import socket
from typing import Any

import httpcore
import pytest

from fastapi_cloudflare_access.local.upstream_stream import _Stream

pytestmark = pytest.mark.anyio


class Broken(httpcore.AsyncNetworkStream):
    """A connection that breaks; its socket may still have data."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        raise httpcore.ReadError

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await asyncio.sleep(0)

    async def aclose(self) -> None: ...

    def get_extra_info(self, info: str) -> Any:
        return self.connection


async def test_what_arrived_before_the_connection_broke_is_read() -> None:
    near, far = socket.socketpair()
    with near, far:
        stream = _Stream(Broken(near))
        for part in (b"headers", b"body"):
            await stream.write(part)
        far.sendall(b"answer")
        assert await stream.read(100) == b"answer"
        with pytest.raises(httpcore.ReadError):  # nothing is left
            await stream.read(100)
        far.close()
        with pytest.raises(httpcore.ReadError):
            await stream.read(100)
        await stream.aclose()


async def test_a_broken_connection_can_be_closed_before_it_is_read() -> None:
    near, far = socket.socketpair()
    with near, far:
        stream = _Stream(Broken(near))
        for part in (b"headers", b"body"):
            await stream.write(part)
        await stream.aclose()
