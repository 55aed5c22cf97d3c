"""How often a log is read, after which pauses, and what a worker says about it."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from support.revocation_rig import RevocationRig, record, source_of

from fastapi_cloudflare_access._revocations import following
from fastapi_cloudflare_access._revocations.following import RESYNC_INTERVAL, LogReader
from fastapi_cloudflare_access._revocations.record import Completion
from fastapi_cloudflare_access.protocols import LogPage
from fastapi_cloudflare_access.testing import FakeClock

pytestmark = pytest.mark.anyio


@pytest.fixture
async def rig() -> Any:
    async with RevocationRig() as rig:
        yield rig


def reader_of(access: Any) -> LogReader:
    reader: LogReader = source_of(access)._current_loop_state().readers[0]
    return reader


def pauses_of(rig: RevocationRig, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list that the pauses of the clock are added to, without those of tests."""
    pauses: list[float] = []
    sleep = FakeClock.sleep

    async def noted(clock: FakeClock, seconds: float) -> None:
        pauses.append(seconds)
        await sleep(clock, seconds)

    monkeypatch.setattr(FakeClock, "sleep", noted)
    return pauses


# pauses


async def test_a_lost_record_is_no_failure_and_the_log_is_read_again_after_a_short_pause(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = await rig.worker()
    monkeypatch.setattr(following, "_between", lambda low, high: low + 0.7 * (high - low))
    pauses = pauses_of(rig, monkeypatch)
    rig.store.lose()
    await rig.clock.run_for(0.2)
    assert [pause for pause in pauses if pause < 0.2] == [pytest.approx(0.1 * 0.85)]
    assert access.revocations.health().last_error is None
    assert rig.named("revocations_unreachable") == []


async def test_a_store_that_never_answers_is_asked_again_after_pauses_that_double(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(team: str, *, after: str | None) -> AsyncGenerator[LogPage]:
        raise OSError
        yield

    monkeypatch.setattr(rig.store, "read", read)
    monkeypatch.setattr(following, "_between", lambda low, high: low + 0.2 * (high - low))
    pauses = pauses_of(rig, monkeypatch)
    source = source_of(rig.make())
    await rig.do(source.start())
    await rig.clock.run_for(4)
    assert [pause for pause in pauses if 0.05 < pause < 1][:5] == pytest.approx([0.12, 0.24, 0.48, 0.6, 0.6])
    await rig.do(source.stop())


@pytest.mark.parametrize(("high", "seconds"), [(False, 540), (True, 660)], ids=["earliest", "latest"])
async def test_the_whole_log_is_read_again_after_ten_minutes_more_or_less(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch, *, high: bool, seconds: float
) -> None:
    monkeypatch.setattr(following, "_between", max if high else min)
    reader = reader_of(rig.make())
    began = rig.clock.monotonic()
    await rig.do(reader.read(follow=False))
    assert reader._read_at - began == pytest.approx(seconds)
    assert RESYNC_INTERVAL == 600


# reads


async def test_without_a_lifespan_a_request_reads_one_page_of_a_short_log(rig: RevocationRig) -> None:
    access = rig.make()
    await rig.outcome(access, rig.token())
    assert rig.store.reads == 1


async def test_a_store_that_cannot_restart_unnoticed_is_relied_on_at_once(rig: RevocationRig) -> None:
    rig.store.epoch = ""
    source = source_of(rig.make())
    began = rig.clock.monotonic()
    await rig.do(source.start())
    assert rig.clock.monotonic() - began < 0.5
    await rig.do(source.stop())


async def test_a_record_that_ends_at_this_moment_is_not_written_back(rig: RevocationRig) -> None:
    reader = reader_of(rig.make())
    block = record("block", until=60)
    reader._table.add(block, rig.clock.now())
    assert await reader._lacking() == [block]
    rig.clock.advance(60)
    assert rig.clock.now() == block.ends_at
    assert await reader._lacking() == []


# what is said


async def test_streams_are_looked_at_once_for_each_revocation_and_never_without_one(rig: RevocationRig) -> None:
    class Counting:
        calls = 0

        def count(self) -> None:
            self.calls += 1

    first, second = await rig.workers(2)
    counting = Counting()
    source_of(second).on_change(counting.count)
    await rig.clock.run_for(10)
    assert counting.calls == 0
    await rig.do(first.revocations.log_out(sub="ada"))
    await rig.clock.run_for(0.1)
    assert counting.calls == 1
    await rig.clock.run_for(10)
    assert counting.calls == 1


async def test_a_worker_that_has_lost_nothing_has_written_nothing_back(rig: RevocationRig) -> None:
    await rig.worker()
    await rig.clock.run_for(7)
    (event,) = rig.named("revocations_read")
    assert (event.records, event.written_back) == (0, 0)


async def test_a_worker_says_once_a_day_that_the_log_is_complete(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.clock.run_for(3 * RESYNC_INTERVAL)
    records = [source_of(access)._records.read(each) for each in rig.store.content()]
    assert [type(each) for each in records] == [Completion]
    assert source_of(access).report.has_read_own
