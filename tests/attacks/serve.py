"""The app under attack, in a process of its own: `serve.py h11|httptools|hypercorn FD`, on a socket it inherits."""

import asyncio
import json
import logging
import os
import socket
import sys
from importlib import import_module
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request, Response, WebSocket
from fastapi.exception_handlers import http_exception_handler
from hypercorn.asyncio import serve
from hypercorn.config import Config

from fastapi_cloudflare_access import AccessHTTPException, Claims, CloudflareAccess

for path, value in json.loads(os.environ.get("CONSTANTS", "{}")).items():
    module, _, name = path.rpartition(".")
    setattr(import_module(f"fastapi_cloudflare_access.{module}"), name, value)

METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"]

access = CloudflareAccess()
app = FastAPI(lifespan=access.lifespan)
Caller = Annotated[Claims, Depends(access)]


@app.api_route("/", methods=METHODS)
async def protected(caller: Caller) -> str:
    return "let in as " + caller.principal[1]


@app.get("/optional")
async def optional(request: Request, caller: Annotated[Claims | None, Depends(access.optional)]) -> list[str | None]:
    seen = getattr(request.state, "cloudflare_access", None)
    return [one.principal[1] if one else None for one in (caller, seen)]


@app.websocket("/socket")
async def talk(websocket: WebSocket, caller: Caller) -> None:
    await websocket.accept()
    await websocket.send_text("let in")
    await websocket.close()


@app.exception_handler(AccessHTTPException)
async def with_reason(request: Request, refused: AccessHTTPException) -> Response:
    """Answer as FastAPI does, and tell the reason code, which no other client learns."""
    answer = await http_exception_handler(request, refused)
    answer.headers["X-Reason"] = refused.error.reason
    answer.headers["X-Unverified"] = str(refused.error.unverified)
    return answer


class Failing(logging.Handler):
    """A handler that cannot write."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


class Whole(logging.Formatter):
    """Writes all that a record holds."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{super().format(record)} {vars(record)!r}"


def main(kind: str, descriptor: int) -> None:
    """Serve until stopped."""
    everything = logging.StreamHandler()
    everything.setFormatter(Whole())
    logging.basicConfig(level=logging.DEBUG, handlers=[everything])
    ours = logging.getLogger("fastapi_cloudflare_access")
    ours.addHandler(everything)
    ours.addHandler(Failing())
    if kind == "hypercorn":
        hyper = Config.from_mapping(bind=[f"fd://{descriptor}"], accesslog="-", errorlog="-", graceful_timeout=1)
        asyncio.run(serve(app, hyper))  # type: ignore[arg-type]
    else:
        config = uvicorn.Config(app, http=kind, ws="wsproto", log_config=None, timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
