"""`SameOrigin` over real servers: the same requests pass, with the public Host and with the one of a tunnel."""

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from support.answer_servers import SERVERS
from support.answer_table import HEADER, Team, ada, protector
from support.origins import ORIGINS, TABLE, Headers, Row
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_cloudflare_access import AccessHTTPException, UserClaims
from fastapi_cloudflare_access.browser import SameOrigin
from fastapi_cloudflare_access.problems import problem_details
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

DETAIL = "A page of another origin sent this request"
NOT_SENT = {"16 KiB", "controls"}
"""Servers refuse such headers themselves."""
SENT = {name: row for name, row in TABLE.items() if name not in NOT_SENT}


@pytest.fixture(scope="module")
def team() -> Team:
    return FakeTeam("acme", clock=SystemClock())


@pytest.fixture(scope="module")
def app(team: Team) -> Iterator[FastAPI]:
    with CertsServer(team) as certs:
        access = protector(certs)
        app = FastAPI(lifespan=access.lifespan)
        app.add_middleware(SameOrigin, origins=ORIGINS)
        app.add_exception_handler(AccessHTTPException, problem_details)

        @app.post("/notes")
        async def add(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
            return user.email

        @app.websocket("/feed")
        async def feed(socket: WebSocket, user: Annotated[UserClaims, Depends(access.user)]) -> None:
            await socket.accept()
            await socket.send_text(user.email or "")
            await socket.close()

        yield app


@pytest.fixture(scope="module", params=SERVERS)
def port(request: pytest.FixtureRequest, app: FastAPI) -> Iterator[int]:
    with SERVERS[request.param](app) as address:
        yield int(address.rpartition(":")[2])


@pytest.fixture(params=["public", "rewritten"])
def host(request: pytest.FixtureRequest, port: int) -> str:
    """Return the Host that reaches the app: a tunnel leaves it as it is, or writes the one of the upstream."""
    return "app.example.com" if request.param == "public" else f"127.0.0.1:{port}"


def listed(headers: Headers) -> list[tuple[str, bytes]]:
    return [
        (name, one.encode())
        for name, value in headers.items()
        for one in ([value] if isinstance(value, str) else value)
    ]


def post(port: int, host: str, headers: list[tuple[str, bytes]]) -> tuple[int, Any, str | None]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest("POST", "/notes", skip_host=True)
        for name, value in [("Host", host.encode()), ("Content-Length", b"0"), *headers]:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.getheader("content-type")
    finally:
        connection.close()


@pytest.mark.conformance(63)
@pytest.mark.parametrize("row", SENT.values(), ids=SENT)
def test_a_post_passes_or_gets_403(port: int, host: str, team: Team, row: Row) -> None:
    headers = [(HEADER, ada(team).encode()), *listed(row.headers)]
    refused = (
        403,
        {"type": "about:blank", "title": "Forbidden", "status": 403, "detail": DETAIL},
        "application/problem+json",
    )
    assert post(port, host, headers) == ((200, "ada@example.com", "application/json") if row.passes else refused)


def test_a_foreign_page_does_not_learn_whether_there_is_a_token(port: int, host: str, team: Team) -> None:
    origin = ("Origin", b"https://evil.example")
    answers = [post(port, host, [origin, *token]) for token in ([], [(HEADER, ada(team).encode())], [(HEADER, b"x")])]
    assert answers == [answers[0]] * 3
    assert answers[0][0] == 403


def test_a_client_without_a_token_and_without_an_origin_gets_401(port: int, host: str) -> None:
    assert post(port, host, [])[0] == 401


HANDSHAKES = {
    name: row
    for name, row in SENT.items()
    if all(isinstance(value, str) and value.isascii() and value == value.strip() for value in row.headers.values())
}


@pytest.mark.conformance(63)
@pytest.mark.parametrize("row", HANDSHAKES.values(), ids=HANDSHAKES)
def test_a_handshake_passes_or_gets_403(port: int, host: str, team: Team, row: Row) -> None:
    headers = [(HEADER, ada(team)), *((name, value.decode()) for name, value in listed(row.headers))]

    def receive() -> str:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
            connect(f"ws://{host}/feed", sock=connection, additional_headers=headers, proxy=None) as client,
        ):
            return str(client.recv())

    if row.passes if row.handshake is None else row.handshake:
        assert receive() == "ada@example.com"
        return
    with pytest.raises(InvalidStatus) as refused:
        receive()
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body or b"")["detail"] == DETAIL
