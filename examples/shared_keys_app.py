"""An app whose workers share keys through Redis or Valkey."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.stores.redis import RedisStore

secrets = os.environ["STORE_SECRET"].split(",")  # the first one signs
store = RedisStore(os.environ["STORE_URL"], secret=secrets)
access = CloudflareAccess(snapshot_store=store)
app = FastAPI(lifespan=access.lifespan)
app.add_route("/ready", access.readiness)

CurrentUser = Annotated[UserClaims, Depends(access.user)]


@app.get("/me")
async def me(user: CurrentUser) -> str | None:
    return user.email


@app.get("/keys", dependencies=[Depends(access.service)])
async def keys() -> dict[str, object]:
    health = access.keys.health()
    return {"age": health.age, "from_the_fleet": health.snapshots_loaded, "store": health.last_store_error}
