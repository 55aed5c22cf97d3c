"""What a missing package does: one sentence, and nothing to an app that does not use it."""

import subprocess
import sys
from importlib import import_module

import pytest

from fastapi_cloudflare_access import ConfigurationError


@pytest.mark.parametrize(
    ("missing", "module", "sentence"),
    [
        (
            "prometheus_client",
            "prometheus",
            "prometheus-client is not installed: pip install 'fastapi-cloudflare-access[prometheus]'",
        ),
        (
            "opentelemetry.context",
            "opentelemetry",
            "opentelemetry-api is not installed: pip install 'fastapi-cloudflare-access[opentelemetry]'",
        ),
    ],
    ids=["prometheus", "opentelemetry"],
)
def test_a_missing_package_is_one_sentence(
    missing: str, module: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"fastapi_cloudflare_access.instrumentation.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError) as raised:
        import_module(name)
    assert isinstance(raised.value, ConfigurationError)
    assert str(raised.value) == sentence


def test_a_protected_app_without_metrics_loads_none_of_it() -> None:
    code = "import sys, fastapi_cloudflare_access, fastapi_cloudflare_access.guard\nprint(*sys.modules, sep='\\n')"
    command = [sys.executable, "-W", "ignore", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert "fastapi_cloudflare_access.guard" in loaded
    own = ("prometheus_client", "fastapi_cloudflare_access.instrumentation")
    assert [name for name in loaded if name.startswith(own)] == []
