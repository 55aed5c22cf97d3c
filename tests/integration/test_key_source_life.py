"""The key source in second loops, forked processes and real servers with several workers."""

import asyncio
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.key_servers import free_port, get, serving

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

CALLERS = 4
"""How many call at once while keys rotate."""


@pytest.fixture
def certs() -> Iterator[CertsServer]:
    with CertsServer(FakeTeam("acme", clock=SystemClock())) as server:
        yield server


def source(certs: CertsServer) -> KeySource:
    return KeySource(Settings.load(team_domain=certs.origin, audience="tag"))


async def use(keys: KeySource, kid: str) -> bool:
    await keys.start()
    await keys.refresh()
    try:
        return keys.get(kid) is not None and keys.health().refresher_alive
    finally:
        await keys.stop()


def test_one_source_works_in_one_loop_after_another(certs: CertsServer) -> None:
    keys = source(certs)
    assert asyncio.run(use(keys, certs.team.current.kid))
    assert asyncio.run(use(keys, certs.team.current.kid))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # the child only runs a loop
def test_one_source_works_in_a_process_and_in_its_fork(certs: CertsServer) -> None:
    keys, kid = source(certs), certs.team.current.kid
    assert asyncio.run(use(keys, kid))
    child = os.fork()
    if not child:
        known = keys.get(kid) is not None
        os._exit(0 if known and asyncio.run(use(keys, kid)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def healths(port: int, workers: int) -> dict[int, dict[str, Any]]:
    """The health of each worker, by its process id."""
    found: dict[int, dict[str, Any]] = {}
    deadline = time.monotonic() + 10
    while len(found) < workers and time.monotonic() < deadline:
        health = json.loads(get(port, "/health")[1])
        found[health["pid"]] = health
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_fork_after_preload_works(certs: CertsServer) -> None:
    """gunicorn --preload makes the object in the parent; two uvicorn workers verify with it."""
    pytest.importorskip("gunicorn")
    pytest.importorskip("uvicorn_worker")
    team, port = certs.team, free_port()
    arguments = ["--preload", "--workers=2", "--worker-class=uvicorn_worker.UvicornWorker", f"--bind=127.0.0.1:{port}"]
    settings = {"team_domain": certs.origin, "audience": team.audience}
    with serving("gunicorn", *arguments, "--log-level=warning", "support.key_app:app", port=port, **settings):
        workers = healths(port, 2)
        assert len(workers) == 2
        assert all(health["refresher_alive"] and health["state"] == "ok" for health in workers.values())
        token = team.user_token("ada@example.com")
        answers = [get(port, "/", token) for _ in range(40)]
        assert {status for status, _ in answers} == {200}
        assert {json.loads(body)["pid"] for _, body in answers} == set(workers)
    assert certs.fetches == 2, "one for each worker, none by the parent"


def test_rotation_under_load(certs: CertsServer) -> None:
    """Two uvicorn workers, four callers with mixed tokens and no pause, ten rotations: no valid token is refused."""
    team, port = certs.team, free_port()
    arguments = ["--workers=2", f"--port={port}", "--log-level=warning", "support.key_app:app"]
    settings = {"team_domain": certs.origin, "audience": team.audience, "unknown_kid_interval": "1"}
    seen: dict[int, set[int]] = defaultdict(set)

    def call(good: list[str], bad: list[str], end: float) -> None:
        while time.monotonic() < end:
            token = random.choice([*good, *bad])
            seen[token in good].add(get(port, "/", token)[0])

    with serving("uvicorn", *arguments, port=port, **settings), ThreadPoolExecutor(CALLERS) as callers:
        for _ in range(10):
            previous = team.user_token("eve@example.com")
            team.rotate()
            good = [previous, team.user_token("ada@example.com"), team.service_token("bot")]
            bad = [team.user_token("ada@example.com", expires_in=-60), good[1][:-8] + "AAAAAAAA"]
            called = [callers.submit(call, good, bad, time.monotonic() + 1) for _ in range(CALLERS)]
            for one in called:
                one.result()
        workers = healths(port, 2)
    assert seen == {True: {200}, False: {401}}
    assert len(workers) == 2
    for health in workers.values():
        assert health["fetches"] <= 1 + 10 + 2, "the first, one for each rotation, and what confirms removals"
        assert health["rate_limited"] == 0
