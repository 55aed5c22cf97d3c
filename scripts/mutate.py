"""Mutation testing: change the source in one place, and see whether a test notices.

    python scripts/mutate.py keys _keys.jwks           counts and survivors of these modules
    python scripts/mutate.py --json result.json keys   the same, kept as JSON too
    python scripts/mutate.py --record keys             the same, kept in tests/vectors/mutants.json
    python scripts/mutate.py --sample 150 --record keys   150 of them, chosen by a fixed seed

The changes are those of cosmic-ray's operators. Nothing is written to the source tree. A change inside a function is
first made to the function itself, in a forked child in which the tests are collected already: most are noticed there,
in a fraction of a second. All others are tested in a child that imports this package anew. One that survives there is
an error unless tests/vectors/mutants.json gives the reason why no test can notice it.
"""
# ruff: noqa: ARG002, D102, D103, PLC0415, SLF001 - methods have the shape of their protocols, children import late

import argparse
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import io
import json
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from difflib import unified_diff
from functools import _lru_cache_wrapper, lru_cache, partial
from itertools import chain, count, groupby, islice
from math import log2
from pathlib import Path
from random import Random
from types import CodeType, FunctionType, ModuleType
from typing import IO, Any, TypeAlias

from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
PACKAGE = "fastapi_cloudflare_access"
RECORD = ROOT / "tests/vectors/mutants.json"
SECONDS = 300
SEED = 21
POLICIES = ["tests/test_policies.py", "tests/test_roles.py", "tests/identity/test_dependency.py"]
URLS = ["tests/requests/test_urls.py", "tests/requests/test_login_redirect.py"]
MCP = ["tests/test_mcp.py", "tests/integration/test_mcp_sessions.py"]
STREAMS = ["tests/test_streams.py", "tests/requests/test_open_streams.py", "tests/requests/test_guarded_streams.py"]
REVOCATIONS = [f"tests/revocations/test_{name}.py" for name in ("source", "reading", "requests", "following")]
SNAPSHOTS_IN_REDIS = [
    f"tests/integration/test_fleet_keys.py::test_{name}"
    for name in (
        "a_store_reads_writes_and_locks",
        "a_lock_that_ended_by_itself_is_not_taken_from_its_next_owner",
        "a_lock_ends_by_itself_after_its_seconds",
        "a_command_that_fails_is_not_sent_again",
    )
]
REVOCATIONS_IN_REDIS = [
    f"tests/integration/test_fleet_revocations.py::test_{name}"
    for name in (
        "a_log_is_read_in_pages_followed_and_trimmed",
        "a_user_of_the_server_with_few_rights_suffices",
        "the_server_gets_these_commands",
        "a_log_of_another_type_of_value_is_an_error",
    )
]
ENDED_STREAMS = [*STREAMS, "tests/revocations/test_requests.py"]
TESTS = {
    "_verification.strict": [
        "tests/verification/test_strict.py",
        "tests/attacks/test_limits.py",
        "tests/attacks/test_cost.py",
        "tests/attacks/test_key_sets.py",
    ],
    "_verification.token": [
        "tests/verification/test_token.py",
        "tests/attacks/test_limits.py",
        "tests/verification/test_strict.py",
        "tests/attacks/test_verifier.py",
    ],
    "_verification.signature": [
        "tests/verification/test_signature.py",
        "tests/verification/test_token.py",
        "tests/keys/test_jwks.py",
    ],
    "_keys.jwks": ["tests/keys/test_jwks.py", "tests/verification/test_token.py", "tests/attacks/test_key_sets.py"],
    "settings": [
        "tests/test_settings.py",
        "tests/test_setting_messages.py",
        "tests/attacks/test_settings_limits.py",
        "tests/test_not_a_dependency.py",
    ],
    "keys": [
        "tests/test_keys.py",
        "tests/keys/test_fetcher.py",
        "tests/keys/test_metrics.py",
        "tests/test_events.py",
        "tests/requests/test_authentication.py",
        "tests/test_not_a_dependency.py",
    ],
    "_verification.request_token": [
        "tests/verification/test_request_token.py",
        "tests/requests/test_authentication.py",
    ],
    "_verifier": [
        "tests/verification/test_token_cache.py",
        "tests/requests/test_authentication.py",
        "tests/test_access.py",
        "tests/test_former_names.py",
        "tests/test_streams.py",
        "tests/identity/test_dependency.py",
        "tests/revocations/test_requests.py",
        "tests/requests/test_telemetry.py",
        "tests/attacks/test_limits.py",
        "tests/attacks/test_unknown_keys.py",
    ],
    "_verification.token_cache": ["tests/verification/test_token_cache.py"],
    **{f"policies.{name}": POLICIES for name in ("callers", "expressions", "logic", "reading", "roles")},
    "guard": ["tests/test_guard.py", "tests/test_calls.py"],
    "identity": ["tests/identity/test_identity.py"],
    "_identity.document": ["tests/identity/test_document.py"],
    "_identity.limits": ["tests/identity/test_limits.py"],
    "_identity.source": ["tests/identity/test_source.py"],
    "streams": ENDED_STREAMS,
    "_requests.authentication": [
        "tests/requests/test_authenticator.py",
        "tests/requests/test_authentication.py",
        "tests/requests/test_telemetry.py",
        "tests/test_former_names.py",
        "tests/test_policies.py",
        "tests/identity/test_dependency.py",
        "tests/revocations/test_requests.py",
        *STREAMS,
    ],
    "_requests.choosing": ["tests/requests/test_choosing.py"],
    "_requests.guarded_streams": ENDED_STREAMS,
    "_requests.login_redirect": [*URLS, "tests/test_guard.py"],
    "_requests.open_streams": ENDED_STREAMS,
    "_requests.refusing": ["tests/requests/test_refusing.py"],
    "_requests.stream_block": ENDED_STREAMS,
    "_requests.urls": URLS,
    "_routes.check": ["tests/routes/test_check.py", "tests/testing/test_auditing.py"],
    "_routes.guarded_app": ["tests/routes/test_guarded_app.py", "tests/test_guard.py"],
    "_routes.tree": [
        "tests/routes/test_tree.py",
        "tests/routes/test_check.py",
        "tests/routes/test_guarded_app.py",
        "tests/testing/test_auditing.py",
    ],
    **{
        f"mcp.{name}": MCP
        for name in ("bridging", "calls", "other_schemes", "provider", "requirements", "sdk", "versions")
    },
    "stores._redis.connection": ["tests/stores/test_redis.py", *SNAPSHOTS_IN_REDIS],
    "stores._redis.revocations": ["tests/stores/test_redis.py", *REVOCATIONS_IN_REDIS],
    "stores._redis.snapshots": SNAPSHOTS_IN_REDIS,
    "stores._checks": ["tests/stores/test_checks.py"],
    "stores._signing": ["tests/stores/test_signing.py", "tests/keys/test_shared_snapshot.py"],
    "stores.file": ["tests/stores/test_file.py", "tests/stores/test_checks.py"],
    "stores.memory": ["tests/stores/test_memory.py", "tests/stores/test_checks.py"],
    "stores.redis": ["tests/stores/test_redis.py", "tests/stores/test_checks.py"],
    "_revocations.arguments": ["tests/revocations/test_arguments.py"],
    "_revocations.following": REVOCATIONS,
    "_revocations.record": ["tests/revocations/test_record.py", "tests/revocations/test_table.py"],
    "_revocations.reporting": ["tests/revocations/test_reporting.py"],
    "_revocations.source": REVOCATIONS,
    "_revocations.subjects": ["tests/revocations/test_arguments.py", "tests/revocations/test_requests.py"],
    "_revocations.table": ["tests/revocations/test_table.py"],
    "revocations": [*REVOCATIONS, "tests/cli/test_revoking.py"],
    "_keys.shared_snapshot": ["tests/keys/test_shared_snapshot.py"],
    "_keys.sharing": ["tests/keys/test_sharing.py"],
    "_keys.snapshot": ["tests/keys/test_snapshot.py", "tests/keys/test_document.py", "tests/keys/test_cache.py"],
    "_keys.weak_moduli": ["tests/keys/test_weak_moduli.py"],
}
"""The tests that know a module, the quickest first: files, or single tests of one."""
SLOW = (
    *("no_keys_backoff_caps", "under_any_flood", "fresh_kid_accepted_within", "revoked_key_gone"),
    *("decided_without_groups_is_not", "cannot_be_read_refuses_every", "is_a_text_that_means_the_same"),
    *(
        "with_an_identity_at_hand",
        "a_thousand",
        "no_path_leads_a_browser",
        "gzip_bomb",
        "seven_hundred_routes",
        "tokens_are_remembered_and",
    ),
    *("cost_at_most_two_kibibytes", "the_exponents_are_those_of"),
    *("a_fifth_more_fetches", "in_any_order", "makes_an_equal_table", "never_goes_down", "a_key_which_does_not_change"),
)
"""Tests that take half a second and more; only who survives all others meets them."""
OPTIONS = ("-x", "-q", *(f"-pno:{plugin}" for plugin in ("randomly", "xdist", "cacheprovider", PACKAGE)))

