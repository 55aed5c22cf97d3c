"""A team in the place of Cloudflare: an app's own access object verifies its tokens, by its keys and its clock."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, cast

from fastapi_cloudflare_access._issuer import Issuer
from fastapi_cloudflare_access._key_source import KeySource
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import Clock
from fastapi_cloudflare_access.testing.clock import FakeClock
from fastapi_cloudflare_access.testing.fetch import MemoryFetch

T = TypeVar("T")


@contextmanager
def served(team: Issuer, accesses: tuple[CloudflareAccess[Any], ...]) -> Generator[MemoryFetch]:
    """Let `team` stand in for the team that these objects were made for; see `LocalTeam.serve`."""
    _check(accesses)
    certs = MemoryFetch(team)
    with ExitStack() as stack:
        stack.enter_context(_in_the_name_of(team, accesses))
        for keys in {id(access.keys): access.keys for access in accesses}.values():
            stack.enter_context(keys.stand_in(fetch=certs, clock=team.clock))
            stack.enter_context(_waiting_on(team.clock, keys))
            _fetch_in_a_loop_of_its_own(keys)
        certs.requests.clear()
        yield certs


def _fetch_in_a_loop_of_its_own(keys: KeySource) -> None:
    """Have the keys from the start: with seeded ones a refresh would begin at once, and race with the test."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, keys.refresh()).result()


def _check(accesses: tuple[object, ...]) -> None:
    wrong = [type(access).__name__ for access in accesses if not isinstance(access, CloudflareAccess)]
    if wrong or not accesses:
        raise ConfigurationError(
            f"serve takes the CloudflareAccess objects of your app, not {', '.join(wrong) or 'nothing'}"
        )
    issuers = sorted({access.settings.issuer for access in accesses if isinstance(access, CloudflareAccess)})
    if len(issuers) > 1:
        raise ConfigurationError(f"one team cannot stand in for several: {', '.join(issuers)}")


@contextmanager
def _in_the_name_of(team: Issuer, accesses: tuple[CloudflareAccess[Any], ...]) -> Generator[None]:
    before = team.issuer, team.audiences
    team.issuer = accesses[0].settings.issuer
    team.audiences = tuple(dict.fromkeys(tag for access in accesses for tag in access.settings.audience))
    try:
        yield
    finally:
        team.issuer, team.audiences = before


@contextmanager
def _waiting_on(clock: Clock, keys: KeySource) -> Generator[None]:
    """Let a fake clock run for as long as the app waits for keys: nobody else can move it then."""
    waits = ("find", "refresh", "start") if isinstance(clock, FakeClock) else ()
    for name in waits:
        setattr(keys, name, _in_no_time(getattr(keys, name), cast("FakeClock", clock)))
    try:
        yield
    finally:
        for name in waits:
            delattr(keys, name)


def _in_no_time(wait: Callable[..., Awaitable[T]], clock: FakeClock) -> Callable[..., Awaitable[T]]:
    async def move_the_clock(*arguments: str) -> T:
        return await clock.run_until(wait(*arguments))

    return move_the_clock
