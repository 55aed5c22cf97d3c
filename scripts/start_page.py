"""Write the figures of the start page, as the other pages and the records of the benchmarks have them.

python scripts/start_page.py            write them into docs/index.md
python scripts/start_page.py --check    exit with 1 if a figure on the page is another one
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS.parent / "benchmarks/results"
CONTENDERS = (
    "this package, returning callers",
    "PyJWT, PyJWKClient",
    "Cloudflare's tutorial",
    "fastapi-cloudflare-access-jwt",
)
"""The columns of the comparison, by their names in the records."""


def page(name: str) -> str:
    """Return the source of a page."""
    return (DOCS / name).read_text()


def record(name: str) -> Any:
    """Return what a section of the benchmarks measured."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def comparison() -> Iterator[str]:
    """Yield the measured rows of the comparison."""
    summary = page("concepts/performance.md").partition("## Performance promises")[0]
    rows = dict(re.findall(r"^\| (.+?) \| [\d,]+ \| ([\d.]+) \|", summary, re.MULTILINE))
    trouble = [record("trouble")[contender] for contender in CONTENDERS]
    accepted = [found["new key accepted after"] for found in trouble]
    cells = {
        "requests per second, of those with an empty dependency": [f"{float(rows[name]):.0%}" for name in CONTENDERS],
        "new key of the team accepted after": [
            "not in 10 s" if seconds is None else f"{seconds:.2f} s" for seconds in accepted
        ],
        "while the endpoint of the keys hangs": [
            "no answer" if found["p99"]["hang"] is None else "answers" for found in trouble
        ],
    }
    for name, values in cells.items():
        yield f"| {name} | {' | '.join(values)} |"


def sentences() -> Iterator[tuple[str, str]]:
    """Yield a pattern for each sentence with a figure, and the sentence with the figure of today."""
    conformance, comparison_page = page("concepts/conformance.md"), page("reference/differences.md")
    rules = re.findall(r"^\| \d+ \| \w", conformance, re.MULTILINE)
    kinds = re.findall(r"^\| `\w+` \|", comparison_page.partition("## Generated tokens")[0], re.MULTILINE)
    share = re.search(r"the tests notice [\d,]+ \(([\d.]+%)\)", conformance)
    added = record("requests")["asgi"]
    known, new = (added[f"this package, {name}"]["added"] for name in ("returning callers", "every token new"))
    yield r"\*\*\d+ rules\*\*", f"**{len(rules)} rules**"
    yield r"lists \d+ kinds of tokens", f"lists {len(kinds)} kinds of tokens"
    yield r"[\d.]+% of all changes", f"{share[1] if share else '?'} of all changes"
    yield r"\*\*\d+ µs\*\* more for a known token, \d+ µs", f"**{known:.0f} µs** more for a known token, {new:.0f} µs"


def written(start: str) -> str:
    """Return the start page with the figures of today."""
    for row in comparison():
        start = replaced(start, rf"^{re.escape(row.partition(' | ')[0])} \|.*$", row)
    for pattern, sentence in sentences():
        start = replaced(start, pattern, sentence)
    return start


def replaced(text: str, pattern: str, replacement: str) -> str:
    """Replace the one place that a pattern finds.

    Raises:
        ValueError: The page has no such place, or several.
    """
    result, count = re.subn(pattern, lambda _: replacement, text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"docs/index.md has {count} places like {pattern}")
    return result


def main(arguments: list[str]) -> int:
    """Write the page, or check it."""
    path = DOCS / "index.md"
    before = path.read_text()
    after = written(before)
    if arguments == ["--check"]:
        if before != after:
            print("run python scripts/start_page.py, since figures of docs/index.md are stale")
        return int(before != after)
    path.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
