"""The apps that are compared, each by its name: the same route, protected in another way.

The environment says which (`BENCH_APP`) and against what: `uvicorn --factory apps:make`.
"""

import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from pydantic_core import from_json
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access._encoding import _BASE64URL
from fastapi_cloudflare_access._signature import RS256Key
from fastapi_cloudflare_access._token import parse


def origin() -> str:
    """The team domain."""
    return os.environ["BENCH_ORIGIN"]


def certs_url() -> str:
    """Where its keys are."""
    return f"{origin()}/cdn-cgi/access/certs"


def audience() -> str:
    """The AUD tag."""
    return os.environ["BENCH_AUDIENCE"]


def app_with(dependency: Callable[..., Any] | None, **options: Any) -> FastAPI:
    """The one route, behind this dependency."""
    app = FastAPI(openapi_url=None, **options)
    if dependency is None:

        @app.get("/")
        async def open_to_all() -> dict[str, bool]:
            return {"ok": True}
    else:

        @app.get("/")
        async def protected(caller: Annotated[Any, Depends(dependency)]) -> dict[str, bool]:
            return {"ok": caller is not None}

    return app


def on_router(dependency: Callable[..., Any], **options: Any) -> FastAPI:
    """The one route, on a router behind this dependency."""
    router = APIRouter(dependencies=[Depends(dependency)])

    @router.get("/")
    async def route() -> dict[str, bool]:
        return {"ok": True}

    app = FastAPI(openapi_url=None, **options)
    app.include_router(router)
    return app


def tree(work: Callable[[], object]) -> Callable[..., Any]:
    """A tree of dependencies of the shape of `access.user`, that does `work` at its root."""

    async def optional(connection: HTTPConnection) -> object:  # noqa: ARG001
        work()
        return True

    async def access(connection: HTTPConnection, caller: Annotated[object, Depends(optional)]) -> object:  # noqa: ARG001
        return caller

    async def user(connection: HTTPConnection, caller: Annotated[object, Depends(access)]) -> object:  # noqa: ARG001
        return caller

    return user


def tree_with_rsa() -> Callable[..., Any]:
    """The same, doing one bare RSA-2048 verification."""
    parsed = parse(os.environ["BENCH_TOKEN"].encode())
    key = RS256Key(**json.loads(os.environ["BENCH_KEY"]))._key.prepared_key  # noqa: SLF001
    padding, digest = PKCS1v15(), SHA256()
    return tree(lambda: key.verify(parsed.signature, parsed.signed, padding, digest))


def tree_with_unchecked_claims() -> Callable[..., Any]:
    """The same, and what makes typed claims of a token by quick means, without a check of them."""
    key = RS256Key(**json.loads(os.environ["BENCH_KEY"]))._key.prepared_key  # noqa: SLF001
    token, padding, digest = os.environ["BENCH_TOKEN"].encode(), PKCS1v15(), SHA256()
    decode, validate = _BASE64URL.validate_json, UserClaims.__pydantic_validator__.validate_python

    def work() -> object:
        signed, _, signature = token.rpartition(b".")
        key.verify(decode(b'"%b"' % signature), signed, padding, digest)
        claims = from_json(decode(b'"%b"' % signed.partition(b".")[2]))
        claims["aud"] = (claims["aud"],)
        return validate(claims)

    return tree(work)


def tree_with_digest() -> Callable[..., Any]:
    """The same, doing one SHA-256 of the token, by which the token cache knows it."""
    token = os.environ["BENCH_TOKEN"].encode()
    return tree(lambda: sha256(token).digest())


def empty_dependencies(number: int) -> FastAPI:
    """So many dependencies, one on the next, that do nothing."""

    async def nothing() -> None:
        return None

    dependency: Callable[..., Any] = nothing
    for _ in range(number - 1):

        async def on_the_next(caller: Annotated[None, Depends(dependency)]) -> None:
            return caller

        dependency = on_the_next
    return app_with(dependency)


