"""An app with roles that operators define, identities, and sessions that end with a logout."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.policies import roles_from_environment

access = CloudflareAccess(
    recheck_session=60,
    recheck_unavailable="allow",
    recheck_grace=300,
)
app = FastAPI(lifespan=access.lifespan)

CurrentUser = Annotated[UserClaims, Depends(access.user)]
CurrentIdentity = Annotated[Identity, Depends(access.identity)]
Roles = Annotated[frozenset[str], Depends(access.roles(roles_from_environment("APP_ROLES")))]


@app.get("/menu")
def menu(user: CurrentUser, roles: Roles) -> dict[str, object]:
    return {"user": user.email, "roles": sorted(roles)}


@app.get("/salaries")
def salaries(roles: Roles) -> str:
    if "accountant" not in roles:
        raise HTTPException(403, "only accountants read the salaries")
    return "salaries"


@app.get("/profile")
def profile(identity: CurrentIdentity) -> dict[str, object]:
    provider = identity.idp.type if identity.idp else None
    return {"name": identity.name, "provider": provider, "groups": identity.groups}
