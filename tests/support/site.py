"""The documentation as the site has it, built once for all tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.once import once

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def build(folder: Path) -> None:
    """Build the site in a copy of the pages, with everything that scripts/docs adds."""
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for name in ("src", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    environment = os.environ | {"NO_COLOR": "1"}
    with (folder / "log.txt").open("w") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=False)
    subprocess.run([sys.executable, str(ROOT / "scripts/markdown_pages.py"), str(folder / "site")], check=True)


def built(factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the site and the log of its build."""
    return once(factory, "documentation", build)
