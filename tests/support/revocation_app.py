"""An app with revocations in Redis that shows which process answers; made at import, for servers that fork."""

import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI

from fastapi_cloudflare_access import AccessError, CloudflareAccess
from fastapi_cloudflare_access.claims import Claims
from fastapi_cloudflare_access.stores.redis import RedisStore

store = RedisStore(os.environ["STORE_URL"], secret=os.environ["STORE_SECRET"])
access = CloudflareAccess(revocation_store=store)
app = FastAPI(lifespan=access.lifespan)


@app.get("/")
async def protected(caller: Annotated[Claims, Depends(access)]) -> str:
    """Only for callers that are not revoked."""
    return caller.principal.subject


@app.get("/outcome")
async def outcome(token: str) -> dict[str, Any]:
    """What this process thinks of a token."""
    try:
        await access.verify(token)
    except AccessError as error:
        return {"pid": os.getpid(), "outcome": error.reason}
    return {"pid": os.getpid(), "outcome": "ok"}


@app.get("/log-out")
async def log_out(email: str) -> str:
    """Log a user out; for every client, since this is a test."""
    try:
        await access.revocations.log_out(email=email)
    except AccessError as error:
        return error.reason
    return "ok"


@app.get("/health")
async def health() -> dict[str, Any]:
    """For every client."""
    return {"pid": os.getpid(), **access.revocations.health().model_dump()}
