"""An app behind Cloudflare Access: people see who they are, machines start jobs."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI

from fastapi_cloudflare_access import CloudflareAccess, UserClaims

access = CloudflareAccess()  # the team and the audience come from the environment
app = FastAPI(lifespan=access.lifespan)


@app.get("/me")
async def me(user: Annotated[UserClaims, Depends(access.user)]) -> dict[str, str | None]:
    return {"id": user.sub, "email": user.email}


jobs = APIRouter(prefix="/jobs", dependencies=[Depends(access.service)])  # all of it is for machines


@jobs.post("/backup", status_code=202)
async def start_backup() -> dict[str, str]:
    return {"status": "started"}


app.include_router(jobs)
