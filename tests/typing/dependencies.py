"""What type checkers see: never executed, read by mypy and pyright.

A line with an ignore comment is an error on purpose; both checkers are told to complain where it is none.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Awaitable, Callable
from typing import Annotated, assert_type

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import Claims, CloudflareAccess, ServiceClaims, UserClaims


class Custom(BaseModel):
    groups: tuple[str, ...] = ()
    level: int = 0


class MyClaims(UserClaims):
    """A subclass with typed custom claims needs no ignore comment."""

    custom: Custom = Custom()


access = CloudflareAccess(team_domain="acme", audience="tag")
mine = CloudflareAccess(team_domain="acme", audience="tag", user_claims=MyClaims)
bare = CloudflareAccess()

assert_type(access, CloudflareAccess[UserClaims])
assert_type(mine, CloudflareAccess[MyClaims])
assert_type(bare, CloudflareAccess[UserClaims])
assert_type(mine.with_audience("other"), CloudflareAccess[MyClaims])


# the tree, each node by what it gives

assert_type(access.user, Callable[..., Awaitable[UserClaims]])
assert_type(mine.user, Callable[..., Awaitable[MyClaims]])
assert_type(access.service, Callable[..., Awaitable[ServiceClaims]])
assert_type(mine.service, Callable[..., Awaitable[ServiceClaims]])


def is_admin(caller: MyClaims) -> bool:
    return "admins" in caller.custom.groups


def is_deployer(caller: ServiceClaims) -> bool:
    return caller.common_name.endswith(".access")


def is_anybody(caller: Claims) -> bool:
    return bool(caller.iss)


assert_type(mine.require(is_anybody), Callable[..., Awaitable[MyClaims | ServiceClaims]])
assert_type(mine.require_user(is_admin), Callable[..., Awaitable[MyClaims]])
assert_type(mine.require_service(is_deployer), Callable[..., Awaitable[ServiceClaims]])
assert_type(access.require(is_anybody), Callable[..., Awaitable[UserClaims | ServiceClaims]])


async def calls() -> None:
    """What the nodes return where one awaits them."""
    assert_type(await mine.user(), MyClaims)
    assert_type(await mine.service(), ServiceClaims)
    assert_type(await mine.require(is_anybody)(), MyClaims | ServiceClaims)


async def optional(connection: HTTPConnection) -> None:
    assert_type(await mine.optional(connection), MyClaims | ServiceClaims | None)
    assert_type(await access.optional(connection), UserClaims | ServiceClaims | None)
    assert_type(await mine(connection=connection, caller=None), MyClaims | ServiceClaims)


# what a handler writes

CurrentUser = Annotated[MyClaims, Depends(mine.user)]
MaybeCaller = Annotated[MyClaims | ServiceClaims | None, Depends(mine.optional)]
app = FastAPI(lifespan=mine.lifespan)


@app.get("/")
async def handler(user: CurrentUser, caller: MaybeCaller) -> list[str]:
    assert_type(user, MyClaims)
    assert_type(user.custom.groups, tuple[str, ...])
    assert_type(user.email, str | None)
    assert_type(user.principal, tuple[str, str])
    if isinstance(caller, ServiceClaims):
        assert_type(caller.common_name, str)
    elif caller:
        assert_type(caller, MyClaims)
    return list(user.custom.groups)


# what must be an error

CloudflareAccess(team="acme")  # type: ignore[call-overload]
CloudflareAccess(team_domain=None)  # type: ignore[call-overload]
CloudflareAccess("acme", "tag")  # type: ignore[call-overload]
CloudflareAccess(user_claims=Custom)  # type: ignore[type-var]
CloudflareAccess(user_claims=ServiceClaims)  # type: ignore[type-var]
CloudflareAccess(token_sources=("query",))  # type: ignore[arg-type]
CloudflareAccess(exp_leeway="30")  # type: ignore[call-overload]
CloudflareAccess(fetch="https://example.com")  # type: ignore[call-overload]
access.require("admin")  # type: ignore[arg-type]
access.settings = mine.settings  # type: ignore[misc]
wrong: CloudflareAccess[MyClaims] = CloudflareAccess(user_claims=UserClaims)  # type: ignore[arg-type]
