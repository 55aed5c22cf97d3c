"""Replacement of Cloudflare by a team: an app's own access object verifies the team's tokens on the team's clock."""

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, cast

from fastapi_cloudflare_access._identity.source import IdentitySource, Session
from fastapi_cloudflare_access._revocations.source import RevocationSource
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verifier import Verifier
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.claims import UserClaims
from fastapi_cloudflare_access.errors import AccessError, ConfigurationError
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.protocols import Listener
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing._issuer import Issuer
from fastapi_cloudflare_access.testing._memory_revocations import MemoryRevocations
from fastapi_cloudflare_access.testing._replacing import authenticator_of, replaced
from fastapi_cloudflare_access.testing.clock import FakeClock
from fastapi_cloudflare_access.testing.fetch import MemoryFetch

T = TypeVar("T")


@contextmanager
def patched(team: Issuer, accesses: tuple[CloudflareAccess[Any], ...]) -> Generator[MemoryFetch]:
    """Patch these objects to verify the tokens of `team`; see `FakeTeam.patch`."""
    _check_objects(accesses)
    certs = MemoryFetch(team)
    audiences = tuple(dict.fromkeys(tag for access in accesses for tag in access.settings.audience))
    sources: dict[int, KeySource] = {}
    revocations: dict[int, RevocationSource] = {}
    with ExitStack() as stack:
        stack.enter_context(replaced(team, "_made_for", set[str]()))
        stack.enter_context(replaced(team, "issuer", accesses[0].settings.issuer))
        stack.enter_context(replaced(team, "audiences", audiences))
        for access in accesses:
            authenticator = authenticator_of(access)
            if id(access.keys) not in sources:
                sources[id(access.keys)] = _key_source(team, certs, access.settings, authenticator.listeners)
            verifier = _verifier(access, sources[id(access.keys)], certs, authenticator.listeners)
            if authenticator.verifier.revocations is not None:
                shared = id(authenticator.verifier.revocations)
                if shared not in revocations:
                    revocations[shared] = MemoryRevocations(access.settings, team.clock, authenticator.listeners)
                verifier.revocations = revocations[shared]
                verifier.revocations.on_change(authenticator.end_revoked_streams)
            stack.enter_context(replaced(authenticator, "verifier", verifier))
        certs.requests.clear()
        yield certs


def _verifier(
    access: CloudflareAccess[Any], keys: KeySource, fetch: MemoryFetch, listeners: Sequence[Listener]
) -> Verifier[Any]:
    source_type = _FakeClockIdentitySource if isinstance(keys.clock, FakeClock) else IdentitySource
    identities = source_type(access.settings, fetch=fetch, clock=keys.clock, listeners=listeners)
    return Verifier(access.settings, keys=keys, identities=identities, user_model=access.user_model)


def _key_source(team: Issuer, certs: MemoryFetch, settings: Settings, listeners: Sequence[Listener]) -> KeySource:
    """Return a key source with the team's keys already loaded, since a refresh would race with the test."""
    source_type = _FakeClockKeySource if isinstance(team.clock, FakeClock) else KeySource
    keys = source_type(settings, fetch=certs, clock=team.clock, listeners=listeners)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, keys.refresh()).result()
    return keys


class _FakeClockIdentitySource(IdentitySource):
    """An identity source that advances the fake clock while the app waits for an identity."""

    async def _ask(
        self, digest: bytes, token: bytes, user: UserClaims, session: Session | None
    ) -> Identity | AccessError:
        return await cast("FakeClock", self._clock).run_until(super()._ask(digest, token, user, session))


class _FakeClockKeySource(KeySource):
    """A key source that advances the fake clock while the app waits for keys."""

    async def get_or_fetch(self, kid: str) -> RS256Key:
        return await self._run_on_fake_clock(super().get_or_fetch(kid))

    async def refresh(self) -> None:
        await self._run_on_fake_clock(super().refresh())

    async def start(self) -> None:
        await self._run_on_fake_clock(super().start())

    async def fetch_if_unusable(self) -> None:
        await self._run_on_fake_clock(super().fetch_if_unusable())

    async def _run_on_fake_clock(self, work: Coroutine[Any, Any, T]) -> T:
        return await cast("FakeClock", self.clock).run_until(work)


def _check_objects(accesses: tuple[CloudflareAccess[Any], ...]) -> None:
    if not accesses:
        raise ConfigurationError("patch() needs the CloudflareAccess object of your app")
    if not all(isinstance(cast("object", access), CloudflareAccess) for access in accesses):
        raise ConfigurationError("patch() takes CloudflareAccess objects: of first | second patch each one")
    issuers = sorted({access.settings.issuer for access in accesses})
    if len(issuers) > 1:
        raise ConfigurationError(f"one FakeTeam cannot replace several teams: {', '.join(issuers)}")
