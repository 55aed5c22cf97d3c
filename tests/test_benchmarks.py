"""The documentation says about speed what was measured. Nothing is timed here."""

import asyncio
import json
import re
import runpy
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_cloudflare_access._verification.token_cache import TokenCache

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "concepts" / "performance.md"
SECTIONS = ["verification", "inside", "requests", "trouble", "scale", "footprint", "edge", "parts"]


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


def test_every_picture_on_the_page_exists() -> None:
    pictures = re.findall(r"\]\((.+?\.svg)\)", PAGE.read_text())
    assert len(pictures) == 6
    assert [picture for picture in pictures if not (PAGE.parent / picture).is_file()] == []


def test_the_pictures_show_the_results_that_are_kept() -> None:
    """If this fails, run `scripts/bench --report`."""
    script = runpy.run_path(str(ROOT / "benchmarks/__main__.py"))
    kept = [RESULTS / f"{name}.json" for name in ("machine", *script["SECTIONS"])]
    assert (ROOT / script["DRAWN_FROM"]).read_text().strip() == script["digest"]([*kept, script["DRAWN_BY"]])


def test_a_promise_is_kept_up_to_its_bound(load: Callable[[str], Any]) -> None:
    aim = load("aims").Aim
    assert [aim("a ratio", 1.8, measured).met for measured in (1.79, 1.8, 1.81)] == [True, True, False]
    assert [aim("a rate", 0.9, measured, at_least=True).met for measured in (0.89, 0.9)] == [False, True]
    assert [aim("a rate", 0.8, rate, at_least=True, goal=0.9).reached for rate in (0.89, 0.9)] == [False, True]


def test_turns_are_compared_round_by_round(load: Callable[[str], Any]) -> None:
    """A slow moment of the machine affects both, and does not count."""
    timing = load("timing")
    found = timing.figure([2.0, 20.0, 2.0], [1.0, 10.0, 1.0])
    assert (found.ratio, found.low, found.high) == (2.0, 2.0, 2.0)
    assert timing.added([2.0, 11.0, 4.0], [1.0, 10.0, 1.0]) == 1e6


def test_every_contender_takes_as_many_turns(load: Callable[[str], Any]) -> None:
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
def test_the_guard_fails_what_takes_half_more_than_recorded(
    times: float, code: int, load: Callable[[str], Any], results: dict[str, Any]
) -> None:
    guard = load("guard")
    loop, asgi = results["verification"]["tokens"]["user, 0.9 kB"], results["requests"]["asgi"]
    recorded = {name: loop[name]["low"] for name in (guard.VERIFIED, guard.REMEMBERED)} | guard.over_a_route(asgi)
    assert len(recorded) == 4
    for name in recorded:
        measured = recorded | {name: times * recorded[name]}
        assert guard.main(lambda measured=measured: measured) == code


def test_the_guard_forgives_a_slow_moment_of_the_machine(load: Callable[[str], Any]) -> None:
    guard = load("guard")
    slow, quick = dict.fromkeys(guard.UNITS, 100.0), dict.fromkeys(guard.UNITS, 0.0)
    assert guard.main(iter([slow, slow, quick]).__next__) == 0
    assert guard.main(iter([slow, slow, slow]).__next__) == 1


def test_the_guard_compares_a_known_token_with_an_empty_dependency_and_a_new_one_with_its_promise(
    load: Callable[[str], Any],
) -> None:
    guard = load("guard")
    best = {guard.BASE: 20.0, guard.UNPROTECTED: 50.0, guard.EMPTY: 60.0, guard.KNOWN: 65.0, guard.NEW: 92.0}
    asgi = {name: {"best": microseconds} for name, microseconds in best.items()}
    assert guard.over_a_route(asgi) == {guard.KNOWN: 1.5, guard.NEW: 42 / (2.6 * 10 + 2.9 * 20)}


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., None], dict[str, Any]]:
    """Return how to run sections that measure nothing, and the machine they are told."""
    run = runpy.run_path(str(ROOT / "benchmarks/__main__.py"))["run"]
    here = {**json.loads((RESULTS / "machine.json").read_text()), "quick": False}
    nothing = SimpleNamespace(run=lambda *, quick: {})
    stubs = {"import_module": lambda name: nothing, "machine": lambda *, quick: {**here, "quick": quick}}
    for name, stub in stubs.items():
        monkeypatch.setitem(run.__globals__, name, stub)
    return run, here


