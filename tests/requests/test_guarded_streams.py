"""What the guard uses to end each stream of an app, also one that knows nothing of tokens."""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from threading import Event
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from support.soaking import in_full
from support.stream_rig import LEEWAY, LIFETIME, Rig, timers, wait_forever

from fastapi_cloudflare_access import ConfigurationError
from fastapi_cloudflare_access.streams import run_while_valid

pytestmark = pytest.mark.anyio

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}
CLOSE: Message = {"type": "websocket.close", "code": 1008, "reason": "token_expired"}
STREAMS, MAX_BYTES = in_full(1000, 200), 2048
GRACE, CLOSE_TIMEOUT = 0.25, 0.5
"""Seconds for an app to return, and for the last message."""
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def chunk(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


class Guard(Rig):
    """Runs an app for one request, as a guard does, and keeps what the server is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Message] = []
        self.streaming = asyncio.Event()
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message.get("more_body"):
            self.streaming.set()

    async def run(self, app: App, kind: str = "http", send: Send | None = None) -> None:
        connection = self.connection(self.token(), kind=kind)
        connection.scope.update({"method": "GET", "asgi": {"spec_version": "2.3"}, "subprotocols": []})
        caller = await self.access.authenticate(connection)
        authenticator = self.access._authenticator
        receive, send = self.incoming.get, send or self.send
        await run_while_valid(app, connection.scope, receive, send, authenticator=authenticator, caller=caller)

    async def start(self, app: App, kind: str = "http", send: Send | None = None) -> "asyncio.Task[None]":
        task = asyncio.create_task(self.run(app, kind, send))
        await self.clock.run_for(1)
        return task

    async def expire(self) -> None:
        await self.clock.run_for(LIFETIME + LEEWAY - 1)


@pytest.fixture
def guard() -> Guard:
    return Guard()


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(chunk(b"a"))
    await wait_forever()


@pytest.mark.conformance(64)
async def test_a_stream_ends_as_if_the_app_had_ended_it(guard: Guard) -> None:
    task = await guard.start(stream)
    assert guard.sent == [START, chunk(b"a")]
    await guard.expire()
    await guard.finish(task)
    assert guard.sent == [START, chunk(b"a"), END]
    assert [event.reason for event in guard.ended()] == ["token_expired"]


@pytest.mark.conformance(64)
@pytest.mark.parametrize("name", [b"content-type", b"cache-control"])
async def test_a_stream_with_other_headers_ends(guard: Guard, name: bytes) -> None:
    start = {**START, "headers": [(name, b"x")]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await wait_forever()

    task = await guard.start(app)
    await guard.expire()
    await guard.finish(task)
    assert guard.sent == [start, END]


EXTENSIONS = ["http.response.debug", "http.response.push", "http.response.trailers"]


@pytest.mark.parametrize("extension", EXTENSIONS)
async def test_a_message_of_an_extension_ends_no_stream(guard: Guard, extension: str) -> None:
    trailers: Message = {"type": extension, "headers": []}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(trailers)
        await wait_forever()

    task = await guard.start(app)
    await guard.expire()
    await guard.finish(task)
    assert guard.sent == [START, trailers, END]


@pytest.mark.parametrize("extension", EXTENSIONS)
async def test_a_message_of_an_extension_begins_no_stream(guard: Guard, extension: str) -> None:
    start = {**START, "headers": [(b"content-length", b"1")]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await send({"type": extension, "headers": []})
        await guard.clock.sleep(2 * LIFETIME)
        await send(END)

    task = await guard.start(app)
    await guard.clock.run_until(task)
    assert (guard.sent[0], guard.sent[-1], guard.ended()) == (start, END, [])


async def test_a_synchronous_generator_ends_although_its_thread_waits(guard: Guard) -> None:
    go_on = Event()

    def generator() -> Iterator[str]:
        yield "a"
        go_on.wait(20)
        yield "b"

    async def endpoint(request: Any) -> StreamingResponse:
        return StreamingResponse(generator())

    task = asyncio.create_task(guard.run(Starlette(routes=[Route("/", endpoint)])))
    await asyncio.wait_for(guard.streaming.wait(), 20)
    await guard.clock.run_for(LIFETIME + LEEWAY + GRACE)
    assert (guard.sent[-1], task.done()) == (END, False)
    go_on.set()
    await asyncio.wait_for(task, 20)
    assert [message.get("body") for message in guard.sent] == [None, b"a", b""]


@pytest.mark.conformance(64)
async def test_a_websocket_is_closed_with_the_reason_code(guard: Guard) -> None:
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()

    guard.incoming.put_nowait({"type": "websocket.connect"})
    kind = b"websocket".decode()  # a text that is another object
    task = await guard.start(Starlette(routes=[WebSocketRoute("/", endpoint)]), kind)
    await guard.expire()
    await guard.finish(task)
    assert [message["type"] for message in guard.sent] == ["websocket.accept", "websocket.close"]
    assert guard.sent[-1] == CLOSE


@pytest.mark.conformance(64)
async def test_a_websocket_whose_client_sends_is_closed_and_its_app_hears_of_a_disconnect(guard: Guard) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        heard.append(await receive())
        await send({"type": "websocket.send", "text": "b"})
        with suppress(asyncio.CancelledError):
            await wait_forever()
        heard.append(await receive())

    guard.incoming.put_nowait({"type": "websocket.receive", "text": "a"})
    task = await guard.start(app, "websocket")
    await guard.expire()
    await guard.finish(task)
    assert guard.sent[2:] == [CLOSE]
    assert heard == [
        {"type": "websocket.receive", "text": "a"},
        {"type": "websocket.disconnect", "code": 1006},
    ]


async def test_a_handshake_that_is_not_accepted_in_time_is_closed(guard: Guard) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await wait_forever()

    task = await guard.start(app, "websocket")
    await guard.expire()
    await guard.finish(task)
    assert guard.sent == [CLOSE]


@pytest.mark.parametrize(
    "last", [{"type": "websocket.close"}, {"type": "websocket.http.response.start"}], ids=["closed", "refused"]
)
async def test_a_websocket_that_the_app_has_closed_or_refused_is_left_alone(guard: Guard, last: Message) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(last)
        await guard.clock.sleep(2 * LIFETIME)

    task = await guard.start(app, "websocket")
    await guard.clock.run_until(task)
    assert (guard.sent, guard.ended()) == ([last], [])


async def test_a_websocket_that_the_client_has_left_is_left_alone(guard: Guard) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await guard.clock.sleep(2 * LIFETIME)

    guard.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
    task = await guard.start(app, "websocket")
    await guard.clock.run_until(task)
    assert guard.sent == []


# responses that are no streams


async def test_a_response_of_known_length_is_completed(guard: Guard) -> None:
    start = {**START, "headers": [(b"Content-Length", b"2")]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await send(chunk(b"a"))
        await guard.clock.sleep(2 * LIFETIME)
        await send({"type": "http.response.body", "body": b"b"})

    task = await guard.start(app)
    await guard.clock.run_until(task)
    assert guard.sent == [start, chunk(b"a"), {"type": "http.response.body", "body": b"b"}]
    assert guard.ended() == []


async def test_a_response_that_is_no_stream_starts_no_timer(guard: Guard) -> None:
    running: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in ({**START, "headers": [(b"content-length", b"0")]}, END):
            await send(message)
            running.append(timers())

    await guard.run(app)
    assert running == [[], []]


async def test_a_slow_request_gets_its_response(guard: Guard) -> None:
    async def endpoint(request: Any) -> PlainTextResponse:
        await guard.clock.sleep(2 * LIFETIME)
        return PlainTextResponse("ok")

    task = await guard.start(Starlette(routes=[Route("/", endpoint)]))
    await guard.clock.run_until(task)
    assert [message.get("body") for message in guard.sent] == [None, b"ok"]


@pytest.mark.parametrize(
    "last",
    [END, {"type": "http.response.body", "body": b""}, {"type": "http.response.pathsend", "path": "file"}],
    ids=["body", "body by default", "pathsend"],
)
async def test_what_runs_after_a_complete_response_is_left_alone(guard: Guard, last: Message) -> None:
    finished = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(last)
        await guard.clock.sleep(2 * LIFETIME)
        finished.append(True)

    task = await guard.start(app)
    await guard.clock.run_until(task)
    assert (guard.sent, finished) == ([START, last], [True])


@pytest.mark.parametrize("late", [0, LIFETIME])
async def test_a_stream_that_begins_after_the_end_has_no_body(guard: Guard, late: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await guard.clock.sleep(LIFETIME + LEEWAY + late)
        await stream(scope, receive, send)

    task = await guard.start(app)
    await guard.clock.run_until(task)
    assert guard.sent == [START, END]
    assert [event.reason for event in guard.ended()] == ["token_expired"]


# apps that do not behave


@pytest.mark.conformance(66)
async def test_an_app_that_suppresses_its_cancellation_sends_nothing_more(guard: Guard) -> None:
    heard: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await stream(scope, receive, send)
        heard.append(await receive())
        with suppress(OSError):
            await send(chunk(b"secret"))
        await guard.clock.sleep(2 * LIFETIME)

    task = await guard.start(app)
    await guard.expire()
    await guard.clock.run_for(GRACE)
    assert (guard.sent, task.done()) == ([START, chunk(b"a"), END], False)
    await guard.clock.run_until(task)
    assert (guard.sent, heard) == ([START, chunk(b"a"), END], [{"type": "http.disconnect"}])


async def test_an_app_has_a_quarter_of_a_second_to_return(guard: Guard) -> None:
    """In which it may still write to the log, for example; the connection is then ended at once."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await stream(scope, receive, send)
        await guard.clock.sleep(0.2)

    task = await guard.start(app)
    await guard.expire()
    assert (guard.sent, task.done()) == ([START, chunk(b"a")], False)
    await guard.clock.run_for(0.2)
    assert (guard.sent, task.done()) == ([START, chunk(b"a"), END], True)


async def test_a_stream_that_was_revoked_before_it_began_gives_that_reason_also_after_its_token(guard: Guard) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        guard.access._authenticator.open_streams.end_streams_of(lambda _: True)
        await guard.clock.sleep(LIFETIME + LEEWAY)
        await stream(scope, receive, send)

    task = await guard.start(app)
    await guard.clock.run_until(task)
    assert guard.sent == [START, END]
    assert [event.reason for event in guard.ended()] == ["token_revoked"]


@pytest.mark.parametrize("together", [False, True], ids=["alone", "in a group"])
async def test_the_exceptions_of_an_app_whose_client_is_gone_end_with_it(guard: Guard, *, together: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await stream(scope, receive, send)
        if together:
            raise ExceptionGroup("of the app", [OSError(), WebSocketDisconnect(1006)])
        await send(chunk(b"secret"))

    task = await guard.start(app)
    await guard.expire()
    await guard.finish(task)
    assert guard.sent == [START, chunk(b"a"), END]


async def test_any_other_exception_of_the_app_passes_through_after_the_end(guard: Guard) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await stream(scope, receive, send)
        finally:
            raise ValueError("of the app")

    task = await guard.start(app)
    await guard.expire()
    with pytest.raises(ValueError, match="of the app"):
        await guard.finish(task)
    assert guard.sent == [START, chunk(b"a"), END]


async def test_an_exception_without_an_end_passes_through(guard: Guard) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        raise OSError("of the app")

    with pytest.raises(OSError, match="of the app"):
        await guard.run(app)
    assert guard.sent == [START]


@pytest.mark.conformance(67)
@pytest.mark.parametrize("after_the_end", [False, True])
async def test_a_cancellation_from_outside_is_never_swallowed(guard: Guard, *, after_the_end: bool) -> None:
    task = await guard.start(stream)
    if after_the_end:
        guard.access._authenticator.open_streams.end_streams_of(lambda _: True)
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await guard.finish(task)
    await guard.clock.run_for(GRACE + CLOSE_TIMEOUT)
    assert guard.sent == [START, chunk(b"a")]


async def test_a_client_that_does_not_read_is_not_waited_for(guard: Guard) -> None:
    async def send(message: Message) -> None:
        if message == END:
            await wait_forever()
        await guard.send(message)

    task = await guard.start(stream, send=send)
    await guard.expire()
    await guard.clock.run_for(CLOSE_TIMEOUT)
    assert (task.done(), guard.sent) == (True, [START, chunk(b"a")])


async def test_a_server_that_cannot_send_the_last_message_hears_of_its_error(guard: Guard) -> None:
    """So that it closes the connection."""

    async def send(message: Message) -> None:
        if message == END:
            raise ValueError("of the server")
        await guard.send(message)

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await stream(scope, receive, send)
        await guard.clock.sleep(2 * GRACE)

    for app in (stream, late):
        task = await guard.start(app, send=send)
        await guard.expire()
        await guard.clock.run_for(1)
        with pytest.raises(ValueError, match="of the server"):
            await guard.finish(task)


async def test_an_app_that_returns_while_its_connection_is_ended_waits_for_that(guard: Guard) -> None:
    async def send(message: Message) -> None:
        if message == END:
            await guard.clock.sleep(CLOSE_TIMEOUT / 2)
        await guard.send(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await stream(scope, receive, send)
        await guard.clock.sleep(GRACE + CLOSE_TIMEOUT / 4)

    task = await guard.start(app, send=send)
    await guard.expire()
    await guard.clock.run_until(task)
    assert guard.sent == [START, chunk(b"a"), END]


async def test_a_lease_of_a_handler_renews_the_stream_of_the_guard(guard: Guard) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with guard.access.while_valid(scope["state"]["cloudflare_access"]) as lease:
            await send(START)
            await lease.renew(guard.token(expires_in=3 * LIFETIME))
            await guard.clock.sleep(2 * LIFETIME)
            await send(END)

    task = await guard.start(app)
    await guard.clock.run_until(task)
    assert (guard.sent, guard.ended()) == ([START, END], [])


async def test_guarded_streams_cost_at_most_two_kibibytes_each(guard: Guard) -> None:
    async def bare(scope: Scope, receive: Receive, send: Send, **rest: Any) -> None:
        await wait_forever()

    async def guarded(scope: Scope, receive: Receive, send: Send, **rest: Any) -> None:
        await run_while_valid(bare, scope, receive, send, **rest)

    async def memory_of(app: Any) -> float:
        connections = [guard.connection(guard.token()) for _ in range(STREAMS)]
        rest = {"authenticator": guard.access._authenticator}
        gc.collect()
        tracemalloc.start()
        try:
            tasks = [asyncio.create_task(run(app, connection, rest)) for connection in connections]
            await guard.clock.run_for(0)
            gc.collect()
            used = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return used / STREAMS

    async def run(app: Any, connection: Any, rest: dict[str, Any]) -> None:
        caller = await guard.access.authenticate(connection)
        await app(connection.scope, guard.incoming.get, guard.send, caller=caller, **rest)

    await memory_of(guarded)  # fetches the keys, and fills the cache of tokens
    assert await memory_of(guarded) - await memory_of(bare) <= MAX_BYTES


async def test_a_caller_of_another_connection_is_refused(guard: Guard) -> None:
    caller = guard.team.user("ada@example.com")
    with pytest.raises(ConfigurationError, match="did not verify for this connection"):
        await run_while_valid(
            app=stream,
            scope={"type": "http"},
            receive=guard.incoming.get,
            send=guard.send,
            authenticator=guard.access._authenticator,
            caller=caller,
        )
