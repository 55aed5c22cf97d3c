"""Every attack by a token, against the verifier: refused, and for the reason it has to be."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from attacks.corpus import KINDS, attacks
from attacks.workshop import Workshop

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.errors import AccessError
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

TEAM = FakeTeam("acme")
LET_IN = "let in"


@pytest.fixture(params=[0, 64], ids=["no cache", "cache"])
def access(request: pytest.FixtureRequest) -> CloudflareAccess[Any]:
    size: int = request.param
    return CloudflareAccess(team_domain=TEAM.team_domain, audience=TEAM.audience, token_cache_size=size)


@pytest.fixture
def certs(access: CloudflareAccess[Any]) -> Iterator[MemoryFetch]:
    with TEAM.patch(access) as certs:
        access.keys.seed(TEAM.certs_body(), fetched_at=TEAM.clock.now())
        yield certs


async def verdict(access: CloudflareAccess[Any], token: bytes) -> str:
    try:
        await access._authenticator.verifier.verify(token)
    except AccessError as refusal:
        return refusal.reason
    return LET_IN


async def unexpected(access: CloudflareAccess[Any], kind: str) -> dict[str, tuple[str, str]]:
    """Give each attack that did not end as it has to: what happened, and what has to."""
    assert await verdict(access, TEAM.user_token("ada@example.com").encode()) == LET_IN
    ended = {
        attack.name: (await verdict(access, attack.token), attack.reason) for attack in attacks(Workshop(TEAM), kind)
    }
    return {name: pair for name, pair in ended.items() if pair[0] != pair[1]}


@pytest.mark.conformance(1, 2, 3)
def test_no_attack_by_shape_passes_and_each_fails_for_its_reason(
    access: CloudflareAccess[Any], certs: MemoryFetch
) -> None:
    assert asyncio.run(unexpected(access, "shape")) == {}


@pytest.mark.conformance(1, 4, 5, 6, 7, 8, 9, 10, 11, 12)
def test_no_attack_by_header_passes_and_each_fails_for_its_reason(
    access: CloudflareAccess[Any], certs: MemoryFetch
) -> None:
    assert asyncio.run(unexpected(access, "header")) == {}


@pytest.mark.conformance(25, 26, 27)
def test_no_attack_by_signature_passes_and_each_fails_for_its_reason(
    access: CloudflareAccess[Any], certs: MemoryFetch
) -> None:
    assert asyncio.run(unexpected(access, "signature")) == {}


@pytest.mark.conformance(28, 29, 30, 31, 32, 33, 35, 36)
def test_no_attack_by_payload_passes_and_each_fails_for_its_reason(
    access: CloudflareAccess[Any], certs: MemoryFetch
) -> None:
    assert asyncio.run(unexpected(access, "payload")) == {}


@pytest.mark.conformance(10, 13)
def test_no_attack_has_anything_fetched_but_the_certs_of_the_team(
    access: CloudflareAccess[Any], certs: MemoryFetch
) -> None:
    asyncio.run(unexpected(access, "header"))
    assert {request.url for request in certs.requests} <= {access.settings.certs_url}
    assert certs.fetches <= access.settings.key_settings.unknown_kid_burst


def test_there_are_400_attacks_and_all_are_different() -> None:
    assert len({attack.token for attack in attacks(Workshop(TEAM), *KINDS)}) >= 400


@pytest.mark.parametrize("token", [TEAM.user_token("ada@example.com"), TEAM.service_token("deploy-bot")])
def test_what_the_attacks_are_made_from_is_let_in(
    token: str, access: CloudflareAccess[Any], certs: MemoryFetch
) -> None:
    assert asyncio.run(verdict(access, token.encode())) == LET_IN
