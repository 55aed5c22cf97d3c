"""Run the tests of attacks and conformance with the signature verified by another library than python-jose.

    python scripts/signatures.py                        by each of joserfc, PyJWT and cryptography
    python scripts/signatures.py joserfc ARGUMENTS …    by one of them; pytest takes the arguments

The package is copied, `_verification/signature.py` is replaced by one file of tests/support/signatures, and python-jose
cannot be imported. No other file changes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPLACEMENTS = ROOT / "tests/support/signatures"
REPLACED = Path("fastapi_cloudflare_access/_verification/signature.py")
VARIABLE = "SIGNATURE_BY"
"""Environment variable by which tests/conftest.py selects the tests, and checks which file is in use."""
WITHOUT_JOSE = 'raise ModuleNotFoundError("No module named \'jose\'", name="jose")\n'
NO_TESTS = 5
"""The exit code of pytest if no test was selected."""


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


def environment(name: str, copy: Path) -> dict[str, str]:
    """Return the environment in which Python imports the copy."""
    path = os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, VARIABLE: name}


def selected() -> list[str]:
    """Return the files that hold rows of the conformance page, and those whose tests verify signatures."""
    tests = ROOT / "tests"
    marked = {path for path in tests.rglob("test_*.py") if "pytest.mark.conformance(" in path.read_text()}
    verifying = {path for part in ("attacks", "differential", "verification") for path in (tests / part).glob("test_*")}
    return sorted(map(str, marked | verifying | {tests / "test_vectors.py"}))


def run(name: str, arguments: list[str]) -> int:
    """Run the tests with one replacement; return the exit code of pytest."""
    print(f"+ signatures verified by {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            *(arguments or ["-n", "auto", "-q", *selected()]),
        ]
        return subprocess.run(
            command, cwd=ROOT, env=environment(name, copy_package(name, Path(folder))), check=False
        ).returncode


def main(arguments: list[str]) -> int:
    """Return 0 if all tests passed with each replacement, or with the one that is named."""
    if arguments and arguments[0] not in names():
        print(f"scripts/signatures.py knows {', '.join(names())}, not {arguments[0]}", file=sys.stderr)
        return 2
    codes = [run(name, arguments[1:]) for name in arguments[:1] or names()]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
