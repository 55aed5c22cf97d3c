"""What an app says to a token: asked of the app's own verifier, over a certs document at hand."""

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


async def judge(
    token: bytes, document: bytes, *, settings: Settings, clock: Clock
) -> UserClaims | ServiceClaims | AccessError:
    """Give the caller that an app with these settings and these certs sees, or the error it refuses with."""
    keys = KeySource(settings, fetch=_fetch_of(document), clock=clock)
    try:
        await keys.refresh()
        parsed = parse(token)
        if keys.get(parsed.kid) is None:
            precheck(parsed, settings=settings, now=clock.now())
            return UnknownKey("the team has no key of that id")
        return await Verifier(settings, keys=keys, user_model=UserClaims).verify(token)
    except AccessError as error:
        return error


def caller_of(claims: UserClaims | ServiceClaims) -> Caller:
    """Say who it is."""
    if isinstance(claims, ServiceClaims):
        return Caller(kind="service", id=claims.common_name, email=None)
    return Caller(kind="user", id=claims.sub, email=claims.email)


def _fetch_of(document: bytes) -> Fetch:
    """Bring the document at hand, without any network."""

    async def body() -> AsyncIterator[bytes]:
        yield document

    @asynccontextmanager
    async def fetch(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:  # noqa: ARG001
        yield FetchResponse(200, {}, body())

    return fetch
