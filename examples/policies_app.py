"""An app whose routes admit callers by policies: by group, domain, country, Client ID and a function of its own."""

from typing import Annotated

from fastapi import Depends, FastAPI

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access.policies import Country, Email, EmailDomain, Group, ServiceToken

access = CloudflareAccess()
app = FastAPI(lifespan=access.lifespan)

STAFF = EmailDomain("acme.example") & ~Group("contractors")
ADMINS = STAFF & (Group("admins") | Email("root@acme.example"))
DEPLOYER = ServiceToken("0123456789abcdef0123456789abcdef.access", name="deployer")


def works_in_europe(user: UserClaims) -> bool:
    return bool(user.custom.get("region") == "eu")


@app.get("/handbook")
def handbook(user: Annotated[UserClaims, Depends(access.require_user(STAFF))]) -> str:
    return f"welcome, {user.email}"


@app.delete("/users/{number}", dependencies=[Depends(access.require_user(ADMINS))])
def delete_user(number: int) -> str:
    return f"deleted {number}"


@app.get("/payroll", dependencies=[Depends(access.require_user(STAFF & Country("DE") & works_in_europe))])
def payroll() -> str:
    return "payroll"


@app.post("/deployments")
def deploy(caller: Annotated[UserClaims | ServiceClaims, Depends(access.require(DEPLOYER | ADMINS))]) -> str:
    return f"deployed by {caller.principal.subject}"
