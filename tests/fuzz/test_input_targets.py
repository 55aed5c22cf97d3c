"""The targets of policies, identities, `access.toml`, routes and stores: over seeds, any bytes, and with coverage."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fuzz import config_target, fleet_target, identity_target, policy_target, routes_target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.soaking import in_full

FOLDER = Path(__file__).parent
TARGETS: dict[str, Any] = {
    "policy": policy_target,
    "identity": identity_target,
    "config": config_target,
    "fleet": fleet_target,
    "routes": routes_target,
}
LONGEST = dict.fromkeys(TARGETS, 4096) | {"routes": routes_target.MAX_LENGTH}
SEEDS = [seed for name in TARGETS for seed in sorted((FOLDER / f"{name}_corpus").iterdir())]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "4"))
GUIDED = in_full([*TARGETS], ["policy"])
"""The targets that are fuzzed with coverage guidance: to start one takes longer than what follows."""


@cache
def target(name: str) -> Callable[[bytes], None]:
    one_input: Callable[[bytes], None] = TARGETS[name].load()
    return one_input


def name_of(seed: Path) -> str:
    return seed.parent.name.removesuffix("_corpus")


@pytest.mark.conformance(73, 75, 85)
@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{name_of(seed)}-{seed.name}")
def test_over_no_seed_does_a_target_fail_or_take_long(seed: Path) -> None:
    one_input, data = target(name_of(seed)), seed.read_bytes()
    one_input(data)
    if name_of(seed) != "routes":  # which makes an app, and asks it
        began = time.process_time()
        one_input(data)
        assert time.process_time() - began < 0.5, "it takes too long"


@pytest.mark.parametrize("name", ["policy", "identity", "config", "fleet"])
@given(kind=st.integers(0, 4), data=st.binary(max_size=400))
@settings(max_examples=200)
def test_over_no_bytes_does_a_target_fail(name: str, kind: int, data: bytes) -> None:
    target(name)(bytes([kind]) + data)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_over_no_change_of_a_seed_does_a_target_fail(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from([seed for seed in SEEDS if name_of(seed) == name]))
    changed = bytearray(seed.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(1, 3))] = data.draw(st.binary(min_size=1, max_size=4))
    target(name)(bytes(changed))


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_coverage_guided_fuzzing_finds_nothing(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / f"{name}_target.py"), str(tmp_path), str(FOLDER / f"{name}_corpus")]
    options = [f"-max_total_time={SECONDS}", "-timeout=10", f"-max_len={LONGEST[name]}"]
    options.append(f"-artifact_prefix={tmp_path}/found-")
    ended = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=SECONDS + 90)
    assert ended.returncode == 0, ended.stderr[-2000:]
