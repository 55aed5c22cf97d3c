"""The certs endpoint of the team domain, with the faults that the control page sets."""

import asyncio
from math import isinf

from starlette.types import Receive, Send

from fastapi_cloudflare_access.local.edge_request import EdgeRequest
from fastapi_cloudflare_access.testing import CertsEndpoint
from fastapi_cloudflare_access.testing.endpoint import Answer

CLOSE_CONNECTION = "close_connection"
"""Key, in the `state` of a scope, of a function that closes the connection."""


class ConnectionDropped(ConnectionError):
    """A fault that closes the connection."""


async def send_certs(certs: CertsEndpoint, request: EdgeRequest, receive: Receive, send: Send) -> None:
    """Send the certs document, until the client disconnects.

    Raises:
        ConnectionDropped: A fault closes the connection, and the server has no function for that.
    """
    response = certs.answer(
        request.path, {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}
    )
    sending = asyncio.ensure_future(_send(response, send))
    disconnect = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({sending, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    except ConnectionDropped:
        if not (close_connection := request.scope.get("state", {}).get(CLOSE_CONNECTION)):
            raise
        close_connection()
        await disconnect
    finally:
        sending.cancel()
        disconnect.cancel()
        await asyncio.wait({sending, disconnect})


async def _send(response: Answer, send: Send) -> None:
    await _wait(response.delay)
    if response.ending == "refused":
        raise ConnectionDropped
    headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    for number, chunk in enumerate(response.pieces):
        await _wait(response.pause if number else 0)
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if response.ending == "hang":
        await _wait(float("inf"))
    if response.ending == "reset":
        raise ConnectionDropped
    await send({"type": "http.response.body", "body": b""})


async def _wait(seconds: float) -> None:
    if isinf(seconds):
        await asyncio.Event().wait()
    if seconds:
        await asyncio.sleep(seconds)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
