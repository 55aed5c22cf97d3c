"""Types of identities, roles and combined objects: never executed, read by mypy and pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import Annotated, assert_type

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import AnyAccess, CloudflareAccess, UserClaims
from fastapi_cloudflare_access.dependencies import Dependency, IdentityDependency, RolesDependency
from fastapi_cloudflare_access.identity import Geo, Identity
from fastapi_cloudflare_access.policies import Group, Policy, parse_policy, roles_from_file


class PartnerClaims(UserClaims):
    """The claims of another team."""


ours = CloudflareAccess(team_domain="acme", audience="tag")
partners = CloudflareAccess(team_domain="partner", audience="tag", user_model=PartnerClaims)
either = ours | partners

assert_type(ours.identity, IdentityDependency)
assert_type(either, AnyAccess[UserClaims | PartnerClaims])
assert_type(either.user, Dependency[UserClaims | PartnerClaims])
assert_type(ours.roles({"admin": Group("admins"), "all": lambda _: True}), RolesDependency)
assert_type(parse_policy("Anyone()"), Policy)
assert_type(ours.roles(roles_from_file("roles.toml")), RolesDependency)
ours.roles({"admin": "admins"})  # type: ignore[dict-item]


async def called(connection: HTTPConnection) -> None:
    assert_type(await ours.identity(connection=connection), Identity)
    assert_type(await ours.roles({"a": Group("a")})(connection=connection), frozenset[str])


app = FastAPI(lifespan=either.lifespan)


@app.get("/")
def read(identity: Annotated[Identity, Depends(either.identity)]) -> str | None:
    assert_type(identity.email, str | None)
    assert_type(identity.geo, Geo | None)
    return identity.email
