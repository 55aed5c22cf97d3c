"""The edge under load: concurrent requests, large bodies, many messages, and disconnects."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from support.upstreams import serving
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio

PIECE, PIECES = 1_000_000, 100
AT_ONCE, MESSAGES = 200, 1000
HEADROOM = 40_000
"""Kibibytes that the process may grow by while it transfers 100 MB."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, send a large one for `/large`, and echo WebSocket messages."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        return
    size, more = 0, True
    while more:
        event = await receive()
        size, more = size + len(event.get("body", b"")), event.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-size", str(size).encode())]})
    for _ in range(PIECES if scope["path"] == "/large" else 0):
        await send({"type": "http.response.body", "body": b"x" * PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": scope["query_string"]})


class Edge:
    """A running `cf-access dev --upstream` in another process."""

    def __init__(self, process: "subprocess.Popen[str]", printed: list[str]) -> None:
        self.pid = process.pid
        words = [line.split() for line in printed]
        self.url = next(line[-1] for line in words if line[0] == "app").rstrip("/")
        self.headers = {line[-2].rstrip(":"): line[-1] for line in words if line[-2].startswith("CF-Access-Client-")}

    def memory(self) -> int:
        """Return the peak memory, in kibibytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=AT_ONCE)
        return httpx.AsyncClient(base_url=self.url, headers=self.headers, trust_env=False, timeout=60, limits=limits)


@contextmanager
def start_edge(upstream: str, folder: Path) -> Iterator[Edge]:
    code = "from fastapi_cloudflare_access.cli import main; import sys; sys.exit(main())"
    command = [sys.executable, "-c", code, "dev", "--upstream", upstream, "--port", "0"]
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    printed: list[str] = []
    try:
        for line in process.stdout:
            printed += [line] if len(line.split()) > 1 else []
            if "CF_ACCESS_AUDIENCE" in line:
                break
        yield Edge(process, printed)
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with serving(app) as origin, start_edge(origin, tmp_path_factory.mktemp("edge")) as running:
        yield running


async def test_concurrent_requests_get_their_own_responses(edge: Edge) -> None:
    async with edge.client() as client:
        responses = await asyncio.gather(*(client.get(f"/?{number}") for number in range(AT_ONCE)))
    assert [response.text for response in responses] == [str(number) for number in range(AT_ONCE)]


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(PIECES):
        yield b"x" * PIECE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_hundred_megabytes_need_little_memory_in_both_directions(edge: Edge) -> None:
    async with edge.client() as client:
        await client.get("/")
        before = edge.memory()
        up = await client.post("/", content=pieces())
        assert up.headers["x-size"] == str(PIECE * PIECES)
        size = 0
        async with client.stream("GET", "/large") as down:
            async for piece in down.aiter_raw():
                size += len(piece)
        assert size == PIECE * PIECES
    assert edge.memory() - before < HEADROOM


async def test_many_messages_keep_their_order(edge: Edge) -> None:
    url = edge.url.replace("http", "ws", 1)
    async with connect(url, additional_headers=edge.headers, proxy=None) as socket:
        heard = []
        for number in range(MESSAGES):
            await socket.send(str(number))
            if number % 10 == 9:
                heard += [await socket.recv() for _ in range(10)]
    assert heard == [str(number) for number in range(MESSAGES)]


async def test_clients_that_disconnect_do_not_affect_others(edge: Edge) -> None:
    async with edge.client() as client:
        for _ in range(20):
            async with client.stream("GET", "/large"):
                pass
        assert (await client.get("/?still")).text == "still"


async def test_an_app_that_stopped_gets_502(tmp_path: Path) -> None:
    with ExitStack() as apps:
        origin = apps.enter_context(serving(app))
        with start_edge(origin, tmp_path) as running:
            async with running.client() as client:
                assert (await client.get("/?a")).text == "a"
                apps.close()
                gone = await client.get("/?b")
    assert (gone.status_code, "the app does not answer" in gone.text) == (502, True)
