"""An object on a clock of its own, and what tests of its streams share."""

import asyncio
from typing import Any

from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._requests.open_streams import TIMER_TASK
from fastapi_cloudflare_access.events import AccessEvent, StreamEnded
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

EMAIL = "ada@example.com"
LIFETIME, LEEWAY = 60, 10
"""Seconds of a token from its issue to `exp`, and after it."""


class Rig:
    """An object on a clock of its own, with connections whose caller it has verified."""

    def __init__(self, *, team_domain: str = "acme", **options: Any) -> None:
        self.team = FakeTeam(team_domain)
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

    def ended(self) -> list[StreamEnded]:
        return [event for event in self.events if isinstance(event, StreamEnded)]


async def wait_forever() -> None:
    await asyncio.Event().wait()


def timers() -> list["asyncio.Task[Any]"]:
    return [task for task in asyncio.all_tasks() if task.get_name() == TIMER_TASK]
