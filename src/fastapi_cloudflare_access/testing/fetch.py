"""The certs endpoint in memory, on the team's clock: no network, no waiting in real time."""

from asyncio import Event
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from math import isinf

from fastapi_cloudflare_access.protocols import Clock, FetchResponse
from fastapi_cloudflare_access.testing.certs import CertsEndpoint
from fastapi_cloudflare_access.testing.endpoint import Answer


class MemoryFetch(CertsEndpoint):
    """A [`Fetch`][fastapi_cloudflare_access.protocols.Fetch] for `CloudflareAccess(fetch=…)`.

    ```python
    team = FakeTeam("acme")
    access = CloudflareAccess(
        team_domain=team.team_domain, audience=team.audience, fetch=MemoryFetch(team), clock=team.clock
    )
    ```
    """

    @asynccontextmanager
    async def __call__(self, url: str, *, headers: Mapping[str, str]) -> AsyncIterator[FetchResponse]:
        """Answer one fetch.

        Raises:
            ConnectionError: A scripted fault resets the connection.
        """
        answer = self.answer(url, headers)
        await _wait(self.team.clock, answer.delay)
        if answer.ending == "refused":
            raise ConnectionResetError("the scripted fault reset the connection")
        yield FetchResponse(answer.status, answer.headers, _body(self.team.clock, answer))


async def _body(clock: Clock, answer: Answer) -> AsyncIterator[bytes]:
    for number, piece in enumerate(answer.pieces):
        if number:
            await _wait(clock, answer.pause)
        yield piece
    if answer.ending == "hang":
        await _wait(clock, float("inf"))
    if answer.ending == "reset":
        raise ConnectionResetError("the scripted fault reset the connection")


async def _wait(clock: Clock, seconds: float) -> None:
    if isinf(seconds):
        await Event().wait()
    if seconds:
        await clock.sleep(seconds)
