"""Objects on one fake clock, as the workers of a fleet, and a store of revocations that can break."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Self

from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import AccessHTTPException, CloudflareAccess
from fastapi_cloudflare_access._clock import wait_until_done
from fastapi_cloudflare_access._revocations.record import MICROSECONDS, Record
from fastapi_cloudflare_access.events import AccessEvent
from fastapi_cloudflare_access.protocols import Clock, LogPage
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam, MemoryFetch

SECRET = "a secret of the store, for tests only"
ADA, BOB = "ada@example.com", "bob@example.com"
HOUR = timedelta(hours=1)
NOW = int(FakeClock().now())
PAGE = 3


def record(action: Any = "log_out", kind: Any = "sub", key: str = "ada", at: float = 0, until: float = 0) -> Record:
    """A record of some seconds after the beginning of the fake clock."""
    ends = NOW + int(until) if action == "block" else 0
    return Record(action, kind, key, int((NOW + at) * MICROSECONDS), ends)


class BreakableStore:
    """A store in memory that can lose, forge and withhold records, fail and hang."""

    def __init__(self, clock: Clock, *, secret: Any = SECRET) -> None:
        self.secret = secret
        self.clock = clock
        self.epoch = "first"
        self.skew = 0.0
        self.problem: BaseException | None = None
        self.write_problem: BaseException | None = None
        self.hangs = False
        self.reads = self.writes = self.attempts = 0
        self.keep: list[float] = []
        self.logs: dict[str, list[tuple[str, bytes]]] = {}
        self._ids = 0
        self._added = asyncio.Event()

    async def time(self) -> float:
        await self._break()
        return self.clock.now() + self.skew

    async def append(self, team: str, records: Sequence[bytes], *, keep: float) -> None:
        await self._break()
        self.attempts += 1
        if self.write_problem:
            raise self.write_problem
        self.writes += 1
        self.keep.append(keep)
        self.plant(*records, team=team)

    async def read(self, team: str, *, after: str | None) -> AsyncGenerator[LogPage]:
        while True:
            await self._break()
            self.reads += 1
            log = self.logs.setdefault(team, [])
            ids = [one for one, _ in log]
            has_gap = after is not None and after not in ids
            start = ids.index(after) + 1 if after in ids else 0
            found = log[start : start + PAGE]
            after = found[-1][0] if found else after
            is_end = len(found) < PAGE
            yield LogPage([each for _, each in found], after, is_end=is_end, has_gap=has_gap, epoch=self.epoch)
            if is_end:
                self._added.clear()
                waiting = asyncio.ensure_future(self._added.wait())
                await wait_until_done(self.clock, waiting, timeout=0.5)
                waiting.cancel()

    async def _break(self) -> None:
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        if self.problem:
            raise self.problem

    def plant(self, *records: bytes, team: str = "acme.cloudflareaccess.com") -> None:
        """Add records without asking."""
        for each in records:
            self._ids += 1
            self.logs.setdefault(team, []).append((str(self._ids), each))
        self._added.set()

    def lose(self, *, keep: int = 0, team: str = "acme.cloudflareaccess.com") -> None:
        """Lose all records but the first ones, and restart."""
        self.logs[team] = self.logs.get(team, [])[:keep]
        self.epoch += "'"
        self._added.set()

    async def restart(self) -> None:
        """Interrupt all readers."""
        self.problem = ConnectionError()
        self._added.set()
        for _ in range(20):
            await asyncio.sleep(0)
        self.problem = None

    def content(self, team: str = "acme.cloudflareaccess.com") -> list[bytes]:
        return [each for _, each in self.logs.get(team, [])]


class RevocationRig:
    """The workers of a fleet: objects over one store, each with a table of its own."""

    def __init__(self, *, unavailable: Any = "closed") -> None:
        self.team = FakeTeam("acme")
        self.clock = self.team.clock
        self.store = BreakableStore(self.clock)
        self.unavailable = unavailable
        self.events: list[AccessEvent] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.store.hangs = False
        await self.clock.run_until(self._stack.aclose())

    def make(self, **options: Any) -> CloudflareAccess[Any]:
        """Make an object that nothing keeps fresh."""
        given: dict[str, Any] = {
            "team_domain": "acme",
            "audience": self.team.audience,
            "fetch": MemoryFetch(self.team),
            "clock": self.clock,
            "listeners": [self.events.append],
            "revocation_store": self.store,
            "revocations_unavailable": self.unavailable,
        }
        return CloudflareAccess(**{**given, **options})

    async def worker(self, **options: Any) -> CloudflareAccess[Any]:
        """Start an object, as the lifespan does."""
        access = self.make(**options)
        await self.clock.run_until(self._stack.enter_async_context(access))
        await self.clock.run_for(1.1)  # the first one then says that the log is complete
        return access

    async def workers(self, number: int) -> list[CloudflareAccess[Any]]:
        return [await self.worker() for _ in range(number)]

    def token(self, email: str = ADA, **options: Any) -> str:
        return self.team.user_token(email, **options)

    def connection(self, token: str, *, kind: str = "http", source: str = "header") -> HTTPConnection:
        name, value = ("cf-access-jwt-assertion", "{}") if source == "header" else ("cookie", "CF_Authorization={}")
        headers = [(name.encode(), value.format(token).encode())]
        return HTTPConnection({"type": kind, "headers": headers, "path": "/", "extensions": {}})

    async def outcome(self, access: Any, token: str, **options: Any) -> str:
        """Return `ok`, or the reason code of the refusal."""
        try:
            await self.clock.run_until(access.authenticate(self.connection(token, **options)))
        except AccessHTTPException as refused:
            return refused.error.reason
        return "ok"

    async def do(self, work: Any) -> Any:
        return await self.clock.run_until(work)

    def named(self, name: str) -> list[Any]:
        return [event for event in self.events if event.name == name]


def source_of(access: Any) -> Any:
    return access._authenticator.verifier.revocations


def signed(access: Any, each: Any) -> bytes:
    """Return the record as this object would sign it."""
    made: bytes = source_of(access)._records.sign(each)
    return made
