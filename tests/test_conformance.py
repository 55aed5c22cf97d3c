"""The conformance table is complete, and the page shows it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_row_of_the_conformance_table_has_a_test_and_the_page_names_it() -> None:
    command = [sys.executable, str(ROOT / "scripts/conformance.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout.strip()) == (0, "every row has its tests")
