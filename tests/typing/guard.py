"""What type checkers see of the guard: never executed, read by mypy and pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.guard import AccessGuard, PrivateResponses
from fastapi_cloudflare_access.policies import Email, Group


class MyClaims(UserClaims):
    """The model of an app."""


def is_mine(caller: object) -> bool:
    return isinstance(caller, MyClaims)


app = FastAPI()
access = CloudflareAccess(team_domain="acme", audience="tag")
mine = CloudflareAccess(team_domain="acme", audience="tag", user_model=MyClaims)

app.add_middleware(AccessGuard, access=access)
app.add_middleware(AccessGuard, access=mine, policy=is_mine, exempt=["/healthz"], login_redirect="app.example.com")
app.add_middleware(AccessGuard, access=mine, policy=Group("admins") | Email("a@b.example"), cache_control=None)
app.add_middleware(PrivateResponses)
app.add_middleware(PrivateResponses, cache_control="no-store")
Starlette(middleware=[Middleware(AccessGuard, access=access), Middleware(PrivateResponses)])
app.mount("/inner", AccessGuard(FastAPI(), access=access, exempt={"/healthz"}))
AccessGuard(PrivateResponses(app), access=access)
assert_type(AccessGuard(app, access=access).unserved(), list[str])

# what is wrong

app.add_middleware(AccessGuard)  # type: ignore[call-arg]
app.add_middleware(AccessGuard, access=access.user)  # type: ignore[arg-type]
app.add_middleware(AccessGuard, access=access, exempt="/healthz")
app.add_middleware(AccessGuard, access=access, polcy=is_mine)  # type: ignore[call-arg]
AccessGuard(app)  # type: ignore[call-arg]
AccessGuard(access, access=access)  # type: ignore[arg-type]
