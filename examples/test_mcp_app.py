"""What the app with an MCP server promises, to a real MCP client."""

import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import pytest
from fastapi.testclient import TestClient

pytest.importorskip("fastmcp", reason="the MCP SDKs need newer versions than the lowest that the package admits")

from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from fastapi_cloudflare_access.local import Config, Person, RunningAccess, run_local_access
from fastapi_cloudflare_access.testing import FakeTeam

pytestmark = [pytest.mark.anyio, pytest.mark.mcp_sdks]

ADA, EVE = "ada@example.com", "eve@example.com"
USERS = (Person(email=ADA, groups=("admins",)), Person(email=EVE, groups=("users",)))


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningAccess]:
    with run_local_access(config=Config(people=USERS)) as local:
        for name, value in local.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delitem(sys.modules, "mcp_app", raising=False)
        local.mount(import_module("mcp_app").app)
        yield local


@asynccontextmanager
async def connected(local: RunningAccess, email: str) -> AsyncGenerator[Client[Any]]:
    token = local.control("token", email=email)["token"]
    transport = StreamableHttpTransport(local.url("/notes/mcp"), headers={"cf-access-token": token})
    async with Client(transport) as client:
        yield client


async def test_everyone_has_notes_of_their_own(local: RunningAccess) -> None:
    async with connected(local, ADA) as ada, connected(local, EVE) as eve:
        await ada.call_tool("add_note", {"text": "hello"})
        lists = [(await client.call_tool("list_notes")).data for client in (ada, eve)]
    assert lists == [["hello"], []]


async def test_only_admins_see_and_call_the_tool_that_deletes(local: RunningAccess) -> None:
    async with connected(local, ADA) as ada, connected(local, EVE) as eve:
        listed = ["delete_all_notes" in {tool.name for tool in await client.list_tools()} for client in (ada, eve)]
        answers = [await client.call_tool("delete_all_notes", raise_on_error=False) for client in (ada, eve)]
    assert listed == [True, False]
    assert [answer.is_error for answer in answers] == [False, True]


def test_without_a_token_neither_the_server_nor_the_route_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    team = FakeTeam()
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.delitem(sys.modules, "mcp_app", raising=False)
    module = import_module("mcp_app")
    with team.patch(module.access), TestClient(module.app) as client:
        assert [client.post("/notes/mcp", json={}).status_code, client.get("/me").status_code] == [401, 401]
        assert client.get("/me", headers=team.headers(team.user(ADA))).json() == ADA
