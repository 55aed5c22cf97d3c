"""Clients that send requests without a pause: with known, new, forged, expired and revoked tokens."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from math import inf

import httpx
from long_runs.issuing import Issuing, Token
from long_runs.judge import Tally
from long_runs.streams import HEADER

KINDS = {"known": 55, "new": 15, "service": 5, "forged": 15, "expired": 5, "revoked": 5}
"""The kinds of tokens, and how often each one is sent."""
KNOWN = 50
AFTER_EXPIRY = 30.0
"""Seconds of the clock after `exp` from which a token must be refused."""

Sent = tuple[str, str, Callable[[], bool | None]]
"""The kind, the token, and what tells whether it must pass, once the response is there."""


class Requests:
    """The tokens that are sent, and what came back.

    Attributes:
        revoked: Revoked tokens, each with the time from which every worker must refuse it.
    """

    def __init__(self, issuing: Issuing, tally: Tally, ports: Sequence[int]) -> None:
        """Create clients of these ports."""
        self.revoked: deque[tuple[Token, float]] = deque(maxlen=100)
        self._issuing, self._tally, self._ports = issuing, tally, ports
        self._known: dict[str, Token] = {}
        self._expired: deque[Token] = deque(maxlen=100)
        self._count = 0

    async def send(self, *, pause: float) -> None:
        """Send a request after each pause, in seconds of the machine, for ever."""
        limits = httpx.Limits(keepalive_expiry=2.0)
        async with httpx.AsyncClient(limits=limits, timeout=30.0, trust_env=False) as client:
            while True:
                kind = self._issuing.chance.choices(list(KINDS), list(KINDS.values()))[0]
                if sent := self._make(kind):
                    await self._send(client, *sent)
                await asyncio.sleep(pause)

    async def send_unknown_keys(self, *, pause: float) -> None:
        """Send a token of an unknown key after each pause, in seconds of the clock, for ever."""
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=30.0, trust_env=False) as client:
            while True:
                await self._issuing.team.clock.sleep(pause)
                await self._send(client, "of an unknown key", self._issuing.of_unknown_key(), lambda: False)

    async def _send(
        self, client: httpx.AsyncClient, kind: str, token: str, expected: Callable[[], bool | None]
    ) -> None:
        self._count += 1
        port = self._ports[self._count % len(self._ports)]
        try:
            answer = await client.get(f"http://127.0.0.1:{port}/", headers={HEADER: token})
        except httpx.HTTPError as error:
            self._tally.mistake("a connection failed", f"{kind}: {error!r}")
            return
        outcome = "ok" if answer.status_code == 200 else f"{answer.status_code} {answer.headers.get('x-reason', '')}"
        self._tally.response(kind, outcome, expected=expected())

    def _make(self, kind: str) -> Sent | None:
        makers: dict[str, Callable[[], Sent | None]] = {
            "known": self._make_known,
            "new": lambda: self._valid("new", self._issuing.token("new@example.com")),
            "service": lambda: ("service", self._issuing.service_token(), lambda: True),
            "forged": lambda: ("forged", self._issuing.forged()[1], lambda: False),
            "expired": self._make_expired,
            "revoked": self._make_revoked,
        }
        return makers[kind]()

    def _valid(self, kind: str, token: Token) -> Sent:
        return kind, token.text, lambda: self._issuing.is_valid(token)

    def _make_known(self) -> Sent:
        email = f"known-{self._issuing.chance.randrange(KNOWN)}@example.com"
        token = self._known.get(email)
        if token is None or token.ends <= self._issuing.now:
            if token is not None and token.revoked == inf:
                self._expired.append(token)
            token = self._known[email] = self._issuing.token(email, first=True)
        return self._valid("known", token)

    def _make_expired(self) -> Sent | None:
        token = self._issuing.chance.choice(self._expired) if self._expired else None
        if token is None or token.ends + AFTER_EXPIRY > self._issuing.now:
            return None
        return "expired", token.text, lambda: False

    def _make_revoked(self) -> Sent | None:
        for token, since in self.revoked:
            if since < self._issuing.now < token.ends:
                self.revoked.rotate(-1)
                return "revoked", token.text, lambda: False
        return None
