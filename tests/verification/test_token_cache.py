"""The cache of verified tokens: it saves the signature check, and never changes an answer."""

import asyncio
import gc
from typing import Any

import pytest
from fuzz.cache_pair import Groups, LooseClaims, Rig

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, UserClaims, _verifier
from fastapi_cloudflare_access._verification.token import MAX_TOKEN, verify
from fastapi_cloudflare_access._verification.token_cache import CacheEntry, TokenCache
from fastapi_cloudflare_access.errors import (
    AccessError,
    InvalidClaims,
    InvalidSignature,
    KeysUnavailable,
    MalformedToken,
    TokenExpired,
    TokenNotYetValid,
    UnknownKey,
    WrongAudience,
)
from fastapi_cloudflare_access.events import AccessEvent
from fastapi_cloudflare_access.testing import FakeTeam
from fastapi_cloudflare_access.testing._issuer import compact_json


class FussyClaims(UserClaims):
    """A model that refuses some."""

    custom: Groups


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


@pytest.mark.parametrize(
    ("options", "size", "checked"), [({}, 1024, 1), ({"token_cache_size": 0}, 0, 2)], ids=["default", "off"]
)
async def test_it_is_on_and_can_be_switched_off(
    options: dict[str, Any], size: int, checked: int, checks: list[str]
) -> None:
    rig = Rig()
    access: CloudflareAccess[Any] = CloudflareAccess(
        team_domain="acme", audience=rig.team.audience, fetch=rig.certs, clock=rig.clock, **options
    )
    assert access.settings.token_cache_size == size
    token = rig.team.user_token("ada@example.com")
    assert await access.verify(token) == await access.verify(token)
    assert len(checks) == checked


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


async def test_a_token_of_the_greatest_size_is_kept_too(checks: list[str]) -> None:
    rig = Rig()
    await rig.verify(rig.team.service_token("bot"))  # its key is known from here on
    checks.clear()
    short = rig.team.user_token("ada@example.com", custom={"x": ""})
    token = rig.team.user_token("ada@example.com", custom={"x": "x" * ((MAX_TOKEN - len(short)) * 3 // 4)})
    assert len(token) == MAX_TOKEN
    assert await rig.verify(token) == await rig.verify(token)
    assert (len(checks), entries(rig)) == (1, 2)


async def test_a_verifier_is_made_of_named_parts_and_verifies_alone() -> None:
    rig = Rig()
    parts = rig.access._authenticator.verifier
    alone = _verifier.Verifier(settings=parts.settings, keys=parts.keys, user_model=UserClaims)
    caller = await alone.verify(rig.team.user_token("ada@example.com").encode())
    assert isinstance(caller, UserClaims)


async def test_a_token_that_is_too_long_is_refused_before_it_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    hashed: list[bytes] = []
    monkeypatch.setattr(_verifier, "sha256", hashed.append)
    with pytest.raises(MalformedToken):
        await rig.access._authenticator.verifier.verify(b"x" * (MAX_TOKEN + 1))
    assert hashed == []


async def test_of_our_own_models_the_same_caller_is_given_again() -> None:
    """They are frozen at every depth, so no request can change the claims of another."""
    rig = Rig()
    for token in (rig.team.user_token("ada@example.com", groups=["engines"]), rig.team.service_token("bot")):
        caller = await rig.verify(token)
        assert await rig.verify(token) is caller


async def test_of_a_model_of_the_app_every_request_gets_a_caller_of_its_own(checks: list[str]) -> None:
    rig = Rig(user_model=LooseClaims)
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
    rig = Rig(user_model=FussyClaims)
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


@pytest.mark.parametrize("after", [0, 1, 100])
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
    rig, other = Rig(), FakeTeam("other")
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
        await sibling._authenticator.verifier.verify(token.encode())


async def test_expired_tokens_leave_with_the_next_refresh_of_the_keys() -> None:
    rig = Rig(exp_leeway=5)
    tokens = [rig.team.user_token("ada@example.com", expires_in=seconds) for seconds in (60, 90, 600)]
    for token in tokens:
        await rig.verify(token)
    rig.clock.shift_wall(65)
    assert entries(rig) == 3
    await rig.clock.run_until(rig.access.keys.refresh())
    assert entries(rig) == 2
    for token in tokens[1:]:
        await rig.verify(token)


async def test_a_token_leaves_at_the_second_from_which_it_is_refused() -> None:
    rig = Rig(exp_leeway=5)
    await rig.verify(rig.team.user_token("ada@example.com", expires_in=60))
    cache = rig.access._authenticator.verifier._cache
    assert cache
    ends = rig.clock.now() + 65
    for now, kept in ((ends - 1, 1), (ends, 0)):
        cache.expire(now)
        assert entries(rig) == kept


async def test_a_refresh_forgets_the_copies_that_are_gone() -> None:
    rig = Rig()
    callbacks = rig.access.keys._cache.refreshed
    before = len(callbacks)
    for number in range(5):
        rig.access.with_audience(f"tag-{number}")
    assert len(callbacks) == before + 5
    gc.collect()  # an object and its dependencies refer to each other
    await rig.clock.run_until(rig.access.keys.refresh())
    assert len(rig.access.keys._cache.refreshed) == before


async def test_an_answer_from_the_cache_emits_the_same_events() -> None:
    events: list[AccessEvent] = []
    rig = Rig(listeners=[events.append])
    token = rig.team.user_token("ada@example.com")
    await rig.verify(token)
    events.clear()
    for _ in range(2):
        await rig.access.verify(token)
    assert [event.name for event in events] == ["request_accepted"] * 2
    assert events[0] == events[1]


def test_nothing_kept_survives_when_the_kit_swaps_keys_and_clock() -> None:
    rig = Rig()
    old = rig.team.user_token("ada@example.com")
    asyncio.run(rig.verify(old))
    stand_in = FakeTeam("another")
    with stand_in.patch(rig.access):
        asyncio.run(rig.verify(stand_in.user_token("eve@example.com")))
        with pytest.raises(AccessError):
            asyncio.run(rig.verify(old))
        inside = stand_in.user_token("eve@example.com")
        asyncio.run(rig.verify(inside))
    with pytest.raises(AccessError):
        asyncio.run(rig.verify(inside))


def test_what_is_dropped_is_gone_and_dropping_twice_is_fine() -> None:
    cache: TokenCache[UserClaims] = TokenCache(2)
    entry: CacheEntry[UserClaims] = CacheEntry("kid", _no_key(), 0, 1, None, b"")
    cache.put(b"digest", entry)
    assert cache.get(b"digest") is entry
    cache.drop(b"digest")
    cache.drop(b"digest")
    assert cache.get(b"digest") is None


def _no_key() -> Any:
    return object()


def entries(rig: Rig) -> int:
    cache = rig.verifier._cache
    assert cache is not None
    return len(cache._entries)
