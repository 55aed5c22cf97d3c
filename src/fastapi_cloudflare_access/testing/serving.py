"""A team in the place of Cloudflare: an app's own access object verifies its tokens, by its keys and its clock."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

from fastapi_cloudflare_access._issuer import Issuer
from fastapi_cloudflare_access._key_source import KeySource
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import Clock
from fastapi_cloudflare_access.testing._replacing import replaced
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
            stand_in = keys.stand_in(fetch=certs, clock=team.clock)
            waits = _waits(stand_in, team.clock)
            stack.enter_context(replaced(keys, {**vars(stand_in), **waits}))
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


def _in_the_name_of(team: Issuer, accesses: tuple[CloudflareAccess[Any], ...]) -> AbstractContextManager[None]:
    audiences = dict.fromkeys(tag for access in accesses for tag in access.settings.audience)
    return replaced(team, {"issuer": accesses[0].settings.issuer, "audiences": tuple(audiences)})


def _waits(keys: KeySource, clock: Clock) -> dict[str, Callable[..., Awaitable[Any]]]:
    """Let a fake clock run for as long as the app waits for keys: nobody else can move it then."""
    if not isinstance(clock, FakeClock):
        return {}
    return {wait.__name__: _in_no_time(wait, clock) for wait in (keys.find, keys.refresh, keys.start)}


def _in_no_time(wait: Callable[..., Awaitable[T]], clock: FakeClock) -> Callable[..., Awaitable[T]]:
    async def move_the_clock(*arguments: str) -> T:
        return await clock.run_until(wait(*arguments))

    return move_the_clock
