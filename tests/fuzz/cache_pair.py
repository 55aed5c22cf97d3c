"""A verifier with the cache and one without it, on one clock, asked the same at the same time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator
from support.options import grouped, no_jitter

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access._verifier import Verifier
from fastapi_cloudflare_access.errors import AccessError, TemporarilyUnavailable
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam, MemoryFetch
from fastapi_cloudflare_access.testing._issuer import compact_json

Step = tuple[Any, ...]

MAX_ROTATIONS = 3  # each needs an RSA key, which the process keeps
MAX_ISSUES = 3
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=é"


class Groups(BaseModel):
    groups: list[str] = []


class LooseClaims(UserClaims):
    """A model that a handler can change."""

    model_config = ConfigDict(frozen=False)
    custom: Groups = Groups()


@dataclass
class Mood:
    """What the validator of a model remembers, for one access object."""

    visits: int = 0
    refuses: bool = False


mood: ContextVar[Mood] = ContextVar("mood")


class MoodyClaims(LooseClaims):
    """A model with state: what it says depends on how often it was asked, and sometimes it refuses."""

    visits: int = 0
    _notes: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _visit(self) -> "MoodyClaims":
        state = mood.get()
        state.visits += 1
        if state.refuses:
            raise ValueError("not now")
        self.visits = state.visits
        self._notes.append(f"visit {state.visits}")
        return self


class Rig:
    """One access object over a team on a fake clock, and a copy of it for a second audience."""

    def __init__(self, *, size: int = 8, clock: FakeClock | None = None, **options: Any) -> None:
        self.team = FakeTeam("acme", audience=["first", "second"], clock=clock or FakeClock())
        self.certs = MemoryFetch(self.team)
        given: dict[str, Any] = {"user_model": UserClaims, "token_cache_size": size}
        self.access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain=self.team.team_domain,
            audience=self.team.audience,
            fetch=self.certs,
            clock=self.team.clock,
            **grouped(given | options),
        )
        self.copy = self.access.with_audience("second")
        self.mood = Mood()
        self.access.keys._cache._limiter._uniform = no_jitter

    @property
    def verifier(self) -> Verifier[Any]:
        return self.access._authenticator.verifier

    async def verify(self, token: str, audience: int = 0) -> Any:
        """Return the caller, moving the clock as far as looking for a key takes."""
        return await self.clock.run_until(self.begin(token, audience))

    async def begin(self, token: str, audience: int = 0) -> Any:
        mood.set(self.mood)
        access = self.copy if audience else self.access
        return await access._authenticator.verifier.verify(token.encode())

    @property
    def clock(self) -> FakeClock:
        assert isinstance(self.team.clock, FakeClock)
        return self.team.clock

    async def answers(self, asked: Sequence[tuple[str, int]]) -> list[object]:
        """Return what is told about each token, asked for at the same time."""
        return await asyncio.gather(*(self.answer(token, audience) for token, audience in asked))

    async def answer(self, token: str, audience: int) -> object:
        """Return all that an answer says; then change the claims, as a careless handler might."""
        try:
            caller = await self.begin(token, audience)
        except AccessError as refusal:
            retry_after = refusal.retry_after if isinstance(refusal, TemporarilyUnavailable) else None
            return type(refusal), str(refusal), refusal.reason, refusal.unverified, retry_after
        told = Told(caller)
        spoil(caller)
        return told


class Told:
    """A caller as it was when it was given."""

    def __init__(self, caller: UserClaims | ServiceClaims) -> None:
        self.caller = caller.model_copy(deep=True)
        self.said = (
            type(caller),
            {name: (type(value), value) for name, value in caller.model_dump().items()},
            caller.model_dump_json(),
            caller.model_dump_json(exclude_unset=True),
            {*caller.model_fields_set},
            {**caller.model_extra},
            {**vars(self.caller)},
            caller.principal,
            repr(caller),
            deepcopy(caller.__pydantic_private__),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Told) and self.caller == other.caller and self.said == other.said

    def __hash__(self) -> int:
        return hash(self.caller.principal)

    def __repr__(self) -> str:
        return f"Told({self.said})"


def spoil(caller: UserClaims | ServiceClaims) -> None:
    """Change the claims as far as they can be changed."""
    if not isinstance(caller, LooseClaims):
        assert type(caller) in (UserClaims, ServiceClaims)
        return
    caller.custom.groups.append("admins")
    caller.email = "root@example.com"
    caller.__pydantic_fields_set__.clear()
    vars(caller)["sub"] = "root"
    if isinstance(caller, MoodyClaims):
        caller._notes.append("spoilt")


def replaced(token: str, place: int, letter: str) -> str:
    at = place % len(token)
    return token[:at] + letter + token[at + 1 :]


class Pair:
    """Two access objects that differ in their cache alone."""

    def __init__(self, model: type[UserClaims], *, size: int = 3) -> None:
        self.clock = FakeClock()
        options = {"max_staleness": 7200, "user_model": model}
        self.cached = Rig(clock=self.clock, size=size, **options)
        self.plain = Rig(clock=self.clock, size=0, **options)
        self.rigs = (self.cached, self.plain)
        assert self.cached.verifier._cache is not None
        assert self.plain.verifier._cache is None
        self.tokens: list[str] = []
        self.documents = [(self.cached.team.certs_body(), self.clock.now())]
        self.rotations = self.issues = 0
        self.keys = [*self.cached.team.keys]
        self.issue()
        self.last = self.tokens[0]
        for rig in self.rigs:
            rig.access.keys._cache._limiter._uniform = max  # chance would tell them apart

    @asynccontextmanager
    async def started(self, *, background: bool) -> AsyncIterator["Pair"]:
        """Refresh the keys in the background within the context, or only on the way of requests."""
        if not background:
            yield self
            return
        await self.together(lambda rig: rig.access.keys.start())
        try:
            yield self
        finally:
            await self.together(lambda rig: rig.access.keys.stop())

    def issue(self) -> None:
        """Add tokens of this moment, good and bad."""
        if self.issues >= MAX_ISSUES:
            return
        self.issues += 1
        team, now = self.cached.team, int(self.clock.now())
        ada = team.user_token("ada@example.com", groups=["engines", "b"], claims={"aud": ["first", "second"]})
        body, _, signature = ada.rpartition(".")
        self.tokens += [
            ada,
            team.user_token("bob@example.com", expires_in=40),
            team.service_token("bot", expires_in=900),
            team.service_token("bot", audience="second", claims={"seen": {"x": [1]}}),
            team.user_token("old@example.com", key=team.previous or team.current),
            team.user_token("sue@example.com", audience="second", custom={"groups": "all"}),
            team.user_token("eve@example.com", claims={"aud": ["elsewhere"]}),
            team.user_token("eve@example.com", claims={"nbf": now + 100}),
            team.user_token("eve@example.com", claims={"iat": now + 31, "x": [1, {"y": 2}]}),
            f"{body}.{signature[::-1]}",
        ]

    async def together(self, call: Callable[[Rig], Awaitable[Any]]) -> None:
        """Do the same to both at the same time, and check that the same came of it."""
        results: list[Any] = await self.clock.run_until(
            asyncio.gather(*(call(rig) for rig in self.rigs), return_exceptions=True)
        )
        cached, plain = ((type(result), str(result)) if isinstance(result, Exception) else result for result in results)
        assert cached == plain

    def both(self, act: Callable[[Rig], object]) -> None:
        for rig in self.rigs:
            act(rig)

    async def do(self, step: Step) -> None:
        """Do one step, and check that neither an answer nor the state of the keys tells the two apart."""
        await getattr(self, f"do_{step[0]}")(*step[1:])
        cached, plain = (rig.access.keys.health() for rig in self.rigs)
        assert cached == plain
        for access in (self.cached.access, self.cached.copy):
            kept = access._authenticator.verifier._cache
            assert kept is not None
            assert len(kept._entries) <= access.settings.token_cache_size

    async def ask(self, asked: Sequence[tuple[str, int]]) -> None:
        self.last = asked[0][0]
        await self.together(lambda rig: rig.answers(asked))

    async def do_ask(self, number: int, audience: int, times: int = 1) -> None:
        await self.ask([(self.token(number), audience)] * times)

    async def do_ask_both(self, number: int, other: int) -> None:
        """Ask with two tokens at the same time, for both audiences."""
        await self.ask([(token, audience) for token in (self.token(number), self.token(other)) for audience in (0, 1)])

    async def do_again(self, audience: int) -> None:
        """Ask with the token that was used last."""
        await self.ask([(self.last, audience)])

    async def do_corrupt(self, number: int, place: int, letter: str) -> None:
        """Ask with a token of which one character was replaced."""
        await self.ask([(replaced(self.token(number), place, letter), 0)])

    async def do_sweep(self, number: int, place: int) -> None:
        """Ask with a token, and with all that differ from it in one place."""
        token = self.token(number)
        await self.ask([(token, 0), *((replaced(token, place, letter), 0) for letter in LETTERS)])

    def token(self, number: int) -> str:
        return self.tokens[number % len(self.tokens)]

    async def do_pass(self, seconds: float) -> None:
        await self.clock.run_for(seconds)

    async def do_set(self, seconds: float) -> None:
        self.clock.shift_wall(seconds)

    async def do_issue(self) -> None:
        self.issue()

    async def do_rotate(self) -> None:
        if self.rotations < MAX_ROTATIONS:
            self.rotations += 1
            self.both(lambda rig: rig.team.rotate())
            self.keys.append(self.cached.team.current)
            self.documents.append((self.cached.team.certs_body(), self.clock.now()))

    async def do_withdraw(self) -> None:
        self.both(lambda rig: rig.team.withdraw())

    async def do_publish(self, number: int) -> None:
        """Publish another key beside the current one, perhaps one that was withdrawn."""
        key = self.keys[number % len(self.keys)]

        def publish(rig: Rig) -> None:
            rig.team.previous = key if key is not rig.team.current else None

        self.both(publish)

    async def do_refresh(self) -> None:
        await self.together(lambda rig: rig.access.keys.refresh())

    async def do_seed(self, number: int, age: float) -> None:
        """Seed a document: one of this team, of another team, or of another team under the names of this one."""
        current = self.cached.team.current
        other = FakeTeam("other")
        documents = [document for document, _ in self.documents]
        documents += [other.certs_body(), compact_json({"keys": [other.current.jwk() | {"kid": current.kid}]}), b"{}"]
        document = documents[number % len(documents)]

        async def seed(rig: Rig) -> None:
            rig.access.keys.seed(document, fetched_at=self.clock.now() - age)

        await self.together(seed)

    async def do_fault(self, name: str) -> None:
        """Let the endpoint fail, or recover."""
        self.both(lambda rig: getattr(rig.certs, name)())

    async def do_mood(self, refuses: bool) -> None:  # noqa: FBT001 - a step holds values alone
        self.both(lambda rig: setattr(rig.mood, "refuses", refuses))
