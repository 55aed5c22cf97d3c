"""Run the benchmarks: `python benchmarks [--quick] [section ...]`; `scripts/bench` sets up what they need.

Writes benchmarks/results/*.json, the plots in docs/assets, and the page docs/concepts/performance.md.
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
from hashlib import sha256
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

SECTIONS = ("verification", "inside", "requests", "trouble", "scale", "footprint", "edge", "parts")
ROOT = Path(__file__).parents[1]
RESULTS = Path("benchmarks", "results")
ASSETS = Path("docs", "assets")
PAGE = Path("docs", "concepts", "performance.md")
DRAWN_FROM = Path("benchmarks", "drawn_from.txt")
"""The digest of the results that the plots show, and of what draws them."""
DRAWN_BY = Path(__file__).with_name("plots.py")
LOG_INTERVAL = 0.5
"""The load average up to which figures are worth keeping."""
PACKAGES = ("fastapi", "pydantic", "cryptography", "python-jose", "pyjwt", "joserfc", "authlib", "uvicorn", "httptools")


def interpreter() -> str:
    """Return the version of Python and its builder: it matters whether it was built with optimisations."""
    if sys.base_prefix != "/usr":
        return platform.python_version()
    return f"{platform.python_version()} as {platform.freedesktop_os_release()['NAME']} builds it"


def machine(*, quick: bool = False) -> dict[str, Any]:
    """Return the machine and the versions of a run."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "quick": quick,
        "python": interpreter(),
        "processor": model,
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),
        "client": "wrk" if shutil.which("wrk") else "a client in Python",
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def same(here: dict[str, Any], root: Path) -> bool:
    """Return whether the results in this folder come from the like of this machine, and from a run of this kind."""
    names = ("quick", "python", "processor", "cores", "client", "packages")
    path = root / RESULTS / "machine.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    return not any(here[name] != kept.get(name) for name in names)


def run(names: list[str], *, quick: bool, root: Path | None) -> None:
    """Run these sections, and keep the results in a folder, if there is one.

    Raises:
        SystemExit: The results of the other sections come from elsewhere.
    """
    here = machine(quick=quick)
    if here["load before"] > LOG_INTERVAL:
        print(f"The machine is busy (load average {here['load before']}): the figures are noisy.", file=sys.stderr)
    if root and set(names) != set(SECTIONS) and not same(here, root):
        raise SystemExit("The other sections were measured elsewhere, or with other versions: run all of them.")
    if root:
        write("machine", here, root)
    for name in names:
        started = time.monotonic()
        found = import_module(f"section_{name}").run(quick=quick)
        if root:
            write(name, found, root)
        print(f"\n-- {name}: {time.monotonic() - started:.0f} s", flush=True)


def write(name: str, found: Any, root: Path) -> None:
    """Write the results of one section."""
    (root / RESULTS).mkdir(parents=True, exist_ok=True)
    (root / RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def report(root: Path) -> None:
    """Draw the plots and write the page, from the results in this folder.

    Raises:
        SystemExit: The results of a section are missing.
    """
    kept = [root / RESULTS / f"{name}.json" for name in ("machine", *SECTIONS)]
    if missing := [path.stem for path in kept if not path.is_file()]:
        raise SystemExit(f"There are no results of {', '.join(missing)}: run all sections.")
    results = {path.stem: json.loads(path.read_text()) for path in kept}
    for folder in (ASSETS, PAGE.parent):
        (root / folder).mkdir(parents=True, exist_ok=True)
    import_module("plots").draw(results, root / ASSETS)
    (root / DRAWN_FROM).write_text(digest([*kept, DRAWN_BY]) + "\n")
    (root / PAGE).write_text(import_module("page").render(results))


def digest(files: list[Path]) -> str:
    """Return a digest of results and of what draws them, by which a test notices older plots."""
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def main() -> int:
    """Measure the chosen sections, then report."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="How fast the package is, beside its peers.")
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a short run: its figures are noise, and are not kept")
    parser.add_argument("--report", action="store_true", help="only draw and write the results of the last run")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="keep results, plots and page there")
    chosen = parser.parse_args()
    if unknown := set(chosen.sections) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(unknown)}")
    root = chosen.into or (None if chosen.quick else ROOT)
    logging.disable(logging.WARNING)
    if not chosen.report:
        run(chosen.sections or list(SECTIONS), quick=chosen.quick, root=root)
    if root:
        report(root)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
