"""Material to measure with: a team, tokens of several sizes, broken tokens, and the RSA operation that is the limit."""

import asyncio
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._verification.token import parse
from fastapi_cloudflare_access._verifier import Verifier
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch, SystemClock

TEAM: FakeTeam[SystemClock] = FakeTeam("acme", clock=SystemClock())


def user_token(size: int = 0) -> str:
    """Return a user's token of at least `size` bytes: groups fill it."""
    token = TEAM.user_token("ada@example.com")
    groups: list[str] = []
    while len(token) < size:
        groups += [f"group-{number:04}" for number in range(len(groups), len(groups) + 1 + (size - len(token)) // 24)]
        token = TEAM.user_token("ada@example.com", groups=groups)
    return token


TOKENS: dict[str, str] = {
    "user, 0.9 kB": user_token(),
    "service, 0.8 kB": TEAM.service_token("deploy-bot"),
    "user, 2 kB": user_token(2000),
    "user, 4 kB": user_token(4000),
}

REFUSALS = (
    "not_base64url",
    "alg_none",
    "header_not_json",
    "payload_twice",
    "tampered_signature",
    "tampered_payload",
    "wrong_audience",
    "wrong_issuer",
    "expired",
    "not_yet_valid",
    "org",
)
"""Forgeries of the testing kit: each is refused at another step."""


def verifier(**options: Any) -> Verifier[Any]:
    """Return the verifier of an access object that has the team's keys."""
    given: dict[str, Any] = {"team_domain": TEAM.team_domain, "audience": TEAM.audience, "fetch": MemoryFetch(TEAM)}
    access: CloudflareAccess[Any] = CloudflareAccess(**given | options)
    asyncio.run(access.keys.refresh())
    return access._authenticator.verifier  # noqa: SLF001


def bare(token: str, team: FakeTeam[SystemClock] = TEAM) -> Callable[[], object]:
    """Return the RSA-2048 verification by `cryptography` alone, everything prepared: the limit."""
    key, parsed = team.current.private.public_key(), parse(token.encode())
    verify, signature, signed = key.verify, parsed.signature, parsed.signing_input
    padding, digest = PKCS1v15(), SHA256()
    return lambda: verify(signature, signed, padding, digest)
