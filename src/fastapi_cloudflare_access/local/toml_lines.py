"""The line of a key in a TOML document, found with the parser of the standard library."""

import tomllib
from bisect import bisect_left
from typing import Any

MAX_STATEMENT = 200
"""Most lines of one statement; in a document with a longer one, no line is found."""

KeyPath = tuple[str | int, ...]


class _StatementTooLong(Exception):
    """A statement of more than `MAX_STATEMENT` lines."""


def line_of(text: str, key_path: KeyPath) -> int | None:
    """Return the line on which the statement begins that defines a key, or its innermost table that exists.

    The document up to the end of any statement is valid too. So the line is the first one for which the shortest valid
    beginning that includes it has the key.
    """
    lines = text.split("\n")
    path = _existing_part(tomllib.loads(text), key_path)
    if not path:
        return None
    try:
        return 1 + bisect_left(range(1, len(lines)), 1, key=lambda line: path == _part_until(lines, line, path))
    except _StatementTooLong:
        return None


def _part_until(lines: list[str], line: int, path: KeyPath) -> KeyPath:
    """Return the part of the path that exists at the end of the statement on this line."""
    for end in range(line, min(line + MAX_STATEMENT, len(lines)) + 1):
        try:
            return _existing_part(tomllib.loads("\n".join(lines[:end])), path)
        except tomllib.TOMLDecodeError:
            continue
    raise _StatementTooLong


def _existing_part(value: Any, path: KeyPath) -> KeyPath:
    for number, key in enumerate(path):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return path[:number]
    return path
