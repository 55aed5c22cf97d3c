"""Tokens of keys that do not exist: how many fetches they cause, one by one and in a flood."""

import asyncio
from typing import Any

import pytest
from attacks.workshop import Workshop

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._verification.token import MAX_UNVERIFIED_PAYLOAD, parse
from fastapi_cloudflare_access.errors import AccessError, CredentialError, KeyUnconfirmed
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

MINUTE = 60


async def fetches(*kids: str, seconds: int, pause: float) -> list[int]:
    """Ask for each of these keys again and again; gives when the certs were fetched."""
    team = FakeTeam("acme")
    access: CloudflareAccess[Any] = CloudflareAccess(team_domain=team.team_domain, audience=team.audience)
    shop = Workshop(team)
    tokens = [shop.signed(header={"alg": "RS256", "kid": kid}) for kid in kids]
    with team.patch(access) as certs:
        await team.clock.run_until(access.keys.refresh())
        team.clock.advance(MINUTE)
        start, before = team.clock.monotonic(), certs.fetches
        while team.clock.monotonic() < start + seconds:
            for token in tokens:
                with pytest.raises((CredentialError, KeyUnconfirmed)):
                    await team.clock.run_until(access._authenticator.verifier.verify(token))
            team.clock.advance(pause)
        return [round(request.at - start) for request in certs.requests[before:]]


@pytest.mark.conformance(23)
def test_one_unknown_key_is_looked_for_ever_more_seldom() -> None:
    assert asyncio.run(fetches("nobody", seconds=2 * MINUTE, pause=0.25)) == [0, 1, 3, 8, 23, 83]


@pytest.mark.conformance(23)
@pytest.mark.parametrize("number", [10, 50])
def test_however_many_unknown_keys_there_are_they_make_no_more_fetches_than_the_allowance(number: int) -> None:
    made = asyncio.run(fetches(*(f"nobody {index}" for index in range(number)), seconds=20, pause=1))
    assert 3 <= len(made) <= 3 + 20 / 5 + 1


def test_a_payload_too_long_to_be_read_unverified_is_rejected_only_while_keys_are_usable() -> None:
    async def reasons(*, keys_first: bool, failing: bool = False) -> tuple[str, int]:
        team = FakeTeam("acme")
        certs = MemoryFetch(team)
        access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain=team.team_domain, audience=team.audience, fetch=certs, clock=team.clock
        )
        if keys_first:
            await team.clock.run_until(access.keys.refresh())
            team.rotate()
        if failing:
            certs.fail_with(503)
        token = team.user_token("ada@example.com", groups=["x" * MAX_UNVERIFIED_PAYLOAD])
        try:
            await team.clock.run_until(access.verify(token))
        except AccessError as error:
            return error.reason, certs.fetches
        return "accepted", certs.fetches

    assert asyncio.run(reasons(keys_first=False)) == ("accepted", 1)
    assert asyncio.run(reasons(keys_first=False, failing=True)) == ("keys_unavailable", 1)
    assert asyncio.run(reasons(keys_first=True)) == ("unknown_key", 1)


@pytest.mark.parametrize(
    ("length", "reason"), [(0, "token_expired"), (1, "keys_unavailable")], ids=["longest", "longer"]
)
def test_the_longest_payload_that_is_read_unverified_has_8192_bytes(length: int, reason: str) -> None:
    async def outcome() -> str:
        team = FakeTeam("acme")
        certs = MemoryFetch(team)
        certs.fail_with(503)
        access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain=team.team_domain, audience=team.audience, fetch=certs, clock=team.clock
        )
        empty = team.user_token("ada@example.com", groups=[""])
        size = len(parse(empty.encode()).payload)
        token = team.user_token("ada@example.com", groups=["x" * (MAX_UNVERIFIED_PAYLOAD + length - size)])
        assert len(parse(token.encode()).payload) == 8_192 + length
        team.clock.advance(2 * 86_400)
        with pytest.raises(AccessError) as refused:
            await team.clock.run_until(access.verify(token))
        return refused.value.reason

    assert asyncio.run(outcome()) == reason
