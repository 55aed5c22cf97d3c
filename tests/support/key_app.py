"""An app that shows the process it runs in and the health of its keys; made at import, for servers that fork."""

import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.claims import Claims
from fastapi_cloudflare_access.stores.redis import RedisStore

store = (
    RedisStore(os.environ["TEST_STORE_URL"], secret=os.environ["TEST_STORE_SECRET"])
    if "TEST_STORE_URL" in os.environ
    else None
)
access = CloudflareAccess(snapshot_store=store)
app = FastAPI(lifespan=access.lifespan)


@app.get("/")
async def protected(caller: Annotated[Claims, Depends(access)]) -> dict[str, Any]:
    """Only for callers whose token passes."""
    return {"pid": os.getpid(), "service": not caller.sub}


@app.get("/health")
async def health() -> dict[str, Any]:
    """For every client."""
    return {"pid": os.getpid(), **access.keys.health().model_dump()}
