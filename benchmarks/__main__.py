"""Run the benchmarks: `python benchmarks [--quick] [section ...]`; `scripts/bench` sets up what they need.

Writes benchmarks/results/*.json, the plots beside them, and the page docs/concepts/performance.md.
"""

import argparse
import json
import logging
import os
import platform
import shutil
import sys
import time
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

SECTIONS = ("verification", "inside", "requests", "trouble", "scale", "footprint", "edge")
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "concepts" / "performance.md"
PACKAGES = ("fastapi", "pydantic", "cryptography", "python-jose", "pyjwt", "joserfc", "authlib", "uvicorn", "httptools")


def interpreter() -> str:
    """Which Python, and of whom: it matters whether it was built with optimisations."""
    if sys.base_prefix != "/usr":
        return platform.python_version()
    return f"{platform.python_version()} as {platform.freedesktop_os_release()['NAME']} builds it"


def machine() -> dict[str, Any]:
    """What the figures were measured on, and with."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": interpreter(),
        "processor": model,
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),
        "client": "wrk" if shutil.which("wrk") else "a client in Python",
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def same(here: dict[str, Any]) -> bool:
    """Whether what was kept was measured on the like of this machine."""
    kept = json.loads((RESULTS / "machine.json").read_text())
    return not any(here[name] != kept.get(name) for name in ("python", "processor", "cores", "client", "packages"))


def run(names: list[str], *, quick: bool) -> None:
    """Run these sections, and keep what each gives unless it was a short look."""
    keep = (lambda *_: None) if quick else write
    here = machine()
    if set(names) != set(SECTIONS) and not quick and not same(here):
        raise SystemExit("The other sections were measured elsewhere, or with other versions: run all of them.")
    keep("machine", here)
    for name in names:
        started = time.monotonic()
        keep(name, import_module(f"section_{name}").run(quick=quick))
        print(f"\n-- {name}: {time.monotonic() - started:.0f} s", flush=True)


def write(name: str, found: Any) -> None:
    """Keep one section's results."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def report() -> None:
    """Draw the plots and write the page, from what was kept."""
    kept = [RESULTS / f"{name}.json" for name in ("machine", *SECTIONS)]
    if missing := [path.stem for path in kept if not path.is_file()]:
        raise SystemExit(f"There are no results of {', '.join(missing)}: run all sections.")
    results = {path.stem: json.loads(path.read_text()) for path in kept}
    import_module("plots").draw(results, RESULTS, ROOT / "docs" / "assets")
    PAGE.write_text(import_module("page").render(results))


def main() -> int:
    """Measure what is asked for, then report."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="How fast the package is, beside its peers.")
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a short look: nothing is comparable")
    parser.add_argument("--report", action="store_true", help="only draw and write what was measured before")
    chosen = parser.parse_args()
    if unknown := set(chosen.sections) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(unknown)}")
    logging.disable(logging.WARNING)
    if not chosen.report:
        run(chosen.sections or list(SECTIONS), quick=chosen.quick)
    if not chosen.quick:
        report()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
