"""Run the tests of attacks and conformance with the signature verified by another library than python-jose.

    python scripts/signatures.py                        the quick ones, by each of joserfc, PyJWT and cryptography
    python scripts/signatures.py --all                  all of them, with every server, by each
    python scripts/signatures.py joserfc ARGUMENTS …    by one of them; pytest takes the arguments

The package is copied, `_verification/signature.py` is replaced by one file of tests/support/signatures, and python-jose
cannot be imported. No other file changes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPLACEMENTS = ROOT / "tests/support/signatures"
REPLACED = Path("fastapi_cloudflare_access/_verification/signature.py")
SLOW = {"differential", "fuzz", "integration"}
"""Folders of which tests/conftest.py selects no test, except for scripts/soak."""
WITHOUT_JOSE = 'raise ModuleNotFoundError("No module named \'jose\'", name="jose")\n'


def names() -> list[str]:
    """Return the libraries for which there is a replacement."""
    return sorted(path.stem.removeprefix("by_") for path in REPLACEMENTS.glob("by_*.py"))


def copy_package(name: str, folder: Path) -> Path:
    """Copy the package with one file replaced; return the folder to import from, where python-jose is missing."""
    copy = folder / "src"
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPLACEMENTS / f"by_{name}.py", copy / REPLACED)
    (copy / "jose.py").write_text(WITHOUT_JOSE)
    return copy


def environment(name: str, copy: Path, soak: str = "") -> dict[str, str]:
    """Return the environment in which Python imports the copy, and tests/conftest.py selects the tests.

    The coverage of the copy is not measured: it is gone when the report is written.
    """
    kept = {variable: value for variable, value in os.environ.items() if not variable.startswith("COVERAGE_")}
    path = os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH", "")]))
    return kept | {"PYTHONPATH": path, "SIGNATURE_BY": name, "SOAK": soak}


def files(soak: str = "") -> list[str]:
    """Return the files whose tests can be selected; the others would only take time to be read."""
    tests = ROOT / "tests"
    marked = {path for path in tests.rglob("test_*.py") if "pytest.mark.conformance(" in path.read_text()}
    verifying = {path for part in ("attacks", "differential", "verification") for path in (tests / part).glob("test_*")}
    found = marked | verifying | {tests / "test_vectors.py"}
    return sorted(str(path) for path in found if soak or path.parent.name not in SLOW)


def run(name: str, soak: str, arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run the tests with one replacement."""
    with tempfile.TemporaryDirectory() as folder:
        variables = environment(name, copy_package(name, Path(folder)), soak)
        command = [sys.executable, "-m", "pytest", *(arguments or ["-q", *files(soak)])]
        output = None if arguments else subprocess.PIPE
        return subprocess.run(
            command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT, text=True, check=False
        )


def run_each(soak: str) -> int:
    """Run the tests with each replacement, at the same time; return the highest exit code of pytest."""
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        ended = dict(zip(names(), pool.map(lambda name: run(name, soak, []), names()), strict=True))
    for name, result in ended.items():
        text = result.stdout if result.returncode else result.stdout.splitlines()[-1]
        print(f"signatures verified by {name}: {text}")
    print(f"without python-jose: {time.monotonic() - began:.0f} s")
    return max(result.returncode for result in ended.values())


def main(arguments: list[str]) -> int:
    """Return 0 if all tests passed with each replacement, or with the one that is named."""
    if arguments in ([], ["--all"]):
        return run_each("all" if arguments else "")
    if arguments[0] in names():
        return run(arguments[0], "", arguments[1:] or ["-n", "auto", *files()]).returncode
    print(f"scripts/signatures.py knows {', '.join(names())} and --all, not {arguments[0]}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
