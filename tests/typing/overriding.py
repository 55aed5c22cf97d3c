"""What type checkers see of an override: never executed, read by mypy and pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

from fastapi import FastAPI

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access.testing import FakeTeam, override


class MyClaims(UserClaims):
    """A model of the app's own."""

    level: int = 0


app = FastAPI()
team = FakeTeam()
access = CloudflareAccess(team_domain="acme", audience="tag")
mine = CloudflareAccess(team_domain="acme", audience="tag", user_model=MyClaims)

with override(access, team.user("ada@example.com")) as user:
    assert_type(user, UserClaims)
with override(mine, team.user("ada@example.com")) as of_the_app:
    assert_type(of_the_app, MyClaims)
with override(mine, team.service("deploy-bot")) as service:
    assert_type(service, ServiceClaims)
with override(mine, None) as no_caller:
    assert_type(no_caller, None)


def either(caller: UserClaims | ServiceClaims | None) -> None:
    """Any caller may be given."""
    with override(mine, caller) as given:
        assert_type(given, MyClaims | ServiceClaims | None)


override(access, "ada@example.com")  # type: ignore[call-overload]
