"""An app for the users of two teams, of which one was renamed, and an area for its own team."""

import os
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI

from fastapi_cloudflare_access import CloudflareAccess, UserClaims

ours = CloudflareAccess(
    team_domain="acme",
    audience=os.environ["ACME_AUDIENCE"],
    former_team_domains=["acme-old"],
)
partners = CloudflareAccess(
    team_domain="partner",
    audience=os.environ["PARTNER_AUDIENCE"],
)
either = ours | partners

app = FastAPI(lifespan=either.lifespan)
internal = APIRouter(prefix="/internal", dependencies=[Depends(ours.user)])


@app.get("/documents")
def documents(user: Annotated[UserClaims, Depends(either.user)]) -> dict[str, str]:
    return {"team": user.principal.issuer, "user": user.principal.subject}


@internal.get("/plans")
def plans() -> str:
    return "plans"


app.include_router(internal)
