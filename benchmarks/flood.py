"""Tokens with random key ids beside known callers: fetches of the certs, and the time of the known callers.

    python benchmarks/flood.py                            30 s at 1,000 a second, twice: with and without refreshes
    python benchmarks/flood.py --seconds 3 --rate 200     the short run of the tests

The exit code is 1 if a bound is broken.
"""

import argparse
import asyncio
import secrets
import sys
from dataclasses import dataclass

from load import Seen, drive, memory_of, quickstart

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam
from fastapi_cloudflare_access.testing._issuer import base64url, compact_json

CONNECTIONS = 64
KNOWN_RATE = 50.0
NO_REFRESHES = {"unknown_kid_burst": "1", "unknown_kid_interval": "300", "refresh_interval": "1500"}


@dataclass
class Run:
    """One run."""

    known: Seen
    flood: Seen
    fetches: int
    memory: tuple[float, float]
    seconds: float


async def load(port: int, team: FakeTeam, *, rate: float, seconds: float) -> tuple[Seen, Seen]:
    """Send both kinds of traffic."""
    known, flood, token = Seen(), Seen(), team.user_token("ada@example.com")
    _, claims, signature = token.split(".")

    def fake() -> str:
        header = compact_json({"alg": "RS256", "kid": secrets.token_hex(32)})
        return f"{base64url(header)}.{claims}.{signature}"

    flooding = [
        drive(port, fake, rate=rate / CONNECTIONS, seconds=seconds, seen=flood)
        for _ in range(CONNECTIONS if rate else 0)
    ]
    await asyncio.gather(drive(port, lambda: token, rate=KNOWN_RATE, seconds=seconds, seen=known), *flooding)
    return known, flood


def run(*, rate: float, seconds: float, **settings: str) -> Run:
    """Run a server of its own under this load."""
    with (
        CertsServer(FakeTeam("acme", clock=SystemClock())) as certs,
        quickstart(team_domain=certs.origin, audience=certs.team.audience, **settings) as (port, pid),
    ):
        asyncio.run(load(port, certs.team, rate=rate, seconds=min(2, seconds)))
        before, fetched = memory_of(pid), certs.fetches
        known, flood = asyncio.run(load(port, certs.team, rate=rate, seconds=seconds))
        return Run(known, flood, certs.fetches - fetched, (before, memory_of(pid)), seconds)


def report(name: str, run: Run) -> None:
    """Print a run."""
    known, flood = run.known, run.flood
    middle, late = known.percentile(0.5) * 1000, known.percentile(0.99) * 1000
    print(name)
    print(f"  known callers   {dict(known.statuses)}  p50 {middle:.2f} ms  p99 {late:.2f} ms")
    print(f"  unknown keys    {dict(flood.statuses)}, {sum(flood.statuses.values()) / run.seconds:.0f} a second")
    print(f"  fetches         {run.fetches}")
    print(f"  memory          {run.memory[0]:.1f} -> {run.memory[1]:.1f} MiB")


def main(arguments: list[str]) -> int:
    """Run, print, and return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=1000)
    options = parser.parse_args(arguments)
    subject = run(rate=options.rate, seconds=options.seconds)
    report(f"{options.rate:.0f} tokens with random key ids a second for {options.seconds:.0f} s", subject)
    bounds = {
        "every known caller gets 200": set(subject.known.statuses) == {200},
        "every other gets 401 or 503": set(subject.flood.statuses) <= {401, 503},
        "fetches stay within the bucket": subject.fetches <= 3 + options.seconds / 5 + 1,
        "memory grows by less than 10 MiB": subject.memory[1] - subject.memory[0] < 10,
    }
    if options.seconds >= 10:
        without = run(rate=options.rate, seconds=options.seconds, **NO_REFRESHES)
        report("the same without refreshes", without)
        ratio = subject.known.percentile(0.99) / without.known.percentile(0.99)
        print(f"p99 of known callers, with refreshes to without: {ratio:.2f}")
        bounds["the p99 of known callers is within 1.5 times of that without refreshes"] = ratio <= 1.5
    for bound, holds in bounds.items():
        print(f"{'holds' if holds else 'BROKEN'}: {bound}")
    return 0 if all(bounds.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
