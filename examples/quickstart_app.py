"""An app behind Cloudflare Access: users see their own id, services start jobs."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI

from fastapi_cloudflare_access import CloudflareAccess, UserClaims

access = CloudflareAccess()  # the environment sets the team and the audience
app = FastAPI(lifespan=access.lifespan)

CurrentUser = Annotated[UserClaims, Depends(access.user)]


@app.get("/me")
async def me(user: CurrentUser) -> dict[str, str | None]:
    return {"id": user.sub, "email": user.email}


jobs = APIRouter(prefix="/jobs", dependencies=[Depends(access.service)])


@jobs.post("/backup", status_code=202)
async def start_backup() -> dict[str, str]:
    return {"status": "started"}


app.include_router(jobs)
