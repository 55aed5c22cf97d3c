"""Streams over real sockets, on a clock that the test advances: they end with their token, and only then."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from starlette.requests import HTTPConnection as Connection
from starlette.types import Receive, Scope, Send
from support.answer_servers import SERVERS
from support.stream_rig import EMAIL, LEEWAY, LIFETIME, Rig
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from fastapi_cloudflare_access import UserClaims
from fastapi_cloudflare_access.streams import run_while_valid

sse: Any = import_module("fastapi.sse") if find_spec("fastapi.sse") else None  # the lowest version has none

PATHS = ["/events", "/mounted/events", "/guarded/async", "/guarded/sync"] + ["/generator"] * (sse is not None)
HEADER = "Cf-Access-Jwt-Assertion"
PATIENCE = 20.0


class Streams(Rig):
    """An app with each kind of stream, alone, mounted and guarded."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.app = FastAPI(lifespan=self.access.lifespan)
        self.app.mount("/mounted", self.protected())
        self.app.mount("/guarded", self.guarded(self.unprotected()))
        self.add_to(self.app)

    def protected(self) -> FastAPI:
        app = FastAPI()
        self.add_to(app)
        return app

    def add_to(self, app: FastAPI) -> None:
        access = self.access

        async def events(caller: UserClaims) -> AsyncIterator[str]:
            async with access.while_valid(caller):
                yield "data: first\n\n"
                await asyncio.Event().wait()

        @app.get("/events")
        async def get_events(caller: Annotated[UserClaims, Depends(access.user)]) -> StreamingResponse:
            return StreamingResponse(events(caller), media_type="text/event-stream")

        if sse is not None:

            @app.get("/generator", response_class=sse.EventSourceResponse)
            async def generator(caller: Annotated[UserClaims, Depends(access.user)]) -> AsyncIterator[Any]:
                async with access.while_valid(caller):
                    yield sse.ServerSentEvent(raw_data="first")
                    await asyncio.Event().wait()

        @app.websocket("/echo")
        async def echo(socket: WebSocket, caller: Annotated[UserClaims, Depends(access.user)]) -> None:
            await socket.accept()
            async with access.while_valid(caller) as lease:
                while True:
                    message = await socket.receive_json()
                    if "token" in message:
                        caller = await lease.renew(message["token"])
                    await socket.send_json(caller.exp)

        @app.websocket("/group")
        async def group(socket: WebSocket, caller: Annotated[UserClaims, Depends(access.user)]) -> None:
            await socket.accept()
            async with access.while_valid(caller), asyncio.TaskGroup() as tasks:
                tasks.create_task(socket.receive_text())
                tasks.create_task(asyncio.Event().wait())
                await socket.send_json(caller.exp)

    def unprotected(self) -> FastAPI:
        """Give an app that knows nothing of tokens."""
        app = FastAPI()

        def wait_in_a_thread() -> Iterator[str]:
            yield "data: first\n\n"
            self.go_on.wait(PATIENCE)
            yield "data: second\n\n"

        async def wait() -> AsyncIterator[str]:
            yield "data: first\n\n"
            await asyncio.Event().wait()

        @app.get("/sync")
        def sync() -> StreamingResponse:
            return StreamingResponse(wait_in_a_thread())

        @app.get("/async")
        def not_sync() -> StreamingResponse:
            return StreamingResponse(wait())

        @app.websocket("/echo")
        async def echo(socket: WebSocket) -> None:
            await socket.accept()
            while True:
                await socket.send_json(len(await socket.receive_text()))

        return app

    def guarded(self, app: FastAPI) -> Any:
        async def guard(scope: Scope, receive: Receive, send: Send) -> None:
            caller = await self.access.authenticate(Connection(scope))
            authenticator = self.access._authenticator
            await run_while_valid(app, scope, receive, send, authenticator=authenticator, caller=caller)

        return guard

    def open_streams(self) -> int:
        return sum(len(streams) for streams in self.access._authenticator.open_streams._loops.values())


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Streams, str]]:
    streams = Streams()
    with SERVERS[request.param](streams.app) as address:
        yield streams, address
        streams.go_on.set()


@contextmanager
def reading(address: str, path: str, token: str) -> Iterator[HTTPResponse]:
    connection = HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={HEADER: token})
        yield connection.getresponse()
    finally:
        connection.close()


@pytest.mark.conformance(64)
@pytest.mark.parametrize("path", PATHS)
def test_a_stream_ends_cleanly_with_its_token(served: tuple[Streams, str], path: str) -> None:
    """An unclean end would be an `IncompleteRead`."""
    streams, address = served
    with reading(address, path, streams.token()) as response:
        assert (response.status, response.readline()) == (200, b"data: first\n")
        streams.clock.advance(LIFETIME + LEEWAY - 1)
        assert streams.open_streams() == 1
        streams.clock.advance(2)
        streams.clock.advance(2)  # for what began to wait only after the first step
        assert response.read() == b"\n"
    assert [event.reason for event in streams.ended()] == ["token_expired"]


@pytest.mark.conformance(64)
@pytest.mark.parametrize("path", ["/echo", "/group", "/mounted/echo", "/mounted/group", "/guarded/echo"])
def test_a_websocket_is_closed_with_1008_and_the_reason(served: tuple[Streams, str], path: str) -> None:
    streams, address = served
    headers = {HEADER: streams.token()}
    with connect(f"ws://{address}{path}", additional_headers=headers, proxy=None) as socket:
        if "group" not in path:
            socket.send("{}")
        socket.recv(PATIENCE)
        streams.clock.advance(LIFETIME + LEEWAY + 1)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "token_expired")


def test_a_websocket_goes_on_with_a_fresh_token_sent_over_it(served: tuple[Streams, str]) -> None:
    streams, address = served
    headers = {HEADER: streams.token()}
    with connect(f"ws://{address}/echo", additional_headers=headers, proxy=None) as socket:
        socket.send(json.dumps({"token": streams.token(expires_in=3 * LIFETIME)}))
        renewed = json.loads(socket.recv(PATIENCE))
        streams.clock.advance(2 * LIFETIME)
        socket.send("{}")
        assert json.loads(socket.recv(PATIENCE)) == renewed
        streams.clock.advance(LIFETIME + LEEWAY)
        with pytest.raises(ConnectionClosed):
            socket.recv(PATIENCE)


def test_a_revocation_ends_websockets_and_streams(served: tuple[Streams, str]) -> None:
    streams, address = served
    headers = {HEADER: streams.token()}
    with (
        connect(f"ws://{address}/group", additional_headers=headers, proxy=None) as socket,
        reading(address, "/events", streams.token("bob@example.com")) as response,
    ):
        socket.recv(PATIENCE)
        assert response.readline() == b"data: first\n"
        open_streams = streams.access._authenticator.open_streams
        open_streams.end_streams_of(lambda claims: claims.email == EMAIL)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "token_revoked")
        open_streams.end_streams_of(lambda claims: claims.email == "bob@example.com")
        assert response.read() == b"\n"
