"""What type checkers see of the audit: never executed, read by mypy and pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from fastapi import FastAPI

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.testing import assert_protected


class MyClaims(UserClaims):
    """A model of the app's own."""


app = FastAPI()
access = CloudflareAccess(team_domain="acme", audience="tag")
mine = CloudflareAccess(team_domain="acme", audience="tag", user_model=MyClaims)

assert_protected(app, access)
assert_protected(app, access, mine, open={"/healthz"})
assert_protected(app, access, open=["/healthz"])
assert_protected(app, access.user)  # type: ignore[arg-type]
assert_protected(app, open={"/healthz"}, access=access)  # type: ignore[call-arg]
