"""An object that a listener measures, and what happens to it in a short life."""

from typing import Any

import pytest
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.errors import AccessError
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

TEAM = "https://acme.cloudflareaccess.com"


class Rig:
    """An object on a clock of its own, with the listeners that it is given."""

    def __init__(self, *listeners: Any, team: str = "acme", **options: Any) -> None:
        self.team = FakeTeam(team)
        self.clock = self.team.clock
        self.certs = MemoryFetch(self.team)
        self.access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain=team,
            audience=self.team.audience,
            fetch=self.certs,
            clock=self.clock,
            listeners=listeners,
            **options,
        )

    def connection(self, token: str | None, *, cookie: bool = False) -> HTTPConnection:
        name, value = ("cookie", f"CF_Authorization={token}") if cookie else ("cf-access-jwt-assertion", token or "")
        headers = [] if token is None else [(name.encode(), value.encode())]
        return HTTPConnection({"type": "http", "method": "GET", "path": "/", "headers": headers})

    async def ask(self, token: str | None, dependency: Any = None) -> str:
        """Send a request to a route with a dependency; return the reason code, or `ok`."""
        try:
            await (dependency or self.access.user)(connection=self.connection(token))
        except Exception as refusal:  # noqa: BLE001 - an HTTP exception
            error: AccessError = getattr(refusal, "error")  # noqa: B009
            return error.reason
        return "ok"

    async def live(self) -> None:
        """Do what happens to an app: requests of all kinds, a rotation, an outage, a flood, and an identity."""
        ada, bot = self.team.user_token("ada@example.com"), self.team.service_token("bot")
        await self.clock.run_until(self.access.keys.refresh())
        assert [await self.ask(token) for token in (ada, ada, ada, bot)] == ["ok", "ok", "ok", "wrong_caller"]
        assert await self.ask(self.team.forge("expired")) == "token_expired"
        assert await self.ask(None) == "missing_token"
        assert await self.ask(ada, self.access.require(_nobody)) == "forbidden"
        self.team.rotate()
        await self.clock.run_until(self.access.keys.refresh())
        self.certs.fail_with(500)
        with pytest.raises(AccessError):
            await self.clock.run_until(self.access.keys.refresh())
        unknown = self.team.forge("unknown_kid")
        assert await self.clock.run_until(self.ask(unknown)) == "key_unconfirmed"


def _nobody(caller: object) -> bool:
    return not isinstance(caller, UserClaims)
