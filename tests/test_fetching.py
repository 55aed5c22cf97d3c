"""The fetch by httpx2, as an app passes it."""

import subprocess
import sys

import pytest

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, fetching
from fastapi_cloudflare_access._keys.http import HttpxFetch
from fastapi_cloudflare_access.fetching import Httpx2Fetch
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

pytestmark = pytest.mark.anyio

USE = """
import asyncio, sys
from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.fetching import Httpx2Fetch

access = CloudflareAccess(team_domain=sys.argv[1], audience="tag", fetch=Httpx2Fetch())
before = {"httpx", "httpx2"} & {*sys.modules}
asyncio.run(access.keys.refresh())
print(*before, access.keys.health().keys, *{"httpx", "httpx2"} & {*sys.modules})
"""


async def test_an_app_verifies_tokens_with_keys_that_httpx2_fetched() -> None:
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team, etag=True) as server:
        access = CloudflareAccess(team_domain=server.origin, audience=team.audience, fetch=Httpx2Fetch())
        async with access:
            claims = await access.verify(team.sign(team.user_claims("ada@example.com") | {"iss": server.origin}))
            await access.keys.refresh()
    assert claims.aud == (team.audience,)
    assert [request.headers["accept-encoding"] for request in server.requests] == ["identity", "identity"]


def test_httpx2_is_loaded_by_the_first_fetch_and_httpx_never() -> None:
    with CertsServer(FakeTeam("acme")) as server:
        command = [sys.executable, "-W", "ignore", "-c", USE, server.origin]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert ended.stdout.strip() == "2 httpx2", ended.stderr


def test_the_environment_is_read_for_a_team_and_not_for_a_loopback_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool, str]] = []
    monkeypatch.setattr(
        HttpxFetch, "__call__", lambda self, url, headers: asked.append((url, self._trust_env, self._library))
    )
    fetch = Httpx2Fetch()
    for url in ("https://acme.cloudflareaccess.com/", "http://127.0.0.1:1/"):
        fetch(url, headers={})
    assert asked == [("https://acme.cloudflareaccess.com/", True, "httpx2"), ("http://127.0.0.1:1/", False, "httpx2")]


def test_without_httpx2_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"^Httpx2Fetch needs httpx2: pip install '.*\[httpx2\]'$"):
        Httpx2Fetch()


def test_the_class_instead_of_an_object_is_refused_at_construction() -> None:
    with pytest.raises(ConfigurationError, match="fetch must be a Fetch"):
        CloudflareAccess(team_domain="acme", audience="tag", fetch=Httpx2Fetch)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
