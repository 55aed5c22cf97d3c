"""Measure revocations: the check of a request, the way of a record to eight workers, and the full read of a log.

    python benchmarks/revocations.py

The way and the full read need `redis-server`. On a busy machine the times are those of the machine.
"""

# ruff: noqa: ASYNC110, ASYNC220, S105, S603, SLF001 - a script that starts workers and looks inside

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from support.redis_server import redis_server  # noqa: E402 - of the tests

from fastapi_cloudflare_access import CloudflareAccess  # noqa: E402 - after the path
from fastapi_cloudflare_access._revocations.record import Record  # noqa: E402 - the same
from fastapi_cloudflare_access.stores.memory import MemoryStore  # noqa: E402 - the same
from fastapi_cloudflare_access.stores.redis import RedisStore  # noqa: E402 - the same
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch, SystemClock  # noqa: E402 - the same

RECORDS, WORKERS, REVOCATIONS = 100_000, 8, 200
SECRET = "a secret of the benchmark, of 32 bytes"
ROUNDS, TIMES = 50, 1000


def access_over(store: Any) -> CloudflareAccess[Any]:
    """Return an object over a store, with a team in memory."""
    team = FakeTeam("acme", clock=SystemClock())
    return CloudflareAccess(
        team_domain="acme",
        audience=team.audience,
        fetch=MemoryFetch(team),
        revocation_store=store,
        revocations_unavailable="closed",
    )


def source_of(access: CloudflareAccess[Any]) -> Any:
    """Return the revocations of an object."""
    return access._authenticator.verifier.revocations


def fill(source: Any) -> None:
    """Add the records to the table."""
    at = int(time.time() * 1_000_000)
    for number in range(RECORDS):
        source._table.add(Record("log_out", "sub", f"{number:032x}", at + number), time.time())


def fastest(call: Callable[[], object]) -> float:
    """Return the seconds of one call, in the fastest of many rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(TIMES):
            call()
        best = min(best, time.perf_counter() - began)
    return best / TIMES


async def check() -> dict[str, float]:
    """Measure the check of a request, and as a measure of the machine the verification of a signature."""
    access = access_over(MemoryStore(secret=SECRET))
    team = FakeTeam("acme", clock=SystemClock())
    async with access:
        source = source_of(access)
        fill(source)
        token = team.user_token("ada@example.com")
        caller: Any = await access.verify(token)
        claims = {"sub": caller.sub, "email": caller.email, "iat": caller.iat}
        keys = source.keys_of(claims, b"0" * 32)
        verifier = access._authenticator.verifier
        key, parsed = verifier.keys.get(team.current.kid), _parsed(token)
        signature = fastest(lambda: key.verifies(parsed.signature, parsed.signing_input))
        due = fastest(lambda: verifier.revocations is not None and verifier.revocations.is_read_due)
        return {
            "check_us": (fastest(lambda: verifier._check_revocations(keys)) + due) * 1e6,
            "signature_us": signature * 1e6,
            "keys_of_a_new_token_us": fastest(lambda: source.keys_of(claims, b"0" * 32)) * 1e6,
        }


def _parsed(token: str) -> Any:
    from fastapi_cloudflare_access._verification.token import parse  # noqa: PLC0415 - for this figure

    return parse(token.encode())


async def work(url: str) -> None:
    """Be one worker: write the time at which each revocation arrived."""
    access = access_over(RedisStore(url, secret=SECRET))
    async with access:
        source, seen = source_of(access), set[str]()
        applied = source._notify

        def note() -> None:
            now = time.time()
            for record in source.records():
                if record.key not in seen:
                    seen.add(record.key)
                    print(json.dumps([record.key, now]), flush=True)
            applied()

        source._notify = note
        print("[]", flush=True)
        while len(seen) < REVOCATIONS:
            await asyncio.sleep(0.05)


async def spread(url: str) -> dict[str, float]:
    """Measure the time from the call of `log_out` until the last of the workers knows it."""
    command = [sys.executable, __file__, "worker", url]
    async with access_over(RedisStore(url, secret=SECRET)) as access:
        workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)]
        for worker in workers:
            await asyncio.to_thread(worker.stdout.readline)  # type: ignore[union-attr]
        sent: dict[str, float] = {}
        for number in range(REVOCATIONS):
            sent[str(number)] = time.time()
            await access.revocations.log_out(sub=str(number))
            await asyncio.sleep(0.02)
        arrived: dict[str, list[float]] = {}
        for worker in workers:
            for line in (await asyncio.to_thread(worker.communicate))[0].splitlines():
                arrived.setdefault(json.loads(line)[0], []).append(json.loads(line)[1])
    took = [max(arrived[key]) - sent[key] for key in sent if len(arrived[key]) == WORKERS]
    assert len(took) == REVOCATIONS
    return {"p50_ms": quantiles(took, n=100)[49] * 1e3, "p99_ms": quantiles(took, n=100)[98] * 1e3}


async def resync(url: str) -> dict[str, float]:
    """Measure how long a worker takes to write back all records, and how long a new one takes to read them."""
    first, second = (access_over(RedisStore(url, secret=SECRET)) for _ in range(2))
    async with first:
        fill(source_of(first))
        records = source_of(first)._table.records()
        reader = source_of(first)._current_loop_state().readers[0]
        began = time.perf_counter()
        for start in range(0, RECORDS, 2000):
            await reader.append(records[start : start + 2000])
        written = time.perf_counter() - began
        began = time.perf_counter()
        await source_of(second).read_all()
        return {"write_s": written, "read_s": time.perf_counter() - began, "records": len(source_of(second)._table)}


def main() -> None:
    """Print the figures as JSON."""
    if sys.argv[1:2] == ["worker"]:
        asyncio.run(work(sys.argv[2]))
        return
    print(json.dumps({"check": asyncio.run(check())}))
    if shutil.which("redis-server"):
        with redis_server() as server:
            print(json.dumps({"spread": asyncio.run(spread(server.url))}))
        with redis_server() as server:
            print(json.dumps({"resync": asyncio.run(resync(server.url))}))


if __name__ == "__main__":
    main()
