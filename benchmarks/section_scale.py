"""What grows: workers, keys, audiences, policies and claims."""

import asyncio
import json
from statistics import median
from typing import Any

from aims import BASE
from apps import app_with
from fastapi import FastAPI
from material import TEAM, bare, verifier
from section_requests import call
from section_verification import TIMES, verifying
from serving import Stage, ask, drive
from timing import Figure, Turn, interleave, plain, straight, table

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._issuer import SigningKey
from fastapi_cloudflare_access.testing import MemoryFetch

KEYS = (2, 8, 32)
AUDIENCES = (1, 10, 100)
POLICIES = (1, 10, 50)
CLAIMS = (0, 10, 40)


def by_keys(token: str) -> dict[str, Turn]:
    """Verification with so many keys known."""
    turns = {}
    others = [SigningKey.generate().jwk() for _ in range(max(KEYS) - len(TEAM.keys))]
    for number in KEYS:
        ours = verifier()
        keys = [*others, *(key.jwk() for key in TEAM.keys)][-number:]
        ours.keys.seed(json.dumps({"keys": keys}).encode(), fetched_at=TEAM.clock.now())
        assert len(ours.keys._store.snapshot.keys) == number  # noqa: SLF001
        turns[f"{number} keys"] = verifying(ours, token)
    return turns


def by_audiences(token: str) -> dict[str, Turn]:
    """Verification with so many audiences let in."""
    turns = {}
    for number in AUDIENCES:
        others = [f"another-{index}" for index in range(number - 1)]
        access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain=TEAM.team_domain, audience=[*others, TEAM.audience], fetch=MemoryFetch(TEAM)
        )
        asyncio.run(access.keys.refresh())
        turns[f"{number} audiences"] = verifying(access._verifier, token)  # noqa: SLF001
    return turns


def by_claims() -> dict[str, Turn]:
    """Verification of tokens with so many claims that we do not know."""
    turns = {}
    for number in CLAIMS:
        token = TEAM.user_token("ada@example.com", claims={f"claim_{index}": "text" for index in range(number)})
        turns[f"{number} more claims"] = verifying(verifier(), token)
    return turns


def by_policies(token: str) -> dict[str, Turn]:
    """A request through ASGI to a route with a policy, in an object with so many policies."""
    turns = {}
    sent = [(b"cf-access-jwt-assertion", token.encode())]
    for number in POLICIES:
        access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain=TEAM.team_domain, audience=TEAM.audience, fetch=MemoryFetch(TEAM), token_cache_size=10
        )
        asyncio.run(access.keys.refresh())
        nodes = [access.require(lambda caller, index=index: bool(caller.email) or index) for index in range(number)]
        app: FastAPI = app_with(nodes[-1])
        turns[f"{number} policies"] = through_loop(app, sent)
    return turns


def through_loop(app: FastAPI, sent: list[tuple[bytes, bytes]]) -> Turn:
    """Take turns with requests; FastAPI never waits either."""
    return straight(lambda: call(app, sent))


def by_workers(quick: bool) -> dict[str, float]:  # noqa: FBT001 - of this file alone
    """Requests per second with one worker and with two; the load itself takes a part of the cores."""
    rates: dict[str, list[float]] = {"1": [], "2": []}
    # On asyncio's loop uvicorn's workers share a socket without TCP_NODELAY, and every answer waits for 40 ms.
    one_worker, two_workers = ({"loop": "uvloop", "workers": number} for number in (1, 2))
    with (
        Stage() as stage,
        stage.serve("this package", **one_worker) as one,
        stage.serve("this package", **two_workers) as two,
    ):
        for port in (one, two):
            for _ in range(20):
                ask(port, stage.token)
        for _ in range(1 if quick else 4):
            for workers, port in (("1", one), ("2", two)):
                rates[workers].append(drive(port, stage.token, seconds=1).rate)
    return {workers: round(median(found), 1) for workers, found in rates.items()}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print and give everything of this section."""
    rounds = 30 if quick else 300
    token = TEAM.user_token("ada@example.com")
    groups = {
        "keys": by_keys(token),
        "audiences": by_audiences(token),
        "policies": by_policies(token),
        "claims": by_claims(),
    }
    found: dict[str, Any] = {}
    for name, turns in groups.items():
        first = next(iter(turns))
        figures: dict[str, Figure] = interleave(
            {BASE: plain(bare(token)), **turns}, rounds=rounds, times=TIMES, base=first
        )
        table(f"By {name}", figures, f"times {first}")
        found[name] = {label: one.json() for label, one in figures.items()}
    found["workers"] = by_workers(quick)
    print(f"\nRequests per second by workers: {found['workers']}")
    return found


if __name__ == "__main__":
    run()
