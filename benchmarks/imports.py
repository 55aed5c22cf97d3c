"""What importing this package adds over importing FastAPI.

    python benchmarks/imports.py [--rounds N]

Each import happens in an interpreter of its own, the two in turn; bytecode is compiled before. The aim is 150 ms at
most. The time of the processor is printed too: other processes do not count in it.
`python -X importtime -c "import fastapi_cloudflare_access"` shows where it goes.
"""

import argparse
import platform
import subprocess
import sys
from statistics import median, quantiles

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
    wall, processor = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603
    return float(wall), float(processor)


def report(name: str, pairs: list[tuple[float, float]]) -> float:
    """Print the medians, and give that of the difference."""
    added = [whole - base for base, whole in pairs]
    tenths = quantiles(added, n=10)
    base, whole = (median(column) for column in zip(*pairs, strict=True))
    print(f"{name}: fastapi {base:.0f} ms, with the package {whole:.0f} ms,")
    print(f"  added {median(added):.0f} ms (10th to 90th percentile {tenths[0]:.0f} to {tenths[-1]:.0f})")
    return median(added)


def main() -> int:
    """Print what was measured; 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description="What importing the package adds over importing FastAPI.")
    parser.add_argument("--rounds", type=int, default=15, help="how many turns each side has (default: 15)")
    rounds = max(2, parser.parse_args().rounds)
    milliseconds(WHOLE)
    turns = [(milliseconds(BASE), milliseconds(WHOLE)) for _ in range(rounds)]
    print(f"Python {platform.python_version()}, {rounds} turns")
    added = report("wall", [(base[0], whole[0]) for base, whole in turns])
    report("processor", [(base[1], whole[1]) for base, whole in turns])
    print(f"aim: {AIM:.0f} ms at most: {'met' if added <= AIM else 'missed'}")
    return int(added > AIM)


if __name__ == "__main__":
    raise SystemExit(main())
