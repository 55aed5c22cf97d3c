"""A guard for CI: fails where a verification has become much dearer, beside RSA in the same run.

    python benchmarks/guard.py

The bounds are far above what is measured on a quiet machine (the page "Performance"), so that only a change of the code
breaks them, and a noisy machine gets three tries. It is no test of the promises.
"""

from material import TOKENS, bare, verifier
from section_verification import BASE, CACHED, OURS, TIMES, verifying
from timing import interleave, plain

BOUNDS = {OURS: 2.6, CACHED: 0.3}
"""What is measured is 1.8 and 0.1."""
TRIES = 3


def measure(token: str) -> dict[str, float]:
    """The best rounds of each: what others do on the machine only ever adds."""
    turns = {
        BASE: plain(bare(token)),
        OURS: verifying(verifier(), token),
        CACHED: verifying(verifier(token_cache_size=10), token),
    }
    return {name: one.low for name, one in interleave(turns, rounds=200, times=TIMES).items()}


def main() -> int:
    """Say what was measured; 1 where a bound is broken each time."""
    for _ in range(TRIES):
        found = measure(TOKENS["user, 0.9 kB"])
        broken = [name for name, bound in BOUNDS.items() if found[name] > bound]
        for name, bound in BOUNDS.items():
            print(f"{name}: {found[name]:.2f} times one RSA, bound {bound}")
        if not broken:
            return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