Changes: TypeAlias = list[tuple[CodeType, CodeType]]
"""Functions, and what becomes of them."""


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
    visitor = MutationVisitor(occurrence, kind())
    try:
        changed: Any = visitor.walk(pickle.loads(tree_of(source)))  # noqa: S301 - made here
    except AttributeError:  # cosmic-ray trips over `except (One, *Others)`
        return source
    return str(changed.get_code()) if visitor.mutation_applied else None


@lru_cache(maxsize=1)
def tree_of(source: str) -> bytes:
    """Parse a module once; a copy of its tree costs a twentieth."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return pickle.dumps(get_ast(source))
    finally:
        sys.setrecursionlimit(limit)  # which tests reach


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
    return ROOT / "src" / PACKAGE / f"{module.replace('.', '/')}.py"


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


def outcomes(found: Iterable[Mutant], *, jobs: int) -> Iterator[Mutant]:
    """Test mutants in so many children at a time, and give each with what became of it, as they end."""
    waiting, running = iter(found), dict[int, tuple[Mutant, float]]()
    while True:
        for mutant in islice(waiting, jobs - len(running)):
            running[start(mutant)] = mutant, time.monotonic() + SECONDS
        if not running:
            return
        for child, (mutant, deadline) in list(running.items()):
            if outcome := ended(child, deadline):
                del running[child]
                yield replace(mutant, outcome=outcome)
        time.sleep(0.01)


def start(mutant: Mutant) -> int:
    """Begin to run the tests in a child."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)  # so that servers that its tests started end with it
        try:
            os._exit(run_tests(mutant))
        finally:
            os._exit(1)
    return child


