"""The apps that are compared, each by its name: the same route, protected in another way.

The environment says which (`BENCH_APP`) and against what: `uvicorn --factory apps:make`.
"""

import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from aims import BOTH, EMPTY, EXEMPT, GUARD, KNOWN, NEW, PRIVATE, UNCACHED, UNPROTECTED
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verification.token import parse


def origin() -> str:
    """Return the team domain."""
    return os.environ["BENCH_ORIGIN"]


def certs_url() -> str:
    """Return the URL of its keys."""
    return f"{origin()}/cdn-cgi/access/certs"


def audience() -> str:
    """Return the AUD tag."""
    return os.environ["BENCH_AUDIENCE"]


def app_with(dependency: Callable[..., Any] | None, **options: Any) -> FastAPI:
    """Return an app with one route behind this dependency."""
    app = FastAPI(openapi_url=None, **options)
    add_route(app, dependency)
    return app


def add_route(app: FastAPI | APIRouter, dependency: Callable[..., Any] | None) -> None:
    """Add the one route, behind this dependency."""
    if dependency is None:

        @app.get("/")
        async def open_to_all() -> dict[str, bool]:
            return {"ok": True}
    else:

        @app.get("/")
        async def protected(caller: Annotated[Any, Depends(dependency)]) -> dict[str, bool]:
            return {"ok": caller is not None}


async def nothing() -> None:
    """Return at once: what any dependency costs."""
    return


def doing(work: Callable[[], object]) -> Callable[..., Any]:
    """Return one dependency that does this work."""

    async def dependency() -> None:
        work()

    return dependency


def verifying_a_signature() -> FastAPI:
    """Return an app whose dependency does one bare RSA-2048 verification, and nothing else."""
    parsed = parse(os.environ["BENCH_TOKEN"].encode())
    key = RS256Key(**json.loads(os.environ["BENCH_KEY"]))._key.prepared_key  # noqa: SLF001
    padding, digest = PKCS1v15(), SHA256()
    return app_with(doing(lambda: key.verify(parsed.signature, parsed.signing_input, padding, digest)))


def ours(**options: Any) -> CloudflareAccess[UserClaims]:
    """Return this package's object for the team that is served locally."""
    return CloudflareAccess(team_domain=origin(), audience=audience(), **options)


def with_user(**options: Any) -> FastAPI:
    """Return an app with this package's dependency on the route."""
    access = ours(**options)
    return app_with(access.user, lifespan=access.lifespan)


def with_router_and_route() -> FastAPI:
    """Return an app with one of this package's dependencies on the router and another one on the route."""
    access = ours()
    router = APIRouter(dependencies=[Depends(access)])
    add_route(router, access.user)
    app = FastAPI(openapi_url=None, lifespan=access.lifespan)
    app.include_router(router)
    return app


def with_policy() -> FastAPI:
    """Return an app with this package's dependency with a policy on the route."""
    access = ours()
    return app_with(access.require(lambda caller: "@" in caller.email), lifespan=access.lifespan)


def with_guard() -> FastAPI:
    """Return an app behind this package's middleware."""
    from fastapi_cloudflare_access.guard import AccessGuard  # noqa: PLC0415

    access = ours()
    app = app_with(None, lifespan=access.lifespan)
    app.add_middleware(AccessGuard, access=access)
    return app


def with_exempt_path() -> FastAPI:
    """Return an app whose route is exempt from this package's middleware."""
    from fastapi_cloudflare_access.guard import AccessGuard  # noqa: PLC0415

    access = ours()
    app = app_with(None, lifespan=access.lifespan)
    app.add_middleware(AccessGuard, access=access, exempt=["/"])
    return app


def with_private_responses() -> FastAPI:
    """Return an app with this package's dependency, whose responses are marked as private."""
    from fastapi_cloudflare_access.guard import PrivateResponses  # noqa: PLC0415

    app = with_user()
    app.add_middleware(PrivateResponses)
    return app


def pyjwkclient() -> FastAPI:
    """Return an app with PyJWT's `PyJWKClient` in a plain function, as most people write it."""
    import jwt  # noqa: PLC0415

    client = jwt.PyJWKClient(certs_url())

    def claims(request: Request) -> object:
        token = request.headers.get("Cf-Access-Jwt-Assertion", "")
        try:
            key = client.get_signing_key_from_jwt(token).key
            return jwt.decode(token, key, algorithms=["RS256"], audience=audience(), issuer=origin())
        except jwt.PyJWTError:
            raise HTTPException(401) from None

    return app_with(claims)


def tutorial() -> FastAPI:
    """Return the app of Cloudflare's tutorial for FastAPI, repaired so far that a token of the second key passes."""
    import jwt  # noqa: PLC0415
    import requests  # noqa: PLC0415

    def public_keys() -> list[Any]:
        document = requests.get(certs_url()).json()  # noqa: S113
        return [jwt.algorithms.RSAAlgorithm.from_jwk(json.dumps(key)) for key in document["keys"]]

    async def validate_cloudflare(request: Request) -> bool:
        if "CF_Authorization" not in request.cookies:
            raise HTTPException(400, "missing required cf authorization token")
        for key in public_keys():
            try:
                jwt.decode(request.cookies["CF_Authorization"], key=key, audience=audience(), algorithms=["RS256"])
            except jwt.PyJWTError:
                continue
            return True
        raise HTTPException(400, "Not authenticated properly!")

    return app_with(validate_cloudflare)


def cloudflare_access_jwt() -> FastAPI:
    """Return an app with the package fastapi-cloudflare-access-jwt."""
    from cloudflare_access_jwt import CloudflareAccessJWT  # noqa: PLC0415
    from loguru import logger  # noqa: PLC0415

    logger.remove()
    return app_with(CloudflareAccessJWT(certs_url=certs_url(), policy_aud=audience()))


def azure_auth() -> FastAPI:
    """Return an app with the verification of fastapi-azure-auth, against the team's keys."""
    from fastapi_azure_auth.auth import AzureAuthorizationCodeBearerBase  # noqa: PLC0415

    scheme = AzureAuthorizationCodeBearerBase(
        app_client_id=audience(), tenant_id="acme", openid_config_url=os.environ["BENCH_OPENID"], allow_guest_users=True
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:  # noqa: ARG001
        await scheme.openid_config.load_config()
        yield

    return app_with(scheme, lifespan=lifespan)


APPS: dict[str, Callable[[], FastAPI]] = {
    UNPROTECTED: lambda: app_with(None),
    EMPTY: lambda: app_with(nothing),
    "one dependency, one RSA verification": verifying_a_signature,
    KNOWN: with_user,
    NEW: with_user,
    BOTH: with_router_and_route,
    "this package, policy": with_policy,
    GUARD: with_guard,
    EXEMPT: with_exempt_path,
    PRIVATE: with_private_responses,
    UNCACHED: lambda: with_user(token_cache_size=0),
    "PyJWT, PyJWKClient": pyjwkclient,
    "fastapi-cloudflare-access-jwt": cloudflare_access_jwt,
    "fastapi-azure-auth": azure_auth,
    "Cloudflare's tutorial": tutorial,
}
"""Two are the same app: the tokens that they are sent differ."""


def make() -> FastAPI:
    """Return the app that the environment names."""
    return APPS[os.environ["BENCH_APP"]]()
