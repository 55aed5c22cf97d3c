"""The cache of verified tokens: it saves the signature check, and never changes an answer."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, ServiceClaims, UserClaims
from fastapi_cloudflare_access._issuer import compact_json
from fastapi_cloudflare_access._token import verify
from fastapi_cloudflare_access._token_cache import Remembered, TokenCache
from fastapi_cloudflare_access.errors import (
    AccessError,
    CannotDecide,
    InvalidClaims,
    InvalidSignature,
    KeysUnavailable,
    TokenExpired,
    TokenNotYetValid,
    UnknownKey,
    WrongAudience,
)
from fastapi_cloudflare_access.testing import FakeClock, LocalTeam, MemoryFetch


class Groups(BaseModel):
    groups: list[str] = []


class LooseClaims(UserClaims):
    """A model that a handler can change."""

    model_config = ConfigDict(frozen=False)
    custom: Groups = Groups()


class FussyClaims(UserClaims):
    """A model that refuses some."""

    custom: Groups


class Rig:
    """One access object with a cache, over a team on a fake clock."""

    def __init__(self, *, size: int = 8, clock: FakeClock | None = None, **options: Any) -> None:
        self.team = LocalTeam("acme", clock=clock or FakeClock())
        self.certs = MemoryFetch(self.team)
        given: dict[str, Any] = {"user_claims": UserClaims, "token_cache_size": size, "jitter": 0}
        self.access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain=self.team.team_domain,
            audience=self.team.audience,
            fetch=self.certs,
            clock=self.team.clock,
            **(given | options),
        )

    async def verify(self, token: str) -> Any:
        """Give the caller, moving the clock as far as looking for a key takes."""
        return await self.team.clock.run_until(self.begin(token))

    async def begin(self, token: str) -> Any:
        return await self.access._verifier.verify(token.encode())


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kids of the tokens that went the whole way."""
    seen: list[str] = []

    def spy(parsed: Any, **options: Any) -> dict[str, Any]:
        seen.append(parsed.kid)
        return verify(parsed, **options)

    monkeypatch.setattr("fastapi_cloudflare_access._verifier.verify", spy)
    return seen


pytestmark = pytest.mark.anyio


async def test_there_is_none_unless_it_is_asked_for(checks: list[str]) -> None:
    rig = Rig()
    access: CloudflareAccess[Any] = CloudflareAccess(
        team_domain="acme", audience=rig.team.audience, fetch=rig.certs, clock=rig.team.clock
    )
    token = rig.team.user_token("ada@example.com").encode()
    assert await access._verifier.verify(token) == await access._verifier.verify(token)
    assert access.settings.token_cache_size == 0
    assert len(checks) == 2


@pytest.mark.parametrize("size", [-1, 100_001, True, 1.5])
def test_its_size_is_bounded(size: Any) -> None:
    with pytest.raises(ConfigurationError, match="token_cache_size"):
        Rig(size=size)


async def test_a_signature_is_checked_once(checks: list[str]) -> None:
    rig = Rig()
    for token in (rig.team.user_token("ada@example.com", groups=["engines"]), rig.team.service_token("bot")):
        first = await rig.verify(token)
        checks.clear()
        assert await rig.verify(token) == first
        assert checks == []


async def test_of_our_own_models_the_same_caller_is_given_again() -> None:
    """They are frozen all the way down, so nobody can change what another gets."""
    rig = Rig()
    for token in (rig.team.user_token("ada@example.com", groups=["engines"]), rig.team.service_token("bot")):
        caller = await rig.verify(token)
        assert await rig.verify(token) is caller


async def test_of_a_model_of_the_app_every_request_gets_a_caller_of_its_own(checks: list[str]) -> None:
    rig = Rig(user_claims=LooseClaims)
    token = rig.team.user_token("ada@example.com", groups=["engines"])
    first = await rig.verify(token)
    first.custom.groups.append("admins")
    first.email = "root@example.com"
    second = await rig.verify(token)
    second.custom.groups.append("admins")
    third = await rig.verify(token)
    assert (third.email, third.custom.groups) == ("ada@example.com", ["engines"])
    assert len(checks) == 1


@pytest.mark.parametrize(
    "name", ["tampered_signature", "expired", "not_yet_valid", "wrong_audience", "org", "email_list"]
)
async def test_a_refused_token_is_never_kept(name: str) -> None:
    rig = Rig()
    token = rig.team.forge(name)
    for _ in range(2):
        with pytest.raises(AccessError):
            await rig.verify(token)
    assert entries(rig) == 0


