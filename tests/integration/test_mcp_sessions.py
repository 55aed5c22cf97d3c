"""Sessions and streams of MCP servers behind the bridge: one caller each, and no longer than its token."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

pytest.importorskip("fastmcp", reason="the MCP SDKs need newer versions than the lowest that the package admits")

import anyio
import httpx2
from support.answer_servers import uvicorn_serving
from support.mcp_servers import HEADER, SERVERS

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.testing import FakeTeam

pytestmark = [pytest.mark.anyio, pytest.mark.mcp_sdks]

VERSION = "2025-06-18"
PATIENCE = 20.0
"""Seconds after which a stream that should end, and does not, fails the test."""


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture(params=list(SERVERS))
def address(request: pytest.FixtureRequest, team: FakeTeam) -> Iterator[str]:
    access = CloudflareAccess(team_domain=team.team_domain, audience=team.audience)
    with team.patch(access), uvicorn_serving(SERVERS[request.param](access)) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[httpx2.AsyncClient]:
    base_url = f"http://{address}"
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": VERSION}
    async with httpx2.AsyncClient(base_url=base_url, headers=headers, trust_env=False, timeout=PATIENCE) as client:
        yield client


def message(method: str, number: int | None = 1, **params: Any) -> dict[str, Any]:
    identified = {} if number is None else {"id": number}
    return {"jsonrpc": "2.0", "method": method, "params": params, **identified}


async def open_session(client: httpx2.AsyncClient, token: str) -> dict[str, str]:
    """Return the headers of requests of a new session."""
    hello = message("initialize", protocolVersion=VERSION, capabilities={}, clientInfo={"name": "test", "version": "1"})
    answer = await client.post("/mcp", json=hello, headers={HEADER: token})
    assert answer.status_code == 200
    headers = {HEADER: token, "Mcp-Session-Id": answer.headers["mcp-session-id"]}
    ready = await client.post("/mcp", json=message("notifications/initialized", None), headers=headers)
    assert ready.status_code == 202
    return headers


async def whoami(client: httpx2.AsyncClient, headers: dict[str, str]) -> Any:
    answer = await client.post("/mcp", json=message("tools/call", 2, name="whoami", arguments={}), headers=headers)
    if answer.status_code != 200:
        return answer.status_code
    data = next(line for line in answer.text.splitlines() if line.startswith("data: {"))
    return json.loads(json.loads(data[6:])["result"]["content"][0]["text"])["subject"]


async def test_a_session_goes_on_with_a_fresh_token_of_its_user(client: httpx2.AsyncClient, team: FakeTeam) -> None:
    ada = team.user("ada@example.com")
    headers = await open_session(client, team.token(ada))
    team.clock.advance(60)
    assert await whoami(client, headers | {HEADER: team.user_token("ada@example.com")}) == ada.sub


@pytest.mark.conformance(83)
async def test_a_tool_sees_the_claims_of_the_message_and_not_of_the_session(
    client: httpx2.AsyncClient, team: FakeTeam
) -> None:
    headers = await open_session(client, team.user_token("ada@example.com", custom={"groups": []}))
    admin = team.user_token("ada@example.com", custom={"groups": ["admins"]})
    call = message("tools/call", 2, name="delete_note", arguments={"number": 7})
    answers = [
        (await client.post("/mcp", json=call, headers={**headers, HEADER: token})).text
        for token in (headers[HEADER], admin)
    ]
    assert ["deleted 7" in answer for answer in answers] == [False, True]


@pytest.mark.conformance(83)
async def test_a_session_resumed_by_another_caller_is_not_found(client: httpx2.AsyncClient, team: FakeTeam) -> None:
    ada = team.user("ada@example.com")
    headers = await open_session(client, team.token(ada))
    namesake = team.service("deploy-bot").model_copy(update={"common_name": ada.sub})
    others = [team.user_token("eve@example.com"), team.service_token("deploy-bot"), team.token(namesake)]
    assert [await whoami(client, headers | {HEADER: other}) for other in others] == [404, 404, 404]
    for method in ("GET", "DELETE"):
        answer = await client.request(method, "/mcp", headers=headers | {HEADER: others[0]})
        assert answer.status_code == 404
    assert await whoami(client, headers) == ada.sub


@pytest.mark.conformance(83)
async def test_a_session_of_a_service_is_not_resumed_by_another_service(
    client: httpx2.AsyncClient, team: FakeTeam
) -> None:
    headers = await open_session(client, team.service_token("deploy-bot"))
    assert await whoami(client, headers | {HEADER: team.service_token("backup")}) == 404
    assert await whoami(client, headers) == team.service("deploy-bot").client_id


async def test_a_session_resumed_without_a_token_or_with_an_expired_one_is_401(
    client: httpx2.AsyncClient, team: FakeTeam
) -> None:
    headers = await open_session(client, team.user_token("ada@example.com", expires_in=900))
    assert await whoami(client, {name: value for name, value in headers.items() if name != HEADER}) == 401
    team.clock.advance(909)
    assert isinstance(await whoami(client, headers), str)
    team.clock.advance(2)
    assert await whoami(client, headers) == 401


async def test_a_stream_of_a_session_ends_with_the_token(client: httpx2.AsyncClient, team: FakeTeam) -> None:
    headers = await open_session(client, team.user_token("ada@example.com", expires_in=900))
    async with client.stream("GET", "/mcp", headers=headers) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        ended = anyio.Event()

        async def read() -> None:
            async for _ in stream.aiter_bytes():
                """Read until the server ends the stream."""
            ended.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            with anyio.fail_after(PATIENCE):
                while not team.clock.sleeping:  # noqa: ASYNC110 - the timer of the server's thread
                    await anyio.sleep(0.01)
            await anyio.to_thread.run_sync(team.clock.advance, 900)
            assert not ended.is_set()
            await anyio.to_thread.run_sync(team.clock.advance, 11)
            with anyio.fail_after(PATIENCE):
                await ended.wait()
    fresh = headers | {HEADER: team.user_token("ada@example.com")}
    assert await whoami(client, headers) == 401
    async with client.stream("GET", "/mcp", headers=fresh) as stream:
        assert stream.status_code == 200
