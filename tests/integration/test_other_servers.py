"""Granian and daphne, started as their users start them: the answers are those of the other servers."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from email.message import Message
from http.client import HTTPConnection
from typing import Any, NamedTuple

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

HEADER = "Cf-Access-Jwt-Assertion"
EMAIL = "ada@example.com"
APP = """
import asyncio, time
from typing import Annotated
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from starlette.requests import HTTPConnection
from fastapi_cloudflare_access import AccessHTTPException, CloudflareAccess, UserClaims
from fastapi_cloudflare_access.browser import SameOrigin
from fastapi_cloudflare_access.problems import problem_details
from fastapi_cloudflare_access.streams import run_while_valid

class Clock:
    ahead = 0.0

    def now(self):
        return time.time() + self.ahead

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)

clock = Clock()
access = CloudflareAccess(clock=clock)
app = FastAPI(lifespan=access.lifespan)
strict = FastAPI()
strict.add_exception_handler(AccessHTTPException, problem_details)
app.mount("/strict", SameOrigin(strict, origins="https://app.example.com"))

@app.put("/clock/{ahead}")
async def set_clock(ahead: float) -> None:
    clock.ahead = ahead

@app.get("/me")
def me(user: Annotated[UserClaims, Depends(access.user)]) -> str:
    return user.email or ""

@strict.post("/me")
def post_me(user: Annotated[UserClaims, Depends(access.user)]) -> str:
    return user.email or ""

@strict.websocket("/feed")
@app.websocket("/feed")
async def feed(websocket: WebSocket, user: Annotated[UserClaims, Depends(access.user)]) -> None:
    await websocket.accept()
    await websocket.send_text(user.email or "")
    await websocket.close()

@app.websocket("/echo")
async def echo(websocket: WebSocket, user: Annotated[UserClaims, Depends(access.user)]) -> None:
    await websocket.accept()
    async with access.while_valid(user):
        while True:
            await websocket.send_text(await websocket.receive_text())

@app.get("/events")
async def events(user: Annotated[UserClaims, Depends(access.user)]) -> StreamingResponse:
    async def generate():
        async with access.while_valid(user):
            yield "first\\n"
            await asyncio.Event().wait()
    return StreamingResponse(generate())

inner = FastAPI()

@inner.get("/sync")
def sync() -> StreamingResponse:
    def generate():
        yield "first\\n"
        time.sleep(5)
        yield "second\\n"
    return StreamingResponse(generate())

@inner.websocket("/echo")
async def echo_all(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.send_text(await websocket.receive_text())

async def guard(scope, receive, send):
    caller = await access.authenticate(HTTPConnection(scope))
    await run_while_valid(inner, scope, receive, send, authenticator=access._authenticator, caller=caller)

app.mount("/guarded", guard)
"""
COMMANDS = {
    "granian": ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "app:app"],
    "daphne": ["daphne", "--bind", "127.0.0.1", "--port", "{port}", "app:app"],
}


SLEPT = 100_000
"""Seconds by which a machine's clock is ahead after it slept: more than a token lasts."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def team() -> FakeTeam[SystemClock]:
    return FakeTeam("acme", clock=SystemClock())


@pytest.fixture(scope="module")
def certs(team: FakeTeam[SystemClock]) -> Generator[CertsServer]:
    with CertsServer(team) as server:
        yield server


@pytest.fixture(scope="module", params=COMMANDS)
def address(
    request: pytest.FixtureRequest, certs: CertsServer, tmp_path_factory: pytest.TempPathFactory
) -> Generator[str]:
    """Run the app by this server, and give its address; if another process takes the port first, try again."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "app.py").write_text(APP)
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"CF_ACCESS_TEAM_DOMAIN": certs.origin, "CF_ACCESS_AUDIENCE": certs.team.audience}
    for _ in range(5):
        port = free_port()
        arguments = [part.format(port=port) for part in COMMANDS[request.param]]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            if answers(process, f"127.0.0.1:{port}"):
                yield f"127.0.0.1:{port}"
                return
        finally:
            stop(process)
    pytest.fail((folder / "log").read_text())


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop a server; daphne goes on while one of its threads waits for a client that is gone."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answers(process: "subprocess.Popen[bytes]", address: str) -> bool:
    """Wait until this process, and no other one, answers at the address."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, ValueError):
            if get(address).body == {"detail": "No Cloudflare Access token"}:
                return process.poll() is None
        time.sleep(0.05)
    return False


class Answer(NamedTuple):
    status: int
    headers: Message
    body: Any


def get(address: str, *headers: tuple[str, str], method: str = "GET", path: str = "/me") -> Answer:
    """Send a request by a client that sends blanks around values, and one header twice."""
    connection = HTTPConnection(address, timeout=10)
    try:
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, response.headers, json.loads(response.read()))
    finally:
        connection.close()


