"""The store in memory: snapshots, locks that end, and logs whose readers learn of each record at once."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from support.store_locks import check_lock

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import LogPage
from fastapi_cloudflare_access.stores.memory import HEARTBEAT, MemoryStore
from fastapi_cloudflare_access.testing import FakeClock

pytestmark = pytest.mark.anyio


def test_a_secret_is_made_for_each_store_that_is_given_none() -> None:
    first, second = MemoryStore().secret, MemoryStore().secret
    assert first != second
    assert len(first) == 32
    with pytest.raises(ConfigurationError, match="secret must have at least 32 bytes"):
        MemoryStore(secret="")


async def test_a_snapshot_is_kept_for_each_team() -> None:
    store = MemoryStore()
    await store.save("acme", b"first")
    await store.save("acme", b"second")
    await store.save("other", b"third")
    assert [await store.load(team) for team in ("acme", "other", "new")] == [b"second", b"third", None]


# the lock


async def test_one_worker_has_the_lock_of_a_team() -> None:
    store = MemoryStore(clock=FakeClock())
    await check_lock(store, store)


async def test_a_lock_ends_after_its_seconds_and_its_former_owner_does_not_end_the_next_one() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    former, owner = store.lock("acme", seconds=2), store.lock("acme", seconds=3)
    assert await former.__aenter__()
    clock.advance(1.9)
    async with store.lock("acme", seconds=1) as too_early:
        assert not too_early
    clock.advance(0.2)
    assert await owner.__aenter__()
    await former.__aexit__(None, None, None)
    async with store.lock("acme", seconds=1) as third:
        assert not third
    clock.advance(3)
    async with store.lock("acme", seconds=1) as fourth:
        assert fourth
    await owner.__aexit__(None, None, None)


# the log


async def test_pages_come_at_once_and_a_heartbeat_while_there_is_nothing_new() -> None:
    clock = FakeClock()
    store, pages = MemoryStore(clock=clock), list[LogPage]()

    async def follow() -> None:
        async for page in store.read("acme", after=None):
            pages.append(page)
            await asyncio.sleep(0)

    task = asyncio.create_task(follow())
    await clock.run_for(0)
    await store.append("acme", [b"one", b"two"], keep=1)
    await store.append("other", [b"three"], keep=1)
    await clock.run_for(0)
    assert [[*page.records] for page in pages if page.records] == [[b"one", b"two"]]
    before = len(pages)
    await clock.run_for(HEARTBEAT - 0.1)
    assert len(pages) == before
    await clock.run_for(0.1)
    assert len(pages) == before + 1
    assert ([*pages[-1].records], pages[-1].is_end, pages[-1].epoch) == ([], True, "")
    task.cancel()
    await asyncio.wait({task})
    assert store._readers == set()
    assert HEARTBEAT == 0.5  # a reader gives up a store that is silent for a second
    assert await store.time() == clock.now()
    assert [page.records async for page in first(store, after="1")] == [[b"two"]]


async def first(store: MemoryStore, *, after: str | None) -> AsyncGenerator[LogPage]:
    pages = store.read("acme", after=after)
    yield await anext(pages)
    await pages.aclose()


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1200, [(500, False), (500, False), (200, True)]), (1000, [(500, False), (500, True)]), (0, [(0, True)])],
    ids=["long", "whole pages", "empty"],
)
async def test_long_logs_are_read_in_pages_each_record_once(length: int, expected: list[tuple[int, bool]]) -> None:
    clock, records = FakeClock(), [b"%d" % number for number in range(length)]
    store, before = MemoryStore(clock=clock), clock.monotonic()
    await store.append("acme", records[:700], keep=1)
    await store.append("acme", records[700:], keep=1)
    pages = store.read("acme", after=None)
    found = [await clock.run_until(anext(pages)) for _ in expected]
    assert clock.monotonic() == before, "without a pause between pages"
    assert [(len(page.records), page.is_end) for page in found] == expected
    assert [record for page in found for record in page.records] == records
    assert [page.position for page in found] == [str(min(500 * (n + 1), length)) for n in range(len(expected))]
    assert (await clock.run_until(anext(pages))).records == []
    assert clock.monotonic() == pytest.approx(before + HEARTBEAT)
    await pages.aclose()


async def test_a_record_wakes_every_reader_once_however_many_are_added() -> None:
    clock, problems = FakeClock(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    store = MemoryStore(clock=clock)
    readers = [store.read("acme", after=None) for _ in range(3)]
    for reader in readers:
        await anext(reader)
    waiting = [asyncio.ensure_future(anext(reader)) for reader in readers]
    await clock.run_for(0)
    for record in (b"one", b"two"):
        await store.append("acme", [record], keep=1)
    await clock.run_for(0)
    assert [(await page).records for page in waiting] == [[b"one", b"two"]] * 3
    for reader in readers:
        await reader.aclose()
    assert problems == []


def test_readers_of_other_event_loops_learn_of_a_record_and_closed_ones_stop_nothing() -> None:
    store, has_read, found = MemoryStore(), threading.Event(), list[LogPage]()
    closed = asyncio.new_event_loop()
    store._readers.add(closed.create_future())
    closed.close()

    async def follow() -> None:
        async for page in store.read("acme", after=None):
            has_read.set()
            if page.records:
                found.append(page)
                return

    thread = threading.Thread(target=asyncio.run, args=[follow()])
    thread.start()
    assert has_read.wait(30)
    asyncio.run(store.append("acme", [b"one"], keep=1))
    thread.join(30)
    assert [page.records for page in found] == [[b"one"]]
