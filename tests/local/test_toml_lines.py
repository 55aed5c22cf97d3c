"""The line of a key is the one on which its statement begins."""

import pytest

from fastapi_cloudflare_access.local.toml_lines import KeyPath, line_of

TEXT = """\
# first

[a]
b = [
  1,
]

[[c]]
d = { e = 1 }
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 3),
        (("a", "b"), 4),
        (("a", "b", 0), 4),
        (("c", 0), 8),
        (("c", 0, "d", "e"), 9),
        (("c", 0, "x"), 8),
        (("c", 1), 8),
        (("x",), None),
        ((), None),
    ],
)
def test_the_line_of_a_key_or_of_its_innermost_table(path: KeyPath, line: int | None) -> None:
    assert line_of(TEXT, path) == line
