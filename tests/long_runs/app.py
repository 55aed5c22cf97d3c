"""The app of a long run: a route, two kinds of streams, revocations by any client, and what its process has open."""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from long_runs.scaled import ScaledClock, ScaledStore

from fastapi_cloudflare_access import AccessError, AccessHTTPException, CloudflareAccess, UserClaims
from fastapi_cloudflare_access.claims import Claims
from fastapi_cloudflare_access.events import AccessEvent, RequestRejected
from fastapi_cloudflare_access.settings import KeySettings

TICK = 600.0
clock = ScaledClock.of_environment()
store = ScaledStore(os.environ["STORE_URL"], secret=os.environ["STORE_SECRET"], clock=clock)
names: Counter[str] = Counter()
reasons: Counter[str] = Counter()


def network_limits() -> KeySettings:
    """Return the default settings, with the machine's seconds for what waits for the network, which is no faster."""
    default = KeySettings()
    limits = {name: getattr(default, name) for name in ("fetch_timeout", "key_wait_timeout", "startup_timeout")}
    return default.model_copy(update={name: seconds * clock.factor for name, seconds in limits.items()})


def count(event: AccessEvent) -> None:
    """Count events by name, and refusals by reason."""
    names[event.name] += 1
    if isinstance(event, RequestRejected):
        reasons[event.reason] += 1


access = CloudflareAccess(
    key_settings=network_limits(),
    snapshot_store=store,
    revocation_store=store,
    revocations_unavailable="open",  # with "closed", an outage of the store is 503 for every caller
    clock=clock,
    listeners=[count],
)
app = FastAPI(lifespan=access.lifespan)


@app.exception_handler(AccessHTTPException)
async def refused(request: Request, exception: AccessHTTPException) -> JSONResponse:
    """Name the reason code to the client, for the report."""
    headers = {**(exception.headers or {}), "x-reason": exception.error.reason}
    return JSONResponse({"detail": exception.detail}, exception.status_code, headers)


@app.get("/")
async def protected(caller: Annotated[Claims, Depends(access)]) -> str:
    """Only for callers whose token passes."""
    return caller.principal.subject


@app.get("/events")
async def events(user: Annotated[UserClaims, Depends(access.user)]) -> StreamingResponse:
    """Stream until the token ends."""

    async def ticks() -> AsyncIterator[str]:
        async with access.while_valid(user) as lease:
            while True:
                yield "data: tick\n\n"
                await clock.sleep(TICK)
        yield f"data: {lease.ended}\n\n"

    return StreamingResponse(ticks(), media_type="text/event-stream")


@app.websocket("/socket")
async def socket(socket: WebSocket, user: Annotated[UserClaims, Depends(access.user)]) -> None:
    """Stay open until the token ends."""
    await socket.accept()
    async with access.while_valid(user):
        await socket.receive()


@app.post("/revoke")
async def revoke(action: str, token: str, email: str, seconds: float) -> str:
    """Revoke a token, log a user out or block one; for every client, since this is a test."""
    try:
        if action == "revoke":
            await access.revocations.revoke(token)
        elif action == "block":
            await access.revocations.block(email=email, for_=timedelta(seconds=seconds))
        else:
            await access.revocations.log_out(email=email)
    except AccessError as error:
        return error.reason
    return "ok"


@app.get("/state")
async def state() -> dict[str, Any]:
    """For every client: what is open here, and what happened."""
    gc.collect()
    tasks = Counter(f"task {_name(task)}" for task in asyncio.all_tasks())
    return {
        "open": {**tasks, "open streams": access.open_streams},
        "objects": len(gc.get_objects()),
        "events": names,
        "reasons": reasons,
        "keys": access.keys.health().model_dump(),
        "revocations": access.revocations.health().model_dump(),
    }


def _name(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", "unknown")
