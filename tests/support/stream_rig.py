"""An object on a clock of its own, and what tests of its streams share."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._requests.open_streams import TIMER_TASK
from fastapi_cloudflare_access.events import AccessEvent, StreamEnded
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam, MemoryFetch

T = TypeVar("T")

EMAIL = "ada@example.com"
LIFETIME, LEEWAY = 60, 10
"""Seconds of a token from its issue to `exp`, and after it."""
PATIENCE = 1000
"""Seconds on the clock after which a stream that should end, and does not, fails the test."""


class BoundedClock(FakeClock):
    """A clock that waits for nothing without an end."""

    async def run_until(self, work: Awaitable[T]) -> T:
        """Return the result of the work; fail if nothing that sleeps on this clock can end it."""
        task, end = asyncio.ensure_future(work), self.monotonic() + PATIENCE
        try:
            await self.run_for(0)
            while not task.done():
                due = self._next_due()
                assert due < end, "it goes on without an end"
                await self.run_for(due - self.monotonic())
            return task.result()
        finally:
            task.cancel()


class Rig:
    """An object on a clock of its own, with connections whose caller it has verified."""

    def __init__(self, *, team_domain: str = "acme", **options: Any) -> None:
        self.team = FakeTeam(team_domain, clock=BoundedClock())
        self.clock = self.team.clock
        self.events: list[AccessEvent] = []
        self.certs = MemoryFetch(self.team)
        given: dict[str, Any] = {"fetch": self.certs, "clock": self.clock, "listeners": [self.events.append], **options}
        self.access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain=self.team.team_domain, audience=self.team.audience, **given
        )

    def token(self, email: str = EMAIL, *, expires_in: int = LIFETIME, **options: Any) -> str:
        return self.team.user_token(email, expires_in=expires_in, **options)

    def connection(self, token: str | None, *, kind: str = "http", source: str = "header") -> HTTPConnection:
        name, value = ("cf-access-jwt-assertion", "{}") if source == "header" else ("cookie", "CF_Authorization={}")
        headers = [(name.encode(), value.format(token).encode())] if token else []
        return HTTPConnection({"type": kind, "headers": headers, "path": "/", "extensions": {}})

    async def caller(self, *, kind: str = "http", **options: Any) -> Any:
        return await self.access.authenticate(self.connection(self.token(**options), kind=kind))

    async def finish(self, task: "asyncio.Task[T]") -> T:
        """Return the result of a task that needs no more time to end."""
        await self.clock.run_for(0)
        assert task.done(), "it goes on"
        return task.result()

    def ended(self) -> list[StreamEnded]:
        return [event for event in self.events if isinstance(event, StreamEnded)]


async def wait_forever() -> None:
    await asyncio.Event().wait()


def timers() -> list["asyncio.Task[Any]"]:
    return [task for task in asyncio.all_tasks() if task.get_name() == TIMER_TASK]
