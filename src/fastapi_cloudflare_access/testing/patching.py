"""A team in the place of Cloudflare: an app's own access object verifies its tokens, by its keys and its clock."""

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, cast

from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verifier import Verifier
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.protocols import Listener
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing._issuer import Issuer
from fastapi_cloudflare_access.testing._replacing import authenticator_of, replaced
from fastapi_cloudflare_access.testing.clock import FakeClock
from fastapi_cloudflare_access.testing.fetch import MemoryFetch

T = TypeVar("T")


@contextmanager
def patched(team: Issuer, accesses: tuple[CloudflareAccess[Any], ...]) -> Generator[MemoryFetch]:
    """Let these objects verify the tokens of `team`; see `FakeTeam.patch`."""
    _check(accesses)
    certs = MemoryFetch(team)
    audiences = tuple(dict.fromkeys(tag for access in accesses for tag in access.settings.audience))
    sources: dict[int, KeySource] = {}
    with ExitStack() as stack:
        stack.enter_context(replaced(team, "issuer", accesses[0].settings.issuer))
        stack.enter_context(replaced(team, "audiences", audiences))
        for access in accesses:
            authenticator = authenticator_of(access)
            if id(access.keys) not in sources:
                sources[id(access.keys)] = _keys_of(team, certs, access.settings, authenticator.listeners)
            verifier = Verifier(access.settings, keys=sources[id(access.keys)], user_model=access.user_model)
            stack.enter_context(replaced(authenticator, "verifier", verifier))
        certs.requests.clear()
        yield certs


def _keys_of(team: Issuer, certs: MemoryFetch, settings: Settings, listeners: Sequence[Listener]) -> KeySource:
    """Return a key source that has the keys of the team already: a refresh would race with the test."""
    kind = _KeysOnAFakeClock if isinstance(team.clock, FakeClock) else KeySource
    keys = kind(settings, fetch=certs, clock=team.clock, listeners=listeners)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, keys.refresh()).result()
    return keys


class _KeysOnAFakeClock(KeySource):
    """A key source that lets the fake clock run while the app waits for keys: nothing else can move it then."""

    async def get_or_fetch(self, kid: str) -> RS256Key:
        return await self._in_no_time(super().get_or_fetch(kid))

    async def refresh(self) -> None:
        await self._in_no_time(super().refresh())

    async def start(self) -> None:
        await self._in_no_time(super().start())

    async def fetch_if_unusable(self) -> None:
        await self._in_no_time(super().fetch_if_unusable())

    async def _in_no_time(self, wait: Coroutine[Any, Any, T]) -> T:
        return await cast("FakeClock", self.clock).run_until(wait)


def _check(accesses: tuple[object, ...]) -> None:
    wrong = [type(access).__name__ for access in accesses if not isinstance(access, CloudflareAccess)]
    if wrong or not accesses:
        raise ConfigurationError(
            f"patch takes the CloudflareAccess objects of your app, not {', '.join(wrong) or 'nothing'}"
        )
    issuers = sorted({access.settings.issuer for access in accesses if isinstance(access, CloudflareAccess)})
    if len(issuers) > 1:
        raise ConfigurationError(f"one team cannot stand in for several: {', '.join(issuers)}")