def ended(child: int, deadline: float) -> str:
    """Say what became of a mutant; nothing while its tests run."""
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        return "survived" if code == 0 else "timeout" if -code in (signal.SIGPROF, signal.SIGALRM) else "killed"
    if time.monotonic() < deadline:
        return ""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


class Loop:
    """A pytest plugin that runs the collected tests in a child for each mutant, in place of running them once.

    A mutant changes the functions of a loaded module. It is asked of the tests that call one of them, the quickest
    first. Its outcome is `unknown` if it changes something else, or a function that is not loaded or was called during
    the collection.
    """

    def __init__(self, mutants: list[Mutant], results: IO[str]) -> None:
        self.mutants, self.results = mutants, results
        self.paths = {str(path_of(mutant.module)) for mutant in mutants}
        self.called = Calls(self.paths)
        self.called.begin()

    def pytest_runtestloop(self, session: Any) -> bool:
        self.called.end()
        objects = gc.get_objects()
        functions = [one for one in objects if isinstance(one, FunctionType) and one.__code__.co_filename in self.paths]
        caches = [one for one in objects if isinstance(one, _lru_cache_wrapper) and one.__module__.startswith(PACKAGE)]
        gc.freeze()
        with tempfile.NamedTemporaryFile("w+") as measured:
            began = time.monotonic()
            outcome = in_child(lambda: measure(session, self.paths, caches, measured), seconds=SECONDS)
            print(outcome, file=self.results, flush=True)
            seconds = 10 + 5 * (time.monotonic() - began)
            lines = [json.loads(line) for line in Path(measured.name).read_text().splitlines()]
        items = sorted(zip(lines, session.items, strict=True), key=lambda pair: int(log2(pair[0][0] + 1e-3)))
        loaded = {key_of(function.__code__) for function in functions}
        limits = Limits({item.nodeid: (10 + 5 * took, 60 + 5 * waited) for (took, _, waited), item in items})
        for mutant in self.mutants:
            changed = changed_by(mutant)
            names = {key_of(was) for was, _ in changed}
            chosen = [item for (_, calls, _), item in items if not names.isdisjoint(calls)]
            work = partial(run_swapped, session, chosen, limits, changed, functions, caches)
            outcome = in_child(work, seconds=seconds) if chosen else "survived"
            is_final = outcome != "survived" or (changed and names <= loaded and names.isdisjoint(self.called.keys))
            print(outcome if is_final else "unknown", file=self.results, flush=True)
        return True


