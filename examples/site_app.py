"""A server-rendered site: a public page, a private page with a form, and links to log in and out."""

import os
from collections import Counter
from html import escape
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access.browser import SameOrigin
from fastapi_cloudflare_access.claims import Principal

ORIGIN = os.environ.get("SITE_ORIGIN", "http://localhost:8787")
HOST = ORIGIN.removeprefix("https://").removeprefix("http://")

access = CloudflareAccess()
app = FastAPI(lifespan=access.lifespan)
app.add_middleware(SameOrigin, origins=[ORIGIN])

CurrentUser = Annotated[UserClaims, Depends(access.user)]
MaybeCaller = Annotated[UserClaims | ServiceClaims | None, Depends(access.optional)]
LOG_IN = access.login_url(HOST, return_to="/votes", audience=access.settings.audience[0])
LOG_OUT = access.logout_url(host=HOST, return_to=f"{ORIGIN}/")
votes: Counter[Principal] = Counter()


@app.get("/", response_class=HTMLResponse)
def home(caller: MaybeCaller) -> str:
    if isinstance(caller, UserClaims):
        return page(
            f"<h1>Hello {escape(caller.email or '')}</h1>"
            f'<a href="/votes">Vote</a> <a href="{escape(LOG_OUT)}">Log out</a>'
        )
    return page(f'<h1>Hello</h1><a href="{escape(LOG_IN)}">Log in</a>')


@app.get("/votes", response_class=HTMLResponse)
def show(user: CurrentUser) -> str:
    return page(
        f'<h1>{votes[user.principal]} votes</h1><form method="post" action="/votes"><button>Vote</button></form>'
    )


@app.post("/votes")
def vote(user: CurrentUser) -> RedirectResponse:
    votes[user.principal] += 1
    return RedirectResponse("/votes", 303)


def page(body: str) -> str:
    return f'<!doctype html><html lang="en"><title>Votes</title>{body}</html>'