def without_verification(node: str) -> FastAPI:
    """This package's tree of dependencies, with everything but the verification of the token."""
    access = ours()

    async def nobody_asks(token: bytes) -> UserClaims:  # noqa: ARG001
        return claims

    claims = UserClaims(iss=origin(), aud=(audience(),), exp=2**32, iat=0, sub="ada")
    verifier: Any = access._verifier  # noqa: SLF001
    access._verifier = _Without(verifier, nobody_asks)  # type: ignore[assignment]  # noqa: SLF001
    return app_with(getattr(access, node) if node else access)


class _Without:
    def __init__(self, verifier: Any, verify: Callable[[bytes], Any]) -> None:
        self.settings, self.keys, self.user_claims = verifier.settings, verifier.keys, verifier.user_claims
        self.verify = verify


def ours(**options: Any) -> CloudflareAccess[UserClaims]:
    """This package, for the team that is served locally."""
    return CloudflareAccess(team_domain=origin(), audience=audience(), **options)


def with_user(**options: Any) -> FastAPI:
    """This package's dependency on the route."""
    access = ours(**options)
    return app_with(access.user, lifespan=access.lifespan)


def with_router() -> FastAPI:
    """This package's dependency on a router."""
    access = ours()
    return on_router(access.user, lifespan=access.lifespan)


def with_policy() -> FastAPI:
    """This package's dependency with a policy."""
    access = ours()
    return app_with(access.require(lambda caller: "@" in caller.email), lifespan=access.lifespan)


def with_guard() -> FastAPI:
    """This package's middleware."""
    from fastapi_cloudflare_access.guard import AccessGuard  # noqa: PLC0415

    access = ours()
    app = app_with(None, lifespan=access.lifespan)
    app.add_middleware(AccessGuard, access=access)
    return app


def pyjwkclient() -> FastAPI:
    """PyJWT's `PyJWKClient` in a plain function, as most people write it."""
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
    """Cloudflare's tutorial for FastAPI, repaired so far that a token of the second key passes."""
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
    """The package fastapi-cloudflare-access-jwt."""
    from cloudflare_access_jwt import CloudflareAccessJWT  # noqa: PLC0415
    from loguru import logger  # noqa: PLC0415

    logger.remove()
    return app_with(CloudflareAccessJWT(certs_url=certs_url(), policy_aud=audience()))


def azure_auth() -> FastAPI:
    """The verification of fastapi-azure-auth, against the team's keys."""
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
    "unprotected": lambda: app_with(None),
    "empty tree": lambda: app_with(tree(lambda: None)),
    "empty tree, one RSA": lambda: app_with(tree_with_rsa()),
    "empty tree, one RSA, router": lambda: on_router(tree_with_rsa()),
    "empty tree, unchecked claims": lambda: app_with(tree_with_unchecked_claims()),
    "empty tree, one SHA-256": lambda: app_with(tree_with_digest()),
    "this package": with_user,
    "this package, token cache": lambda: with_user(token_cache_size=1000),
    "this package, router": with_router,
    "this package, policy": with_policy,
    "this package, guard": with_guard,
    "sync PyJWKClient": pyjwkclient,
    "fastapi-cloudflare-access-jwt": cloudflare_access_jwt,
    "fastapi-azure-auth": azure_auth,
    "Cloudflare's tutorial": tutorial,
}


TREES: dict[str, Callable[[], FastAPI]] = {
    "one empty dependency": lambda: empty_dependencies(1),
    "two empty dependencies": lambda: empty_dependencies(2),
    "three empty dependencies": lambda: empty_dependencies(3),
    "tree of access.optional": lambda: without_verification("optional"),
    "tree of access": lambda: without_verification(""),
    "tree of access.user": lambda: without_verification("user"),
}
"""Measured through ASGI only."""


def make() -> FastAPI:
    """The app that the environment names."""
    return APPS[os.environ["BENCH_APP"]]()
