"""A table of faults of the certs endpoint, by outcomes, over real sockets."""

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from support.key_rig import outcome
from support.options import load

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.fetching import Httpx2Fetch
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.protocols import Fetch
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

pytestmark = pytest.mark.anyio

BUDGET, FETCH_TIMEOUT, SLACK = 1.0, 1.5, 2.0
Team = FakeTeam[SystemClock]
NOBODYS = "0" * 64


@dataclass(frozen=True)
class Row:
    """A fault, how the reason for the failed fetch begins, and how many connections it cost."""

    fault: Callable[[CertsServer], None]
    error: str | None
    connections: int = 1


ROWS = {
    "503": Row(lambda server: server.fail_with(503), "a response with HTTP status 503"),
    "404": Row(lambda server: server.fail_with(404), "a response with HTTP status 404; is team_domain right?"),
    "redirect": Row(
        lambda server: server.redirect("http://127.0.0.1:1/"),
        "a response with HTTP status 302; redirects are not followed",
    ),
    "html": Row(lambda server: server.html(), "the certs document is unusable: "),
    "empty": Row(lambda server: server.empty(), "the certs document is unusable: "),
    "no keys": Row(lambda server: server.no_keys(), "the certs document has no usable key"),
    "a list": Row(lambda server: server.answer_with(b"[]"), "the certs document is unusable: "),
    "garbage": Row(lambda server: server.garbage(), "the certs document is unusable: "),
    "304 unasked": Row(lambda server: server.answer_with(b"", status=304), "a response with HTTP status 304"),
    "oversize": Row(lambda server: server.oversize(5_000_000), "the document is longer than 65536 bytes"),
    "gzip bomb": Row(
        lambda server: server.gzip_bomb(), "a response with a content encoding, which the request did not allow"
    ),
    "lying length": Row(
        lambda server: server.answer_with(b"{}", headers={"content-length": "9999999"}),
        "the document is longer than 65536 bytes",
    ),
    "truncated": Row(lambda server: server.truncate(), "the connection failed or was lost", 2),
    "reset in the middle": Row(lambda server: server.reset(), "Connection reset by peer", 2),
    "refused": Row(lambda server: server.refuse(), "Connection reset by peer", 2),
    "silence": Row(lambda server: server.hang(), None),
    "silence in the middle": Row(lambda server: server.stall(), None),
    "a drip of bytes": Row(lambda server: server.drip(0.2), None),
}
"""The error is None where the request leaves before the fetch has failed."""


@pytest.fixture(params=["httpx", "httpx2"])
def fetch(request: pytest.FixtureRequest) -> Fetch | None:
    """The default fetch, and the one by httpx2."""
    return Httpx2Fetch() if request.param == "httpx2" else None


def source(server: CertsServer, fetch: Fetch | None = None) -> KeySource:
    return KeySource(
        load(
            team_domain=server.origin,
            audience="tag",
            key_wait_timeout=BUDGET,
            fetch_timeout=FETCH_TIMEOUT,
        ),
        fetch=fetch,
    )


@pytest.fixture(autouse=True)
def _short_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi_cloudflare_access._keys.rate_limiter.FETCH_GAP", 0.1)


@pytest.fixture(scope="module")
def team() -> Team:
    return FakeTeam("acme", clock=SystemClock())


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_with_keys_no_fault_refuses_a_known_key_or_holds_a_request_past_its_budget(
    row: Row, team: Team, fetch: Fetch | None
) -> None:
    with CertsServer(team) as server:
        keys = source(server, fetch)
        assert await outcome(lambda: keys.get_or_fetch(team.current.kid)) == "ok"
        before = server.fetches
        row.fault(server)
        began = time.monotonic()
        assert await outcome(lambda: keys.get_or_fetch(NOBODYS)) == "key_unconfirmed"
        assert time.monotonic() - began < BUDGET + SLACK
        assert keys.get(team.current.kid)
        health = keys.health()
        assert (health.last_error or "").startswith(row.error or "")
        assert (health.last_error is None) == (row.error is None)
        assert (health.state, health.keys) == ("ok", 2)
        assert server.fetches - before == row.connections
        await keys.stop()


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_without_keys_every_fault_is_503_within_the_budget_and_recovery_is_complete(
    row: Row, team: Team, fetch: Fetch | None
) -> None:
    with CertsServer(team) as server:
        keys = source(server, fetch)
        row.fault(server)
        began = time.monotonic()
        assert await outcome(lambda: keys.get_or_fetch(team.current.kid)) == "keys_unavailable"
        assert time.monotonic() - began < BUDGET + SLACK
        assert keys.health().state == "cold"
        server.recover()
        await keys.refresh()
        assert keys.get(team.current.kid)
        assert keys.health().last_error is None


async def test_a_fetch_that_hangs_ends_at_its_deadline(team: Team, fetch: Fetch | None) -> None:
    with CertsServer(team) as server:
        keys = source(server, fetch)
        server.hang()
        began = time.monotonic()
        assert await outcome(keys.refresh) == "keys_unavailable"
        assert FETCH_TIMEOUT - 0.05 < time.monotonic() - began < FETCH_TIMEOUT + SLACK
        assert keys.health().last_error == "no response in time"


async def test_no_fault_makes_memory_grow(team: Team) -> None:
    with CertsServer(team) as server:
        keys = source(server)
        await keys.refresh()
        tracemalloc.start()
        server.oversize(1_000_000)
        await outcome(keys.refresh)
        server.html()
        await outcome(keys.refresh)
        settled, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(2):
            server.answer_with(b" " * 60_000)
            await outcome(keys.refresh)
            server.truncate()
            await outcome(keys.refresh)
        after, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert after - settled < 300_000
    assert peak - settled < 3_000_000
