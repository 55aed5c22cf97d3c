"""Real ASGI servers on a free port, each in a thread with an event loop of its own."""

import asyncio
import logging
import socket
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any, Literal

import uvicorn
from hypercorn.asyncio import serve as serve_hypercorn
from hypercorn.config import Config

Serving = Callable[[Any], AbstractContextManager[str]]
"""Takes an app, gives a context with `127.0.0.1:<port>`."""

PATIENCE = 20.0
"""Seconds after which a server that neither starts nor stops fails the test."""


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Event) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self._ready.set()


@contextmanager
def uvicorn_serving(
    app: Any,
    *,
    http: Literal["h11", "httptools"] = "h11",
    ws: Literal["websockets-sansio", "wsproto"] = "websockets-sansio",
    loop: Literal["asyncio", "auto"] = "asyncio",
    lifespan: Literal["on", "off"] = "on",
    root_path: str = "",
) -> Generator[str]:
    """Serve the app by uvicorn."""
    ready = Event()
    config = uvicorn.Config(app, http=http, ws=ws, loop=loop, lifespan=lifespan, root_path=root_path, log_config=None)
    server = _Uvicorn(config, ready)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            assert ready.wait(PATIENCE)
            assert server.started
            yield address
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def hypercorn_serving(app: Any) -> Generator[str]:
    """Serve the app by Hypercorn."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = logging.getLogger("hypercorn.error")
    loop, stopping = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        await serve_hypercorn(app, config, shutdown_trigger=stopping.wait)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(PATIENCE)
    assert not thread.is_alive()


SERVERS: dict[str, Serving] = {
    "uvicorn-h11": uvicorn_serving,
    "uvicorn-httptools": partial(uvicorn_serving, http="httptools", ws="wsproto", loop="auto"),
    "hypercorn": hypercorn_serving,
}
"""With a different HTTP and WebSocket parser each."""
