"""What type checkers see: never executed, read by mypy and pyright.

A line with an ignore comment is an error on purpose; both checkers are told to complain where it is none.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import Annotated, assert_type

from fastapi import Depends, FastAPI, Request, WebSocket
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import Claims, CloudflareAccess, KeySettings, ServiceClaims, UserClaims
from fastapi_cloudflare_access.claims import Principal
from fastapi_cloudflare_access.dependencies import Dependency, OptionalDependency
from fastapi_cloudflare_access.streams import Lease


class Custom(BaseModel):
    groups: tuple[str, ...] = ()
    level: int = 0


class MyClaims(UserClaims):
    """A subclass with typed custom claims needs no ignore comment."""

    custom: Custom = Custom()


access = CloudflareAccess(team_domain="acme", audience="tag")
mine = CloudflareAccess(team_domain="acme", audience="tag", user_model=MyClaims)
bare = CloudflareAccess()

assert_type(access, CloudflareAccess[UserClaims])
assert_type(mine, CloudflareAccess[MyClaims])
assert_type(bare, CloudflareAccess[UserClaims])
assert_type(mine.with_audience("other"), CloudflareAccess[MyClaims])


# the tree, each node by what it gives

assert_type(access.user, Dependency[UserClaims])
assert_type(mine.user, Dependency[MyClaims])
assert_type(access.service, Dependency[ServiceClaims])
assert_type(mine.service, Dependency[ServiceClaims])
assert_type(mine.optional, OptionalDependency[MyClaims])


def is_admin(caller: MyClaims) -> bool:
    return "admins" in caller.custom.groups


def is_deployer(caller: ServiceClaims) -> bool:
    return caller.common_name.endswith(".access")


def is_anybody(caller: Claims) -> bool:
    return bool(caller.iss)


assert_type(mine.require(is_anybody), Dependency[MyClaims | ServiceClaims])
assert_type(mine.require_user(is_admin), Dependency[MyClaims])
assert_type(mine.require_service(is_deployer), Dependency[ServiceClaims])
assert_type(access.require(is_anybody), Dependency[UserClaims | ServiceClaims])


async def calls(connection: HTTPConnection, request: Request, socket: WebSocket) -> None:
    """What the dependencies return where one awaits them."""
    assert_type(await mine(connection=connection), MyClaims | ServiceClaims)
    assert_type(await mine.user(connection=request), MyClaims)
    assert_type(await mine.service(connection=socket), ServiceClaims)
    assert_type(await mine.require(is_anybody)(connection=connection), MyClaims | ServiceClaims)
    assert_type(await mine.optional(connection=connection), MyClaims | ServiceClaims | None)
    assert_type(await access.optional(connection=connection), UserClaims | ServiceClaims | None)
    await mine.user(request)  # type: ignore[arg-type]  # by name only
    assert_type(await mine.authenticate(request), MyClaims | ServiceClaims | None)
    assert_type(await mine.verify("token"), MyClaims | ServiceClaims)
    assert_type(await mine.verify(b"token"), MyClaims | ServiceClaims)


# what a handler writes

CurrentUser = Annotated[MyClaims, Depends(mine.user)]
MaybeCaller = Annotated[MyClaims | ServiceClaims | None, Depends(mine.optional)]
app = FastAPI(lifespan=mine.lifespan)


@app.get("/")
async def handler(user: CurrentUser, caller: MaybeCaller) -> list[str]:
    assert_type(user, MyClaims)
    assert_type(user.custom.groups, tuple[str, ...])
    assert_type(user.email, str | None)
    assert_type(user.principal, Principal)
    assert_type(user.principal.subject, str)
    if isinstance(caller, ServiceClaims):
        assert_type(caller.client_id, str)
    elif caller:
        assert_type(caller, MyClaims)
    return list(user.custom.groups)


@app.websocket("/stream")
async def stream(socket: WebSocket, user: CurrentUser, caller: MaybeCaller) -> None:
    async with mine.while_valid(user) as lease:
        assert_type(lease, Lease[MyClaims])
        assert_type(lease.caller, MyClaims)
        assert_type(await lease.renew("token"), MyClaims)
        assert_type(lease.ended, str | None)
    if caller:
        assert_type(mine.while_valid(caller), Lease[MyClaims | ServiceClaims])


# what must be an error

CloudflareAccess(team="acme")  # type: ignore[arg-type]
CloudflareAccess(refresh_interval=60)  # type: ignore[arg-type]
CloudflareAccess(team_domain=None)  # type: ignore[arg-type]
CloudflareAccess("acme", "tag")  # type: ignore[call-arg]
CloudflareAccess(user_model=Custom)  # type: ignore[type-var]
CloudflareAccess(user_model=ServiceClaims)  # type: ignore[type-var]
CloudflareAccess(token_sources=("query",))  # type: ignore[arg-type]
CloudflareAccess(exp_leeway="30")  # type: ignore[arg-type]
CloudflareAccess(fetch="https://example.com")  # type: ignore[arg-type]
CloudflareAccess(key_settings={"refresh_interval": 60})  # type: ignore[arg-type]
KeySettings(refresh_interval="60")  # type: ignore[arg-type]
KeySettings(jitter=0)  # type: ignore[arg-type]
access.require("admin")  # type: ignore[arg-type]
access.while_valid(None)  # type: ignore[type-var]
access.settings = mine.settings  # type: ignore[misc]
wrong: CloudflareAccess[MyClaims] = CloudflareAccess(user_model=UserClaims)  # type: ignore[arg-type]
