"""Servers to stand behind a local Access, on free ports of the loopback."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from ssl import SSLContext
from threading import Event, Thread
from typing import Any

import uvicorn

from fastapi_cloudflare_access.local.server import bind, port_of


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an app with uvicorn; give its origin."""
    sockets = bind("127.0.0.1", 0)
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1, ws="websockets-sansio")
    server = _Server(config)
    thread = Thread(target=lambda: asyncio.run(server.serve(sockets)), daemon=True)
    thread.start()
    assert server.listens.wait(10)
    try:
        yield f"http://127.0.0.1:{port_of(sockets)}"
    finally:
        server.should_exit = True
        thread.join(10)
        for socket in sockets:
            socket.close()


@contextmanager
def raw_server(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], *, tls: SSLContext | None = None
) -> Iterator[str]:
    """Serve bytes by hand; give the origin."""
    started, loops = Event(), list[asyncio.AbstractEventLoop]()
    sockets = bind("127.0.0.1", 0)
    stop = asyncio.Event()

    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A handler that the end of the loop cancels would leave its connection to the garbage collector.
        with closing(writer):
            await answer(reader, writer)

    async def main() -> None:
        server = await asyncio.start_server(answer_and_close, sock=sockets[0], ssl=tls)
        loops.append(asyncio.get_running_loop())
        started.set()
        await stop.wait()
        server.close()

    thread = Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield f"http://127.0.0.1:{port_of(sockets)}"
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)
        for socket in sockets:
            socket.close()
