"""Whatever happens to tokens, clock and keys: with the cache the answer is the one without it."""

import asyncio
from typing import Any

import pytest
from fuzz.cache_breaks import (
    Break,
    changed_entries,
    hash_without_signature,
    keys_are_kept,
    one_cache_for_two_audiences,
    same_hash,
    same_instance,
)
from fuzz.cache_pair import LETTERS, LooseClaims, MoodyClaims, Pair, Step
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastapi_cloudflare_access import UserClaims

NUMBERS = st.sampled_from([0, 1, 2, 4, 7, 8]) | st.integers(0, 29)  # good tokens, some of them not yet or not for long
AUDIENCES = st.sampled_from([0, 0, 0, 1])
ASKS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("ask"), NUMBERS, AUDIENCES),
    st.tuples(st.just("ask"), NUMBERS, AUDIENCES, st.integers(2, 3)),
    st.tuples(st.just("ask_both"), NUMBERS, NUMBERS),
    st.tuples(st.just("again"), AUDIENCES),
    st.tuples(st.just("corrupt"), NUMBERS, st.integers(-9, 1000), st.sampled_from(LETTERS)),
    st.tuples(st.just("sweep"), NUMBERS, st.integers(-9, 1000)),
)
CHANGES: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([1, 29, 31, 49, 50, 61, 100, 650, 3600, 7300])),
    st.tuples(st.just("set"), st.sampled_from([-4000, -600, -200, -31, -30, 30, 50, 600])),
    st.tuples(st.sampled_from(["issue", "rotate", "withdraw", "refresh", "refresh"])),
    st.tuples(st.just("publish"), st.integers(0, 4)),
    st.tuples(st.just("seed"), st.integers(0, 6), st.sampled_from([-30, 0, 1, 700, 7000, 7300])),
    st.tuples(
        st.just("fault"), st.sampled_from(["recover", "recover", "fail_with", "no_keys", "reset", "hang", "flap"])
    ),
    st.tuples(st.just("mood"), st.booleans()),
)
EPISODES = st.tuples(
    st.tuples(st.just("ask"), NUMBERS, AUDIENCES, st.integers(1, 2)),
    CHANGES,
    st.just(("again", 0)),
    CHANGES,
    st.tuples(st.just("again"), AUDIENCES),
)
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    EPISODES | ASKS.map(lambda step: (step,)) | EPISODES | CHANGES.map(lambda step: (step,)), min_size=10, max_size=30
).map(lambda parts: [step for part in parts for step in part])


def play(model: type[UserClaims], steps: list[Step], *, size: int = 3, background: bool = False) -> None:
    """Play the steps, and raise AssertionError where the two differ."""

    async def run() -> None:
        async with Pair(model, size=size).started(background=background) as pair:
            for step in steps:
                await pair.do(step)

    asyncio.run(run())


@pytest.mark.parametrize("model", [UserClaims, LooseClaims, MoodyClaims])
@given(
    steps=STEPS,
    options=st.fixed_dictionaries({"size": st.sampled_from([1, 3, 100]), "background": st.booleans()}),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_cache_never_changes_an_answer(model: type[UserClaims], steps: list[Step], options: dict[str, Any]) -> None:
    play(model, steps, **options)


ADA, BOB, OLD, LATER = 0, 1, 4, 7
BREAKS: dict[str, tuple[Break, type[UserClaims], list[Step]]] = {
    "the hash leaves out the signature": (
        hash_without_signature,
        UserClaims,
        [("ask", ADA, 0), ("corrupt", ADA, -9, "A"), ("corrupt", ADA, -9, "B")],
    ),
    "two tokens have one hash": (same_hash, UserClaims, [("ask", ADA, 0), ("ask", BOB, 0)]),
    "the end is not checked": (
        changed_entries(ends=float("inf")),
        UserClaims,
        [("ask", BOB, 0), ("pass", 50), ("ask", BOB, 0)],
    ),
    "the start is not checked": (
        changed_entries(starts=0),
        UserClaims,
        [("ask", ADA, 0), ("set", -31), ("ask", ADA, 0)],
    ),
    "nbf is not checked": (
        changed_entries(starts=0),
        UserClaims,
        [("ask", ADA, 0), ("pass", 100), ("ask", LATER, 0), ("set", -31), ("ask", LATER, 0)],
    ),
    "the same instance is given again": (same_instance, LooseClaims, [("ask", ADA, 0), ("ask", ADA, 0)]),
    "a validator is skipped": (same_instance, MoodyClaims, [("ask", ADA, 0), ("mood", True), ("ask", ADA, 0)]),
    "a withdrawn key still counts": (
        keys_are_kept,
        UserClaims,
        [("ask", OLD, 0), ("ask", OLD, 0), ("withdraw",), ("refresh",), ("ask", OLD, 0)],
    ),
    "another key under the same kid counts": (
        keys_are_kept,
        UserClaims,
        [("ask", ADA, 0), ("ask", ADA, 0), ("seed", 2, 0), ("ask", ADA, 0)],
    ),
    "two audiences share a cache": (one_cache_for_two_audiences, UserClaims, [("ask", BOB, 0), ("ask", BOB, 1)]),
}


@pytest.mark.parametrize(("break_it", "model", "steps"), BREAKS.values(), ids=BREAKS)
def test_a_broken_cache_does(
    break_it: Break,
    model: type[UserClaims],
    steps: list[Step],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play(model, steps)
    break_it(monkeypatch)
    with pytest.raises(AssertionError):
        play(model, steps)
