"""The long run of `scripts/soak long`: what it judges, and that it works."""

import asyncio
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pytest
from long_runs.__main__ import Run, hold
from long_runs.issuing import FORGED, Issuing
from long_runs.judge import MEBIBYTE, Sample, Tally, Worker, growth, left_over, problems, summary
from long_runs.scaled import ScaledClock
from support.redis_server import needs_redis
from support.soaking import SOAKING

from fastapi_cloudflare_access.testing import FakeClock, FakeTeam

OPENED = {"task Server.serve": 1, "fd socket": 4, "socket to Redis": 2}


def memory(*, grows_by: float, noise: float = 0.0, seconds: int = 3600) -> list[Sample]:
    """Return samples of 80 MiB that grow by so many MiB an hour."""
    chance = Random(1)
    return [
        (at, MEBIBYTE * (80 + grows_by * at / 3600 + noise * chance.uniform(-1, 1)))
        for at in map(float, range(seconds))
    ]


def worker(
    samples: Sequence[Sample] | None = None, after: Mapping[str, int] = OPENED, *, tracebacks: int = 0
) -> Worker:
    flat = memory(grows_by=0.0) if samples is None else samples
    return Worker(flat, OPENED, after, tracebacks=tracebacks)


def good_tally() -> Tally:
    tally = Tally()
    tally.response("known", "ok", expected=True)
    tally.response("forged", "401 invalid_signature", expected=False)
    tally.ended("token_expired", early=0.0, late=1.0, allowed=10.0)
    return tally


def judged(*workers: Worker, tally: Tally | None = None) -> list[str]:
    return problems(workers or [worker()], tally or good_tally(), max_growth=1.0)


@pytest.mark.parametrize("grows_by", [-3.0, 0.0, 0.5, 7.25])
def test_the_slope_is_the_growth_in_an_hour(grows_by: float) -> None:
    assert growth(memory(grows_by=grows_by)) == pytest.approx(grows_by)
    assert growth(memory(grows_by=grows_by, noise=0.5)) == pytest.approx(grows_by, abs=0.1)
    assert growth(memory(grows_by=grows_by, seconds=600)) == pytest.approx(grows_by)


@pytest.mark.parametrize("samples", [[], [(1.0, 80.0)], [(1.0, 80.0), (1.0, 90.0)]])
def test_a_slope_needs_two_times(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="too few samples"):
        growth(samples)


def test_a_good_run_has_no_problem() -> None:
    assert judged() == []
    assert judged(worker(memory(grows_by=0.9, noise=0.3)), worker(memory(grows_by=-5.0))) == []


def test_memory_that_grows_is_a_problem_of_its_worker() -> None:
    assert judged(worker(), worker(memory(grows_by=2.0))) == ["worker 1: the memory grows by 2.00 MiB an hour, above 1"]


@pytest.mark.parametrize("name", [*OPENED, "task ticks"])
def test_a_task_a_file_or_a_socket_that_is_left_over_is_a_problem(name: str) -> None:
    after = {**OPENED, name: OPENED.get(name, 0) + 3}
    assert left_over(OPENED, after) == {name: 3}
    assert judged(worker(after=after)) == [f"worker 0: 3 more at the end: {name}"]


def test_fewer_open_files_than_before_are_no_problem() -> None:
    assert left_over(OPENED, {"fd socket": 3}) == {}


def test_a_traceback_in_the_log_of_a_worker_is_a_problem() -> None:
    assert judged(worker(tracebacks=2)) == ["worker 0: 2 tracebacks in its log"]


@pytest.mark.parametrize("outcome", ["401 token_expired", "503 keys_unavailable"])
def test_a_refused_valid_token_is_a_problem(outcome: str) -> None:
    tally = good_tally()
    tally.response("known", outcome, expected=True)
    assert judged(tally=tally) == ["a valid token was refused: 1 times"]
    assert tally.examples == [f"a valid token was refused: known: {outcome}"]


def test_an_accepted_invalid_token_is_a_problem() -> None:
    tally = good_tally()
    tally.response("forged", "ok", expected=False)
    assert judged(tally=tally) == ["an invalid token was accepted: 1 times"]


