"""Keys that workers share through a store: what a store gives them, and what it cannot do to them."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from support.fleet_rig import SECRET, TEAM, Fleet, WatchedStore

from fastapi_cloudflare_access._keys.shared_snapshot import SharedSnapshot, SnapshotFormat
from fastapi_cloudflare_access._keys.sharing import SAVE_TIMEOUT, STORE_PAUSE, STORE_WAIT
from fastapi_cloudflare_access.events import SnapshotLoaded, SnapshotRejected, SnapshotStoreFailed
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.stores._problem import StoreProblem
from fastapi_cloudflare_access.stores._signing import Signer

pytestmark = pytest.mark.anyio

ISSUER = f"https://{TEAM}"
INTERVAL = 600.0
DAY = 86_400.0


def fleet(**options: Any) -> tuple[Fleet, WatchedStore]:
    store = WatchedStore()
    return Fleet(store=store, **options), store


def signed(
    document: bytes, fetched_at: float, *, secret: str = SECRET, issuer: str = ISSUER, purpose: str = "snapshot"
) -> bytes:
    form = SnapshotFormat(Signer(secret, purpose=purpose), issuer)
    return form.sign(SharedSnapshot(fetched_at, document))


def hang_until(event: asyncio.Event) -> Callable[[], Any]:
    async def wait() -> None:
        await event.wait()

    return wait


async def hang() -> None:
    await asyncio.Event().wait()


def raising(problem: BaseException) -> Callable[[], Any]:
    async def fail() -> None:
        raise problem

    return fail


async def stop(*workers: KeySource) -> None:
    for worker in workers:
        await worker.stop()


# The start


@pytest.mark.parametrize("trouble", ["fail_with", "hang", "refuse"])
async def test_a_worker_starts_with_the_keys_of_the_fleet_while_cloudflare_cannot_be_reached(trouble: str) -> None:
    shared, _ = fleet()
    first = await shared.started()
    await first.stop()
    getattr(shared.certs, trouble)()
    await shared.clock.run_for(3 * INTERVAL)
    second = shared.worker()
    starting = asyncio.ensure_future(second.start())
    await shared.clock.run_for(0)
    assert starting.done(), "without waiting for Cloudflare"
    assert second.get(shared.kid)
    assert second.health().age == pytest.approx(3 * INTERVAL)
    shared.certs.recover()
    await shared.clock.run_for(20)
    assert second.health().age < 20, "and a refresh followed"  # type: ignore[operator]
    await second.stop()


async def test_a_young_snapshot_counts_as_a_refresh() -> None:
    shared, _ = fleet()
    first = await shared.started()
    await first.stop()
    await shared.clock.run_for(400)
    second = await shared.started()
    assert shared.certs.fetches == 1
    assert second.health().next_refresh_in == pytest.approx(INTERVAL - 400)
    assert [event.age for event in shared.events if isinstance(event, SnapshotLoaded)] == [pytest.approx(400)]
    assert second.health().snapshots_loaded == 1
    await shared.clock.run_for(INTERVAL - 400)
    assert shared.certs.fetches == 2, "counted from the fetch of the other worker"
    await second.stop()


async def test_an_older_snapshot_gives_keys_at_once_and_a_refresh_follows() -> None:
    shared, _ = fleet()
    first = await shared.started()
    await first.stop()
    await shared.clock.run_for(INTERVAL + 1)
    shared.certs.slow(2)
    second = shared.worker()
    starting = asyncio.ensure_future(second.start())
    await shared.clock.run_for(0)
    assert starting.done()
    assert second.get(shared.kid)
    await shared.clock.run_for(2)
    assert second.health().age == 0
    await second.stop()


@pytest.mark.conformance(89)
async def test_a_snapshot_older_than_the_staleness_limit_is_not_used() -> None:
    shared, store = fleet()
    store.snapshot = signed(shared.team.certs_body(), shared.clock.now() - DAY - 1)
    shared.certs.fail_with()
    worker = await shared.started()
    assert worker.health().state == "cold"
    assert worker.health().snapshots_rejected == 0
    await worker.stop()


async def test_eight_workers_that_start_together_make_one_fetch() -> None:
    shared, _ = fleet()
    shared.certs.slow(0.5)
    workers = [shared.worker() for _ in range(8)]
    starting = asyncio.gather(*(worker.start() for worker in workers))
    await shared.clock.run_until(starting)
    assert shared.certs.fetches == 1
    assert all(worker.get(shared.kid) for worker in workers)
    await stop(*workers)


async def test_workers_wait_at_most_a_second_for_another_that_fetches() -> None:
    shared, _ = fleet()
    shared.certs.slow(3)
    first, second = shared.worker(), shared.worker()
    starting = asyncio.gather(first.start(), second.start())
    await shared.clock.run_for(STORE_WAIT - 0.1)
    assert shared.certs.fetches == 1
    await shared.clock.run_for(0.1)
    assert shared.certs.fetches == 2
    await shared.clock.run_until(starting)
    assert second.health().store_failures == 0, "which is no failure of the store"
    await stop(first, second)


async def test_a_worker_that_waits_for_another_looks_at_the_store_after_longer_and_longer_pauses() -> None:
    shared, store = fleet()
    worker, looks = shared.worker(), list[int]()
    async with store.inner.lock(TEAM, seconds=60):
        starting = asyncio.ensure_future(worker.start())
        await shared.clock.run_for(0)
        store.operations.clear()
        for seconds in (0.05, 0.1, 0.2, 0.4, 0.2):
            await shared.clock.run_for(seconds)
            looks.append(store.operations.count("load"))
    assert looks == [0, 1, 2, 3, 3]
    await shared.clock.run_until(starting)
    await worker.stop()


async def test_a_worker_whose_fetch_fails_leaves_the_next_one_its_turn() -> None:
    shared, _ = fleet()
    shared.certs.fail_with(times=1)
    first, second = shared.worker(), shared.worker()
    await shared.clock.run_until(asyncio.gather(first.start(), second.start()))
    assert shared.certs.fetches == 2
    assert first.get(shared.kid)
    assert first.health().snapshots_loaded == 1, "its second attempt found the snapshot of the other"
    await stop(first, second)


async def test_a_start_without_time_does_not_wait_for_the_store() -> None:
    shared, store = fleet(startup_timeout=0)
    store.faults["load"] = hang
    await shared.worker().start()
    assert store.operations == []


# The key that one found


async def test_a_key_that_one_worker_found_reaches_the_others_without_a_fetch() -> None:
    shared, _ = fleet()
    workers = [await shared.started() for _ in range(8)]
    shared.team.rotate()
    assert await shared.find(workers[0], shared.kid) == "ok"
    await shared.clock.run_for(0)
    assert shared.certs.fetches == 2
    assert {await shared.find(worker, shared.kid) for worker in workers[1:]} == {"ok"}
    assert shared.certs.fetches == 2
    await stop(*workers)


async def test_eight_workers_that_see_a_new_key_at_once_make_one_fetch() -> None:
    shared, _ = fleet()
    workers = [await shared.started() for _ in range(8)]
    await shared.clock.run_for(2)
    shared.team.rotate()
    shared.certs.slow(0.5)
    found = await shared.clock.run_until(asyncio.gather(*(worker.get_or_fetch(shared.kid) for worker in workers)))
    assert len(found) == 8
    assert shared.certs.fetches == 2
    await stop(*workers)


async def test_without_a_lifespan_requests_find_the_keys_of_the_fleet() -> None:
    shared, _ = fleet()
    first = await shared.started()
    await first.stop()
    shared.certs.hang()
    await shared.clock.run_for(INTERVAL + 1)
    second = shared.worker()
    assert await shared.find(second, shared.kid) == "ok"
    assert second.get(shared.kid)
    assert shared.certs.fetches == 1
    await shared.clock.run_for(2)
    assert second.get(shared.kid)
    await shared.clock.run_for(0)
    assert shared.certs.fetches == 2, "the refresh follows in the background"
    shared.certs.recover()
    await shared.clock.run_for(10)


async def test_a_snapshot_without_the_key_is_no_answer() -> None:
    shared, _ = fleet()
    first, second = await shared.started(), await shared.started()
    await shared.clock.run_for(INTERVAL / 2)
    assert await shared.find(first, "made up") == "unknown_key"
    await shared.clock.run_for(0)
    shared.team.rotate()
    assert await shared.find(second, shared.kid) == "ok", "though the snapshot is newer than the keys of the second"
    await stop(first, second)


async def test_a_key_of_another_worker_leaves_the_negative_cache() -> None:
    shared, _ = fleet()
    first, second = await shared.started(), await shared.started()
    shared.certs.lag(5)
    shared.team.rotate()
    assert await shared.find(second, shared.kid) == "unknown_key"
    assert second.health().negative_cache_entries == 1
    await shared.clock.run_for(6)
    assert await shared.find(first, shared.kid) == "ok"
    await shared.clock.run_for(0)
    assert await shared.find(second, shared.kid) == "ok"
    assert second.health().snapshots_loaded == 2
    assert second.health().negative_cache_entries == 0
    await stop(first, second)


async def test_made_up_keys_cause_no_more_looks_at_the_store_than_fetches() -> None:
    shared, store = fleet()
    worker = await shared.started()
    store.operations.clear()
    fetched = shared.certs.fetches
    for second in range(60):
        for each in range(20):
            await shared.find(worker, f"made up {second} {each}")
        await shared.clock.run_for(1)
    fetched = shared.certs.fetches - fetched
    assert fetched <= 3 + 60 / 5 + 1
    assert store.operations.count("load") <= 2 * fetched
    await worker.stop()


async def test_a_known_key_never_asks_the_store() -> None:
    shared, store = fleet()
    worker = await shared.started()
    store.operations.clear()
    for _ in range(50):
        assert worker.get(shared.kid)
        await shared.clock.run_for(10)
    assert store.operations == []
    await worker.stop()


# Refreshes


@pytest.mark.parametrize("hours", [6])
async def test_a_fleet_of_eight_makes_at_most_a_fifth_more_fetches_than_one_worker(hours: int) -> None:
    fetches: list[int] = []
    for size, store in ((1, None), (8, WatchedStore())):
        shared = Fleet(store=store, jitter=True)
        workers = [await shared.started() for _ in range(size)]
        for _ in range(hours):
            await shared.clock.run_for(3600)
        fetches.append(shared.certs.fetches)
        assert max(worker.health().age or 0 for worker in workers) < 1.2 * INTERVAL
        await stop(*workers)
    alone, together = fetches
    assert together <= 1.2 * alone


async def test_a_removed_key_leaves_the_whole_fleet_with_two_fetches() -> None:
    shared, _ = fleet()
    workers = [await shared.started() for _ in range(8)]
    old = shared.kid
    shared.team.rotate()
    shared.team.withdraw()
    await shared.clock.run_for(INTERVAL + 35)
    assert shared.certs.fetches == 3
    for worker in workers:
        assert worker.get_if_usable(old) is None
        assert worker.get(shared.kid)
    await stop(*workers)


async def test_a_refresh_by_hand_does_not_ask_the_store_and_saves() -> None:
    shared, _ = fleet()
    first, second = await shared.started(), await shared.started()
    old = shared.kid
    shared.team.rotate()
    shared.team.withdraw()
    await shared.clock.run_until(first.refresh())
    await shared.clock.run_for(0)
    assert first.get(old) is None
    assert shared.certs.fetches == 2
    assert await shared.find(second, shared.kid) == "ok"
    assert second.health().snapshots_loaded == 2
    await stop(first, second)


async def test_a_refresh_by_hand_that_joins_a_wait_for_another_worker_fetches() -> None:
    shared, store = fleet()
    worker = await shared.started()
    async with store.inner.lock(TEAM, seconds=60):
        await shared.clock.run_for(INTERVAL + 0.5)
        assert shared.certs.fetches == 1, "it waits for the other one"
        await shared.clock.run_until(worker.refresh())
    assert shared.certs.fetches == 2
    await worker.stop()


async def test_a_refresh_by_hand_that_joins_a_look_at_the_store_fetches() -> None:
    shared, store = fleet()
    worker = await shared.started()
    arrived = asyncio.Event()
    store.faults["load"] = hang_until(arrived)
    await shared.clock.run_for(INTERVAL)
    refreshing = asyncio.ensure_future(worker.refresh())
    await shared.clock.run_for(0)
    store.snapshot = signed(shared.team.certs_body(), shared.clock.now())
    arrived.set()
    await shared.clock.run_until(refreshing)
    assert worker.health().snapshots_loaded == 1
    assert shared.certs.fetches == 2
    await worker.stop()


async def test_a_snapshot_replaces_no_keys_that_are_as_new() -> None:
    shared, store = fleet()
    worker = await shared.started()
    before = store.snapshot
    await shared.clock.run_for(INTERVAL)
    assert worker.health().snapshots_loaded == 0, "its own snapshot is no news"
    store.snapshot = before
    await shared.clock.run_for(INTERVAL)
    assert worker.health().snapshots_loaded == 0
    assert shared.certs.fetches == 3
    await worker.stop()


async def test_after_a_sleep_of_the_machine_the_store_is_asked_first() -> None:
    shared, store = fleet()
    worker = await shared.started()
    shared.clock.shift_wall(5000)
    store.snapshot = signed(shared.team.certs_body(), shared.clock.now() - 10)
    await shared.clock.run_for(31)
    assert worker.health().snapshots_loaded == 1
    assert shared.certs.fetches == 1
    assert worker.health().next_refresh_in == pytest.approx(INTERVAL - 10 - 31, abs=1)
    await worker.stop()


async def test_after_a_sleep_of_the_machine_an_old_snapshot_replaces_no_fetch() -> None:
    shared, _ = fleet()
    worker = await shared.started()
    shared.clock.shift_wall(5000)
    await shared.clock.run_for(31)
    assert shared.certs.fetches == 2
    await worker.stop()


async def test_keys_of_another_worker_remove_expired_tokens_from_the_cache() -> None:
    shared, _ = fleet()

    class Cache:
        def __init__(self) -> None:
            self.times: list[float] = []

        def expire(self, now: float) -> None:
            self.times.append(now)

    first, second = await shared.started(), shared.worker()
    cache = Cache()
    second.on_refresh(cache.expire)
    await second.start()
    assert cache.times == [shared.clock.now()]
    await stop(first, second)


async def test_a_worker_that_cannot_reach_cloudflare_stays_fresh_by_the_store() -> None:
    shared, store = fleet()
    worker = await shared.started()
    shared.certs.fail_with()
    await shared.clock.run_for(INTERVAL + 120)
    assert worker.health().consecutive_failures > 3
    store.snapshot = signed(shared.team.certs_body(), shared.clock.now())
    await shared.clock.run_for(70)
    fetched = shared.certs.fetches
    assert worker.health().snapshots_loaded == 1
    await shared.clock.run_for(INTERVAL / 2)
    assert shared.certs.fetches == fetched
    await worker.stop()


# A store that lies


def _truncated(snapshot: bytes, now: float) -> bytes:
    return snapshot[:-10]


def _flipped(snapshot: bytes, now: float) -> bytes:
    return snapshot[:-10] + bytes([snapshot[-10] ^ 1]) + snapshot[-9:]


EVIL = Fleet()
for _ in range(4):  # fake teams have the same keys in the same order
    EVIL.team.rotate()
EVIL.team.withdraw()
EVIL_BODY = EVIL.team.certs_body()

LIES: dict[str, tuple[Callable[[bytes, float], bytes], str]] = {
    "garbage": (lambda *_: b"\x00\xff" * 50, "it is not a signed record"),
    "html": (lambda *_: b"<!DOCTYPE html><title>Error</title>", "it is not a signed record"),
    "nothing but a header": (lambda snapshot, _: snapshot[:77], "it is not signed with the secret of the store"),
    "truncated": (_truncated, "it is not signed with the secret of the store"),
    "flipped": (_flipped, "it is not signed with the secret of the store"),
    "giant": (lambda *_: b"x" * 1_000_000, "it is longer than 66560 bytes"),
    "of another version": (lambda snapshot, _: snapshot.replace(b"-1 ", b"-2 ", 1), "it is not a signed record"),
    "forged": (
        lambda _, now: signed(EVIL_BODY, now, secret="another secret, of an attacker 12345"),
        "it is not signed with the secret of the store",
    ),
    "signed for another purpose": (
        lambda _, now: signed(EVIL_BODY, now, purpose="revocation"),
        "it is not signed with the secret of the store",
    ),
    "of another team": (
        lambda _, now: signed(EVIL_BODY, now, issuer="https://evil.cloudflareaccess.com"),
        "it is of another team",
    ),
    "from the future": (
        lambda _, now: signed(EVIL_BODY, now + 65),
        "it is from the future; do the clocks of the workers differ?",
    ),
    "no certs document": (lambda _, now: signed(b"{}", now), "the certs document has no list of keys"),
    "a broken certs document": (
        lambda _, now: signed(b"<html>", now),
        "the certs document is unusable: not JSON",
    ),
}


@pytest.mark.conformance(87)
@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_of_the_store_changes_no_key_and_is_replaced(lie: str) -> None:
    make, reason = LIES[lie]
    shared, store = fleet()
    worker = await shared.started()
    assert store.snapshot
    store.snapshot = make(store.snapshot, shared.clock.now() + 1)
    await shared.clock.run_for(2)
    shared.team.rotate()
    assert await shared.find(worker, shared.kid) == "ok"
    await shared.clock.run_for(0)
    assert worker.get_if_usable(EVIL.kid) is None
    assert worker.health().snapshots_rejected == 1
    assert [event.reason for event in shared.events if isinstance(event, SnapshotRejected)] == [reason]
    newcomer = await shared.started()
    assert newcomer.get(shared.kid), "the good keys are in the store again"
    assert newcomer.health().snapshots_loaded == 1
    await stop(worker, newcomer)


async def test_a_lie_is_reported_once_while_a_worker_waits() -> None:
    shared, store = fleet()
    store.snapshot = b"garbage"
    shared.certs.fail_with()
    worker = shared.worker(startup_timeout=2)
    async with store.inner.lock(TEAM, seconds=60):
        starting = asyncio.ensure_future(worker.start())
        await shared.clock.run_for(STORE_WAIT)
    assert store.operations.count("load") > 2
    assert worker.health().snapshots_rejected == 2, "once at the start, and once before the fetch"
    await shared.clock.run_until(starting)
    await worker.stop()


@pytest.mark.conformance(89)
async def test_a_replayed_snapshot_delays_no_refresh_beyond_the_interval() -> None:
    shared, store = fleet()
    worker = await shared.started()
    replayed = signed(shared.team.certs_body(), shared.clock.now() + 5)
    await shared.clock.run_for(INTERVAL - 1)
    old = shared.kid
    shared.team.rotate()
    shared.team.withdraw()
    for _ in range(2 * int(INTERVAL)):
        store.snapshot = replayed
        await shared.clock.run_for(1)
        if worker.get_if_usable(old) is None:
            break
    assert shared.certs.requests[1].at - shared.certs.requests[0].at <= INTERVAL + 6
    assert worker.get_if_usable(old) is None
    await worker.stop()


@pytest.mark.conformance(89)
async def test_a_snapshot_with_a_clock_that_is_ahead_delays_no_refresh_beyond_the_interval() -> None:
    shared, store = fleet()
    store.snapshot = signed(shared.team.certs_body(), shared.clock.now() + 60)
    worker = await shared.started()
    assert worker.health().next_refresh_in == INTERVAL
    await shared.clock.run_for(INTERVAL)
    assert shared.certs.fetches == 1
    await worker.stop()


async def test_snapshots_are_read_with_each_secret_and_signed_with_the_first() -> None:
    shared, store = fleet()
    first = await shared.started()
    await first.stop()
    new = "a new secret of the fleet, for tests"
    rotated = WatchedStore([new, SECRET])
    rotated.snapshot = store.snapshot
    second = await shared.started(store=rotated)
    assert second.health().snapshots_loaded == 1
    await shared.clock.run_for(INTERVAL)
    only_new = WatchedStore(new)
    only_new.snapshot = rotated.snapshot
    third = await shared.started(store=only_new)
    assert third.health().snapshots_loaded == 1
    only_old = WatchedStore()
    only_old.snapshot = rotated.snapshot
    fourth = await shared.started(store=only_old)
    assert fourth.health().snapshots_rejected > 0
    assert fourth.health().snapshots_loaded == 0
    await stop(second, third, fourth)


async def test_two_teams_share_one_store() -> None:
    shared, store = fleet()
    first = await shared.started()
    other = await shared.started(team_domain="other")
    assert shared.certs.fetches == 2
    assert other.health().snapshots_rejected == 0
    assert sorted(store.inner._snapshots) == ["acme.cloudflareaccess.com", "other.cloudflareaccess.com"]
    await stop(first, other)


# A store that fails


PROBLEMS: dict[str, tuple[BaseException, str]] = {
    "refused": (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
    "lost": (ConnectionError("redis://:password@host"), "the connection failed or was lost"),
    "late": (TimeoutError(), "no response in time"),
    "of the store": (
        StoreProblem("the server is out of memory (maxmemory)"),
        "the server is out of memory (maxmemory)",
    ),
    "of the app": (ValueError("redis://:password@host"), "it failed with ValueError"),
}


@pytest.mark.conformance(90)
@pytest.mark.parametrize("operation", ["load", "lock", "save"])
@pytest.mark.parametrize("problem", PROBLEMS)
async def test_a_worker_goes_on_alone_if_the_store_fails(operation: str, problem: str) -> None:
    raised, cause = PROBLEMS[problem]
    shared, store = fleet()
    store.faults[operation] = raising(raised)
    worker = await shared.started()
    assert worker.get(shared.kid)
    shared.team.rotate()
    assert await shared.find(worker, shared.kid) == "ok"
    await shared.clock.run_for(INTERVAL)
    assert shared.certs.fetches == 3
    failures = [event for event in shared.events if isinstance(event, SnapshotStoreFailed)]
    assert {(event.operation, event.cause) for event in failures} == {(operation, cause)}
    assert worker.health().store_failures == len(failures)
    assert worker.health().last_store_error == (cause if operation == "save" else None), "None after a save"
    await worker.stop()


@pytest.mark.conformance(90)
@pytest.mark.parametrize("operation", ["load", "lock", "save"])
async def test_a_store_that_hangs_takes_a_second_of_each_fetch_at_most(operation: str) -> None:
    shared, store = fleet()
    store.faults[operation] = hang
    worker = shared.worker()
    starting = asyncio.ensure_future(worker.start())
    await shared.clock.run_for(2 * STORE_WAIT)
    assert starting.done()
    shared.team.rotate()
    began = shared.clock.monotonic()
    assert await shared.find(worker, shared.kid) == "ok"
    assert shared.clock.monotonic() - began <= STORE_WAIT + 1
    await shared.clock.run_for(STORE_WAIT)
    failures = [event for event in shared.events if isinstance(event, SnapshotStoreFailed)]
    assert {(event.operation, event.cause) for event in failures} == {(operation, "no response in time")}
    await worker.stop()


async def test_a_store_that_ignores_a_cancellation_leaves_no_task_behind() -> None:
    def waiting() -> list[str]:
        return [name for task in asyncio.all_tasks() if "_wait_for_turn" in (name := repr(task.get_coro()))]

    async def ignore_cancellation() -> None:
        with suppress(asyncio.CancelledError):
            await hang()
        await workers.clock.sleep(0.5)

    workers, store = fleet()
    worker = await workers.started()
    async with store.inner.lock(TEAM, seconds=DAY):
        store.faults["load"] = ignore_cancellation
        await workers.clock.run_for(INTERVAL)
        assert len(waiting()) == 1, "the refresh asks the store first"
        await workers.clock.run_for(STORE_WAIT + 0.5)
        assert waiting() == [], "it does not ask the store once more"
    await stop(worker)


async def test_a_failure_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    shared, store = fleet()
    store.faults["load"] = raising(ConnectionRefusedError(111, "Connection refused"))
    with caplog.at_level(logging.WARNING):
        worker = await shared.started()
        for _ in range(10):
            await shared.find(worker, "made up")
            await shared.clock.run_for(1)
    lines = [record.getMessage() for record in caplog.records if "store" in record.getMessage()]
    assert lines == [
        "cf-access could not use the snapshot store (load), so this worker goes on alone: Connection refused",
    ]
    await worker.stop()


async def test_a_store_that_works_again_is_used_again() -> None:
    shared, store = fleet()
    store.faults = {name: raising(ConnectionError()) for name in ("load", "lock", "save")}
    first = await shared.started()
    store.faults.clear()
    await shared.clock.run_for(INTERVAL)
    second = await shared.started()
    assert second.health().snapshots_loaded == 1
    assert first.health().store_failures == 2, "the look at the start, and the save"
    assert first.health().last_store_error is None
    await stop(first, second)


async def test_a_store_that_failed_is_not_asked_for_five_seconds() -> None:
    shared, store = fleet()
    worker = await shared.started()
    store.faults["load"] = hang
    await shared.clock.run_for(10)
    shared.team.rotate()
    assert await shared.find(worker, shared.kid) == "ok"
    store.operations.clear()
    shared.team.rotate()
    began = shared.clock.monotonic()
    assert await shared.find(worker, shared.kid) == "ok"
    assert shared.clock.monotonic() - began < STORE_WAIT, "the gap between fetches, and no wait for the store"
    assert "load" not in store.operations
    assert (STORE_WAIT, STORE_PAUSE, SAVE_TIMEOUT) == (1, 5, 1)
    await shared.clock.run_for(STORE_PAUSE)
    await shared.find(worker, "made up")
    assert store.operations.count("load") == 1
    await worker.stop()


async def test_a_worker_without_newer_keys_saves_nothing() -> None:
    shared, store = fleet()
    workers = [await shared.started() for _ in range(3)]
    assert [worker.health().snapshots_saved for worker in workers] == [1, 0, 0]
    shared.certs.fail_with()
    store.snapshot = signed(shared.team.certs_body(), shared.clock.now() + 30)
    newest = store.snapshot
    await shared.clock.run_for(1)
    await shared.find(workers[0], "made up")
    await shared.clock.run_for(1)
    assert store.snapshot == newest
    assert store.operations.count("save") == 1
    await stop(*workers)


@pytest.mark.parametrize("loaded", ["text", 7, ["list"]], ids=["text", "number", "list"])
async def test_a_store_that_returns_no_bytes_failed(loaded: Any) -> None:
    shared, store = fleet()
    store.snapshot = loaded
    worker = await shared.started()
    failures = [event for event in shared.events if isinstance(event, SnapshotStoreFailed)]
    assert {(event.operation, event.cause) for event in failures} == {("load", "it failed with TypeError")}
    assert worker.get(shared.kid)
    await worker.stop()


async def test_a_store_that_is_false_is_still_a_store() -> None:
    class Empty(WatchedStore):
        def __len__(self) -> int:
            return 0

    shared = Fleet(store=Empty())
    worker = await shared.started()
    assert worker.health().snapshots_saved == 1
    await worker.stop()


async def test_a_store_that_was_emptied_in_an_outage_gets_the_keys_again() -> None:
    shared, store = fleet()
    first = await shared.started()
    shared.certs.fail_with()
    store.snapshot = None
    await shared.clock.run_for(INTERVAL + 1)
    second = await shared.started()
    assert second.get(shared.kid), "from the first, whose refresh failed"
    await stop(first, second)


async def test_expired_keys_are_not_shared() -> None:
    shared, store = fleet(max_staleness=2000)
    worker = await shared.started()
    shared.certs.fail_with()
    await shared.clock.run_for(2100)
    store.snapshot = None
    await shared.clock.run_for(100)
    assert worker.health().state == "expired"
    assert store.snapshot is None
    await worker.stop()


async def test_a_worker_that_died_with_the_lock_holds_up_the_others_for_a_second() -> None:
    shared, store = fleet()
    abandoned = store.inner.lock(TEAM, seconds=60)
    await abandoned.__aenter__()
    worker = shared.worker()
    starting = asyncio.ensure_future(worker.start())
    await shared.clock.run_for(STORE_WAIT)
    assert starting.done()
    assert shared.certs.fetches == 1
    await worker.stop()
    await abandoned.__aexit__(None, None, None)


@pytest.mark.parametrize("operation", ["load", "lock", "save"])
async def test_a_stop_in_the_middle_of_an_operation_leaves_nothing_behind(operation: str) -> None:
    before = asyncio.all_tasks()
    shared, store = fleet()
    worker = await shared.started()
    store.faults[operation] = hang
    await shared.clock.run_for(INTERVAL)
    await worker.stop()
    await shared.clock.run_for(0)
    assert asyncio.all_tasks() == before


async def test_a_stop_in_the_middle_of_a_fetch_unlocks() -> None:
    shared, store = fleet()
    shared.certs.hang()
    worker = shared.worker(startup_timeout=0)
    await worker.start()
    await shared.clock.run_for(0)
    async with store.inner.lock(TEAM, seconds=1) as is_free:
        assert not is_free
    await worker.stop()
    async with store.inner.lock(TEAM, seconds=1) as is_free:
        assert is_free


async def test_the_lock_ends_with_the_save() -> None:
    shared, store = fleet()
    worker = await shared.started()
    async with store.inner.lock(TEAM, seconds=1) as is_free:
        assert is_free
    await worker.stop()


async def test_the_lock_outlasts_a_fetch_by_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, store = fleet(fetch_timeout=4)
    lock, lasting = store.lock, list[float]()

    def watched(team: str, *, seconds: float) -> Any:
        lasting.append(seconds)
        return lock(team, seconds=seconds)

    monkeypatch.setattr(store, "lock", watched)
    worker = await shared.started()
    assert lasting == [6]
    await worker.stop()