def written(root: Path) -> list[str]:
    return sorted(path.stem for path in root.rglob("*.json"))


def test_results_are_kept_only_in_a_folder(
    section: tuple[Callable[..., None], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = section
    monkeypatch.chdir(tmp_path)
    run(SECTIONS, quick=True, root=None)
    assert written(tmp_path) == []
    run(SECTIONS, quick=True, root=tmp_path)
    assert written(tmp_path) == sorted(["machine", *SECTIONS])
    assert json.loads((tmp_path / "benchmarks/results/machine.json").read_text())["quick"]


def test_results_of_two_machines_are_never_on_one_page(
    section: tuple[Callable[..., None], dict[str, Any]], tmp_path: Path
) -> None:
    run, here = section
    run(SECTIONS, quick=False, root=tmp_path)
    run(["verification"], quick=False, root=tmp_path)
    with pytest.raises(SystemExit, match="run all of them"):
        run(["verification"], quick=True, root=tmp_path)
    here["processor"] = "another"
    with pytest.raises(SystemExit, match="run all of them"):
        run(["verification"], quick=False, root=tmp_path)
    run(SECTIONS, quick=False, root=tmp_path)


def test_the_page_says_of_a_short_run_that_it_is_one(load: Callable[[str], Any], results: dict[str, Any]) -> None:
    render = load("page").render
    pages = [render({**results, "machine": {**results["machine"], "quick": quick}}) for quick in (True, False)]
    assert ["come from a short run" in page for page in pages] == [True, False]


def test_the_promises_that_a_user_notices_come_first(load: Callable[[str], Any], results: dict[str, Any]) -> None:
    aims = load("aims")
    first, others = ([aim.about for aim in group(results)] for group in (aims.first, aims.others))
    assert len(first) == 8
    page = PAGE.read_text()
    assert max(map(page.index, first)) < page.index("## The token cache") < page.index("## Other promises")
    last = page[page.index("## Other promises") :]
    assert [about for about in others if about not in last] == []


def test_each_promise_has_its_own_unit(load: Callable[[str], Any], results: dict[str, Any]) -> None:
    aims = load("aims")
    asgi = {aims.EMPTY: {"added": 10.0}, aims.BASE: {"microseconds": 20.0}}
    asgi |= {name: {"added": added} for name, added in ((aims.KNOWN, 24.0), (aims.BOTH, 47.0), (aims.NEW, 84.0))}
    found = {**results, "requests": {**results["requests"], "asgi": asgi}}
    known, both, new = list(aims.first(found))[:3]
    assert [(aim.measured, aim.met) for aim in (known, both, new)] == [(2.4, True), (4.7, False), (1.0, True)]
    assert (known.detail, new.limit) == ("24 µs", "2.6 E + 2.9 RSA")


def test_the_page_says_what_is_not_kept_and_which_aim_is_not_reached(load: Callable[[str], Any]) -> None:
    aim, kept = load("aims").Aim, load("page")._kept
    good, broken = aim("quick", 2, 1), aim("slow", 2, 3, unit=" E")
    short = aim("a rate", 0.8, 0.85, at_least=True, goal=0.9)
    assert kept([good]) == "Every promise of this page is kept."
    assert kept([good, broken]) == "Not kept:\n\n- slow: 3 E; the bound is ≤ 2 E."
    assert kept([short, good]).endswith("not reached:\n\n- a rate: 0.85; the aim is 0.90.")
    assert [line for line in kept([short, broken]).splitlines() if line.endswith(":")] == [
        "Not kept:",
        "Kept, but the aim is not reached:",
    ]


def of(load: Callable[[str], Any], **microseconds: float) -> dict[str, Any]:
    """Return one section's figures of contenders that take so many microseconds."""
    aims = load("aims")
    names = {"rsa": aims.BASE, "ours": aims.VERIFIED}
    rsa = microseconds["rsa"]
    return {
        names.get(name, name): {"microseconds": taken, "ratio": taken / rsa} for name, taken in microseconds.items()
    }


def test_inside_requests_the_fastest_peer_is_the_bound(load: Callable[[str], Any], results: dict[str, Any]) -> None:
    inside = {
        "h11": of(load, rsa=20, ours=50, slow=100, quick=80),
        "httptools": of(load, rsa=20, ours=80, slow=50, quick=40),
    }
    aims = {aim.about: aim for aim in load("aims").aims({**results, "inside": inside})}
    about = "one new token verified, against the fastest peer (quick): user, 0.9 kB, inside requests"
    met, missed = aims[f"{about}, h11"], aims[f"{about}, httptools"]
    assert (met.measured, met.met, missed.measured, missed.met) == (0.625, True, 2.0, False)


def test_inside_requests_every_contender_takes_turns_whose_median_counts_once_they_are_warm(
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


def test_no_page_is_written_from_some_of_the_sections(tmp_path: Path) -> None:
    report = runpy.run_path(str(ROOT / "benchmarks/__main__.py"))["report"]
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    (tmp_path / "benchmarks/results/machine.json").write_text("{}")
    with pytest.raises(SystemExit, match="no results of verification, inside, requests, "):
        report(tmp_path)


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
        section.measure(section.KNOWN, dict.fromkeys(section.PURPOSES), ([], 0.0), quick=True)


def test_the_page_says_of_a_peer_that_it_did_not_notice(load: Callable[[str], Any], results: dict[str, Any]) -> None:
    peers = {name: {**one, "fetches while it hung": 0} for name, one in results["trouble"].items()}
    assert load("page").render({**results, "trouble": peers}).count("none: did not notice") == len(peers)


def test_pictures_have_no_background_and_say_if_there_was_no_answer(results: dict[str, Any]) -> None:
    pictures = {path.stem: path.read_text() for path in (ROOT / "docs/assets").glob("performance-*.svg")}
    assert [name for name, drawn in pictures.items() if "#ffffff" in drawn or re.search(r"\de\+\d", drawn)] == []
    silent = [phase for one in results["trouble"].values() for phase, value in one["p99"].items() if value is None]
    assert pictures["performance-trouble"].count("no answer (") == len(silent)


def test_the_first_picture_shows_this_package_between_its_references_and_its_peers(
    load: Callable[[str], Any], results: dict[str, Any]
) -> None:
    aims = load("aims")
    drawn = (ROOT / "docs/assets/performance-requests.svg").read_text()
    shown = (aims.UNPROTECTED, aims.EMPTY, aims.KNOWN, aims.NEW, *aims.PEERS)
    names = [name for name in shown if name in results["requests"]["httptools"]]
    assert len(names) >= 5
    assert [name for name in names if f">{name}<" not in drawn] == []


def test_every_app_of_this_package_answers_over_asgi(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    aims, section, serving = load("aims"), load("section_requests"), load("serving")
    monkeypatch.setattr(serving, "DISTINCT", 20)
    names = (aims.UNPROTECTED, aims.EMPTY, aims.KNOWN, aims.NEW, aims.BOTH, aims.UNCACHED, "this package, policy")
    with serving.Stage() as stage:
        found = asyncio.run(section.over_asgi(stage, names, rounds=1))
    assert set(found) == {aims.BASE, *names}
    assert found[aims.UNPROTECTED]["added"] == 0


def test_tokens_that_shall_be_new_are_never_in_the_token_cache(load: Callable[[str], Any]) -> None:
    serving = load("serving")
    cache: TokenCache[Any] = TokenCache(serving.CACHED)
    sent = [sha256(str(number).encode()).digest() for number in range(serving.DISTINCT)]
    entry: Any = ("an", "entry")
    hits = 0
    for digest in sent * 3:
        hits += cache.get(digest) is not None
        cache.put(digest, entry)
    assert hits == 0


@contextmanager
def noting(seen: list[str]) -> Iterator[int]:
    """Serve, note the tokens of requests, and yield the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.append(self.headers["Cf-Access-Jwt-Assertion"])
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    "client", ["_python", pytest.param("_wrk", marks=pytest.mark.skipif(not shutil.which("wrk"), reason="no wrk"))]
)
def test_either_client_sends_the_tokens_in_turn(client: str, load: Callable[[str], Any]) -> None:
    tokens, seen = ["one", "two", "three", "four", "five"], list[str]()
    with noting(seen) as port:
        found = getattr(load("serving"), client)(port, tokens, 1, 1)
    assert found.failed == 0
    assert len(seen) > 2 * len(tokens)
    start = tokens.index(seen[0])
    assert seen == [tokens[(start + number) % len(tokens)] for number in range(len(seen))]


def test_the_client_in_python_stops_if_nothing_is_answered(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = load("serving")
    monkeypatch.setattr(serving, "GRACE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert serving._python(silent.getsockname()[1], ["token"], 0.05, 2) is serving.NO_ANSWER
