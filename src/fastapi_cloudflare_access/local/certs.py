"""The certs endpoint of the team domain, as right or wrong as the control page wants it."""

import asyncio
from math import isinf

from starlette.types import Receive, Send

from fastapi_cloudflare_access.local.edge_request import Call
from fastapi_cloudflare_access.testing import CertsEndpoint
from fastapi_cloudflare_access.testing.certs import Answer

BREAK_OFF = "break_off"
"""What closes the connection, in the `state` of a scope."""


class BrokenOff(ConnectionError):
    """The connection is broken, as was asked for."""


async def send_certs(certs: CertsEndpoint, call: Call, receive: Receive, send: Send) -> None:
    """Answer one fetch, for as long as somebody waits for it.

    Raises:
        BrokenOff: The answer is to end too early, and the server gives nothing to do that with.
    """
    given = certs.answer(
        call.path, {name.decode("latin-1"): value.decode("latin-1") for name, value in call.scope["headers"]}
    )
    sending = asyncio.ensure_future(_send(given, send))
    leaving = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    except BrokenOff:
        if not (break_off := call.scope.get("state", {}).get(BREAK_OFF)):
            raise
        break_off()
        await leaving
    finally:
        sending.cancel()
        leaving.cancel()
        await asyncio.wait({sending, leaving})


async def _send(given: Answer, send: Send) -> None:
    await _wait(given.delay)
    if given.ending == "refused":
        raise BrokenOff
    headers = [(name.encode(), value.encode()) for name, value in given.headers.items()]
    await send({"type": "http.response.start", "status": given.status, "headers": headers})
    for number, piece in enumerate(given.pieces):
        await _wait(given.pause if number else 0)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if given.ending == "hang":
        await _wait(float("inf"))
    if given.ending == "reset":
        raise BrokenOff
    await send({"type": "http.response.body", "body": b""})


async def _wait(seconds: float) -> None:
    if isinf(seconds):
        await asyncio.Event().wait()
    if seconds:
        await asyncio.sleep(seconds)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
