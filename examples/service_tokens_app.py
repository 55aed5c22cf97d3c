"""Both sides of a service token: routes for services, and a client that calls them and notices a refusal."""

from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Depends, FastAPI

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access.policies import Group, ServiceToken

access = CloudflareAccess()
app = FastAPI(lifespan=access.lifespan)

BACKUP = ServiceToken("e367826f93b8d71185e03fe518aff3b4.access", name="backup")
CurrentService = Annotated[ServiceClaims, Depends(access.service)]
CurrentCaller = Annotated[UserClaims | ServiceClaims, Depends(access)]

jobs = APIRouter(prefix="/jobs", dependencies=[Depends(access.require_service(BACKUP))])


@jobs.post("/backup", status_code=202)
async def start_backup(service: CurrentService) -> dict[str, str]:
    return {"started by": service.client_id}


@app.post("/reports", dependencies=[Depends(access.require(BACKUP | Group("staff")))])
async def make_report(caller: CurrentCaller) -> dict[str, str]:
    return {"for": caller.principal.subject}


app.include_router(jobs)


# the other side: a program that calls the app through Cloudflare


class NotLetInError(Exception):
    """The edge or the app refused the service token."""


def call(client: httpx.Client, path: str, client_id: str, client_secret: str) -> Any:
    """Post to the app with a service token, and return the JSON of its response.

    Raises:
        NotLetInError: The edge does not know the token or no policy admits it, or the app refuses the service.
    """
    headers = {
        "CF-Access-Client-Id": client_id,
        "CF-Access-Client-Secret": client_secret,
    }
    response = client.post(path, headers=headers, follow_redirects=False)
    if response.is_redirect:
        raise NotLetInError("the edge redirects to the login: no policy admits this token")
    if response.status_code in (401, 403):
        raise NotLetInError(f"refused with {response.status_code}")
    response.raise_for_status()
    return response.json()
