"""What the documentation says about speed is what was measured; nothing is timed here."""

import json
import re
import runpy
import socket
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "concepts" / "performance.md"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import a module of the benchmarks, which are scripts and no package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module


@pytest.fixture
def results() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}


def test_the_page_is_written_from_the_results_that_are_kept(
    load: Callable[[str], Any], results: dict[str, Any]
) -> None:
    assert load("page").render(results) == PAGE.read_text()


def test_every_picture_on_the_page_is_there() -> None:
    pictures = re.findall(r"\]\((.+?\.svg)\)", PAGE.read_text())
    assert len(pictures) == 6
    assert [picture for picture in pictures if not (PAGE.parent / picture).is_file()] == []


def test_an_aim_is_met_up_to_its_bound(load: Callable[[str], Any]) -> None:
    aim = load("aims").Aim
    assert [aim("a ratio", 1.8, measured).met for measured in (1.79, 1.8, 1.81)] == [True, True, False]
    assert [aim("a rate", 0.9, measured, at_least=True).met for measured in (0.89, 0.9)] == [False, True]


def test_turns_are_compared_round_by_round(load: Callable[[str], Any]) -> None:
    """A slow moment of the machine hits both, and does not count."""
    found = load("timing").figure([2.0, 20.0, 2.0], [1.0, 10.0, 1.0])
    assert (found.ratio, found.low, found.high) == (2.0, 2.0, 2.0)


def test_everybody_takes_as_many_turns(load: Callable[[str], Any]) -> None:
    turns = dict.fromkeys("ab", 0)

    def taking(name: str) -> Callable[[int], float]:
        def turn(times: int) -> float:
            turns[name] += times
            return float(times)

        return turn

    found = load("timing").interleave({name: taking(name) for name in turns}, rounds=3, times=5)
    assert turns == {"a": 20, "b": 20}
    assert found["b"].ratio == 1.0


def test_ci_runs_the_guard_before_the_suite_whose_summary_comes_last() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert '"$venv/bin/python" benchmarks/guard.py' in commands
    assert commands[-1].endswith("scripts/test")


@pytest.mark.parametrize(("times", "code"), [(1.0, 0), (1.49, 0), (1.51, 1)])
def test_the_guard_fails_what_costs_half_more_than_in_the_best_rounds_of_the_recorded_run(
    times: float, code: int, load: Callable[[str], Any], results: dict[str, Any]
) -> None:
    recorded = results["verification"]["tokens"]["user, 0.9 kB"]
    measured = {name: times * one["low"] for name, one in recorded.items()}
    assert load("guard").main(lambda: measured) == code


def test_the_guard_forgives_a_slow_moment_of_the_machine(load: Callable[[str], Any]) -> None:
    guard = load("guard")
    slow, quick = dict.fromkeys((guard.OURS, guard.CACHED), 100.0), dict.fromkeys((guard.OURS, guard.CACHED), 0.0)
    assert guard.main(iter([slow, slow, quick]).__next__) == 0
    assert guard.main(iter([slow, slow, slow]).__next__) == 1


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., None], list[str], dict[str, Any]]:
    """How to run sections that measure nothing, what they keep, and what they are told of this machine."""
    run = runpy.run_path(str(ROOT / "benchmarks/__main__.py"))["run"]
    written: list[str] = []
    here = json.loads((RESULTS / "machine.json").read_text())
    section = SimpleNamespace(run=lambda *, quick: {})
    stubs = {"import_module": lambda name: section, "machine": lambda: here}
    for name, stub in (stubs | {"write": lambda name, found: written.append(name)}).items():
        monkeypatch.setitem(run.__globals__, name, stub)
    return run, written, here


def test_a_short_look_keeps_no_results(kept: tuple[Callable[..., None], list[str], dict[str, Any]]) -> None:
    run, written, _ = kept
    run(["verification"], quick=True)
    assert written == []
    run(["verification"], quick=False)
    assert written == ["machine", "verification"]


def test_what_was_measured_on_two_machines_is_never_on_one_page(
    kept: tuple[Callable[..., None], list[str], dict[str, Any]],
) -> None:
    run, written, here = kept
    here["processor"] = "another"
    with pytest.raises(SystemExit, match="run all of them"):
        run(["verification"], quick=False)
    assert written == []
    run(["verification", "inside", "requests", "trouble", "scale", "footprint", "edge"], quick=False)
    assert written[0] == "machine"


def test_each_promise_is_measured_by_its_own_denominator_and_explained_apart(
    load: Callable[[str], Any], results: dict[str, Any]
) -> None:
    promised = [aim.about for aim in load("aims").aims(results)]
    for tree in ("tree of access", "tree of access.user"):
        assert f"what the {tree} adds without verification: times one empty FastAPI dependency" in promised
    for name in ("this package", "this package, router", "this package, policy"):
        assert f"{name}, h11: rate against its reference" in promised
    assert "a lookup of a known kid, µs" in promised
    explained = [about for about, _ in load("aims").explanations(results)]
    assert len(explained) == 18
    assert not {*explained} & {*promised}
    page = PAGE.read_text()
    assert max(map(page.index, promised)) < page.index("Where bounds are not kept") < min(map(page.index, explained))


def of(**microseconds: float) -> dict[str, Any]:
    """What one section says of contenders, by these microseconds."""
    rsa = microseconds["rsa"]
    names = {"rsa": "bare RSA-2048 verify", "ours": "this package"}
    return {
        names.get(name, name): {"microseconds": taken, "ratio": taken / rsa} for name, taken in microseconds.items()
    }


