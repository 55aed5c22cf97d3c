"""The guide states the measured speed of the testing kit; these tests measure nothing."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KEPT: dict[str, float] = json.loads((ROOT / "benchmarks/results/testing_kit.json").read_text())


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module("testing_kit")


def test_the_figures_that_are_kept_are_within_their_bounds(benchmark: Any) -> None:
    assert [aim.about for aim in benchmark.aims(KEPT) if not aim.met] == []


@pytest.mark.parametrize("slow", ["user token", "service token", "override adds"])
def test_the_exit_code_reports_a_broken_bound(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, slow: str
) -> None:
    monkeypatch.setattr("sys.argv", ["testing_kit.py"])
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path / "kept.json")
    codes: list[int] = []
    for found in (KEPT, {**KEPT, slow: 5.1}):
        monkeypatch.setattr(benchmark, "measure", lambda rounds, found=found: found)
        codes.append(benchmark.main())
    assert codes == [0, 1]
    assert capsys.readouterr().out.count("BROKEN") == 1
    assert json.loads((tmp_path / "kept.json").read_text())[slow] == 5.1


def test_every_operation_of_the_benchmark_does_its_work(benchmark: Any) -> None:
    assert set(benchmark.measure(1)) == KEPT.keys()


def test_the_guide_states_the_measured_figures() -> None:
    guide = (ROOT / "docs/guides/testing.md").read_text()
    assert f"a token is minted in {KEPT['user token']:.1f} ms" in guide
    assert f"an override adds {KEPT['override adds']:.1f} ms" in guide
