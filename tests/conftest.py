"""What all tests share."""

import os

import pytest
from hypothesis import settings

ALIASES = frozenset({"TEAM_DOMAIN", "TEAM_NAME", "POLICY_AUD", "AUD_TAG", "SSLKEYLOGFILE"})
PREFIXES = ("CF_ACCESS_", "CLOUDFLARE_")

SIGNATURE_BY = os.environ.get("SIGNATURE_BY")
"""The library that verifies signatures instead of python-jose, as scripts/signatures.py says."""
SIGNATURE_TESTS = os.environ.get("SIGNATURE_TESTS", "quick")
"""The tests to select then: `quick`, or `all` of those of attacks, other verifiers and conformance."""
VERIFYING = frozenset({"attacks", "differential", "verification"})
SLOW = frozenset({"differential", "fuzz", "integration"})
SLOW_ATTACKS = frozenset({"test_authorization", "test_cost", "test_poisoned_sockets", "test_secrets"})
SLOW_SERVERS = ("[httptools", "[hypercorn")

settings.register_profile("house", deadline=None)  # a busy machine is no failure
settings.load_profile("house")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select the tests of attacks and conformance if another library verifies signatures."""
    if SIGNATURE_BY:
        left_out = [item for item in items if not depends_on_signatures(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if depends_on_signatures(item)]


def depends_on_signatures(item: pytest.Item) -> bool:
    """Check whether a test is about attacks, vectors, other verifiers or a row of the conformance page.

    The quick ones are those inside one process, and all attacks on one of the three kinds of servers.
    """
    folder, file = item.path.parent.name, item.path.stem
    is_slow = folder in SLOW or file in SLOW_ATTACKS or any(server in item.name for server in SLOW_SERVERS)
    if item.get_closest_marker("python_jose") or (is_slow and SIGNATURE_TESTS != "all"):
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
