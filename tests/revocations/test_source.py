"""When the revocations are known, when they are read, and what is in force, to the second."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError
from support.revocation_rig import NOW, PAGE, RevocationRig, record, source_of

from fastapi_cloudflare_access._revocations.following import MAX_SILENCE, READ_TIMEOUT, SETTLING
from fastapi_cloudflare_access._revocations.source import FOLLOW_TASK, MAX_CLOCK_SKEW
from fastapi_cloudflare_access.errors import RevocationsUnavailable
from fastapi_cloudflare_access.settings import KeySettings
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

pytestmark = pytest.mark.anyio


@pytest.fixture
async def rig() -> Any:
    async with RevocationRig() as rig:
        yield rig


async def seconds_of_a_start(rig: RevocationRig, **options: Any) -> float:
    source = source_of(rig.make(**options))
    began = rig.clock.monotonic()
    await rig.do(source.start())
    took = rig.clock.monotonic() - began
    await rig.do(source.stop())
    return took


def answer_after(rig: RevocationRig, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait() -> None:
        await rig.clock.sleep(seconds)

    monkeypatch.setattr(rig.store, "_break", wait)


# how long a start waits


async def test_with_open_a_start_waits_until_the_log_was_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RevocationRig(unavailable="open") as rig:
        answer_after(rig, 3, monkeypatch)
        assert 3 <= await seconds_of_a_start(rig) < 3.1


async def test_with_closed_a_start_waits_until_the_log_is_complete(rig: RevocationRig) -> None:
    assert SETTLING <= await seconds_of_a_start(rig) < SETTLING + 2


async def test_a_start_waits_for_the_revocations_no_longer_than_for_the_keys(rig: RevocationRig) -> None:
    assert 2 <= await seconds_of_a_start(rig, key_settings=KeySettings(startup_timeout=2)) < 2.1


async def test_a_start_ends_after_13_seconds_however_slow_the_store_is(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_after(rig, 7, monkeypatch)
    rig.store.plant(*[b"garbage"] * (3 * PAGE))
    longest = READ_TIMEOUT + SETTLING
    assert longest == 13
    assert longest <= await seconds_of_a_start(rig, key_settings=KeySettings(startup_timeout=120)) < longest + 0.1


# how often starts and stops count


async def test_as_many_stops_as_starts_end_the_tasks(rig: RevocationRig) -> None:
    source = source_of(await rig.worker())
    for _ in range(2):
        await rig.do(source.start())
    following = []
    for _ in range(3):
        await rig.do(source.stop())
        following.append(source.is_following)
    assert following == [True, True, False]


async def test_a_stop_without_a_start_does_not_count(rig: RevocationRig) -> None:
    source = source_of(rig.make())
    await rig.do(source.stop())
    await rig.do(source.start())
    assert source.is_following
    await rig.do(source.stop())
    assert not source.is_following


async def test_a_start_replaces_the_tasks_of_all_names_if_one_of_them_has_ended(rig: RevocationRig) -> None:
    source = source_of(await rig.worker(former_team_domains=["old"]))
    first, second = (task for task in asyncio.all_tasks() if task.get_name() == FOLLOW_TASK)
    first.cancel()
    await rig.clock.run_for(0)
    assert not source.is_following
    await rig.do(source.start())
    await rig.clock.run_for(0)
    assert second.cancelled()
    assert len([task for task in asyncio.all_tasks() if task.get_name() == FOLLOW_TASK]) == 2
    await rig.do(source.stop())


@pytest.mark.parametrize("pid", [1, 2**31 - 1], ids=["lower", "higher"])
async def test_a_fork_has_no_task_of_its_parent(rig: RevocationRig, pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(await rig.worker())
    assert source.is_following
    monkeypatch.setattr("os.getpid", lambda: pid)
    source._current_loop_state()
    assert not source.is_following
    monkeypatch.undo()


# the last read


async def test_a_worker_that_follows_the_log_is_current_for_ten_seconds_after_each_read(rig: RevocationRig) -> None:
    source = source_of(await rig.worker())
    read_at = rig.clock.monotonic() - source.age
    assert source._current_until == source._next_read == pytest.approx(read_at + MAX_SILENCE)
    assert (source.is_current, source.is_read_due) == (True, False)


async def test_from_the_end_of_that_time_on_requests_read_the_log_and_valid_tokens_are_refused(
    rig: RevocationRig,
) -> None:
    source = source_of(await rig.worker())
    source._current_until = source._next_read = rig.clock.monotonic()
    assert (source.is_current, source.is_read_due) == (False, True)
    keys = source.keys_of({"sub": "ada", "iat": NOW}, b"digest")
    assert isinstance(source.refusal(keys), RevocationsUnavailable)


async def test_the_age_is_the_time_since_the_last_read(rig: RevocationRig) -> None:
    source = source_of(await rig.worker())
    assert source_of(rig.make()).age is None
    source._last_contact = 3.0
    assert source.age == rig.clock.monotonic() - 3


# records


async def test_a_block_is_in_force_until_its_end_and_no_longer(rig: RevocationRig) -> None:
    source = source_of(rig.make())
    source.apply([record("block", until=60)])
    in_force = []
    for seconds in (59, 1, 1):
        rig.clock.advance(seconds)
        in_force.append(len(source.records()))
    assert in_force == [1, 0, 0]


async def test_a_revocation_is_written_under_the_name_of_today_alone(rig: RevocationRig) -> None:
    certs = MemoryFetch(FakeTeam("new"))
    worker = await rig.worker(team_domain="new", former_team_domains=["acme"], fetch=certs)
    before = {team: len(log) for team, log in rig.store.logs.items()}
    await rig.do(worker.revocations.log_out(sub="bob"))
    added = {team: len(log) - before[team] for team, log in rig.store.logs.items()}
    assert added == {"new.cloudflareaccess.com": 1, "acme.cloudflareaccess.com": 0}


async def test_the_clock_of_the_store_may_differ_by_300_seconds(rig: RevocationRig) -> None:
    source, now = source_of(rig.make()), rig.clock.now()
    for skew in (-MAX_CLOCK_SKEW, MAX_CLOCK_SKEW):
        source._check_time(now + skew)
        with pytest.raises(RevocationsUnavailable, match="differs by"):
            source._check_time(now + skew * 1.01)


# what is shown


@pytest.mark.parametrize("method", ["log_out", "unblock"])
async def test_a_caller_is_given_by_name(rig: RevocationRig, method: str) -> None:
    access = rig.make()
    with pytest.raises(TypeError, match="positional"):
        await getattr(access.revocations, method)("ada@example.com")


async def test_what_is_shown_cannot_be_changed(rig: RevocationRig) -> None:
    access = rig.make()
    source_of(access).apply([record("block", until=60)])
    (shown,) = access.revocations.in_force()
    with pytest.raises(AttributeError, match="cannot assign"):
        shown.key = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - to see it refused
    with pytest.raises(ValidationError, match="frozen"):
        access.revocations.health().records = 0
