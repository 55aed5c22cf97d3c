"""What happens in a long run, and when."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count

import httpx
from long_runs.issuing import Issuing
from long_runs.judge import Tally
from long_runs.requests import Requests
from long_runs.streams import HEADER, Streams
from support.redis_server import RedisServer

from fastapi_cloudflare_access.testing import CertsServer

CYCLE = 2 * 3600.0
"""Seconds of the clock in which everything happens once."""
ACTIONS = ("log_out", "revoke", "block")
VICTIMS, TRIES, LONG_TRIES = 3, 20, 120
ONCE = httpx.Limits(max_keepalive_connections=0)
"""A server may close a connection that waits, just when the next request is sent on it."""


@dataclass
class Plan:
    """The events of a run.

    Attributes:
        issuing: The edge.
        certs: The certs endpoint of the team's new name.
        redis: The store.
        streams: The streams, some of whose users are revoked.
        requests: The requests, in which revoked tokens are sent again.
        tally: Receives what goes wrong.
        ports: The ports of the workers.
        cycle: Seconds of the clock of one cycle.
        settling: Seconds of the clock after which every worker must know a revocation.
    """

    issuing: Issuing
    certs: CertsServer
    redis: RedisServer
    streams: Streams
    requests: Requests
    tally: Tally
    ports: list[int]
    cycle: float
    settling: float
    _happening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _begin: float = 0.0

    def events(self, issuer: str, *, has_renamed: bool) -> list[tuple[float, str, Callable[[], Awaitable[None]]]]:
        """Return the events of a cycle: each with its fraction of the cycle, and its name."""
        return [
            (0.04, "revocations", self.revoke),
            (0.08, "a planned rotation: the new key is published", self.publish),
            (0.20, "the new key signs", self.sign_with_new),
            (0.27, "the certs endpoint answers 503", lambda: self.fail(self.certs.fail_with)),
            (0.38, "the certs endpoint works again", self._calling(self.certs.recover)),
            (0.40, "Redis restarts, and loses everything", self.restart_redis),
            (0.44, "revocations", self.revoke),
            (
                0.48,
                "the same name" if has_renamed else "the team is renamed",
                self._calling(lambda: self.rename(issuer)),
            ),
            (0.62, "a rotation by hand: the new key signs at once", self.rotate),
            (0.72, "the certs endpoint hangs", lambda: self.fail(self.certs.hang)),
            (0.80, "the certs endpoint works again", self._calling(self.certs.recover)),
            (0.84, "revocations", self.revoke),
            (0.92, "Redis is away for a while", lambda: self.restart_redis(min(60.0, self.cycle / 20))),
        ]

    async def run(self, issuer: str, report: Callable[[str], None]) -> None:
        """Let everything happen, cycle after cycle; in the first one the team takes the name `issuer`."""
        self._begin = self.issuing.team.clock.monotonic()
        for number in count():
            for at, name, happen in self.events(issuer, has_renamed=number > 0):
                await self._wait_until((number + at) * self.cycle)
                async with self._happening:
                    report(name)
                    self.tally.moment = name
                    await happen()

    async def _wait_until(self, at: float) -> None:
        clock = self.issuing.team.clock
        while (seconds := self._begin + at - clock.monotonic()) > 0:
            await clock.sleep(seconds)

    @asynccontextmanager
    async def pause(self) -> AsyncGenerator[None]:
        """Let nothing happen, and go on where the plan was."""
        clock = self.issuing.team.clock
        async with self._happening:
            began = clock.monotonic()
            yield
            self._begin += clock.monotonic() - began

    async def publish(self) -> None:
        """Publish a new key, and go on signing with the one that signs; no worker is still in a back-off."""
        async with httpx.AsyncClient(limits=ONCE, timeout=30.0, trust_env=False) as client:
            for port in self.ports:
                await self._wait_for_fetch(client, port)
        await asyncio.to_thread(self.issuing.team.rotate)

    async def sign_with_new(self) -> None:
        """Sign with the key that was published last."""
        self.issuing.signer = self.issuing.team.current

    async def rotate(self) -> None:
        """Publish a new key, and sign with it at once."""
        await self.publish()
        await self.sign_with_new()

    async def fail(self, fault: Callable[[], None]) -> None:
        """Let the certs endpoint fail, once every worker has the key that signs."""
        async with httpx.AsyncClient(limits=ONCE, timeout=30.0, trust_env=False) as client:
            for port in self.ports:
                await self._wait_for_key(client, port)
        fault()

    async def _wait_for_fetch(self, client: httpx.AsyncClient, port: int) -> None:
        for _ in range(LONG_TRIES):
            if not (await client.get(f"http://127.0.0.1:{port}/state")).json()["keys"]["consecutive_failures"]:
                return
            await asyncio.sleep(0.5)
        self.tally.mistake("a worker does not fetch the keys again", f"port {port}")

    async def _wait_for_key(self, client: httpx.AsyncClient, port: int) -> None:
        for _ in range(TRIES):
            headers = {HEADER: self.issuing.service_token()}
            if (await client.get(f"http://127.0.0.1:{port}/", headers=headers)).status_code == HTTPStatus.OK:
                return
            await asyncio.sleep(0.5)
        self.tally.mistake("a worker does not have the key that signs", f"port {port}")

    def rename(self, issuer: str) -> None:
        """Write another issuer into new tokens."""
        self.issuing.team.issuer = issuer

    async def restart_redis(self, seconds: float = 0.0) -> None:
        """Kill Redis, which keeps nothing on disk, and start it after so many seconds of the clock."""
        await asyncio.to_thread(self.redis.kill)
        await self.issuing.team.clock.sleep(seconds)
        await asyncio.to_thread(self.redis.start)

    async def revoke(self) -> None:
        """Revoke tokens of streams that are open, each in another way, through a worker."""
        numbers = sorted(self.streams.tokens)
        chosen = self.issuing.chance.sample(numbers, min(VICTIMS, len(numbers)))
        async with httpx.AsyncClient(limits=ONCE, timeout=30.0, trust_env=False) as client:
            for action, number in zip(ACTIONS, chosen, strict=False):
                await self._revoke(client, action, number)

    async def _revoke(self, client: httpx.AsyncClient, action: str, number: int) -> None:
        if (token := self.streams.tokens.get(number)) is None:
            return
        seconds = float(max(2, int(self.cycle / 50)))
        self.issuing.begin_revocation(token, action)
        query = {"action": action, "token": token.text, "email": token.email, "seconds": str(seconds)}
        port, answer = self.issuing.chance.choice(self.ports), ""
        for _ in range(TRIES):  # as an operator does, since the limit of the store is short on this clock
            answer = (await client.post(f"http://127.0.0.1:{port}/revoke", params=query)).text
            if answer != '"revocations_unavailable"':
                break
        self.issuing.end_revocation(token, action, seconds)
        if answer != '"ok"':
            self.tally.mistake("a revocation failed", f"{action}: {answer[:80]}")
        elif action != "block":
            self.requests.revoked.append((token, self.issuing.now + self.settling))

    @staticmethod
    def _calling(function: Callable[[], None]) -> Callable[[], Awaitable[None]]:
        async def call() -> None:
            function()

        return call
