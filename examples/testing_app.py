"""An app with a route for users, one for admins, and one for services; its tests are in the same folder."""

from typing import Annotated

from fastapi import Depends, FastAPI

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims

access = CloudflareAccess(
    team_domain="acme",
    audience="32eafc7626e737969582a7b2a3b5a1c1d0fe5ba2c40e8f1f6e2ab3a4d8c94228",
)
app = FastAPI(lifespan=access.lifespan)

CurrentUser = Annotated[UserClaims, Depends(access.user)]
CurrentService = Annotated[ServiceClaims, Depends(access.service)]


def is_admin(user: UserClaims) -> bool:
    groups = user.custom.get("groups")
    return isinstance(groups, list) and "admins" in groups


@app.get("/me")
async def me(user: CurrentUser) -> dict[str, str | None]:
    return {"email": user.email}


@app.get("/admin", dependencies=[Depends(access.require_user(is_admin))])
async def admin() -> str:
    return "welcome"


@app.post("/deploy")
async def deploy(service: CurrentService) -> str:
    return service.client_id
