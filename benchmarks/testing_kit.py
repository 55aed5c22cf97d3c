"""The time that the testing kit takes in a test: to mint a token, and to override the caller of a route.

    python benchmarks/testing_kit.py [--rounds N]

It is processor time, without that of other processes. Writes benchmarks/results/testing_kit.json. The exit code is 1 if
a bound is broken: 2 ms for a token, and 5 ms for what `override` adds to the test of a route.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

from aims import Aim
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from timing import plain

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.testing import FakeTeam, override

RESULTS = Path(__file__).parent / "results" / "testing_kit.json"
TOKEN, OVERRIDE = 2.0, 5.0
"""The bounds, in milliseconds."""
TURNS = 20

team = FakeTeam("acme")
access = CloudflareAccess(team_domain="acme", audience=team.audience)
app = FastAPI()


@app.get("/open")
async def open_to_all() -> dict[str, str]:
    """Answer every caller."""
    return {"email": "ada@example.com"}


@app.get("/me")
async def me(user: Annotated[UserClaims, Depends(access.user)]) -> dict[str, str | None]:
    """Answer a user."""
    return {"email": user.email}


def operations() -> dict[str, Callable[[], object]]:
    """Return the operations to measure, by name."""
    client = TestClient(app)

    def unprotected() -> None:
        assert client.get("/open").status_code == 200

    def overridden() -> None:
        with override(access, team.user("ada@example.com", groups=["admins"])):
            assert client.get("/me").status_code == 200

    return {
        "user token": lambda: team.user_token("ada@example.com", groups=["admins"]),
        "service token": lambda: team.service_token("deploy-bot"),
        "unprotected route": unprotected,
        "route with override": overridden,
    }


def measure(rounds: int) -> dict[str, float]:
    """Return the medians in milliseconds, and that of what `override` adds, round by round."""
    turns = {name: plain(operation) for name, operation in operations().items()}
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            taken[name].append(turn(TURNS) / TURNS * 1000)
    pairs = zip(taken["route with override"], taken["unprotected route"], strict=True)
    added = median(whole - base for whole, base in pairs)
    return {name: round(median(values), 3) for name, values in taken.items()} | {"override adds": round(added, 3)}


def aims(found: dict[str, float]) -> list[Aim]:
    """Return the promises against these figures."""
    return [
        Aim("a user's token, ms", TOKEN, found["user token"]),
        Aim("a service's token, ms", TOKEN, found["service token"]),
        Aim("what override adds to the test of a route, ms", OVERRIDE, found["override adds"]),
    ]


def main() -> int:
    """Measure, keep the figures, and return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    found = measure(parser.parse_args().rounds)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    for aim in aims(found):
        print(f"{'met   ' if aim.met else 'BROKEN'}  {aim.about}: {aim.measured} (at most {aim.bound:g})")
    return int(not all(aim.met for aim in aims(found)))


if __name__ == "__main__":
    sys.exit(main())
