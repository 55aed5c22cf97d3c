"""The log of revocations: no live worker forgets, each writes back what the store has lost, and nothing else counts."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import pytest
from support.revocation_rig import ADA, BOB, HOUR, NOW, SECRET, BreakableStore, RevocationRig, record, signed, source_of

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._revocations import following, source
from fastapi_cloudflare_access._revocations.following import MAX_SILENCE, READ_TIMEOUT, RESYNC_INTERVAL, SETTLING
from fastapi_cloudflare_access._revocations.record import MICROSECONDS, Completion
from fastapi_cloudflare_access._revocations.source import FOLLOW_TASK, READ_TASK
from fastapi_cloudflare_access.protocols import LogPage
from fastapi_cloudflare_access.stores.memory import MemoryStore
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

pytestmark = pytest.mark.anyio

TEAM = "acme.cloudflareaccess.com"


@pytest.fixture
async def rig() -> Any:
    async with RevocationRig() as rig:
        yield rig


def names_of(access: Any) -> set[str]:
    return {each.key for each in access.revocations.in_force()}


def records_of(rig: RevocationRig, access: Any, team: str = TEAM) -> list[Any]:
    return [source_of(access)._records.read(each) for each in rig.store.content(team)]


# what the store loses


@pytest.mark.conformance(92)
@pytest.mark.parametrize("keep", [0, 1, 3])
async def test_what_the_store_loses_is_written_back_and_a_new_worker_knows_it(rig: RevocationRig, keep: int) -> None:
    """After a flush, or a fail-over to a replica that lags."""
    live = await rig.workers(3)
    for sub in ("ada", "bob", "eve"):
        await rig.do(live[0].revocations.log_out(sub=sub))
    await rig.do(live[1].revocations.block(sub="eve", for_=HOUR))
    await rig.clock.run_for(1)
    rig.store.lose(keep=keep)
    await rig.clock.run_for(3)
    assert [names_of(each) for each in live] == [{"ada", "bob", "eve"}] * 3
    assert names_of(await rig.worker()) == {"ada", "bob", "eve"}
    read = [event.written_back for event in rig.named("revocations_read")]
    assert sum(read) >= 4 - keep + (keep > 0)


async def test_workers_write_back_at_different_moments_so_that_few_records_are_repeated(rig: RevocationRig) -> None:
    live = await rig.workers(8)
    for number in range(20):
        await rig.do(live[0].revocations.log_out(sub=str(number)))
    await rig.clock.run_for(1)
    rig.store.lose()
    await rig.clock.run_for(5)
    assert 20 < len(rig.store.content()) <= 20 * 4 + 8


async def test_many_records_are_written_back_in_parts(rig: RevocationRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MAX_WRITTEN", 7)
    access = await rig.worker()
    for number in range(30):
        source_of(access)._table.add(record(key=str(number)), NOW)
    rig.store.lose()
    await rig.clock.run_for(5)
    assert len({each.key for each in records_of(rig, access) if not isinstance(each, Completion)}) == 30


async def test_single_records_that_get_lost_are_written_back_at_the_next_full_read(rig: RevocationRig) -> None:
    access = await rig.worker()
    for sub in ("ada", "bob"):
        await rig.do(access.revocations.log_out(sub=sub))
    await rig.clock.run_for(1)
    del rig.store.logs[TEAM][1]
    await rig.clock.run_for(RESYNC_INTERVAL * 1.2)
    assert {each.key for each in records_of(rig, access) if not isinstance(each, Completion)} == {"ada", "bob"}


async def test_a_store_that_cannot_be_written_gets_the_records_later(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.do(access.revocations.log_out(email=ADA))
    await rig.clock.run_for(1)
    rig.store.lose()
    rig.store.write_problem = OSError()
    before = rig.store.attempts
    await rig.clock.run_for(SETTLING)
    assert rig.store.content() == []
    assert rig.store.attempts == before + 1
    assert await rig.outcome(access, rig.token(BOB)) == "ok"  # it can be read
    rig.store.write_problem = None
    await rig.clock.run_for(SETTLING + 1)
    assert len([each for each in records_of(rig, access) if not isinstance(each, Completion)]) == 1


async def test_a_record_that_ends_while_it_is_written_back_is_left_out(rig: RevocationRig) -> None:
    access = await rig.worker()
    source_of(access)._table.add(record("block", until=rig.clock.now() - NOW + 2), rig.clock.now())
    rig.store.lose()
    rig.store.write_problem = OSError()
    await rig.clock.run_for(SETTLING + 3)
    rig.store.write_problem = None
    await rig.clock.run_for(SETTLING + 1)
    assert [each for each in records_of(rig, access) if not isinstance(each, Completion)] == []


@pytest.mark.conformance(92)
async def test_a_flush_does_not_lower_not_before(rig: RevocationRig) -> None:
    access, token = await rig.worker(), rig.token()
    await rig.do(access.revocations.log_out(email=ADA))
    rig.store.lose()
    replayed = signed(access, record("log_out", "email", source_of(access).records()[0].key, at=-60))
    rig.store.plant(replayed)
    await rig.clock.run_for(3)
    assert await rig.outcome(access, token) == "token_revoked"


# a new worker


async def test_a_new_worker_waits_until_a_live_one_has_completed_the_log(rig: RevocationRig) -> None:
    live = await rig.worker()
    await rig.do(live.revocations.log_out(email=ADA))
    token = rig.token()
    rig.store.write_problem = OSError()
    rig.store.lose()
    await rig.clock.run_for(1)
    new = rig.make()
    starting = asyncio.create_task(new.__aenter__())
    await rig.clock.run_for(SETTLING - 1)
    assert not starting.done()
    assert await rig.outcome(new, token) == "revocations_unavailable"
    rig.store.write_problem = None
    await rig.clock.run_for(SETTLING)
    assert starting.done()
    assert await rig.outcome(new, token) == "token_revoked"
    await rig.do(new.__aexit__(None, None, None))


async def test_a_worker_that_was_cut_off_does_not_rely_on_a_log_that_was_lost_meanwhile(rig: RevocationRig) -> None:
    live, cut_off = await rig.worker(), BreakableStore(rig.clock)
    cut_off.logs = rig.store.logs
    other, token = await rig.worker(revocation_store=cut_off), rig.token()
    cut_off.problem = OSError()
    await rig.do(live.revocations.log_out(email=ADA))
    await rig.clock.run_for(MAX_SILENCE + 1)
    rig.store.write_problem = OSError()
    rig.store.lose()
    cut_off.logs, cut_off.epoch, cut_off.problem = rig.store.logs, rig.store.epoch, None
    await rig.clock.run_for(2)
    assert await rig.outcome(other, token) == "revocations_unavailable"
    rig.store.write_problem = None
    await rig.clock.run_for(SETTLING + 1)
    assert await rig.outcome(other, token) == "token_revoked"


async def test_a_worker_relies_on_a_log_that_was_lost_if_it_was_not_cut_off(rig: RevocationRig) -> None:
    access = await rig.worker()
    rig.store.problem = OSError()
    await rig.clock.run_for(MAX_SILENCE - 2)
    rig.store.lose()
    rig.store.problem = None
    await rig.clock.run_for(1.5)
    assert await rig.outcome(access, rig.token()) == "ok"


async def test_a_new_worker_relies_on_a_log_that_no_worker_completes_after_a_while(rig: RevocationRig) -> None:
    new = rig.make()
    starting = asyncio.create_task(new.__aenter__())
    await rig.clock.run_for(SETTLING - 0.5)
    assert not starting.done()
    await rig.clock.run_for(2)
    assert starting.done()
    assert [type(each) for each in records_of(rig, new)] == [Completion]
    second = rig.make()
    starting = asyncio.create_task(second.__aenter__())
    await rig.clock.run_for(0.2)
    assert starting.done()
    for each in (new, second):
        await rig.do(each.__aexit__(None, None, None))


async def test_with_open_a_start_waits_for_the_first_read_only() -> None:
    async with RevocationRig(unavailable="open") as rig:
        access = rig.make()
        starting = asyncio.create_task(access.__aenter__())
        await rig.clock.run_for(0.2)
        assert starting.done()
        await rig.do(access.__aexit__(None, None, None))


async def test_a_start_does_not_wait_for_a_store_that_fails(rig: RevocationRig) -> None:
    rig.store.problem = OSError()
    access = rig.make()
    starting = asyncio.create_task(access.__aenter__())
    await rig.clock.run_for(0.2)
    assert starting.done()
    assert access.revocations.health().last_error == "it failed with OSError"
    await rig.do(access.__aexit__(None, None, None))


async def test_a_start_that_is_cancelled_leaves_no_task(rig: RevocationRig) -> None:
    rig.store.hangs = True
    access = rig.make()
    starting = asyncio.create_task(access.__aenter__())
    await rig.clock.run_for(1)
    starting.cancel()
    await asyncio.wait({starting})
    await rig.clock.run_for(1)
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == FOLLOW_TASK] == []
    assert not access.keys.health().refresher_alive


async def test_the_last_stop_ends_the_tasks(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.do(access.__aenter__())
    await rig.do(access.__aexit__(None, None, None))
    assert access.revocations.health().following
    await rig.do(source_of(access).stop())
    assert not access.revocations.health().following
    assert access.revocations.health().state == "ok"


async def test_a_worker_that_wrote_that_the_log_is_complete_says_so_again_after_a_day(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.clock.run_for(2)
    old = source_of(access)._records.sign(Completion(rig.store.epoch, (NOW - 90_000) * MICROSECONDS))
    rig.store.logs[TEAM] = []
    rig.store.plant(old)
    await rig.clock.run_for(3)
    assert len(records_of(rig, access)) == 2


# what is no record


@pytest.mark.conformance(87)
async def test_forged_truncated_replayed_and_foreign_records_change_nothing(rig: RevocationRig) -> None:
    access = await rig.worker()
    token = rig.token()
    team = rig.make(team_domain="evil")
    good = signed(access, record("block", "sub", "ada", until=3600))
    wrong = [b"", b"\xff" * 100, good[:-1], good.replace(b"block", b"unblo"), signed(team, record()), b"x" * 100_000]
    rig.store.plant(*wrong)
    await rig.clock.run_for(1)
    assert access.revocations.in_force() == []
    assert access.revocations.health().ignored == len(wrong)
    reasons = {event.reason for event in rig.named("revocation_ignored")}
    assert "it is of another team" in reasons
    assert "it is not signed with the secret of the store" in reasons
    rig.store.plant(*wrong)
    await rig.clock.run_for(1)
    assert len(rig.named("revocation_ignored")) == len(reasons)  # once a minute
    assert await rig.outcome(access, token) == "ok"


async def test_a_record_of_the_past_does_not_undo_a_later_one(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.do(access.revocations.unblock(email=ADA))
    replayed = rig.store.content()[-1]
    await rig.clock.run_for(0.1)
    await rig.do(access.revocations.block(email=ADA, for_=HOUR))
    rig.store.plant(replayed)
    await rig.clock.run_for(1)
    assert await rig.outcome(access, rig.token()) == "token_revoked"


async def test_a_store_that_says_it_has_lost_records_again_and_again_is_not_read_in_a_tight_loop(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = await rig.worker()
    pages = 0

    async def read(team: str, *, after: str | None) -> AsyncGenerator[LogPage]:
        nonlocal pages
        pages += 1
        yield LogPage([], "1", is_end=True, has_gap=True)

    monkeypatch.setattr(rig.store, "read", read)
    await rig.store.restart()
    await rig.clock.run_for(11)
    assert 10 < pages <= 11 / (following.FIRST_PAUSE / 2) + 2
    assert await rig.outcome(access, rig.token()) == "revocations_unavailable"


async def test_a_store_whose_pages_end_is_a_failure(rig: RevocationRig, monkeypatch: pytest.MonkeyPatch) -> None:
    access = await rig.worker()

    async def read(team: str, *, after: str | None) -> AsyncGenerator[LogPage]:
        return
        yield

    monkeypatch.setattr(rig.store, "read", read)
    await rig.store.restart()
    await rig.clock.run_for(2)
    assert access.revocations.health().last_error == "the connection failed or was lost"


async def test_pauses_between_failures_grow_to_a_second(rig: RevocationRig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.worker()
    attempts = 0

    async def read(team: str, *, after: str | None) -> AsyncGenerator[LogPage]:
        nonlocal attempts
        attempts += 1
        raise OSError
        yield

    monkeypatch.setattr(rig.store, "read", read)
    await rig.store.restart()
    await rig.clock.run_for(60)
    assert 60 <= attempts <= 60 * 2 + 12


async def test_the_pauses_of_a_worker_are_random_and_double_after_each_failure(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, attempts = set[tuple[float, float]](), list[float]()

    def highest(low: float, high: float) -> float:
        asked.add((low, high))
        return high

    async def read(team: str, *, after: str | None) -> AsyncGenerator[LogPage]:
        attempts.append(rig.clock.monotonic())
        raise OSError
        yield

    monkeypatch.setattr(following, "_between", highest)
    await rig.worker()
    monkeypatch.setattr(rig.store, "read", read)
    await rig.store.restart()
    await rig.clock.run_for(8)
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    growing = [pause for pause in pauses if pause > 0.15]
    assert growing[:5] == pytest.approx([0.2, 0.4, 0.8, 1, 1])
    assert pauses[0] == pytest.approx(0.1), "at first the store may be back at once"
    assert sum(pauses) - sum(growing) <= 1.2
    assert asked == {(0.9, 1.1), (0, 0.5), (0.5, 1.0)}


def test_the_durations_and_limits_are_the_same_in_each_worker_of_a_fleet() -> None:
    assert (SETTLING, MAX_SILENCE, READ_TIMEOUT, RESYNC_INTERVAL) == (5, 10, 8, 600)
    assert (following.SPREAD, following.COMPLETION_LIFETIME, following.MAX_WRITTEN) == (0.5, 86_400, 2000)
    assert (following.FIRST_PAUSE, following.LONGEST_PAUSE) == (0.1, 1)
    assert (source.READ_INTERVAL, source.CATCH_UP_TIMEOUT, source.READ_ALL_TIMEOUT) == (1, 1, 60)
    assert (source.MAX_CLOCK_SKEW, source.MAX_ADDRESSES, source.START_POLL) == (300, 4096, 0.05)


async def test_a_generator_that_does_not_close_is_left_after_a_second(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, attempts = await rig.worker(), list[float]()

    class Hanging:
        async def __anext__(self) -> LogPage:
            attempts.append(rig.clock.monotonic())
            raise OSError

        async def aclose(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(following, "_between", lambda _, high: high)
    monkeypatch.setattr(rig.store, "read", lambda *_, **__: Hanging())
    await rig.store.restart()
    await rig.clock.run_for(2)
    assert access.revocations.health().last_error == "it failed with OSError"
    assert 1 <= attempts[1] - attempts[0] <= 1.25


async def test_without_a_lifespan_a_request_reads_a_log_with_gaps_three_times_at_most(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, positions = rig.make(), list[str | None]()

    async def read(team: str, *, after: str | None) -> AsyncGenerator[LogPage]:
        positions.append(after)
        yield LogPage([], "1", is_end=True, has_gap=True)

    monkeypatch.setattr(rig.store, "read", read)
    assert await rig.outcome(access, rig.token()) == "revocations_unavailable"
    assert positions == [None] * 3


async def test_a_generator_that_cannot_be_closed_stops_nothing(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = await rig.worker()

    class Stubborn:
        async def __anext__(self) -> LogPage:
            raise OSError

        async def aclose(self) -> None:
            raise ValueError

    real = rig.store.read
    monkeypatch.setattr(rig.store, "read", lambda *_, **__: Stubborn())
    await rig.store.restart()
    await rig.clock.run_for(2)
    assert access.revocations.health().last_error == "it failed with OSError"
    monkeypatch.setattr(rig.store, "read", real)
    await rig.clock.run_for(2)
    assert access.revocations.health().last_error is None


# a team with a new name


async def test_the_records_of_a_former_name_count_and_are_written_under_the_new_one(rig: RevocationRig) -> None:
    old = await rig.worker(team_domain="acme", former_team_domains=["new"])
    await rig.do(old.revocations.log_out(email=ADA))
    token = rig.token()
    new = await rig.worker(team_domain="new", former_team_domains=["acme"], fetch=MemoryFetch(FakeTeam("new")))
    await rig.clock.run_for(SETTLING + 2)
    assert names_of(new) == names_of(old)
    await rig.do(new.revocations.log_out(sub="bob"))
    await rig.clock.run_for(1)
    assert names_of(new) == names_of(old)
    assert len(records_of(rig, new, "new.cloudflareaccess.com")) >= 2
    assert await rig.outcome(old, token) == "token_revoked"


# without a lifespan


async def test_without_a_lifespan_requests_read_the_store_at_most_once_a_second(rig: RevocationRig) -> None:
    live, access = await rig.worker(), rig.make()
    token = rig.token()
    assert await rig.outcome(access, token) == "ok"
    assert not access.revocations.health().following
    before = rig.store.reads
    for _ in range(5):
        assert await rig.outcome(access, token) == "ok"
    assert rig.store.reads == before
    await rig.do(live.revocations.log_out(email=ADA))
    await rig.clock.run_for(1.1)
    assert await rig.outcome(access, token) == "token_revoked"
    assert [task for task in asyncio.all_tasks() if task.get_name() == READ_TASK] == []


async def test_without_a_lifespan_many_first_requests_wait_for_one_read(rig: RevocationRig) -> None:
    live = await rig.worker()
    await rig.do(live.revocations.log_out(email=ADA))
    access, token = rig.make(), rig.token()
    outcomes = [asyncio.ensure_future(rig.outcome(access, token)) for _ in range(5)]
    assert await asyncio.gather(*outcomes) == ["token_revoked"] * 5


async def test_without_a_lifespan_a_request_waits_a_second_for_a_store_that_hangs(rig: RevocationRig) -> None:
    await rig.worker()
    access, token = rig.make(), rig.token()
    rig.store.hangs = True
    before = rig.clock.monotonic()
    assert await rig.outcome(access, token) == "revocations_unavailable"
    assert rig.clock.monotonic() - before == pytest.approx(1)
    assert await rig.outcome(access, token) == "revocations_unavailable"
    assert rig.clock.monotonic() - before == pytest.approx(1)
    await rig.clock.run_for(READ_TIMEOUT)
    assert access.revocations.health().last_error == "no response in time"


async def test_without_a_lifespan_a_gap_is_read_at_once(rig: RevocationRig) -> None:
    live, access = await rig.worker(), rig.make()
    await rig.do(live.revocations.log_out(sub="ada"))
    assert await rig.outcome(access, rig.token()) == "ok"
    rig.store.lose()
    await rig.clock.run_for(3)
    await rig.do(live.revocations.log_out(sub="bob"))
    assert await rig.outcome(access, rig.token()) == "ok"
    assert names_of(access) == {"ada", "bob"}


async def test_verify_and_the_readiness_probe_read_the_store_too(rig: RevocationRig) -> None:
    await rig.worker()
    token = rig.token()
    assert (await rig.do(rig.make().readiness())).status_code == 200
    for _ in range(2):
        access = rig.make()
        assert await rig.do(access.verify(token))
        assert access.revocations.health().state == "ok"


async def test_a_follower_that_died_is_replaced_by_reads_of_requests(rig: RevocationRig) -> None:
    access = await rig.worker()
    for task in asyncio.all_tasks():
        if task.get_name() == FOLLOW_TASK:
            task.cancel()
    await rig.clock.run_for(MAX_SILENCE + 1)
    assert not access.revocations.health().following
    assert await rig.outcome(access, rig.token()) == "ok"
    await rig.do(access.__aenter__())
    assert access.revocations.health().following
    await rig.do(access.__aexit__(None, None, None))


async def test_a_follower_that_hangs_is_not_waited_for(rig: RevocationRig) -> None:
    access = await rig.worker()
    rig.store.hangs = True
    await rig.clock.run_for(MAX_SILENCE + 1)
    before = rig.clock.monotonic()
    assert await rig.outcome(access, rig.token()) == "revocations_unavailable"
    assert rig.clock.monotonic() == before


def test_no_asyncio_event_loop_is_no_exception() -> None:
    """As under a server on Trio: the store counts as one that cannot be reached."""
    rig = RevocationRig()
    with pytest.raises(StopIteration):
        source_of(rig.make()).catch_up().send(None)


# loops and processes


def test_one_object_works_in_one_event_loop_after_another_and_in_two_at_once() -> None:
    store = MemoryStore(secret=SECRET)
    access: CloudflareAccess[Any] = CloudflareAccess(
        team_domain="acme",
        audience="0" * 64,
        fetch=MemoryFetch(FakeTeam("acme")),
        revocation_store=store,
        revocations_unavailable="closed",
    )

    async def use(sub: str, *, other: str | None = None) -> None:
        async with access:
            await access.revocations.log_out(sub=sub)
            for _ in range(200):
                if other is None or other in names_of(access):
                    break
                await asyncio.sleep(0.01)
            assert access.revocations.health().state == "ok"

    asyncio.run(use("first"))
    threads = [threading.Thread(target=asyncio.run, args=[use(*pair)]) for pair in [("second",), ("third",)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(use("last", other="first"))
    assert names_of(access) == {"first", "second", "third", "last"}
    assert len(source_of(access)._loops) == 1


async def test_a_loop_that_was_complete_before_a_silence_does_not_vouch_for_another_one(rig: RevocationRig) -> None:
    access = await rig.worker()
    mine = source_of(access)
    thread = threading.Thread(target=asyncio.run, args=[mine.read_all()])
    thread.start()
    thread.join()
    assert len(mine._loops) == 2
    rig.store.problem = OSError()
    await rig.clock.run_for(MAX_SILENCE + 1)
    rig.store.lose()  # with what others added meanwhile
    rig.store.problem = None
    await rig.clock.run_for(SETTLING - 1)
    assert await rig.outcome(access, rig.token()) == "revocations_unavailable"
    await rig.clock.run_for(4)  # the pause after a failure, and the moments at which workers write, are random
    assert await rig.outcome(access, rig.token()) == "ok"


async def test_a_fork_does_not_wait_for_a_thread_of_its_parent(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = await rig.worker()
    source_of(access)._table._lock.acquire()
    monkeypatch.setattr("os.getpid", lambda: -1)
    await rig.do(access.revocations.log_out(sub="ada"))
    assert names_of(access) == {"ada"}


async def test_a_fork_starts_its_own_tasks(rig: RevocationRig, monkeypatch: pytest.MonkeyPatch) -> None:
    access = await rig.worker()
    await rig.do(access.revocations.log_out(sub="ada"))
    of_parent = [*source_of(access)._loops.values()]
    for task in of_parent[0].tasks:  # none runs in the child
        task.cancel()
    monkeypatch.setattr("os.getpid", lambda: -1)
    await rig.clock.run_for(MAX_SILENCE + 1)
    assert await rig.outcome(access, rig.token()) == "ok"
    assert names_of(access) == {"ada"}
    await rig.do(access.__aenter__())
    assert access.revocations.health().following
    assert [*source_of(access)._loops.values()] != of_parent
    await rig.do(access.__aexit__(None, None, None))