async def test_a_token_that_the_model_refuses_is_never_kept() -> None:
    rig = Rig(user_claims=FussyClaims)
    token = rig.team.user_token("ada@example.com", custom={"groups": "all"})
    for _ in range(2):
        with pytest.raises(InvalidClaims, match="custom"):
            await rig.verify(token)
    assert entries(rig) == 0


async def test_another_signature_under_a_kept_token_is_refused() -> None:
    rig = Rig()
    token = rig.team.user_token("ada@example.com")
    await rig.verify(token)
    body, _, signature = token.rpartition(".")
    with pytest.raises(InvalidSignature):
        await rig.verify(f"{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}")


async def test_the_token_used_longest_ago_goes_first(checks: list[str]) -> None:
    rig = Rig(size=2)
    one, two, three = (rig.team.user_token(f"{name}@example.com") for name in ("one", "two", "three"))
    for token in (one, two, one, three):
        await rig.verify(token)
    assert entries(rig) == 2
    checks.clear()
    for token in (one, three):
        await rig.verify(token)
    assert checks == []
    await rig.verify(two)
    assert len(checks) == 1


@pytest.mark.parametrize("after", [0, 1])
async def test_a_kept_token_passes_until_it_expires_and_no_longer(after: int, checks: list[str]) -> None:
    rig = Rig(exp_leeway=5)
    token = rig.team.user_token("ada@example.com", expires_in=60)
    await rig.verify(token)
    rig.team.clock.shift_wall(64 + after)
    if after:
        with pytest.raises(TokenExpired):
            await rig.verify(token)
        assert entries(rig) == 0
    else:
        await rig.verify(token)
        assert len(checks) == 1


@pytest.mark.parametrize("claim", ["iat", "nbf"])
async def test_a_kept_token_is_not_valid_yet_where_the_clock_is_set_back(claim: str, checks: list[str]) -> None:
    rig = Rig(nbf_leeway=30)
    now = int(rig.team.clock.now())
    later = {"iat": now - 500, "nbf": now - 500} | {claim: now}
    token = rig.team.user_token("ada@example.com", claims=later)
    await rig.verify(token)
    rig.team.clock.shift_wall(-30)
    await rig.verify(token)
    assert len(checks) == 1
    rig.team.clock.shift_wall(-1)
    with pytest.raises(TokenNotYetValid):
        await rig.verify(token)


async def test_a_kept_token_goes_with_its_key() -> None:
    rig = Rig()
    assert rig.team.previous
    token = rig.team.user_token("ada@example.com", key=rig.team.previous)
    await rig.verify(token)
    rig.team.withdraw()
    await rig.team.clock.run_until(rig.access.keys.refresh())
    with pytest.raises(UnknownKey):
        await rig.verify(token)
    assert entries(rig) == 0


async def test_another_key_under_the_same_kid_takes_no_token_over() -> None:
    """What is kept belongs to the key itself, not to its name."""
    rig, other = Rig(), LocalTeam("other")
    token = rig.team.user_token("ada@example.com")
    await rig.verify(token)
    namesake = other.current.jwk() | {"kid": rig.team.current.kid}
    rig.access.keys.seed(compact_json({"keys": [namesake]}), fetched_at=rig.team.clock.now())
    with pytest.raises(InvalidSignature):
        await rig.verify(token)


async def test_keys_beyond_the_hard_limit_refuse_a_kept_token_too() -> None:
    rig = Rig(max_staleness=3600)
    token = rig.team.user_token("ada@example.com")
    await rig.verify(token)
    rig.certs.fail_with(503)
    rig.team.clock.advance(3601)
    with pytest.raises(KeysUnavailable):
        await rig.verify(token)


async def test_a_sibling_for_another_audience_keeps_its_own() -> None:
    rig = Rig()
    token = rig.team.user_token("ada@example.com")
    await rig.verify(token)
    sibling = rig.access.with_audience("another")
    assert sibling.settings.token_cache_size == 8
    with pytest.raises(WrongAudience):
        await sibling._verifier.verify(token.encode())


def test_nothing_kept_survives_when_the_kit_swaps_keys_and_clock() -> None:
    rig = Rig()
    old = rig.team.user_token("ada@example.com")
    asyncio.run(rig.verify(old))
    stand_in = LocalTeam("another")
    with stand_in.serve(rig.access):
        asyncio.run(rig.verify(stand_in.user_token("eve@example.com")))
        with pytest.raises(AccessError):
            asyncio.run(rig.verify(old))
        inside = stand_in.user_token("eve@example.com")
        asyncio.run(rig.verify(inside))
    with pytest.raises(AccessError):
        asyncio.run(rig.verify(inside))


