"""Backends of the edge: an app in this process, and a missing app."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from support.local_rig import make_request

from fastapi_cloudflare_access.local import backends
from fastapi_cloudflare_access.local.backends import InProcessApp, NoBackend

pytestmark = pytest.mark.anyio


class App:
    """An app with a configurable lifespan."""

    def __init__(self, behaviour: str = "good") -> None:
        self.behaviour = behaviour
        self.events: list[str] = []
        self.state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self.state = scope["state"]
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        if self.behaviour == "none":
            raise AssertionError("no lifespan here")
        self.events.append((await receive())["type"])
        scope["state"]["shared"] = 1
        if self.behaviour == "fails":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            raise RuntimeError("no database")  # as Starlette does
        await send({"type": "lifespan.startup.complete"})
        if self.behaviour == "crashes":
            raise RuntimeError("later")
        self.events.append((await receive())["type"])
        if self.behaviour == "hangs":
            await asyncio.Event().wait()
        await send({"type": "lifespan.shutdown.complete"})


async def send_request(backend: Any) -> list[Message]:
    sent: list[Message] = []

    async def send(event: Message) -> None:
        sent.append(event)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    await backend(make_request().scope, receive, send)
    return sent


async def test_an_app_starts_responds_and_stops() -> None:
    app = App()
    backend = InProcessApp(app)
    await backend.start()
    assert (await send_request(backend))[0]["status"] == 204
    await backend.wait_started()
    await backend.stop()
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]
    assert app.state == {"shared": 1}
    await backend.stop()


@pytest.mark.parametrize("behaviour", ["none", "crashes"])
async def test_an_app_without_a_lifespan_or_with_a_crashed_one_still_responds(behaviour: str) -> None:
    backend = InProcessApp(App(behaviour))
    await backend.start()
    await backend.wait_started()
    await asyncio.sleep(0)
    assert (await send_request(backend))[0]["status"] == 204
    await backend.stop()


async def test_an_app_that_did_not_start_receives_no_request(caplog: pytest.LogCaptureFixture) -> None:
    backend = InProcessApp(App("fails"))
    await backend.start()
    assert (await send_request(backend))[0]["status"] == 502
    with pytest.raises(RuntimeError, match="lifespan failed"):
        await backend.wait_started()
    assert caplog.text.count("no database") == 1
    await backend.stop()


async def test_stop_does_not_wait_for_an_app_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "STOP_TIMEOUT", 0.01)
    backend = InProcessApp(App("hangs"))
    await backend.start()
    await backend.wait_started()
    await asyncio.wait_for(backend.stop(), 5)


async def test_an_app_without_a_backend_responds_with_502() -> None:
    nothing = NoBackend()
    await nothing.start()
    sent = await send_request(nothing)
    assert sent[0]["status"] == 502
    await nothing.stop()
