"""The flood of the benchmark, in short."""

import subprocess
import sys
from pathlib import Path

from support.soaking import in_full

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_flood_of_unknown_keys_reaches_the_endpoint_within_the_bucket_and_known_callers_pass() -> None:
    """Two seconds at 200 tokens a second on a real server: all within the bounds that the script prints."""
    command = [sys.executable, str(BENCHMARKS / "flood.py"), "--seconds=2", "--rate=200"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "BROKEN" not in finished.stdout


def test_the_simulation_holds_its_bounds() -> None:
    command = [
        sys.executable,
        str(BENCHMARKS / "simulate_unknown_keys.py"),
        f"--trials={in_full(30, 1)}",
        "--only=this package",
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert finished.returncode == 0, finished.stdout + finished.stderr
