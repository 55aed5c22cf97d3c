"""One app behind three Access applications of a team: the site, the administration and the API for services."""

import os
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims

site = CloudflareAccess(audience=os.environ["SITE_AUDIENCE"])
admin = site.with_audience(os.environ["ADMIN_AUDIENCE"])  # the same team and the same keys
api = site.with_audience(os.environ["API_AUDIENCE"])
site_or_admin = site | admin

app = FastAPI(lifespan=site.lifespan)
site_pages = APIRouter(dependencies=[Depends(site.user)])
admin_pages = APIRouter(prefix="/admin", dependencies=[Depends(admin.user)])
api_routes = APIRouter(prefix="/api", dependencies=[Depends(api)])


@site_pages.get("/")
async def home() -> str:
    return "home"


@admin_pages.get("/")
async def administration() -> str:
    return "administration"


@api_routes.get("/")
async def call(
    caller: Annotated[UserClaims | ServiceClaims, Depends(api)],
) -> str:
    return caller.principal.subject


@app.get("/profile")
async def profile(
    user: Annotated[UserClaims, Depends(site_or_admin.user)],
) -> str | None:
    return user.email


for router in (site_pages, admin_pages, api_routes):
    app.include_router(router)
