"""A single-page app: its files, an API, an event stream and a WebSocket, each for users alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import FileResponse, StreamingResponse

from fastapi_cloudflare_access import AccessHTTPException, CloudflareAccess, UserClaims
from fastapi_cloudflare_access.problems import problem_details, problem_responses

FOLDER = Path(__file__).parent / "spa"
FILES = {"index.html", "app.js", "session.js", "service-worker.js"}

access = CloudflareAccess()
app = FastAPI(lifespan=access.lifespan, dependencies=[Depends(access.user)])
app.add_exception_handler(AccessHTTPException, problem_details)
api = APIRouter(prefix="/api", responses=problem_responses())

CurrentUser = Annotated[UserClaims, Depends(access.user)]


@api.get("/me")
def me(user: CurrentUser) -> dict[str, str | None]:
    return {"email": user.email}


@api.get("/events")
def events(user: CurrentUser) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        while True:
            yield f"data: {user.email}\n\n"
            await asyncio.sleep(1)

    return StreamingResponse(lines(), media_type="text/event-stream")


@api.websocket("/feed")
async def feed(socket: WebSocket, user: CurrentUser) -> None:
    await socket.accept()
    await socket.send_text(user.email or "")
    await socket.receive()


app.include_router(api)


@app.get("/", include_in_schema=False)
def index() -> FileResponse:
    return file("index.html")


@app.get("/{name}", include_in_schema=False)
def file(name: str) -> FileResponse:
    if name not in FILES:
        raise HTTPException(404)
    return FileResponse(FOLDER / name, headers={"Cache-Control": "private, no-cache"})
