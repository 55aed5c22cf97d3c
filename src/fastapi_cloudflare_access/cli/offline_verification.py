"""Verification of a token by the app's own verifier, with a given certs document."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi_cloudflare_access._verification.token import parse, precheck
from fastapi_cloudflare_access._verifier import Verifier
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.cli.reports import Caller
from fastapi_cloudflare_access.errors import AccessError, UnknownKey
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.protocols import Clock, Fetch, FetchResponse
from fastapi_cloudflare_access.settings import Settings


async def verify_offline(
    token: bytes, document: bytes, *, settings: Settings, clock: Clock
) -> UserClaims | ServiceClaims | AccessError:
    """Return the caller that an app with these settings and certs accepts, or the error it raises."""
    keys = KeySource(settings, fetch=_static_fetch(document), clock=clock)
    try:
        await keys.refresh()
        parsed = parse(token)
        if keys.get(parsed.kid) is None:
            precheck(parsed, settings=settings, now=clock.now())
            return UnknownKey("the team has no key of that id")
        return await Verifier(settings, keys=keys, user_model=UserClaims).verify(token)
    except AccessError as error:
        return error


def describe_caller(claims: UserClaims | ServiceClaims) -> Caller:
    """Describe a verified caller."""
    if isinstance(claims, ServiceClaims):
        return Caller(kind="service", id=claims.common_name, email=None)
    return Caller(kind="user", id=claims.sub, email=claims.email)


def _static_fetch(document: bytes) -> Fetch:
    """Return a fetch that returns this document without a network."""

    async def body() -> AsyncIterator[bytes]:
        yield document

    @asynccontextmanager
    async def fetch(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:  # noqa: ARG001
        yield FetchResponse(200, {}, body())

    return fetch
