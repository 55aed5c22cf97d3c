"""What the chat app promises."""

import asyncio
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from fastapi_cloudflare_access.testing import FakeTeam

ADA, BOB = "ada@acme.example", "bob@acme.example"


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def chat(team: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", team.team_domain)
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", team.audience)
    monkeypatch.delitem(sys.modules, "websocket_chat_app", raising=False)
    chat = import_module("websocket_chat_app")
    with team.patch(chat.access):
        yield chat


@pytest.fixture
def client(chat: ModuleType) -> Iterator[TestClient]:
    with TestClient(chat.app) as client:
        yield client


def headers(team: FakeTeam, email: str = ADA) -> dict[str, str]:
    return team.headers(team.user(email, expires_in=60))


def test_users_read_each_other(team: FakeTeam, client: TestClient) -> None:
    with (
        client.websocket_connect("/chat", headers=headers(team)) as ada,
        client.websocket_connect("/chat", headers=headers(team, BOB)) as bob,
    ):
        bob.send_json({"text": "here"})
        assert bob.receive_text() == f"{BOB}: here"
        ada.send_json({"text": "hello"})
        assert bob.receive_text() == f"{ADA}: hello"


def test_the_socket_is_closed_when_the_token_ends(team: FakeTeam, client: TestClient) -> None:
    with client.websocket_connect("/chat", headers=headers(team)) as socket:
        socket.send_json({"text": "hello"})
        socket.receive_text()
        team.clock.advance(71)
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert (closed.value.code, closed.value.reason) == (1008, "token_expired")


def test_a_fresh_token_of_the_same_user_keeps_the_socket_open(team: FakeTeam, client: TestClient) -> None:
    with client.websocket_connect("/chat", headers=headers(team)) as socket:
        socket.send_json({"token": team.user_token(ADA)})
        socket.send_json({"text": "renewed"})
        assert socket.receive_text() == f"{ADA}: renewed"
        team.clock.advance(71)
        socket.send_json({"text": "still here"})
        assert socket.receive_text() == f"{ADA}: still here"


@pytest.mark.parametrize(("email", "reason"), [(BOB, "forbidden"), (None, "token_expired")])
def test_any_other_token_closes_the_socket(team: FakeTeam, client: TestClient, email: str | None, reason: str) -> None:
    token = team.user_token(email) if email else team.forge("expired", ADA)
    with client.websocket_connect("/chat", headers=headers(team)) as socket:
        socket.send_json({"token": token})
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert (closed.value.code, closed.value.reason) == (1008, reason)


def test_the_stream_ends_when_the_token_ends(team: FakeTeam, chat: ModuleType) -> None:
    """TestClient reads a whole stream before it returns, so this test reads the generator."""
    received: list[str] = []

    async def read() -> None:
        user: Any = await chat.access.verify(team.user_token(ADA, expires_in=60))
        received.extend([event async for event in chat.events(user)])

    async def post_and_wait() -> None:
        reading = asyncio.create_task(read())
        await team.clock.run_for(1)
        chat.post("hello")
        await team.clock.run_for(70)
        await reading

    asyncio.run(post_and_wait())
    assert received == [": open\n\n", "data: hello\n\n"]
    assert chat.readers == set()
