"""Check a built wheel: it is whole, typed and licensed, holds nothing else, and imports."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

PACKAGE = "fastapi_cloudflare_access"
COMMAND = f"{PACKAGE}.cli"
IMPORT = f"import sys, {PACKAGE} as package, {COMMAND}; sys.exit(not package.__file__.startswith(sys.argv[1]))"


def problems(wheel: Path) -> list[str]:
    """Return what is wrong with the wheel."""
    packed = set(ZipFile(wheel).namelist())
    sources = {str(path.relative_to("src")) for path in Path("src").rglob("*.py")}
    found = [f"{name} is missing" for name in sorted((sources | {f"{PACKAGE}/py.typed"}) - packed)]
    found += [f"{name} does not belong" for name in sorted(packed) if PACKAGE not in name.partition("/")[0]]
    if not any(name.endswith("licenses/LICENSE") for name in packed):
        found.append("the licence is missing")
    if not any(name.endswith(".dist-info/sboms/fastapi-cloudflare-access.cdx.json") for name in packed):
        found.append("the bill of materials is missing")
    if f"cf-access = {COMMAND}:main" not in entry_points(wheel):
        found.append("the command is missing")
    command = [sys.executable, "-c", IMPORT, str(wheel)]
    if subprocess.run(command, env={"PYTHONPATH": str(wheel)}, check=False).returncode:  # a wheel is a zip file
        found.append("it does not import")
    return found


def entry_points(wheel: Path) -> list[str]:
    """Return the lines of `entry_points.txt`."""
    with ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if name.endswith(".dist-info/entry_points.txt")]
        return packed.read(names[0]).decode().splitlines() if names else []


if __name__ == "__main__":
    wheel = Path(sys.argv[1]).resolve()
    found = problems(wheel)
    print(f"{wheel.name}:", "; ".join(found) or "whole, typed, licensed, importable")
    sys.exit(bool(found))
