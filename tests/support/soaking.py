"""What scripts/soak runs in full, and every other run in part: tests that take long and never failed by themselves."""

import os
from typing import TypeVar

T = TypeVar("T")

SOAKING = bool(os.environ.get("SOAK"))


def in_full(full: T, otherwise: T) -> T:
    """Return the first value if scripts/soak runs the tests, and the second in any other run."""
    return full if SOAKING else otherwise
