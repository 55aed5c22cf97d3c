"""What a verification costs: a token to typed claims, against the one RSA operation that it cannot do without.

    python benchmarks/verification.py [--rounds N]

Both run in one process in short turns, so that a slower moment of the machine hits both, and by processor time, so that
other processes count for neither. Known kid, no token cache. The ratio is taken turn by turn; the aim is 2.0 at most.
"""

import argparse
import asyncio
import platform
import time
from collections.abc import Awaitable, Callable
from statistics import median, quantiles
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._token import parse
from fastapi_cloudflare_access.testing import LocalTeam, MemoryFetch, SystemClock

TURN = 20
"""Operations in each turn: some milliseconds."""
AIM = 2.0


def bare(team: LocalTeam[Any], token: bytes) -> Callable[[], Awaitable[object]]:
    """The RSA-2048 verification by `cryptography` alone, of the same signature."""
    key, parsed = team.current.private.public_key(), parse(token)
    padding, digest = PKCS1v15(), SHA256()

    async def verify() -> object:
        return key.verify(parsed.signature, parsed.signed, padding, digest)

    return verify


def whole(access: CloudflareAccess[Any], token: bytes) -> Callable[[], Awaitable[object]]:
    """All that this package does for a request."""

    async def verify() -> object:
        return await access._verifier.verify(token)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    return verify


async def turn(operation: Callable[[], Awaitable[object]]) -> float:
    """Give the microseconds of one operation."""
    start = time.process_time()
    for _ in range(TURN):
        await operation()
    return (time.process_time() - start) / TURN * 1e6


def spread(values: list[float], form: str) -> str:
    """Median, and the tenth and ninetieth percentile."""
    tenths = quantiles(values, n=10)
    return f"{median(values):{form}}  ({tenths[0]:{form}} to {tenths[-1]:{form}})"


async def compare(name: str, team: LocalTeam[Any], access: CloudflareAccess[Any], token: str, rounds: int) -> float:
    """Print one comparison, and give the median ratio."""
    rsa, all_of_it = bare(team, token.encode()), whole(access, token.encode())
    for _ in range(5):  # to warm up
        await turn(rsa)
        await turn(all_of_it)
    pairs = [(await turn(rsa), await turn(all_of_it)) for _ in range(rounds)]
    ratios = [mine / theirs for theirs, mine in pairs]
    print(f"{name}, {len(token)} bytes")
    print(f"  bare RSA-2048   {spread([theirs for theirs, _ in pairs], '6.1f')} µs")
    print(f"  to typed claims {spread([mine for _, mine in pairs], '6.1f')} µs")
    print(f"  ratio           {spread(ratios, '6.2f')}")
    return median(ratios)


async def main() -> int:
    """Compare for both kinds of caller; 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description="What a verification costs.")
    parser.add_argument("--rounds", type=int, default=400, help="how many turns each side has (default: 400)")
    rounds = max(2, parser.parse_args().rounds)
    team = LocalTeam("acme", clock=SystemClock())
    access = CloudflareAccess(team_domain=team.team_domain, audience=team.audience, fetch=MemoryFetch(team))
    tokens = {
        "user": team.user_token("ada@example.com"),
        "user with 20 groups": team.user_token("ada@example.com", groups=[f"group-{number}" for number in range(20)]),
        "service": team.service_token("deploy-bot"),
    }
    print(f"Python {platform.python_version()}, {rounds} turns of {TURN}; median (10th to 90th percentile)")
    async with access:
        ratios = {name: await compare(name, team, access, token, rounds) for name, token in tokens.items()}
    worst = max(ratios["user"], ratios["service"])
    print(f"aim for what Access issues by default: a ratio of {AIM} at most: {'met' if worst <= AIM else 'missed'}")
    return int(worst > AIM)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
