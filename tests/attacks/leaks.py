"""Looking for tokens where none may be."""

import re
from collections.abc import Iterable

LONGEST = 12
"""How many characters of a token may be seen in a row."""

_RUNS = re.compile(rb"[A-Za-z0-9_.=+/-]{%d,}" % (LONGEST + 1))
NAMES = frozenset({b"Authorization"})
"""What records name by themselves, and some of these tokens contain: a header that is not read."""


def parts_of(tokens: Iterable[bytes], text: bytes) -> list[bytes]:
    """Give each stretch of the text, longer than 12 characters, that is part of one of the tokens."""
    grams = {text[start : start + LONGEST + 1] for text in _runs(text) for start in range(len(text) - LONGEST)}
    found: set[bytes] = set()
    for token in tokens:
        found |= {gram for gram in _grams(token) if gram in grams}
    return sorted(found - NAMES)


def _runs(text: bytes) -> set[bytes]:
    return set(_RUNS.findall(text))


def _grams(token: bytes) -> Iterable[bytes]:
    return (token[start : start + LONGEST + 1] for start in range(len(token) - LONGEST))
