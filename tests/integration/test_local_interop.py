"""Other verifiers accept the tokens of the local Access without changes."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from support.differential import install_jose, jose, pyjwt

from fastapi_cloudflare_access.local import RunningAccess, run_local_access

ROOT = Path(__file__).parents[2]
NODE = shutil.which("node")


@pytest.fixture
def local() -> Iterator[RunningAccess]:
    with run_local_access() as running:
        yield running


def tokens(local: RunningAccess) -> dict[str, str]:
    """Return valid tokens of users and of a service, from before and after a rotation."""
    made = {"user": local.control("token", email="ada@example.com")["token"]}
    local.control("rotate")
    made["user after"] = local.control("token", email="grace@example.com")["token"]
    made["service"] = local.control("token", service="nightly-backup")["token"]
    return made


def as_certs(local: RunningAccess) -> Any:
    return SimpleNamespace(origin=local.team_domain, team=SimpleNamespace(audience=local.audience))


def test_the_python_that_cloudflare_documents_accepts_its_tokens(local: RunningAccess) -> None:
    good = tokens(local)
    assert pyjwt(as_certs(local), good) == dict.fromkeys(good, "accepted")
    assert pyjwt(as_certs(local), {"cut": good["user"][:-3]}) != {"cut": "accepted"}


def test_the_javascript_that_cloudflare_documents_accepts_its_tokens(
    local: RunningAccess, request: pytest.FixtureRequest
) -> None:
    assert request.config.cache is not None
    installed = install_jose(request.config.cache.mkdir("jose"))
    if isinstance(installed, str):
        pytest.skip(f"the JavaScript library is not available: {installed}")
    good = tokens(local)
    assert jose(as_certs(local), good, installed) == dict.fromkeys(good, "accepted")


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_a_node_app_accepts_its_tokens() -> None:
    with run_local_access() as edge, NodeApp(edge) as origin:
        refused = httpx.get(origin, trust_env=False)
        assert (refused.status_code, refused.text) == (401, "no")
        with run_local_access(upstream=origin, config=edge.local_access.config) as other:
            foreign = httpx.get(other.url(), headers=other.service_headers(), trust_env=False)
            assert foreign.status_code == 401  # another team signed the token
        edge.forward_to(origin)
        token = edge.control("token", email="ada@example.com")["token"]
        assert (
            httpx.get(edge.url(), headers={"cf-access-token": token}, trust_env=False).text == "hello ada@example.com"
        )
        machine = httpx.get(edge.url(), headers=edge.service_headers(), trust_env=False)
        assert machine.text.endswith(".access")


class NodeApp:
    """A running examples/node_app.mjs for this team; the context returns its origin."""

    def __init__(self, local: RunningAccess) -> None:
        self._local = local

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            [str(NODE), str(ROOT / "examples/node_app.mjs")],
            env=os.environ | self._local.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        return f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)