def test_what_is_dropped_is_gone_and_dropping_twice_is_fine() -> None:
    cache: TokenCache[UserClaims] = TokenCache(2)
    entry: Remembered[UserClaims] = Remembered("kid", _no_key(), 0, 1, None, b"")
    cache.put(b"digest", entry)
    assert cache.get(b"digest") is entry
    cache.drop(b"digest")
    cache.drop(b"digest")
    assert cache.get(b"digest") is None


def _no_key() -> Any:
    return object()


def entries(rig: Rig) -> int:
    cache = rig.access._verifier._cache
    assert cache is not None
    return len(cache._entries)


# It never changes an answer


class Pair:
    """Two access objects that differ in their cache alone, on one clock, asked the same at the same time."""

    def __init__(self, model: type[UserClaims]) -> None:
        clock = FakeClock()
        options = {"max_staleness": 7200, "user_claims": model}
        self.cached = Rig(clock=clock, size=3, **options)
        self.plain = Rig(clock=clock, size=0, **options)
        self.clock = clock
        self.tokens: list[str] = []
        self.issue()
        for rig in (self.cached, self.plain):
            rig.access.keys._store.policy._uniform = max  # chance would tell them apart

    def both(self, act: Callable[[Rig], object]) -> None:
        for rig in (self.cached, self.plain):
            act(rig)

    def issue(self) -> None:
        team = self.cached.team
        users = [
            team.user_token("ada@example.com", groups=["engines"]),
            team.user_token("bob@example.com", expires_in=40),
        ]
        body, _, signature = users[0].rpartition(".")
        self.tokens += [
            *users,
            team.service_token("bot", expires_in=900),
            team.user_token("old@example.com", key=team.previous or team.current),
            team.user_token("eve@example.com", claims={"aud": ["elsewhere"]}),
            team.user_token("eve@example.com", claims={"nbf": int(self.clock.now()) + 100}),
            f"{body}.{signature[::-1]}",
        ]

    async def ask(self, token: str) -> None:
        answers = await self.clock.run_until(asyncio.gather(*(answer(rig, token) for rig in (self.cached, self.plain))))
        assert answers[0] == answers[1]

    async def do(self, step: tuple[str, Any]) -> None:
        match step:
            case "ask", number:
                await self.ask(self.tokens[number % len(self.tokens)])
            case "pass", seconds:
                await self.clock.run_for(seconds)
            case "set", seconds:
                self.clock.shift_wall(seconds)
            case "issue", _:
                self.issue()
            case "rotate", _:
                self.both(lambda rig: rig.team.rotate())
            case "withdraw", _:
                self.both(lambda rig: rig.team.withdraw())
            case "fail", _:
                self.both(lambda rig: rig.certs.fail_with(503))
            case _:
                self.both(lambda rig: rig.certs.recover())


async def answer(rig: Rig, token: str) -> tuple[object, ...]:
    """Everything that can be told from an answer; then spoil it, as a careless handler might."""
    try:
        caller = await rig.begin(token)
    except AccessError as refusal:
        return type(refusal), str(refusal), refusal.retry_after if isinstance(refusal, CannotDecide) else None
    told = type(caller), caller.model_dump_json(), caller.model_fields_set
    if isinstance(caller, LooseClaims):
        caller.custom.groups.append("admins")
    else:
        assert type(caller) in (UserClaims, ServiceClaims)
    return told


STEPS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 20)),
    st.tuples(st.just("ask"), st.integers(0, 3)),
    st.tuples(st.just("pass"), st.sampled_from([1, 31, 61, 650, 3600, 7300])),
    st.tuples(st.just("set"), st.sampled_from([-200, -31, 30, 600])),
    st.tuples(st.sampled_from(["issue", "rotate", "withdraw", "fail", "recover"]), st.none()),
)


@pytest.mark.parametrize("model", [UserClaims, LooseClaims])
@given(steps=st.lists(STEPS, max_size=30).filter(lambda steps: steps.count(("rotate", None)) <= 2))
@settings(max_examples=60, deadline=None)
def test_it_never_changes_an_answer(model: type[UserClaims], steps: list[tuple[str, Any]]) -> None:
    """Whatever happens to tokens, clock and keys, with the cache the answer is the one without."""

    async def run() -> None:
        pair = Pair(model)
        for step in steps:
            await pair.do(step)

    asyncio.run(run())