def test_at_the_moment_of_its_end_a_token_may_be_refused_or_accepted() -> None:
    tally = good_tally()
    for outcome in ("ok", "401 token_expired"):
        tally.response("known", outcome, expected=None)
    assert judged(tally=tally) == []


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        ({"early": 1.0, "late": 0.0}, "a stream ended before its token: 1 times"),
        ({"early": 0.0, "late": 11.0}, "a stream outlived its token: 1 times"),
    ],
)
def test_a_stream_that_does_not_end_with_its_token_is_a_problem(times: dict[str, float], problem: str) -> None:
    tally = good_tally()
    tally.ended("token_expired", allowed=10.0, **times)
    assert judged(tally=tally) == [problem]


def test_a_run_in_which_nothing_happened_is_a_problem() -> None:
    assert judged(tally=Tally()) == ["no request was answered, or no stream ended: nothing was tested"]


def test_examples_of_mistakes_are_limited() -> None:
    tally = Tally()
    for number in range(1000):
        tally.mistake("a connection failed", str(number))
    assert (tally.mistakes["a connection failed"], len(tally.examples)) == (1000, 20)


def test_the_summary_has_the_figures_of_each_worker_and_of_each_kind_of_token() -> None:
    text = summary([worker(), worker(memory(grows_by=2.0))], good_tally())
    assert "| growth, MiB an hour | 0.00 | 2.00 |" in text
    assert "| tasks, after the warm-up and at the end | 1, 1 | 1, 1 |" in text
    assert "| forged | 1 401 invalid_signature |" in text
    assert text.endswith("Streams ended: 1 token_expired. None outlived its token by more than 1.0 s.")


def issuing() -> Issuing:
    team: Any = FakeTeam("acme", clock=FakeClock())
    return Issuing(team, lifetime=(60, 120))


def test_a_token_must_pass_until_it_ends() -> None:
    edge = issuing()
    token = edge.token("ada@example.com")
    clock: Any = edge.team.clock
    assert edge.is_valid(token) is True
    clock.advance(token.ends - edge.now)
    assert edge.is_valid(token) is None


@pytest.mark.parametrize("action", ["log_out", "revoke", "block"])
def test_a_revoked_token_need_not_pass_and_a_later_one_must(action: str) -> None:
    edge = issuing()
    clock: Any = edge.team.clock
    token = edge.token("ada@example.com")
    edge.begin_revocation(token, action)
    clock.advance(60)
    assert edge.is_valid(token) is None
    assert (edge.is_valid(edge.token("ada@example.com")) is True) == (action == "revoke")
    edge.end_revocation(token, action, seconds=20.0)
    other = edge.token("eve@example.com")
    clock.advance(max(0.0, edge.admitted_from("ada@example.com") - edge.now) + 1)
    assert edge.is_valid(token) is None
    assert edge.is_valid(edge.token("ada@example.com")) is True
    assert edge.is_valid(other) is True


def test_forgeries_cause_no_fetch() -> None:
    assert len(FORGED) > 20
    assert "unknown_kid" not in FORGED


def test_processes_share_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ScaledClock(24.0, 1_767_225_600.0, 0.25)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    assert ScaledClock.of_environment() == clock


@needs_redis
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
@pytest.mark.skipif(not SOAKING, reason="takes a minute, and a machine without loud neighbours: scripts/soak tests")
def test_two_workers_make_no_mistake_while_everything_fails_that_can(tmp_path: Path) -> None:
    """Nothing is timed here: a busy machine may end a stream late, and memory grows at first."""
    run = Run(60.0, factor=4.0, streams=20, allowed=inf, max_growth=inf, settling=0.5, quiet=True)
    workers, tally = asyncio.run(hold(run, tmp_path))
    assert tally.mistakes == {}, tally.examples
    assert tally.streams
    accepted = {kind for kind, outcome in tally.responses if outcome == "ok"}
    assert {"stream"} <= accepted <= {"known", "new", "service", "stream"}
    assert [len(worker.memory) > 1 and worker.after["open streams"] == 0 for worker in workers] == [True, True]