class Limits:
    """A pytest plugin that ends a child in which a test takes far longer than it takes without a change.

    Attributes:
        seconds: For each test those of the processor, and those of the clock.
    """

    def __init__(self, seconds: Mapping[str, tuple[float, float]]) -> None:
        self.seconds = seconds

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        of_processor, of_clock = self.seconds[nodeid]
        signal.setitimer(signal.ITIMER_PROF, of_processor)
        signal.setitimer(signal.ITIMER_REAL, of_clock)

    def pytest_runtest_logfinish(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


class Calls:
    """The functions of some files that are called from `begin` to `end`."""

    def __init__(self, paths: set[str]) -> None:
        self.keys: set[str] = set()
        self._paths = paths

    def begin(self) -> None:
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def end(self) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename in self._paths:
            self.keys.add(key_of(frame.f_code))


def key_of(code: CodeType) -> str:
    return f"{code.co_filename}:{code.co_firstlineno}:{code.co_qualname}"


def in_child(work: Callable[[], int], *, seconds: float) -> str:
    """Do something in a child, for so long at most, and return how it ended."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)  # so that servers that its tests started end with it
        try:
            os._exit(work())
        finally:
            os._exit(1)
    deadline = time.monotonic() + seconds
    while not (outcome := ended(child, deadline)):
        time.sleep(0.002)
    return outcome


def measure(session: Any, paths: set[str], caches: list[Any], measured: IO[str]) -> int:
    """Write how many seconds each test takes, of the processor and of the clock, and which functions it calls.

    Nothing is remembered from one test to the next, or only the first one would call a function that has a cache.
    """
    for item in session.items:
        for cache in caches:
            cache.cache_clear()
        began, calls, started = time.process_time(), Calls(paths), time.monotonic()
        calls.begin()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        calls.end()
        took, waited = time.process_time() - began, time.monotonic() - started
        print(json.dumps([took, sorted(calls.keys), waited]), file=measured, flush=True)
    return int(session.testsfailed > 0)


def run_swapped(
    session: Any,
    items: list[Any],
    limits: Limits,
    changed: Changes,
    functions: list[FunctionType],
    caches: list[Any],
) -> int:
    """Run tests of a session with other code in some functions."""
    from _pytest.main import pytest_runtestloop

    codes = {key_of(was): becomes for was, becomes in changed}
    for function in functions:
        if becomes := codes.get(key_of(function.__code__)):
            function.__code__ = becomes
    for cache in caches:
        cache.cache_clear()
    session.items[:] = items
    session.config.pluginmanager.register(limits)
    pytest_runtestloop(session)
    return int(session.testsfailed > 0)


def changed_by(mutant: Mutant) -> Changes:
    """Return the functions that a mutant changes; none if it changes something else too."""
    path = str(path_of(mutant.module))
    try:
        new = compile(mutant.source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return []
    return changed_functions(compile(Path(path).read_text(), path, "exec", dont_inherit=True), new)


def changed_functions(old: CodeType, new: CodeType) -> Changes:
    """Return the functions that differ between two modules or classes; none if something else differs too."""
    inner = [
        [item if isinstance(item, CodeType) else (type(item), repr(item)) for item in code.co_consts]
        for code in (old, new)
    ]
    same = [
        [item if isinstance(item, tuple) else None for item in items] + [code.co_code, code.co_names, code.co_varnames]
        for items, code in zip(inner, (old, new), strict=True)
    ]
    if same[0] != same[1]:
        return []
    found: Changes = []
    for was, becomes in zip(*inner, strict=True):
        if isinstance(was, CodeType) and compiled(was) != compiled(becomes):
            is_function = was.co_flags & inspect.CO_OPTIMIZED
            inside = [(was, becomes)] if is_function else changed_functions(was, becomes)
            if not inside:
                return []
            found += inside
    return found


def tested_at_once(found: list[Mutant]) -> list[Mutant]:
    """Return the mutants of modules with the same tests whose outcome is known where functions have their code.

    Raises:
        SystemExit: The tests fail without any change.
    """
    with tempfile.NamedTemporaryFile("w+") as results:
        server = os.fork()
        if not server:
            try:
                import pytest

                tests = tests_of(found[0].module)
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    pytest.main([*OPTIONS, *tests], plugins=[Loop(found, results)])
            finally:
                os._exit(0)
        os.waitpid(server, 0)
        untouched, *outcomes = Path(results.name).read_text().split() or ["nothing"]
    if untouched != "survived":
        sys.exit(f"the tests fail without any change: {untouched}")
    if len(outcomes) != len(found):
        print(f"(of {len(found)} mutants only {len(outcomes)} were tried at once)", flush=True)
    return [replace(one, outcome=how) for one, how in zip(found, outcomes, strict=False) if how != "unknown"]


def run_tests(mutant: Mutant) -> int:
    """Run the quick tests, and where all pass the slow ones."""
    import pytest

    forget()
    sys.meta_path.insert(0, Finder(mutant))
    importlib.import_module(f"{PACKAGE}.{mutant.module}")  # one that cannot be imported is noticed without a test
    tests = tests_of(mutant.module)
    slow = " or ".join(SLOW)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for chosen in (f"not ({slow})", slow):
            code = pytest.main([*OPTIONS, f"-k={chosen}", *tests])
            if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                return int(code)
    return 0


def tests_of(module: str) -> list[str]:
    return [str(ROOT / test) for test in TESTS[module] if (ROOT / test.partition("::")[0]).exists()]


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


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
    pool = [make(public_exponent=65_537, key_size=2048) for _ in range(8)]

    def ready_made(public_exponent: int, key_size: int, backend: Any = None) -> Any:
        if (public_exponent, key_size) == (65_537, 2048) and pool:
            return pool.pop()
        return make(public_exponent, key_size, backend)

    rsa.generate_private_key = ready_made


def survivors(file: Path) -> set[tuple[str, str]]:
    return {(one["module"], one["diff"]) for one in json.loads(file.read_text()) if one["outcome"] == "survived"}


def recorded() -> dict[str, Any]:
    """The record of each module: how many mutants there were, and the survivors, each with its reason."""
    kept: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return kept


def record(module: str, results: list[Mutant], *, of: int) -> None:
    """Keep the results of a module, of so many mutants; the reasons that were given stay with their mutants."""
    kept = recorded()
    reasons = reasons_of(kept.get(module, {}))
    survived = sorted(one.diff for one in results if one.outcome == "survived")
    kept[module] = {
        "mutants": len(results),
        **({"sample_of": of, "seed": SEED} if len(results) < of else {}),
        "noticed": len(results) - len(survived),
        "survivors": [{"change": diff.splitlines(), "reason": reasons.get(diff, "")} for diff in survived],
    }
    RECORD.write_text(json.dumps(dict(sorted(kept.items())), indent=2, ensure_ascii=False) + "\n")


def reasons_of(kept: Mapping[str, Any]) -> dict[str, str]:
    return {"\n".join(one["change"]): one["reason"] for one in kept.get("survivors", []) if one["reason"]}


def test_module(module: str, found: list[Mutant], known: list[Mutant], *, jobs: int) -> list[Mutant]:
    """Return the mutants of a module with their outcomes, and show which survived without a reason.

    Args:
        module: The name of the module.
        found: Its mutants.
        known: Those whose outcome is known; all others are tested.
        jobs: How many at a time.
    """
    known = [one for one in known if one.module == module]
    rest = {one.diff for one in found} - {one.diff for one in known}
    results: list[Mutant] = []
    reasons = reasons_of(recorded().get(module, {}))
    for mutant in chain(known, outcomes((one for one in found if one.diff in rest), jobs=jobs)):
        results.append(mutant)
        if mutant.outcome == "survived" and mutant.diff not in reasons:
            print(f"\n{mutant.operator} {mutant.occurrence}\n{mutant.diff}", flush=True)
    return sorted(results, key=lambda one: (one.operator, one.occurrence))


def choose(every: list[Mutant], size: int | None, again: set[tuple[str, str]] | None) -> list[Mutant]:
    """Choose so many of the mutants, the same ones each time; all if there are not so many; or those to test again."""
    if again is not None:
        return [one for one in every if (one.module, one.diff) in again]
    if size is None or len(every) <= size:
        return every
    return Random(SEED).sample(every, size)  # noqa: S311 - not a secret


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(TESTS), metavar="MODULE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record", action="store_true", help="keep the results in tests/vectors/mutants.json")
    parser.add_argument("--again", type=Path, help="only what survived according to such a JSON")
    parser.add_argument("--sample", type=int, help="only so many mutants of each module, by a fixed seed")
    parser.add_argument("--count", action="store_true", help="only count")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Give 0 where no mutant survived but those that are explained."""
    options = options_of(arguments)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    warnings.simplefilter("ignore")  # mutants are not good style
    preload()
    everything: list[Mutant] = []
    again = survivors(options.again) if options.again else None
    for _, group in groupby(options.modules, key=lambda module: TESTS[module]):
        every = {module: [*mutants(module)] for module in group}
        chosen = {module: choose(all_of, options.sample, again) for module, all_of in every.items()}
        known = [] if options.count else tested_at_once([one for each in chosen.values() for one in each])
        for module, found in chosen.items():
            print(module, end=" ", flush=True)
            results = found if options.count else test_module(module, found, known, jobs=options.jobs)
            everything += results
            ended_so = Counter(one.outcome for one in results)
            print(
                f"{len(results)} mutants, {ended_so['survived']} survived, {ended_so['timeout']} timed out", flush=True
            )
            if options.record and not (options.count or options.again):
                record(module, results, of=len(every[module]))
        if options.json:
            lines = [{name: value for name, value in asdict(one).items() if name != "source"} for one in everything]
            options.json.write_text(json.dumps(lines, indent=1) + "\n")
    reasons = {module: reasons_of(kept) for module, kept in recorded().items()}
    return int(any(one.outcome == "survived" and one.diff not in reasons.get(one.module, {}) for one in everything))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
