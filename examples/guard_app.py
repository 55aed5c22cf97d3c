"""An app that is protected as a whole: routes, downloads, a mounted app, the docs and unknown paths."""

from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.guard import AccessGuard
from fastapi_cloudflare_access.policies import EmailDomain, Group

access = CloudflareAccess()
downloads = Path(mkdtemp())
(downloads / "report.csv").write_text("year,income\n2026,1\n")

admin = FastAPI(title="Administration")


@admin.get("/users")
def list_users() -> list[str]:
    return ["ada@acme.example"]


app = FastAPI(lifespan=access.lifespan)
app.mount("/admin", AccessGuard(admin, access=access, policy=Group("admins")))
app.mount("/downloads", StaticFiles(directory=downloads))
app.add_middleware(
    AccessGuard,
    access=access,
    policy=EmailDomain("acme.example"),
    exempt=["/healthz"],
)


@app.get("/healthz")
def is_alive() -> str:
    return "alive"


@app.get("/me")
def me(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
    return user.email
