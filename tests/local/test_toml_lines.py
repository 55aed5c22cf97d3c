"""The line numbers of keys and elements."""

import pytest

from fastapi_cloudflare_access.local.toml_lines import KeyPath, find_lines

TEXT = '''\
# a comment with [brackets] = and "quotes
title = "a # in a string, and an \\" too"
long = """
[not.a.table]
key = "no \\""""

[team]
name = 'x' # [[no]]
dotted . "quoted key".'third' = 1.5

[[apps]]
paths = [
  "/a", # one
  "/b",

  "/c" ]
policies = [
  { decision = "allow", emails = ["a@b",
      "c@d"] },
  { decision = "deny", nested = { x = 1979-05-27 07:32:00, y = [] } },
]

[[apps]]
[[apps.policies]]
everyone = true
[[apps.policies]]
everyone = false
[apps.deep.er]
literal = \'\'\'
a = 1\'\'\'
last = {}'''


@pytest.mark.parametrize(
    ("key_path", "line"),
    [
        (("title",), 2),
        (("long",), 3),
        (("team",), 7),
        (("team", "name"), 8),
        (("team", "dotted", "quoted key", "third"), 9),
        (("apps", 0), 11),
        (("apps", 0, "paths"), 12),
        (("apps", 0, "paths", 0), 13),
        (("apps", 0, "paths", 2), 16),
        (("apps", 0, "policies", 0, "decision"), 18),
        (("apps", 0, "policies", 0, "emails", 1), 19),
        (("apps", 0, "policies", 1), 20),
        (("apps", 0, "policies", 1, "nested", "y"), 20),
        (("apps", 1), 23),
        (("apps", 1, "policies", 1, "everyone"), 27),
        (("apps", 1, "deep", "er", "literal"), 29),
        (("apps", 1, "deep", "er", "last"), 31),
    ],
    ids=str,
)
def test_a_key_is_in_the_line_where_it_is_written(key_path: KeyPath, line: int) -> None:
    assert find_lines(TEXT)[key_path] == line


def test_content_of_strings_and_comments_is_not_a_key() -> None:
    names = {name for key_path in find_lines(TEXT) for name in key_path}
    assert names.isdisjoint({"not", "key", "a", "no", "brackets"})


def test_an_empty_text_has_no_keys() -> None:
    assert find_lines("") == {}
