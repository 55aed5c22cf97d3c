"""The fuzzing target of the cache over its seeds, over whatever Hypothesis makes up, and for a while with coverage."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fuzz.cache_breaks import Break, changed_entries, same_hash, same_instance
from fuzz.cache_target import MAX_LENGTH, load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastapi_cloudflare_access._verification.signature import RS256Key

FOLDER = Path(__file__).parent
CORPUS = sorted((FOLDER / "cache_corpus").iterdir())
SECONDS = int(os.environ.get("FUZZ_SECONDS", "4"))


@cache
def target() -> Callable[[bytes], None]:
    """Return the target with real signatures; making its keys and tokens takes a second."""
    return load()


@pytest.mark.parametrize("seed", CORPUS, ids=lambda path: path.name)
def test_over_no_seed_do_the_answers_differ(seed: Path) -> None:
    target()(seed.read_bytes())


def test_the_seeds_use_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that never hits the cache would find nothing."""
    one_input: Any = target()
    tally, verifies = one_input.tally, RS256Key.verifies

    def counted(key: RS256Key, signature: bytes, signed: bytes) -> bool:
        tally.checked += 1
        return verifies(key, signature, signed)

    monkeypatch.setattr(RS256Key, "verifies", counted)
    before = tally.from_cache
    for seed in CORPUS:
        one_input(seed.read_bytes())
    assert tally.from_cache - before >= 12


@given(st.binary(max_size=MAX_LENGTH))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_over_no_bytes_do_the_answers_differ(data: bytes) -> None:
    target()(data)


@given(st.sampled_from(CORPUS), st.data())
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_over_no_change_of_a_seed_do_the_answers_differ(seed: Path, data: st.DataObject) -> None:
    changed = bytearray(seed.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    target()(bytes(changed))


BREAKS: dict[str, tuple[Break, str]] = {
    "the end is not checked": (changed_entries(ends=float("inf")), "expired"),
    "the start is not checked": (changed_entries(starts=0), "set_back"),
    "nbf is not checked": (changed_entries(starts=0), "set_back_nbf"),
    "two tokens have one hash": (same_hash, "evicted"),
    "the same instance is given again": (same_instance, "own_model"),
    "a validator is skipped": (same_instance, "own_model_mood"),
}


@pytest.mark.parametrize(("break_it", "seed"), BREAKS.values(), ids=BREAKS)
def test_over_a_broken_cache_they_do(break_it: Break, seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    with pytest.raises(AssertionError):
        target()((FOLDER / "cache_corpus" / seed).read_bytes())


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_coverage_guided_fuzzing_finds_no_difference(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "cache_target.py"), str(tmp_path), str(FOLDER / "cache_corpus")]
    options = [f"-max_total_time={SECONDS}", "-timeout=5", f"-max_len={MAX_LENGTH}"]
    options.append(f"-artifact_prefix={tmp_path}/found-")
    ended = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=SECONDS + 60)
    assert ended.returncode == 0, ended.stderr[-2000:]
