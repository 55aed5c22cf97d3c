"""JavaScript packages, where Node is there and npm can reach them."""

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

PATIENCE = 60
"""Seconds that installing may take."""


def install(package: str, cache: Path) -> Path | str:
    """Give the folder that has a package in its `node_modules`, installed where it is not yet, or why there is none.

    Args:
        package: The name and the version, such as `jose@6`.
        cache: A folder that is kept.
    """
    name = package.rpartition("@")[0]
    folder = cache / "installed"
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        return "there is no Node here"
    if not folder.exists():
        attempt = Path(tempfile.mkdtemp(dir=cache))
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", package]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=attempt, capture_output=True, timeout=PATIENCE, check=False)
        if not (attempt / "node_modules" / name).is_dir():
            return f"npm could not install {name}"
        with suppress(OSError):  # another process was first
            attempt.rename(folder)
    return folder
