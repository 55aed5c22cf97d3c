"""The line numbers of the keys and array elements of a TOML file."""

import re
from collections.abc import Iterator

KeyPath = tuple[str | int, ...]

_SYMBOL = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|'
    r"'''.*?'{3,5}|"
    r'"(?:\\.|[^"\\\n])*"|'
    r"'[^'\n]*'|"
    r"#[^\n]*|\n|[\[\]{},=.]|[^\s\[\]{},=.#\"']+",
    re.DOTALL,
)
_ENDS = ("\n", ",", "]", "}", "")


def find_lines(text: str) -> dict[KeyPath, int]:
    """Return the line of each table, key and element, by its path; indexes of an array start at 0.

    Args:
        text: TOML that `tomllib` accepts.
    """
    return _Parser(text).read()


class _Parser:
    def __init__(self, text: str) -> None:
        self._symbols = _symbols(text)
        self._symbol, self._line = next(self._symbols)
        self._lines: dict[KeyPath, int] = {}
        self._counts: dict[KeyPath, int] = {}

    def read(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._symbol:
            if self._symbol == "[":
                table = self._header()
            elif self._symbol == "\n":
                self._advance()
            else:
                self._assignment(table)
        return self._lines

    def _advance(self) -> str:
        symbol = self._symbol
        self._symbol, self._line = next(self._symbols, ("", self._line))
        return symbol

    def _skip(self, *symbols: str) -> None:
        while self._symbol in symbols:
            self._advance()

    def _header(self) -> KeyPath:
        line = self._line
        self._advance()
        is_array = self._symbol == "["
        self._skip("[")
        table = self._table(self._key(), is_array=is_array)
        self._skip("]")
        self._lines.setdefault(table, line)
        return table

    def _table(self, names: KeyPath, *, is_array: bool) -> KeyPath:
        table: KeyPath = ()
        for depth, name in enumerate(names, 1):
            table = (*table, name)
            if is_array and depth == len(names):
                self._counts[table] = self._counts.get(table, -1) + 1
            if table in self._counts:
                table = (*table, self._counts[table])
        return table

    def _key(self) -> KeyPath:
        names: list[str] = []
        while self._symbol not in ("=", "]"):
            name = self._advance()
            if name != ".":
                names.append(name[1:-1] if name[0] in "\"'" else name)
        return tuple(names)

    def _assignment(self, table: KeyPath) -> None:
        line = self._line
        key_path = (*table, *self._key())
        self._lines.setdefault(key_path, line)
        self._skip("=")
        self._value(key_path)

    def _value(self, key_path: KeyPath) -> None:
        if self._symbol == "[":
            self._array(key_path)
        elif self._symbol == "{":
            self._inline_table(key_path)
        else:
            while self._symbol not in _ENDS:
                self._advance()

    def _array(self, key_path: KeyPath) -> None:
        self._advance()
        number = 0
        self._skip("\n")
        while self._symbol != "]":
            self._lines[(*key_path, number)] = self._line
            self._value((*key_path, number))
            number += 1
            self._skip(",", "\n")
        self._advance()

    def _inline_table(self, key_path: KeyPath) -> None:
        self._advance()
        self._skip("\n")
        while self._symbol != "}":
            self._assignment(key_path)
            self._skip(",", "\n")
        self._advance()


def _symbols(text: str) -> Iterator[tuple[str, int]]:
    line, counted = 1, 0
    for found in _SYMBOL.finditer(text):
        line, counted = line + text.count("\n", counted, found.start()), found.start()
        if not found[0].startswith("#"):
            yield found[0], line
    yield "", line
