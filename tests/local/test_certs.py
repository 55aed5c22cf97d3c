"""The certs endpoint serves the document, or one of the configured faults."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message
from support.local_rig import make_local_access, make_request

from fastapi_cloudflare_access.local.certs import ConnectionDropped, send_certs
from fastapi_cloudflare_access.testing import CertsEndpoint

pytestmark = pytest.mark.anyio


class Client:
    """A client that fetches and can disconnect."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.has_gone = asyncio.Event()
        self.has_sent = False

    async def receive(self) -> Message:
        if not self.has_sent:
            self.has_sent = True
            return {"type": "http.request", "body": b""}
        await self.has_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Message) -> None:
        self.sent.append(event)

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.sent)


def fetching(certs: CertsEndpoint, client: Client) -> Any:
    return send_certs(certs, make_request("/cdn-cgi/access/certs"), client.receive, client.send)


@pytest.fixture
def certs() -> CertsEndpoint:
    return make_local_access().certs


async def test_the_certs_document_is_as_documented(certs: CertsEndpoint) -> None:
    client = Client()
    await fetching(certs, client)
    assert client.sent[0]["status"] == 200
    assert client.body == certs.team.certs_body()
    assert certs.fetches == 1


async def test_the_document_can_arrive_slowly(certs: CertsEndpoint) -> None:
    certs.drip(0.001, size=1000)
    client = Client()
    await fetching(certs, client)
    assert client.body == certs.team.certs_body()
    assert len(client.sent) > 3


@pytest.mark.parametrize("fault", ["refuse", "reset"])
async def test_a_fault_closes_the_connection(certs: CertsEndpoint, fault: str) -> None:
    getattr(certs, fault)()
    client = Client()
    with pytest.raises(ConnectionDropped):
        await fetching(certs, client)
    assert len(client.body) < len(certs.team.certs_body())


@pytest.mark.parametrize("fault", ["hang", "stall"])
async def test_a_response_that_never_ends_stops_when_the_client_disconnects(certs: CertsEndpoint, fault: str) -> None:
    getattr(certs, fault)()
    client = Client()
    task = asyncio.ensure_future(fetching(certs, client))
    await asyncio.sleep(0.01)
    assert not task.done()
    client.has_gone.set()
    await asyncio.wait_for(task, 5)
