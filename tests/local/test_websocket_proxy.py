"""WebSockets through the edge: messages in both directions, and rejections of the app."""

import asyncio
import logging
import time
from collections.abc import Iterator
from socket import SHUT_RDWR, create_connection
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from support.local_rig import make_request
from support.upstreams import raw_server, serving
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fastapi_cloudflare_access.local import RunningAccess, run_local_access
from fastapi_cloudflare_access.local.config import Origin
from fastapi_cloudflare_access.local.websocket_proxy import _client_to_app, proxy_websocket


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Return each message; some paths behave differently."""
    await receive()
    if scope["path"] == "/refuse":
        headers = {"location": "/elsewhere", "www-authenticate": "x", "x-own": "1"}
        refusal = PlainTextResponse("no", 418, headers)
        refusal.raw_headers += [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        await refusal(scope, receive, send)
        return
    if scope["path"].startswith("/redirect"):
        location = {"/redirect/here": "/headers", "/redirect/away": "https://example.com/x"}[scope["path"]]
        await PlainTextResponse("moved", 302, {"location": location})(scope, receive, send)
        return
    protocol = next(iter(scope["subprotocols"]), None)
    await send({"type": "websocket.accept", "subprotocol": protocol, "headers": [(b"set-cookie", b"seen=1")]})
    if scope["path"] == "/close":
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
        return
    if scope["path"] == "/headers":
        for name, value in scope["headers"]:
            await send({"type": "websocket.send", "text": f"{name.decode()}: {value.decode()}"})
        await send({"type": "websocket.close", "code": 1000})
        return
    event: Any = {}
    try:
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", **{name: event.get(name) for name in ("text", "bytes")}})
    finally:
        CLOSED.append((event.get("code"), event.get("reason")))


CLOSED: list[Any] = []
HANDSHAKE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}


def wait_for_the_close() -> None:
    end = time.monotonic() + 10
    while not CLOSED and time.monotonic() < end:
        time.sleep(0.01)


@pytest.fixture
def local() -> Iterator[RunningAccess]:
    CLOSED.clear()
    with serving(app) as origin, run_local_access(upstream=origin) as running:
        yield running


def opened(local: RunningAccess, path: str = "/", **options: Any) -> ClientConnection:
    url = local.url(path).replace("http", "ws", 1)
    socket: ClientConnection = connect(url, additional_headers=local.service_headers(), proxy=None, **options)
    return socket


def test_text_and_bytes_are_sent_in_both_directions(local: RunningAccess) -> None:
    with opened(local, max_size=None) as socket:
        for message in ("text", "", b"bytes", "ü" * 50_000, b"x" * 2_000_000):
            socket.send(message)
            assert socket.recv(5) == message


def test_a_message_of_20_mb_arrives() -> None:
    with run_local_access(app) as running, opened(running, max_size=None) as socket:
        socket.send(b"x" * 20_000_000)
        assert len(socket.recv(20)) == 20_000_000


def test_a_handshake_may_have_64_kb_of_cookies_and_a_long_target() -> None:
    seen: list[Scope] = []

    async def in_process(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            seen.append(scope)
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})

    with run_local_access(in_process) as running:
        cookies = "; ".join(f"c{number}={'x' * 1000}" for number in range(64))
        url = running.url("/%C3%BC?" + "q" * 20_000).replace("http", "ws", 1)
        headers = {**running.service_headers(), "cookie": cookies, "x-own": "1"}
        with connect(url, additional_headers=headers, proxy=None) as socket, pytest.raises(ConnectionClosedOK):
            socket.recv(5)
    sent = dict(seen[0]["headers"])
    assert sent[b"cookie"].startswith(cookies.encode())
    assert sent[b"x-own"] == b"1"
    assert (seen[0]["path"], seen[0]["query_string"]) == ("/\u00fc", b"q" * 20_000)


@pytest.mark.parametrize(
    ("method", "headers"),
    [("POST", HANDSHAKE), ("GET", HANDSHAKE | {"sec-websocket-protocol": "x" * 10_000})],
    ids=["method", "line"],
)
def test_an_invalid_handshake_is_answered(local: RunningAccess, method: str, headers: dict[str, str]) -> None:
    assert httpx.request(method, local.url(), headers=headers, trust_env=False, timeout=10).status_code in (
        400,
        405,
        431,
    )


def test_a_handshake_without_a_key_is_answered(local: RunningAccess) -> None:
    headers = {name: value for name, value in HANDSHAKE.items() if name != "sec-websocket-key"}
    assert httpx.get(local.url(), headers=headers, trust_env=False, timeout=10).status_code == 400


def test_the_app_receives_a_disconnect_if_the_connection_breaks(local: RunningAccess) -> None:
    with opened(local) as socket:
        socket.send("x" * 1_000_000)
        socket.socket.shutdown(SHUT_RDWR)
    wait_for_the_close()
    assert len(CLOSED) == 1


def test_the_app_receives_the_close_code_of_the_client(local: RunningAccess) -> None:
    with opened(local) as socket:
        socket.send("x")
        socket.recv(5)
        socket.close(4000, "bye")
    wait_for_the_close()
    assert CLOSED == [(4000, "bye")]


def test_the_client_receives_the_close_code_of_the_app(local: RunningAccess) -> None:
    with opened(local, "/close") as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(5)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "enough")


def test_the_app_receives_the_handshake_with_the_assertion(local: RunningAccess) -> None:
    with opened(local, "/headers", subprotocols=["a", "b"], origin="http://localhost:1") as socket:
        lines = list(socket)
        assert socket.subprotocol == "a"
        assert socket.response is not None
        assert socket.response.headers.get_all("set-cookie")[0] == "seen=1"
    assert "origin: http://localhost:1" in lines
    assert f"host: localhost:{local.local_access.addresses.port}" in lines
    assert sum(str(line).startswith("cf-access-jwt-assertion: ") for line in lines) == 1
    assert sum(str(line).startswith("user-agent: ") for line in lines) == 1


def test_a_rejected_handshake_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with run_local_access(app) as running, pytest.raises(InvalidStatus):
        opened(running, "/refuse")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_the_client_receives_the_whole_rejection_of_the_app(local: RunningAccess) -> None:
    with pytest.raises(InvalidStatus) as refused:
        opened(local, "/refuse")
    response = refused.value.response
    assert (response.status_code, response.body) == (418, b"no")
    assert response.headers["location"] == "/elsewhere"
    assert response.headers["x-own"] == "1"
    assert response.headers.get_all("set-cookie")[:2] == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("path", "location"), [("/redirect/here", "/headers"), ("/redirect/away", "https://example.com/x")]
)
def test_the_client_receives_a_redirect_of_the_app(local: RunningAccess, path: str, location: str) -> None:
    response = httpx.get(local.url(path), headers=HANDSHAKE | local.service_headers(), trust_env=False)
    assert (response.status_code, response.headers["location"]) == (302, location)


@pytest.mark.parametrize("target", ["/ws#frag", "http://localhost/ws"])
def test_a_handshake_without_a_valid_path_is_rejected(local: RunningAccess, target: str) -> None:
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: localhost:{local.local_access.addresses.port}",
        *(f"{name}: {value}" for name, value in (HANDSHAKE | local.service_headers()).items()),
    ]
    with create_connection(("127.0.0.1", local.local_access.addresses.port), 10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


@pytest.mark.anyio
async def test_a_handshake_that_cannot_be_sent_is_rejected() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(event: Message) -> None:
        sent.append(event)

    await proxy_websocket(
        Origin("http", "127.0.0.1", 9), make_request("/ws#frag", kind="websocket").scope, receive, send
    )
    assert sent[0]["status"] == 400


def test_a_handshake_without_a_login_gets_the_login_redirect(local: RunningAccess) -> None:
    response = httpx.get(local.url(), headers=HANDSHAKE, trust_env=False)
    assert response.status_code == 302
    assert response.headers["location"].startswith(local.team_domain + "/cdn-cgi/access/login/")


def test_a_handshake_gets_502_if_the_app_does_not_listen() -> None:
    with run_local_access(upstream="http://127.0.0.1:9") as running, pytest.raises(InvalidStatus) as refused:
        opened(running)
    assert refused.value.response.status_code == 502


def test_a_broken_connection_to_the_app_closes_with_an_internal_error() -> None:
    with (
        raw_server(_vanish) as origin,
        run_local_access(upstream=origin) as running,
        opened(running) as socket,
        pytest.raises(ConnectionClosed) as closed,
    ):
        socket.recv(5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011


@pytest.mark.anyio
async def test_a_message_to_a_closed_app_waits_for_the_close_code() -> None:
    class Closed:
        async def send(self, content: object) -> None:
            raise ConnectionClosedOK(None, None)

    async def receive() -> Any:
        return {"type": "websocket.receive", "text": "x"}

    direction: Any = asyncio.ensure_future(_client_to_app(Closed(), receive))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    assert not direction.done()
    direction.cancel()


async def _vanish(reader: Any, writer: Any) -> None:
    from base64 import b64encode
    from hashlib import sha1

    request = await reader.readuntil(b"\r\n\r\n")
    lines = dict(line.split(b": ", 1) for line in request.lower().split(b"\r\n")[1:] if b": " in line)
    original = {
        line.split(b": ", 1)[0].lower(): line.split(b": ", 1)[1] for line in request.split(b"\r\n")[1:] if b": " in line
    }
    assert b"sec-websocket-key" in lines
    key = original[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = b64encode(sha1(key, usedforsecurity=False).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )
    await writer.drain()
