"""The answer table on WebSockets: before the handshake is accepted, by real clients over real sockets."""

import logging
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from support.answer_servers import SERVERS
from support.answer_table import ROWS, Rig, Row, ada, bot, cookie, header, rig
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.sync.client import connect

# uvicorn's "websockets" protocols read lines of at most 8 KiB in a handshake, and leave the rest without an answer.
UNANSWERED = {("uvicorn-h11", "oversized")}


@pytest.fixture(scope="module")
def table() -> Iterator[Rig]:
    with rig() as table:
        yield table


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def address(server: str, table: Rig) -> Iterator[str]:
    with SERVERS[server](table.app) as address:
        yield address


def refused(address: str, table: Rig, row: Row) -> Response:
    """Try to open a WebSocket and give the answer to the handshake."""
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(f"ws://{address}{row.path}", additional_headers=table.headers(row), proxy=None),
    ):
        pytest.fail("let in")
    return caught.value.response


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_refused_handshake_gets_the_answer_of_its_row(
    address: str, server: str, table: Rig, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    if (server, row.name) in UNANSWERED:
        pytest.skip("the server reads no line as long")
    caplog.set_level(logging.INFO, "fastapi_cloudflare_access")
    response = refused(address, table, row)
    assert response.status_code == row.answer.status
    assert response.body == f'{{"detail":"{row.answer.detail}"}}'.encode()
    assert response.headers.get_all("www-authenticate") == ([row.answer.challenge] if row.answer.challenge else [])
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["vary"] == "Cf-Access-Jwt-Assertion, Cookie"
    assert ("retry-after" in response.headers) == (row.answer.status == 503)
    reasons = [record.__dict__["reason"] for record in caplog.records if hasattr(record, "reason")]
    assert reasons == [row.reason]


@pytest.mark.parametrize("path", ["/access", "/optional", "/user", "/service"])
@pytest.mark.parametrize("carried", [header, cookie], ids=["header", "cookie"])
def test_a_good_token_opens_the_socket(address: str, table: Rig, path: str, carried: type) -> None:
    headers = carried(bot if path == "/service" else ada)(table.team)
    with connect(f"ws://{address}{path}", additional_headers=headers, proxy=None) as socket:
        assert socket.recv() == "let in"


def test_without_a_token_the_optional_caller_is_none(address: str) -> None:
    with connect(f"ws://{address}/optional", proxy=None) as socket:
        assert socket.recv() == "let in"


@pytest.mark.anyio
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_server_that_can_only_close_closes_before_it_accepts(table: Rig, row: Row) -> None:
    """Such a server has no `websocket.http.response` among the extensions of its scope."""
    messages: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    headers = [(name.lower().encode(), value.encode()) for name, value in table.headers(row)]
    scope = {"type": "websocket", "path": row.path, "query_string": b"", "headers": headers, "subprotocols": []}
    await table.app(scope, receive, send)
    assert messages == [{"type": "websocket.close", "code": row.answer.close_code, "reason": row.answer.detail}]
