"""A guard for CI: fails if a verification or a request takes much longer than recorded, beside RSA and FastAPI.

    python benchmarks/guard.py

A bound is what the best turns of the recorded run took (benchmarks/results) times a margin, so that only a change of
the code breaks it. A noisy machine gets three tries. It is no test of the promises.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aims import BASE, EMPTY, KNOWN, NEW, REMEMBERED, TOKEN, UNPROTECTED, VERIFIED, share_of_bound
from material import TOKENS, bare, verifier
from section_requests import over_asgi
from section_verification import TIMES, verifying
from serving import Stage
from timing import interleave, plain

RESULTS = Path(__file__).parent / "results"
MARGIN = 1.5
TRIES = 3
UNITS = {
    VERIFIED: "times one RSA",
    REMEMBERED: "times one RSA",
    KNOWN: "times one empty dependency",
    NEW: "times what is promised",
}
"""The unit of each figure."""


def bounds(verification: Mapping[str, Any], requests: Mapping[str, Any]) -> dict[str, float]:
    """Return the bound of each figure, given the results of a recorded run."""
    loop = verification["tokens"][TOKEN]
    recorded = {name: loop[name]["low"] for name in (VERIFIED, REMEMBERED)} | over_a_route(requests["asgi"])
    return {name: MARGIN * one for name, one in recorded.items()}


def over_a_route(asgi: Mapping[str, Any]) -> dict[str, float]:
    """Return the two figures of a request: what this package adds for a known token, and for a new one."""
    empty, known, new = (asgi[name]["best"] - asgi[UNPROTECTED]["best"] for name in (EMPTY, KNOWN, NEW))
    return {KNOWN: known / empty, NEW: share_of_bound(new, empty=empty, rsa=asgi[BASE]["best"])}


def measure() -> dict[str, float]:
    """Measure the best turns of each: other processes only ever add to them."""
    token = TOKENS[TOKEN]
    turns = {
        BASE: plain(bare(token)),
        VERIFIED: verifying(verifier(token_cache_size=0), token),
        REMEMBERED: verifying(verifier(), token),
    }
    loop = interleave(turns, rounds=200, times=TIMES)
    with Stage() as stage:
        asgi = asyncio.run(over_asgi(stage, (UNPROTECTED, EMPTY, KNOWN, NEW), rounds=300))
    return {name: loop[name].low for name in (VERIFIED, REMEMBERED)} | over_a_route(asgi)


def main(measure: Callable[[], Mapping[str, float]] = measure) -> int:
    """Print the figures; return 1 if a bound is broken each time."""
    recorded = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("verification", "requests"))
    allowed = bounds(*recorded)
    for _ in range(TRIES):
        found = measure()
        for name, bound in allowed.items():
            print(f"{name}: {found[name]:.3f} {UNITS[name]}, bound {bound:.3f}")
        if all(found[name] <= bound for name, bound in allowed.items()):
            return 0
    return 1


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    raise SystemExit(main())
