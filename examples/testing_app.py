"""An app with a route for users, one for admins, and one for services; its tests stand beside it."""

from typing import Annotated

from fastapi import Depends, FastAPI

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims

access = CloudflareAccess(team_domain="acme", audience="32eafc7626e737969582a7b2a3b5a1c1")
app = FastAPI(lifespan=access.lifespan)


def is_admin(user: UserClaims) -> bool:
    return "admins" in user.custom.get("groups", ())


@app.get("/me")
async def me(user: Annotated[UserClaims, Depends(access.user)]) -> dict[str, str | None]:
    return {"email": user.email}


@app.get("/admin", dependencies=[Depends(access.require_user(is_admin))])
async def admin() -> str:
    return "welcome"


@app.post("/deploy")
async def deploy(service: Annotated[ServiceClaims, Depends(access.service)]) -> str:
    return service.common_name
