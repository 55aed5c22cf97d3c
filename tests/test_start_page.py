"""The start page has the figures of the records, and the requirements of the project."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
START = (ROOT / "docs/index.md").read_text()
CONFORMANCE = (ROOT / "docs/concepts/conformance.md").read_text()


def test_no_figure_of_the_start_page_is_stale() -> None:
    command = [sys.executable, str(ROOT / "scripts/start_page.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_executions_of_fuzzing_are_those_of_the_conformance_page() -> None:
    assert "10,000,000 executions in one run, no finding" in CONFORMANCE
    assert "10,000,000 more in one run" in CONFORMANCE
    assert "**20,000,000** executions of fuzzing" in START


def test_the_requirements_are_those_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    python = re.search(r'requires-python = ">=([\d.]+)"', project)
    fastapi = re.search(r'"fastapi>=([\d.]+?)\.0"', project)
    assert python
    assert fastapi
    assert f"Python {python[1]} or newer · FastAPI {fastapi[1]} or newer · asyncio" in START
