"""Identities and sessions with the local Access: what a login, a logout and groups do to an app behind it."""

import time
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI
from support.answer_servers import uvicorn_serving

from fastapi_cloudflare_access import CloudflareAccess, KeySettings
from fastapi_cloudflare_access._keys.http import HttpxFetch
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.local import run_local_access
from fastapi_cloudflare_access.policies import Group


def test_a_logout_at_the_local_access_reaches_an_app_that_rechecks_sessions() -> None:
    with run_local_access() as local:
        access = CloudflareAccess(
            team_domain=local.team_domain,
            audience=local.audience,
            recheck_session=5,
            recheck_unavailable="deny",
            fetch=HttpxFetch(trust_env=False, connect_timeout=25, read_timeout=25),  # a busy machine is no outage
            key_settings=KeySettings(fetch_timeout=30),
        )
        app = FastAPI(lifespan=access.lifespan)

        @app.get("/me")
        def me(identity: Annotated[Identity, Depends(access.identity)]) -> str | None:
            return identity.email

        app.add_api_route("/admins", lambda: "let in", dependencies=[Depends(access.require(Group("admins")))])
        with uvicorn_serving(app) as origin, httpx.Client(base_url=f"http://{origin}", trust_env=False) as client:
            token = local.control("token", email="ada@example.com")["token"]
            headers = {"Cf-Access-Jwt-Assertion": token}
            assert client.get("/me", headers=headers).json() == "ada@example.com"
            assert client.get("/admins", headers=headers).status_code in (200, 403)
            local.control("revoke", email="ada@example.com")
            deadline = time.monotonic() + 60
            while client.get("/me", headers=headers).status_code == 200:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert client.get("/me", headers=headers).status_code == 401