def test_a_token_in_the_header_or_the_cookie_is_accepted(address: str, team: FakeTeam[SystemClock]) -> None:
    token = team.user_token(EMAIL)
    for name, value in ((HEADER, token), (HEADER, f" {token}\t"), ("Cookie", f"a=b; CF_Authorization={token}; c=d")):
        answer = get(address, (name, value))
        assert (answer.status, answer.body) == (200, EMAIL)


def test_a_refusal_has_the_status_and_the_headers_of_the_contract(address: str, team: FakeTeam[SystemClock]) -> None:
    token = team.user_token(EMAIL)
    cases: list[tuple[int, str, list[tuple[str, str]]]] = [
        (401, "Cloudflare-Access", []),
        (401, 'Cloudflare-Access error="invalid_token"', [(HEADER, "")]),
        (401, 'Cloudflare-Access error="invalid_token"', [(HEADER, team.forge("expired"))]),
        (401, 'Cloudflare-Access error="invalid_token"', [(HEADER, "a" * 15_000)]),
        (401, 'Cloudflare-Access error="invalid_request"', [(HEADER, token), (HEADER, token)]),
        (403, 'Cloudflare-Access error="insufficient_scope"', [(HEADER, team.service_token("backup"))]),
    ]
    for status, challenge, headers in cases:
        answer = get(address, *headers)
        assert answer.status == status
        assert answer.headers["www-authenticate"].startswith(challenge)
        assert (answer.headers["cache-control"], [*answer.body]) == ("no-store", ["detail"])


def test_a_websocket_is_accepted_or_refused_before_the_handshake_ends(
    address: str, team: FakeTeam[SystemClock]
) -> None:
    def connect(token: str | None) -> str:
        headers = {HEADER: token} if token else {}
        with websockets.sync.client.connect(f"ws://{address}/feed", additional_headers=headers, proxy=None) as socket:
            return str(socket.recv())

    assert connect(team.user_token(EMAIL)) == EMAIL
    for token in (None, team.forge("expired"), team.service_token("backup")):
        with pytest.raises(InvalidStatus) as refused:
            connect(token)
        assert re.fullmatch("40[13]", str(refused.value.response.status_code))


FOREIGN = ("Origin", "https://evil.example")


def test_a_request_of_a_foreign_page_is_refused_as_a_problem(address: str, team: FakeTeam[SystemClock]) -> None:
    token, own = (HEADER, team.user_token(EMAIL)), ("Origin", "https://app.example.com")
    length = ("Content-Length", "0")
    answer = get(address, token, own, length, method="POST", path="/strict/me")
    assert (answer.status, answer.body) == (200, EMAIL)
    for headers, status in (([token, FOREIGN], 403), ([token, own, own], 403), ([own], 401)):
        answer = get(address, *headers, length, method="POST", path="/strict/me")
        assert (answer.status, answer.body["status"]) == (status, status)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_handshake_of_a_foreign_page_is_refused(address: str, team: FakeTeam[SystemClock]) -> None:
    def connect(origin: str) -> str:
        headers = {HEADER: team.user_token(EMAIL), "Origin": origin}
        address_of_feed = f"ws://{address}/strict/feed"
        with websockets.sync.client.connect(address_of_feed, additional_headers=headers, proxy=None) as socket:
            return str(socket.recv())

    assert connect("https://app.example.com") == EMAIL
    with pytest.raises(InvalidStatus) as refused:
        connect(FOREIGN[1])
    assert refused.value.response.status_code == 403


@contextmanager
def slept(address: str) -> Generator[None]:
    """Set the app's wall clock ahead, as after a machine slept, and back at the end."""
    put_clock(address, SLEPT)
    try:
        yield
    finally:
        put_clock(address, 0)


def put_clock(address: str, ahead: int) -> None:
    connection = HTTPConnection(address, timeout=10)
    connection.request("PUT", f"/clock/{ahead}")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("path", ["/echo", "/guarded/echo"])
def test_a_websocket_is_closed_when_its_token_ends(
    request: pytest.FixtureRequest, address: str, team: FakeTeam[SystemClock], path: str
) -> None:
    headers = {HEADER: team.user_token(EMAIL)}
    with websockets.sync.client.connect(f"ws://{address}{path}", additional_headers=headers, proxy=None) as socket:
        socket.send("hello")
        assert socket.recv(10) == "hello"
        with slept(address), pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
    assert closed.value.rcvd is not None
    # Daphne cannot send 1008, and closes as after an error of the app.
    expected = (1011, "") if request.node.callspec.params["address"] == "daphne" else (1008, "token_expired")
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == expected


@pytest.mark.parametrize("path", ["/events", "/guarded/sync"])
def test_a_stream_ends_cleanly_when_its_token_ends(address: str, team: FakeTeam[SystemClock], path: str) -> None:
    connection = HTTPConnection(address, timeout=10)
    connection.request("GET", path, headers={HEADER: team.user_token(EMAIL)})
    response = connection.getresponse()
    assert response.readline() == b"first\n"
    with slept(address):
        assert response.read() == b""
    connection.close()
