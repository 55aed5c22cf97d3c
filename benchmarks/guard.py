"""A guard for CI: fails where a verification has become much dearer, beside RSA in the same run.

    python benchmarks/guard.py

A bound is what the best rounds of the recorded run took (benchmarks/results/verification.json) times a margin, so that
only a change of the code breaks it, and a noisy machine gets three tries. It is no test of the promises.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aims import BASE, TOKEN
from material import TOKENS, bare, verifier
from section_verification import CACHED, OURS, TIMES, verifying
from timing import interleave, plain

RECORDED = Path(__file__).parent / "results" / "verification.json"
MARGIN = 1.5
TRIES = 3


def bounds(recorded: Mapping[str, Any]) -> dict[str, float]:
    """What each may cost, in RSA verifications, given the figures of a recorded run."""
    figures = recorded["tokens"][TOKEN]
    return {name: MARGIN * figures[name]["low"] for name in (OURS, CACHED)}


def measure() -> dict[str, float]:
    """The best rounds of each: what others do on the machine only ever adds."""
    token = TOKENS[TOKEN]
    turns = {
        BASE: plain(bare(token)),
        OURS: verifying(verifier(), token),
        CACHED: verifying(verifier(token_cache_size=10), token),
    }
    return {name: one.low for name, one in interleave(turns, rounds=200, times=TIMES).items()}


def main(measure: Callable[[], Mapping[str, float]] = measure) -> int:
    """Say what was measured; 1 where a bound is broken each time."""
    allowed = bounds(json.loads(RECORDED.read_text()))
    for _ in range(TRIES):
        found = measure()
        for name, bound in allowed.items():
            print(f"{name}: {found[name]:.3f} times one RSA, bound {bound:.3f}")
        if all(found[name] <= bound for name, bound in allowed.items()):
            return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