def test_inside_requests_the_quickest_peer_is_the_bound(load: Callable[[str], Any], results: dict[str, Any]) -> None:
    inside = {"h11": of(rsa=20, ours=50, slow=100, quick=80), "httptools": of(rsa=20, ours=80, slow=50, quick=40)}
    aims = {aim.about: aim for aim in load("aims").aims({**results, "inside": inside})}
    met = aims["user, 0.9 kB, inside requests, h11: against the fastest peer, quick"]
    missed = aims["user, 0.9 kB, inside requests, httptools: against the fastest peer, quick"]
    assert (met.measured, met.met, missed.measured, missed.met) == (0.625, True, 2.0, False)


def test_what_a_request_costs_more_is_told_beside_what_its_bound_allows(
    load: Callable[[str], Any], results: dict[str, Any]
) -> None:
    loop = {**results["verification"], "tokens": {"user, 0.9 kB": of(rsa=20, ours=30)}}
    rates = {"empty tree": {"rate": 1e6 / 60}, "empty tree, one RSA": {"rate": 1e6 / 90}}
    http = {**rates, "empty tree, unchecked claims": {"ratio": 0.8}, "empty tree, one SHA-256": {"ratio": 0.9}}
    requests = {"asgi": results["requests"]["asgi"], "h11": http, "httptools": http}
    inside = dict.fromkeys(("h11", "httptools"), of(rsa=30, ours=60))
    explained = dict(load("aims").explanations({"verification": loop, "inside": inside, "requests": requests}))
    assert {about: round(value, 6) for about, value in explained.items() if "h11" in about} == {
        "one RSA inside requests, h11: times one in a loop": 1.5,
        "verification beyond RSA inside requests, h11: times the same in a loop": 3.0,
        "verification beyond RSA inside requests, h11, µs": 30.0,
        "one RSA makes a request longer by, h11, µs": 30.0,
        "the bound lets this package make it longer than that by, h11, µs": 10.0,
        "an empty tree with unchecked claims, h11: rate against the reference of this package": 0.8,
        "an empty tree with one SHA-256 of the token, h11: rate against an empty tree": 0.9,
    }


def test_inside_requests_everybody_takes_turns_whose_median_counts_once_they_are_warm(
    load: Callable[[str], Any],
) -> None:
    section = load("section_inside")
    operations = {"a": lambda: 1.0, "b": lambda: 2.0}
    kept: dict[str, list[float]] = {name: [] for name in operations}
    turns = section.taking_turns(operations, kept)
    done: list[Callable[[], float]] = []
    for number in range(4 * section.TURN + 1):
        operation, took = next(turns)
        done.append(operation)
        took.append(100.0 if number % section.TURN < section.WARM else operation())
    assert kept == {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert [len({*done[at : at + section.TURN]}) for at in range(0, 4 * section.TURN, section.TURN)] == [1, 1, 1, 1]


def test_a_page_is_not_written_from_some_of_the_sections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = runpy.run_path(str(ROOT / "benchmarks/__main__.py"))["report"]
    monkeypatch.setitem(report.__globals__, "RESULTS", tmp_path)
    (tmp_path / "machine.json").write_text("{}")
    with pytest.raises(SystemExit, match="no results of verification, inside, requests, "):
        report()


def test_trouble_is_compared_with_the_quiet_of_the_same_round(load: Callable[[str], Any]) -> None:
    def load_of(p99: float) -> Any:
        return load("serving").Load(rate=1.0, p50=1.0, p99=p99, failed=0)

    slower_and_slower = [(load_of(quiet), load_of(1.5 * quiet)) for quiet in (1.0, 10.0, 100.0)]
    assert load("section_trouble").summary({"hang": slower_and_slower})["times quiet"] == {"hang": 1.5}


def test_an_endpoint_that_hangs_unnoticed_is_no_measurement(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    section = load("section_trouble")
    monkeypatch.setattr(section, "hanging", lambda *_, **__: ([], 0))
    with pytest.raises(RuntimeError, match="did not notice that the endpoint hangs"):
        section.measure("this package", dict.fromkeys(section.PURPOSES), ([], 0.0), quick=True)


def test_the_page_says_of_a_peer_that_it_did_not_notice(load: Callable[[str], Any], results: dict[str, Any]) -> None:
    peers = {name: {**one, "fetches while it hung": 0} for name, one in results["trouble"].items()}
    assert load("page").render({**results, "trouble": peers}).count("none: did not notice") == len(peers)


def test_pictures_have_no_background_and_say_where_there_was_no_answer(results: dict[str, Any]) -> None:
    pictures = {path.stem: path.read_text() for path in (ROOT / "docs/assets").glob("performance-*.svg")}
    assert [name for name, drawn in pictures.items() if "#ffffff" in drawn or re.search(r"\de\+\d", drawn)] == []
    silent = [phase for one in results["trouble"].values() for phase, value in one["p99"].items() if value is None]
    assert pictures["performance-trouble"].count("no answer (") == len(silent)


def test_the_client_in_python_gives_up_where_nothing_is_answered(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = load("serving")
    monkeypatch.setattr(serving, "GRACE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert serving._python(silent.getsockname()[1], "token", 0.05, 2) is serving.NO_ANSWER
