"""Mutation testing: change the source in one place, and see whether a test notices.

    python scripts/mutate.py _token _jwks              counts and survivors of these modules
    python scripts/mutate.py --json result.json _token the same, kept as JSON too

The changes are those of cosmic-ray's operators. Each is tested in a forked child that has everything but this package
loaded, so that a mutant takes a second and nothing is written to the source tree.
"""
# ruff: noqa: ARG002, D102, D103, PLC0415, SLF001 - methods have the shape of their protocols, children import late

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from difflib import unified_diff
from itertools import count
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
PACKAGE = "fastapi_cloudflare_access"
SECONDS = 60
TESTS = {
    "_token": [
        "tests/test_token.py",
        "tests/attacks/test_limits.py",
        "tests/test_encoding.py",
        "tests/attacks/test_verifier.py",
    ],
    "_signature": [
        "tests/test_signature.py",
        "tests/test_token.py",
        "tests/test_jwks.py",
    ],
    "_jwks": ["tests/test_jwks.py", "tests/test_token.py", "tests/attacks/test_key_sets.py"],
    "_settings": ["tests/test_settings.py", "tests/attacks/test_settings_limits.py", "tests/attacks/test_key_sets.py"],
    "_key_source": ["tests/test_key_source.py", "tests/test_key_fetching.py"],
}
"""The tests that know a module, the quickest first."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change.

    Attributes:
        module: Of the package.
        operator: Which kind of change.
        occurrence: At which place of those it fits.
        source: The module with it.
        diff: The lines it changes.
        outcome: `killed`, `survived`, `timeout`.
    """

    module: str
    operator: str
    occurrence: int
    source: str
    diff: str
    outcome: str = ""


def mutants(module: str) -> Iterator[Mutant]:
    """Give every change of a module that changes its code."""
    source = path_of(module).read_text()
    seen = {code_of(source)}
    for operator in sorted(operator_names()):
        for occurrence in count():
            changed = mutate(source, operator, occurrence)
            if changed is None:
                break
            if (code := code_of(changed)) not in seen:
                seen.add(code)
                yield Mutant(module, operator, occurrence, changed, diff(source, changed))


def mutate(source: str, operator: str, occurrence: int) -> str | None:
    """Change one place; None where there is no further one, or the operator needs to be told about the source."""
    kind = get_operator(operator)
    if kind.arguments():
        return None
    try:
        changed: str | None = mutate_code(source, kind(), occurrence)
    except AttributeError:  # cosmic-ray trips over `except (One, *Others)`
        return source
    return changed


def code_of(source: str) -> object:
    """What Python makes of it, so that two spellings of one program count once."""
    try:
        return compiled(compile(source, "mutant", "exec"))
    except (SyntaxError, ValueError):
        return source


def compiled(code: CodeType) -> object:
    constants = tuple(
        compiled(item) if isinstance(item, CodeType) else (type(item), repr(item)) for item in code.co_consts
    )
    return code.co_code, constants, code.co_names, code.co_varnames


def diff(old: str, new: str) -> str:
    lines = unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def path_of(module: str) -> Path:
    return ROOT / "src" / PACKAGE / f"{module}.py"


class Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives the mutant in place of the module."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if name != f"{PACKAGE}.{self.mutant.module}":
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(path_of(self.mutant.module)))

    def get_source(self, fullname: str) -> str:
        return self.mutant.source


def survives(mutant: Mutant) -> str:
    """Run the tests in a child and say what became of the mutant."""
    child = os.fork()
    if not child:
        try:
            os._exit(run_tests(mutant))
        finally:
            os._exit(1)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def run_tests(mutant: Mutant) -> int:
    import pytest

    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    sys.meta_path.insert(0, Finder(mutant))
    tests = [str(ROOT / test) for test in TESTS[mutant.module] if (ROOT / test).exists()]
    options = ["-x", "-q"]
    options += [f"-pno:{plugin}" for plugin in ("randomly", "xdist", "cacheprovider", PACKAGE)]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return int(pytest.main([*options, *tests]))


def preload() -> None:
    """Load what every child needs, and make the keys that the tests would make."""
    import fastapi.testclient
    import httpx
    import hypothesis
    import jose.backends.cryptography_backend
    import pydantic_settings
    import pytest
    from _pytest.assertion.rewrite import AssertionRewritingHook
    from cryptography.hazmat.primitives.asymmetric import rsa

    AssertionRewritingHook._warn_already_imported = lambda *_: None  # type: ignore[method-assign]
    del fastapi, httpx, hypothesis, jose, pydantic_settings, pytest
    make = rsa.generate_private_key
    pool = [make(public_exponent=65_537, key_size=2048) for _ in range(24)]

    def ready_made(public_exponent: int, key_size: int, backend: Any = None) -> Any:
        if (public_exponent, key_size) == (65_537, 2048) and pool:
            return pool.pop()
        return make(public_exponent, key_size, backend)

    rsa.generate_private_key = ready_made


def survivors(file: Path) -> set[tuple[str, str]]:
    return {(one["module"], one["diff"]) for one in json.loads(file.read_text()) if one["outcome"] == "survived"}


def main(arguments: list[str]) -> int:
    """Give 0 where no mutant survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(TESTS), metavar="MODULE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--again", type=Path, help="only what survived according to such a JSON")
    parser.add_argument("--count", action="store_true", help="only count")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    warnings.simplefilter("ignore")  # mutants are not good style
    preload()
    results: list[dict[str, Any]] = []
    again = survivors(options.again) if options.again else None
    for module in options.modules:
        print(module, end=" ", flush=True)
        original = path_of(module).read_text()
        if not options.count and (outcome := survives(Mutant(module, "none", 0, original, ""))) != "survived":
            sys.exit(f"the tests fail without any change: {outcome}")
        for mutant in mutants(module):
            if again is not None and (module, mutant.diff) not in again:
                continue
            result = asdict(mutant) | {"outcome": "counted" if options.count else survives(mutant)}
            del result["source"]
            results.append(result)
            if result["outcome"] == "survived":
                print(f"\n{mutant.operator} {mutant.occurrence}\n{mutant.diff}", flush=True)
        mine = [result["outcome"] for result in results if result["module"] == module]
        print(f"{len(mine)} mutants, {mine.count('survived')} survived, {mine.count('timeout')} timed out", flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(any(result["outcome"] == "survived" for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
