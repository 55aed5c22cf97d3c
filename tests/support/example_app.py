"""An app of `examples/` behind the local Access."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import pytest

from fastapi_cloudflare_access.local import Config, RunningAccess, run_local_access


@contextmanager
def running_example(name: str, config: Config, *, origin_variable: str | None = None) -> Iterator[RunningAccess]:
    """Run a fresh copy of this example behind the local Access, which sets its environment."""
    with pytest.MonkeyPatch.context() as patch, run_local_access(config=config) as running:
        for variable, value in running.environment.items():
            patch.setenv(variable, value)
        if origin_variable:
            patch.setenv(origin_variable, running.url(""))
        patch.delitem(sys.modules, name, raising=False)
        running.mount(import_module(name).app)
        yield running
