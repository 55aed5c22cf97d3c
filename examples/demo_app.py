"""A page behind Cloudflare Access: it shows users their typed claims, and calls a route that only services may call."""

import os
from html import escape
from typing import Annotated, Literal

import httpx
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from fastapi_cloudflare_access import CloudflareAccess, UserClaims

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Demo</title>
<style>:root {{ color-scheme: light dark; font: 1.1rem/1.5 system-ui }} body {{ max-width: 40rem; margin: 2rem auto }}
form {{ margin: 1rem 0 }} button {{ font: inherit; padding: .4rem .8rem }}</style>
<h1>Hello {name}</h1>
<p>You are in {department}, since {since}. Your groups: {groups}.</p>
<h2>Start a backup, which only services may do</h2>
<form method="post" action="/try/service"><button>As the service</button></form>
<form method="post" action="/try/me"><button>As yourself</button></form>
<p role="status">{result}</p>
<p><a href="/cdn-cgi/access/logout">Log out</a></p>
</html>
"""


class Directory(BaseModel):
    """Custom claims from the directory of the company."""

    department: str = "no department"
    since: int | None = None
    groups: tuple[str, ...] = ()


class Employee(UserClaims):
    """A user with typed custom claims."""

    custom: Directory = Directory()


access = CloudflareAccess(user_model=Employee)
app = FastAPI(lifespan=access.lifespan)
CurrentUser = Annotated[Employee, Depends(access.user)]


def page(user: Employee, result: str = "") -> HTMLResponse:
    values = {
        "name": user.email or "",
        "department": user.custom.department,
        "since": str(user.custom.since or "always"),
        "groups": ", ".join(user.custom.groups) or "none",
        "result": result,
    }
    return HTMLResponse(PAGE.format_map({name: escape(value) for name, value in values.items()}))


@app.get("/")
async def home(user: CurrentUser) -> HTMLResponse:
    return page(user)


@app.get("/me")
async def me(user: CurrentUser) -> dict[str, object]:
    return {"email": user.email, **user.custom.model_dump()}


@app.post("/jobs/backup", status_code=202, dependencies=[Depends(access.service)])
async def start_backup() -> dict[str, str]:
    return {"status": "started"}


@app.post("/try/{caller}")
async def try_backup(caller: Literal["service", "me"], request: Request, user: CurrentUser) -> HTMLResponse:
    """Call this same app through the edge, as any other client does."""
    headers = {
        "service": {
            "CF-Access-Client-Id": os.environ["DEMO_CLIENT_ID"],
            "CF-Access-Client-Secret": os.environ["DEMO_CLIENT_SECRET"],
        },
        "me": {"Cf-Access-Token": request.headers.get("Cf-Access-Jwt-Assertion", "")},
    }
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(os.environ["DEMO_ORIGIN"] + "/jobs/backup", headers=headers[caller])
    return page(user, f"{answer.status_code} {answer.reason_phrase}: {answer.text}")
