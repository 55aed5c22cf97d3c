"""What grows: workers, keys, audiences, policies and claims."""

import asyncio
import json
from statistics import median
from typing import Any

from aims import BASE, KNOWN
from apps import app_with
from fastapi import FastAPI
from material import TEAM, bare, verifier
from section_requests import call
from section_verification import TIMES, verifying
from serving import Stage, ask, drive
from timing import Figure, Turn, interleave, plain, straight, table

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.testing import MemoryFetch
from fastapi_cloudflare_access.testing._issuer import SigningKey

KEYS = (2, 8, 32)
AUDIENCES = (1, 10, 100)
POLICIES = (1, 10, 50)
CLAIMS = (0, 10, 40)


def by_keys(token: str) -> dict[str, Turn]:
    """Return verifications with so many keys."""
    turns = {}
    others = [SigningKey.generate().jwk() for _ in range(max(KEYS) - len(TEAM.keys))]
    for number in KEYS:
        ours = verifier(token_cache_size=0)
        keys = [*others, *(key.jwk() for key in TEAM.keys)][-number:]
        ours.keys.seed(json.dumps({"keys": keys}).encode(), fetched_at=TEAM.clock.now())
        assert ours.keys.health().keys == number
        turns[f"{number} keys"] = verifying(ours, token)
    return turns


def by_audiences(token: str) -> dict[str, Turn]:
    """Return verifications with so many audiences."""
    turns = {}
    for number in AUDIENCES:
        others = [f"another-{index}" for index in range(number - 1)]
        ours = verifier(audience=[*others, TEAM.audience], token_cache_size=0)
        turns[f"{number} audiences"] = verifying(ours, token)
    return turns


def by_claims() -> dict[str, Turn]:
    """Return verifications of tokens with so many claims that the model does not name."""
    turns = {}
    for number in CLAIMS:
        token = TEAM.user_token("ada@example.com", claims={f"claim_{index}": "text" for index in range(number)})
        turns[f"{number} more claims"] = verifying(verifier(token_cache_size=0), token)
    return turns


def by_policies(token: str) -> dict[str, Turn]:
    """Return requests to a route with a policy, of an object with so many policies."""
    turns = {}
    sent = [(b"cf-access-jwt-assertion", token.encode())]
    for number in POLICIES:
        access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain=TEAM.team_domain, audience=TEAM.audience, fetch=MemoryFetch(TEAM)
        )
        asyncio.run(access.keys.refresh())
        nodes = [access.require(lambda caller, index=index: bool(caller.email) or index) for index in range(number)]
        app: FastAPI = app_with(nodes[-1])
        turns[f"{number} policies"] = through_loop(app, sent)
    return turns


def through_loop(app: FastAPI, sent: list[tuple[bytes, bytes]]) -> Turn:
    """Return turns of requests; FastAPI never waits either."""
    return straight(lambda: call(app, sent))


def by_workers(quick: bool) -> dict[str, float]:  # noqa: FBT001 - of this file alone
    """Measure requests per second with one worker and with two; the load itself takes a part of the cores."""
    rates: dict[str, list[float]] = {"1": [], "2": []}
    # On asyncio's loop uvicorn's workers share a socket without TCP_NODELAY, and every answer waits for 40 ms.
    one_worker, two_workers = ({"loop": "uvloop", "workers": number} for number in (1, 2))
    with (
        Stage() as stage,
        stage.serve(KNOWN, **one_worker) as one,
        stage.serve(KNOWN, **two_workers) as two,
    ):
        for port in (one, two):
            for _ in range(20):
                ask(port, stage.token)
        for _ in range(1 if quick else 4):
            for workers, port in (("1", one), ("2", two)):
                rates[workers].append(drive(port, [stage.token], seconds=1).rate)
    return {workers: round(median(found), 1) for workers, found in rates.items()}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure this section, print it and return it."""
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
