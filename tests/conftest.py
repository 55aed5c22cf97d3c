"""What all tests share."""

import os

import pytest
from hypothesis import settings

ALIASES = frozenset({"TEAM_DOMAIN", "TEAM_NAME", "POLICY_AUD", "AUD_TAG", "SSLKEYLOGFILE"})
PREFIXES = ("CF_ACCESS_", "CLOUDFLARE_")

settings.register_profile("house", deadline=None)  # a busy machine is no failure
settings.load_profile("house")


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
