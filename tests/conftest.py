"""What all tests share."""

import os
from collections.abc import Generator

import pytest
from hypothesis import settings
from support.browser import needs_browser
from support.soaking import SOAKING

ALIASES = frozenset({"TEAM_DOMAIN", "TEAM_NAME", "POLICY_AUD", "AUD_TAG", "SSLKEYLOGFILE"})
PREFIXES = ("CF_ACCESS_", "CLOUDFLARE_")

SIGNATURE_BY = os.environ.get("SIGNATURE_BY")
"""The library that verifies signatures instead of python-jose, as scripts/signatures.py says."""
VERIFYING = frozenset({"attacks", "differential", "verification"})
SLOW = frozenset({"differential", "fuzz", "integration"})
SLOW_ATTACKS = frozenset({"test_authorization", "test_cost", "test_poisoned_sockets", "test_secrets"})
SLOW_SERVERS = ("[httptools", "[hypercorn")

ONCE_FOLDERS = frozenset({"differential", "fuzz"})
ONCE_FILES = frozenset(
    {
        *("test_benchmarks", "test_conformance", "test_demo", "test_structure", "test_style"),  # texts and scripts
        *("test_application", "test_output", "test_cli", "test_running", "test_plugin"),  # of processes and terminals
        *("test_end_to_end", "test_local_end_to_end", "test_local_load"),  # of clients in front of the local Access
        *("test_key_source_flood", "test_poisoned_sockets"),  # of rate limits and keys, which have quicker tests too
        *("test_fleet_keys", "test_fleet_revocations", "test_fleet_files", "test_sharing"),  # of Redis and simulations
        *("test_schema", "test_verify"),  # of the output of cf-access
        *("test_weak_moduli", "test_strict", "test_differential_generated"),  # of arithmetic and of texts
        *("test_long_runs", "test_other_servers", "test_key_source_life", "test_local_identity"),  # of many processes
        *("test_logging_guide", "test_supply_chain", "test_distribution"),  # of pages and packaging
    }
)
"""Files whose tests do not depend on the versions of other packages; `scripts/test --lowest` omits them."""

settings.register_profile("house", deadline=None, derandomize=not SOAKING)  # neither load nor chance is a failure
settings.load_profile("house")


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Return one process more than there are cores, since many tests wait for a server or a browser."""
    cores = yield
    return cores if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else cores + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what runs once, and select the tests of attacks and conformance if another library verifies signatures."""
    for item in items:
        if runs_once(item):
            item.add_marker(pytest.mark.once)
    if SIGNATURE_BY:
        left_out = [item for item in items if not depends_on_signatures(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if depends_on_signatures(item)]


def runs_once(item: pytest.Item) -> bool:
    """Check whether a test is independent of the versions of other packages, or a browser asks the app in it."""
    named = item.path.parent.name in ONCE_FOLDERS or item.path.stem in ONCE_FILES
    reads_site = item.path.stem == "test_docs" and "site" in getattr(item, "fixturenames", [])
    return named or reads_site or needs_browser.mark in item.iter_markers()


def depends_on_signatures(item: pytest.Item) -> bool:
    """Check whether a test is about attacks, vectors, other verifiers or a row of the conformance page.

    The quick ones are those inside one process, and all attacks on one of the three kinds of servers.
    """
    folder, file = item.path.parent.name, item.path.stem
    is_slow = folder in SLOW or file in SLOW_ATTACKS or any(server in item.name for server in SLOW_SERVERS)
    if item.get_closest_marker("python_jose") or (is_slow and not SOAKING):
        return False
    return bool(item.get_closest_marker("conformance")) or (folder in VERIFYING or file == "test_vectors")


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio, the loop that uvicorn uses."""
    return "asyncio"


@pytest.fixture(autouse=True)
def environment_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what the machine's environment says about the package, its proxies and its log of TLS keys."""
    for name in [*os.environ]:
        if name.upper() in ALIASES or name.upper().startswith(PREFIXES) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
