"""Install a wheel into empty environments, alone and with each of its extras, and use what the extra is for."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

PACKAGE = "fastapi_cloudflare_access"
USES = {
    "": f"from {PACKAGE} import CloudflareAccess, guard, browser, policies, problems; CloudflareAccess",
    "cli": f"from {PACKAGE}.cli import main; main(['--version'])",
    "fastmcp": f"from {PACKAGE}.mcp import CloudflareAccessProvider",
    "httpx2": f"from {PACKAGE}.fetching import Httpx2Fetch; import httpx2",
    "local": f"import {PACKAGE}.local; from {PACKAGE}.cli import main; main(['dev', '--help'])",
    "mcp": f"from {PACKAGE}.mcp import bridge",
    "opentelemetry": f"from {PACKAGE}.instrumentation.opentelemetry import OpenTelemetryListener",
    "prometheus": f"from {PACKAGE}.instrumentation.prometheus import PrometheusListener",
    "redis": f"from {PACKAGE}.stores.redis import RedisStore; import redis",
    "testing": f"import pytest, pytest_{PACKAGE}; from {PACKAGE}.testing import FakeTeam; FakeTeam().user('a@b.org')",
}
"""What runs after an installation with each extra; without one for the empty name."""


def extras(wheel: Path) -> list[str]:
    """Return the extras that the metadata of the wheel names."""
    with ZipFile(wheel) as packed:
        metadata = next(name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(packed.read(metadata)).get_all("Provides-Extra", [])


def fails(wheel: Path, extra: str, folder: Path) -> bool:
    """Install the wheel with this extra, and return whether something fails."""
    venv = folder / (extra or "alone")
    python = venv / "bin/python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(python)]
    commands = [
        [sys.executable, "-m", "venv", "--without-pip", str(venv)],
        [*pip, "install", "--no-compile", f"{wheel}[{extra}]" if extra else str(wheel)],
        [*pip, "check"],
        [str(python), "-I", "-W", "error", "-c", USES[extra]],
    ]
    return any(subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode for command in commands)


def main(wheel: Path) -> int:
    """Return 0 if the wheel works with each extra."""
    names = ["", *extras(wheel)]
    if unknown := [name for name in names if name not in USES]:
        print(f"USES in scripts/check_extras.py does not say what to run for {', '.join(unknown)}")
        return 1
    with TemporaryDirectory() as folder:
        with ThreadPoolExecutor(2) as pool:
            results = [*pool.map(lambda name: fails(wheel, name, Path(folder)), names)]
        failed = [name or "no extra" for name, failing in zip(names, results, strict=True) if failing]
    print(
        f"{wheel.name}:",
        f"fails with {', '.join(failed)}" if failed else f"works alone and with {len(names) - 1} extras",
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
