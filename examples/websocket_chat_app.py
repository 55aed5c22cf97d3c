"""A chat over WebSockets and a stream of its messages; both end with the token of the user."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from fastapi_cloudflare_access import AccessError, CloudflareAccess, UserClaims

access = CloudflareAccess()
app = FastAPI(lifespan=access.lifespan)
CurrentUser = Annotated[UserClaims, Depends(access.user)]

readers: set[asyncio.Queue[str]] = set()


@contextmanager
def reading() -> Any:
    """Receive the messages that are sent from now on."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    readers.add(queue)
    try:
        yield queue
    finally:
        readers.discard(queue)


async def forward(queue: "asyncio.Queue[str]", socket: WebSocket) -> None:
    while True:
        await socket.send_text(await queue.get())


@app.websocket("/chat")
async def chat(socket: WebSocket, user: CurrentUser) -> None:
    await socket.accept()
    async with access.while_valid(user) as lease:
        with reading() as queue:
            forwarding = asyncio.create_task(forward(queue, socket))
            try:
                while True:
                    message = await socket.receive_json()
                    if token := message.get("token"):
                        user = await lease.renew(token)
                    else:
                        post(f"{user.email}: {message['text']}")
            except AccessError as refused:  # of the fresh token
                await socket.close(1008, refused.reason)
            except WebSocketDisconnect:
                pass
            finally:
                forwarding.cancel()


def post(text: str) -> None:
    for queue in readers:
        queue.put_nowait(text)


@app.get("/messages")
async def messages(user: CurrentUser) -> StreamingResponse:
    return StreamingResponse(events(user), media_type="text/event-stream")


async def events(user: UserClaims) -> AsyncIterator[str]:
    async with access.while_valid(user):
        with reading() as queue:
            yield ": open\n\n"
            while True:
                yield f"data: {await queue.get()}\n\n"
