"""A key source on a fake clock, over a team's certs in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from support.options import load, no_jitter

from fastapi_cloudflare_access.errors import AccessError
from fastapi_cloudflare_access.events import AccessEvent
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam, MemoryFetch

T = TypeVar("T")


class KeyRig:
    """Everything one test of the key source needs."""

    def __init__(
        self, *, etag: bool = False, headers: dict[str, str] | None = None, jitter: bool = True, **options: Any
    ) -> None:
        self.clock = FakeClock()
        self.team = FakeTeam("acme", clock=self.clock)
        self.certs = MemoryFetch(self.team, etag=etag, headers=headers)
        self.events: list[AccessEvent] = []
        self.settings = load(team_domain=self.team.team_domain, audience=self.team.audience, **options)
        self.keys = KeySource(self.settings, fetch=self.certs, clock=self.clock, listeners=[self.events.append])
        if not jitter:
            self.keys._cache._limiter._uniform = no_jitter

    @property
    def kid(self) -> str:
        """The id of the key that signs."""
        return self.team.current.kid

    @property
    def old_kid(self) -> str:
        """The id of the key that signed before."""
        assert self.team.previous is not None
        return self.team.previous.kid

    def rotate(self) -> str:
        """Rotate and give the id of the new key."""
        self.team.rotate()
        return self.kid

    def names(self) -> list[str]:
        """The names of the events so far."""
        return [event.name for event in self.events]

    def count(self, name: str) -> int:
        """How many events of that name there were."""
        return self.names().count(name)

    def ask(self, kid: str) -> "asyncio.Task[str]":
        """Begin to look for a key; the task says in a word what came of it."""
        return asyncio.ensure_future(outcome(lambda: self.keys.get_or_fetch(kid)))

    async def find(self, kid: str) -> str:
        """Look for a key, moving the clock as far as that takes, and say in a word what came of it."""
        return (await self.find_all(kid))[0]

    async def find_all(self, *kids: str) -> list[str]:
        """The same for many at once."""
        asked = [self.ask(kid) for kid in kids]
        await self.clock.run_for(0)
        while not all(task.done() for task in asked):
            await self.clock.run_for(0.1)
        return [task.result() for task in asked]


async def outcome(call: Callable[[], Awaitable[Any]]) -> str:
    """Say in a word what a call came to: `ok`, or the reason code."""
    try:
        await call()
    except AccessError as refusal:
        return refusal.reason
    return "ok"
