"""How the demo prints."""

import os
import sys

BOLD, DIM, GREEN, YELLOW = "1", "2", "32", "33"


def say(text: str = "", style: str = "") -> None:
    """Print a line at once, styled if the output is a terminal."""
    styled = style and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\x1b[{style}m{text}\x1b[0m" if styled else text, flush=True)
