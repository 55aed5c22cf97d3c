"""The fuzzing target over its seeds, over whatever Hypothesis makes up, and for a while with coverage guidance."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz.target import load
from hypothesis import given, settings
from hypothesis import strategies as st

FOLDER = Path(__file__).parent
CORPUS = sorted((FOLDER / "corpus").iterdir())
SECONDS = int(os.environ.get("FUZZ_SECONDS", "4"))
one_input = load()


@pytest.mark.conformance(6, 45)
@pytest.mark.parametrize("seed", CORPUS, ids=lambda path: path.name)
def test_what_fuzzing_began_with_and_what_it_found_does_no_harm(seed: Path) -> None:
    data = seed.read_bytes()
    one_input(data)  # which tests moduli for primes, and remembers
    began = time.process_time()
    one_input(data)
    assert time.process_time() - began < 0.05, "it takes too long"


@pytest.mark.conformance(6, 45)
@given(st.integers(0, 5), st.binary(max_size=400))
@settings(deadline=None, max_examples=300)
def test_no_bytes_raise_another_error_or_pass_against_a_rule(kind: int, data: bytes) -> None:
    one_input(bytes([kind]) + data)


@pytest.mark.conformance(6, 45)
@given(st.sampled_from(CORPUS), st.data())
@settings(deadline=None, max_examples=300)
def test_no_change_of_good_input_does(seed: Path, data: st.DataObject) -> None:
    changed = bytearray(seed.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(1, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
        changed.extend(b" " * (2 - len(changed)))
    one_input(bytes(changed))


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_coverage_guided_fuzzing_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "target.py"), str(tmp_path), str(FOLDER / "corpus")]
    options = [f"-max_total_time={SECONDS}", "-timeout=5", "-max_len=4096", f"-artifact_prefix={tmp_path}/found-"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=SECONDS + 60)
    assert ended.returncode == 0, ended.stderr[-2000:]
