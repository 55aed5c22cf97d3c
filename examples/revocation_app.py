"""An app whose users can log out everywhere, and whose admins log out and block."""

import os
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.errors import RevocationsUnavailable
from fastapi_cloudflare_access.policies import Group
from fastapi_cloudflare_access.stores.redis import RedisStore

store = RedisStore(os.environ["STORE_URL"], secret=os.environ["STORE_SECRET"])
access = CloudflareAccess(revocation_store=store, revocations_unavailable="closed")
app = FastAPI(lifespan=access.lifespan)

CurrentUser = Annotated[UserClaims, Depends(access.user)]
ADMINS = access.require_user(Group("admins"))


class Caller(BaseModel):
    """The user to log out or to block."""

    email: Annotated[str, Field(pattern=r"^[!-~]+@[!-~]+$", max_length=320)]
    hours: Annotated[int, Field(ge=0, le=24 * 31)] = 0


@app.get("/me")
async def me(user: CurrentUser) -> str | None:
    return user.email


@app.post("/log-out-everywhere")
async def log_out_everywhere(user: CurrentUser) -> str:
    await access.revocations.log_out(sub=user.sub)
    return access.logout_url()  # ends the session at Cloudflare, too


admin = APIRouter(prefix="/admin", dependencies=[Depends(ADMINS)])


@admin.post("/revocations")
async def revoke(caller: Caller) -> str:
    if caller.hours:
        duration = timedelta(hours=caller.hours)
        await access.revocations.block(email=caller.email, for_=duration)
        return "blocked"
    await access.revocations.log_out(email=caller.email)
    return "logged out"


@admin.get("/revocations")
async def revocations() -> list[dict[str, object]]:
    found = access.revocations.in_force()
    return [{"by": each.by, "key": each.key, "until": each.until} for each in found]


app.include_router(admin)


@app.exception_handler(RevocationsUnavailable)
async def not_stored(_: Request, error: RevocationsUnavailable) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=503)
