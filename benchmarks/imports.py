"""What importing this package adds over importing FastAPI.

    python benchmarks/imports.py [--rounds N]

Each import happens in an interpreter of its own, the two in turn; bytecode is compiled before. The aim is 150 ms at
most. The time of the processor is printed too: other processes do not count in it.
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

AIM = 150.0
CODE = """
import time
clocks = time.perf_counter, time.process_time
before = [clock() for clock in clocks]
import {}
print(*[(clock() - start) * 1000 for clock, start in zip(clocks, before)])
"""
BASE, WHOLE = "fastapi", "fastapi, fastapi_cloudflare_access"


def milliseconds(modules: str) -> tuple[float, float]:
    """Import these modules in a new interpreter: by the clock on the wall, and by that of the processor."""
    command = [sys.executable, "-c", CODE.format(modules)]
    wall, processor = subprocess.run(  # noqa: S603
        command, env=environment(), capture_output=True, text=True, check=True
    ).stdout.split()
    return float(wall), float(processor)


@cache
def environment() -> dict[str, str]:
    """An environment that keeps bytecode, whatever this one says of that; the first import writes it."""
    kept = mkdtemp()
    atexit.register(rmtree, kept)
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": kept}


def added(rounds: int) -> dict[str, float]:
    """Milliseconds between the quickest imports of each in so many turns: what others do only ever adds."""
    milliseconds(WHOLE)
    turns = [(milliseconds(BASE), milliseconds(WHOLE)) for _ in range(rounds)]
    base, whole = ([min(column) for column in zip(*side, strict=True)] for side in zip(*turns, strict=True))
    return {clock: round(whole[place] - base[place], 1) for place, clock in enumerate(("wall", "processor"))}


def main() -> int:
    """Print what was measured; 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description="What importing the package adds over importing FastAPI.")
    parser.add_argument("--rounds", type=int, default=15, help="how many turns each side has (default: 15)")
    rounds = max(2, parser.parse_args().rounds)
    found = added(rounds)
    print(f"Python {platform.python_version()}, {rounds} turns: importing the package adds to FastAPI")
    print(f"{found['wall']:.0f} ms by the clock on the wall, {found['processor']:.0f} ms of the processor")
    print(f"aim: {AIM:.0f} ms at most: {'met' if found['wall'] <= AIM else 'missed'}")
    return int(found["wall"] > AIM)


if __name__ == "__main__":
    raise SystemExit(main())
