"""In which line of a TOML file a key or an element of an array stands."""

import re
from collections.abc import Iterator

Place = tuple[str | int, ...]

_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|'
    r"'''.*?'{3,5}|"
    r'"(?:\\.|[^"\\\n])*"|'
    r"'[^'\n]*'|"
    r"#[^\n]*|\n|[\[\]{},=.]|[^\s\[\]{},=.#\"']+",
    re.DOTALL,
)
_ENDS = ("\n", ",", "]", "}", "")


def lines_of(text: str) -> dict[Place, int]:
    """Find the line of each table, key and element, by its path; elements and tables of an array count from 0.

    Args:
        text: What `tomllib` can read; it is not checked again.
    """
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._pieces = _pieces(text)
        self._piece, self._line = next(self._pieces)
        self._lines: dict[Place, int] = {}
        self._counts: dict[Place, int] = {}

    def read(self) -> dict[Place, int]:
        table: Place = ()
        while self._piece:
            if self._piece == "[":
                table = self._header()
            elif self._piece == "\n":
                self._advance()
            else:
                self._assignment(table)
        return self._lines

    def _advance(self) -> str:
        piece = self._piece
        self._piece, self._line = next(self._pieces, ("", self._line))
        return piece

    def _skip(self, *pieces: str) -> None:
        while self._piece in pieces:
            self._advance()

    def _header(self) -> Place:
        line = self._line
        self._advance()
        is_array = self._piece == "["
        self._skip("[")
        table = self._table(self._key(), is_array=is_array)
        self._skip("]")
        self._lines.setdefault(table, line)
        return table

    def _table(self, names: Place, *, is_array: bool) -> Place:
        table: Place = ()
        for depth, name in enumerate(names, 1):
            table = (*table, name)
            if is_array and depth == len(names):
                self._counts[table] = self._counts.get(table, -1) + 1
            if table in self._counts:
                table = (*table, self._counts[table])
        return table

    def _key(self) -> Place:
        names: list[str] = []
        while self._piece not in ("=", "]"):
            name = self._advance()
            if name != ".":
                names.append(name[1:-1] if name[0] in "\"'" else name)
        return tuple(names)

    def _assignment(self, table: Place) -> None:
        line = self._line
        place = (*table, *self._key())
        self._lines.setdefault(place, line)
        self._skip("=")
        self._value(place)

    def _value(self, place: Place) -> None:
        if self._piece == "[":
            self._array(place)
        elif self._piece == "{":
            self._inline_table(place)
        else:
            while self._piece not in _ENDS:
                self._advance()

    def _array(self, place: Place) -> None:
        self._advance()
        number = 0
        self._skip("\n")
        while self._piece != "]":
            self._lines[(*place, number)] = self._line
            self._value((*place, number))
            number += 1
            self._skip(",", "\n")
        self._advance()

    def _inline_table(self, place: Place) -> None:
        self._advance()
        self._skip("\n")
        while self._piece != "}":
            self._assignment(place)
            self._skip(",", "\n")
        self._advance()


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    line, counted = 1, 0
    for found in _PIECE.finditer(text):
        line, counted = line + text.count("\n", counted, found.start()), found.start()
        if not found[0].startswith("#"):
            yield found[0], line
    yield "", line
