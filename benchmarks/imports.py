"""The time that the import of this package adds to the import of FastAPI.

    python benchmarks/imports.py [--rounds N]

Each import happens in an interpreter of its own, the two in turn; bytecode is compiled before. The bound is 150 ms.
Processor time is printed too: it leaves other processes out.
`python -X importtime -c "import fastapi_cloudflare_access"` shows where it goes.
"""

import argparse
import atexit
import os
import platform
import subprocess
import sys
from functools import cache
from shutil import rmtree
from tempfile import mkdtemp

BOUND = 150.0
CODE = """
import time
clocks = time.perf_counter, time.process_time
before = [clock() for clock in clocks]
import {}
print(*[(clock() - start) * 1000 for clock, start in zip(clocks, before)])
"""
BASE, WHOLE = "fastapi", "fastapi, fastapi_cloudflare_access"


def milliseconds(modules: str) -> tuple[float, float]:
    """Return how long these imports take in a new interpreter: wall-clock time and processor time."""
    command = [sys.executable, "-c", CODE.format(modules)]
    wall, processor = subprocess.run(  # noqa: S603
        command, env=environment(), capture_output=True, text=True, check=True
    ).stdout.split()
    return float(wall), float(processor)


@cache
def environment() -> dict[str, str]:
    """Return an environment that keeps bytecode, even if this one does not; the first import writes it."""
    kept = mkdtemp()
    atexit.register(rmtree, kept)
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": kept}


def added(rounds: int) -> dict[str, float]:
    """Return the milliseconds between the fastest imports of each: other processes only ever add to them."""
    milliseconds(WHOLE)
    turns = [(milliseconds(BASE), milliseconds(WHOLE)) for _ in range(rounds)]
    base, whole = ([min(column) for column in zip(*side, strict=True)] for side in zip(*turns, strict=True))
    return {clock: round(whole[place] - base[place], 1) for place, clock in enumerate(("wall", "processor"))}


def main() -> int:
    """Print the figures; return 1 if the bound is broken."""
    parser = argparse.ArgumentParser(description="The time that the import of the package adds to that of FastAPI.")
    parser.add_argument("--rounds", type=int, default=15, help="how many turns each side has (default: 15)")
    rounds = max(2, parser.parse_args().rounds)
    found = added(rounds)
    print(f"Python {platform.python_version()}, {rounds} turns: importing the package adds to FastAPI")
    print(f"{found['wall']:.0f} ms of wall-clock time, {found['processor']:.0f} ms of processor time")
    print(f"bound: {BOUND:.0f} ms: {'kept' if found['wall'] <= BOUND else 'broken'}")
    return int(found["wall"] > BOUND)


if __name__ == "__main__":
    raise SystemExit(main())
