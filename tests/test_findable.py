"""Each task that users search for is a page or a section that has the words of the task in its headings."""

import re
from functools import cache
from pathlib import Path

import pytest
from support.tasks import CAUSES, TASKS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@cache
def headings(page: str) -> set[str]:
    """Return the words in the title and in the headings of a page, each also without its ending."""
    text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {stem(word) for line in lines for word in re.findall(r"[\w.-]+", line.lower())}


def stem(word: str) -> str:
    """Return a word without its ending, as the search of the site does it for English."""
    return re.sub(r"(?:'s|ing|s|e)$", "", word.removesuffix(".py"))


@pytest.mark.parametrize(("task", "page"), TASKS.items(), ids=TASKS)
def test_a_task_is_found_by_its_own_words(task: str, page: str) -> None:
    unimportant = {stem(word) for word in ("a", "from", "in", "of", "your")}
    assert {stem(word) for word in task.split()} - unimportant - headings(page) == set()


@pytest.mark.parametrize(("cause", "reason"), CAUSES.items(), ids=CAUSES)
def test_a_cause_of_401_is_a_row_with_its_reason_code(cause: str, reason: str) -> None:
    guide = (DOCS / "guides/when-it-says-401.md").read_text()
    section = guide.partition("\n## It says 401 in production")[2].partition("\n## ")[0]
    rows = [line.lower() for line in section.splitlines()]
    found = [row for row in rows if row.startswith("|") and all(word in row for word in cause.split())]
    assert len(found) == 1
    assert f"(#{reason})" in found[0]
    assert f"### `{reason}`" in guide


def test_each_example_is_an_app_with_a_test_and_a_line_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    apps = {path.stem for path in (ROOT / "examples").glob("*_app.py") if not path.stem.startswith("test_")}
    assert [name for name in sorted(apps) if not (ROOT / f"examples/test_{name}.py").is_file()] == []
    assert [name for name in sorted(apps - {"demo_app"}) if name not in readme] == []
    assert "scripts/demo" in readme  # runs demo_app


def test_every_aud_tag_on_a_page_has_64_digits() -> None:
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    tag = re.compile(r"""(?:audience|aud_tag|AUDIENCE)\s*=\s*['"]?([0-9a-f]{4,})""", re.IGNORECASE)
    lengths = {len(found) for page in pages for found in tag.findall(page.read_text())}
    assert lengths == {64}
