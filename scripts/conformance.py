"""Write docs/concepts/conformance.md from the marks of the tests.

    python scripts/conformance.py          run the marked tests, and write the page with their results
    python scripts/conformance.py --check  only tell whether every row has its tests, and the page names them all

A test holds a row by `@pytest.mark.conformance(row, …)`; the rows stand in tests/vectors/conformance.json.
"""

import ast
import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "tests/vectors/conformance.json"
PAGE = ROOT / "docs/concepts/conformance.md"
FIGURES = ROOT / "tests/vectors/soak.json"
LEVELS = {"M": "must", "S": "should", "C": "Cloudflare"}
RECORDED = re.compile(r"`(\S+::\w+)` \((\d+) passed\)")
RESULT = re.compile(r" \(\d+ passed\)")


def tests_of_rows() -> dict[int, list[str]]:
    """Give the tests that hold each row, as `file::function`."""
    held: dict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for row in marked_rows(function):
                    held[row].append(f"{path.relative_to(ROOT / 'tests').with_suffix('')}::{function.name}")
    return held


def marked_rows(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    """Give the rows that a test is marked with."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.conformance":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def problems(held: Mapping[int, list[str]]) -> list[str]:
    """Say which row has neither a test nor a reason, and which mark has no row."""
    rows = {row["row"]: row for section in [*sections(), {"rows": mistakes()}] for row in section["rows"]}
    found = [f"row {number} has no test" for number, row in rows.items() if not held.get(number) and "later" not in row]
    found += [
        f"row {number} has a test, and yet is called not built" for number in held if "later" in rows.get(number, {})
    ]
    return found + [f"there is no row {number}" for number in held if number not in rows]


def sections() -> list[dict[str, Any]]:
    """Give the sections of the table with their rows."""
    rows: list[dict[str, Any]] = json.loads(ROWS.read_text())["sections"]
    return rows


def mistakes() -> list[dict[str, Any]]:
    """Give the mistakes by which an app would be open, with what happens instead."""
    rows: list[dict[str, Any]] = json.loads(ROWS.read_text())["mistakes"]
    return rows


def page(held: Mapping[int, list[str]], passed: Mapping[str, int]) -> str:
    """Write the page."""
    later = [str(row["row"]) for section in sections() for row in section["rows"] if "later" in row]
    lines = [HEAD.format(later=missing(later))]
    for section in sections():
        lines += [f"## {section['name']}", "", "| | level | rule | source | tests |", "|---|---|---|---|---|"]
        lines += [line(row, held.get(row["row"], []), passed) for row in section["rows"]]
        lines.append("")
    lines += [MISTAKES, *(line_of_mistake(row, held.get(row["row"], []), passed) for row in mistakes()), ""]
    return "\n".join([*lines, ""]) + FOOT.format(**json.loads(FIGURES.read_text()))


def missing(rows: Sequence[str]) -> str:
    """Say which rows are not implemented yet."""
    if len(rows) > 1:
        return f" Rows {', '.join(rows[:-1])} and {rows[-1]} are not implemented yet."
    return f" Row {rows[0]} is not implemented yet." if rows else ""


def line(row: Mapping[str, Any], tests: list[str], passed: Mapping[str, int]) -> str:
    """Write a row."""
    cells = (row["row"], LEVELS[row["level"]], row["statement"], row["source"], holders(row, tests, passed))
    return "| " + " | ".join(map(str, cells)) + " |"


def line_of_mistake(row: Mapping[str, Any], tests: list[str], passed: Mapping[str, int]) -> str:
    """Write the row of a mistake."""
    return (
        "| " + " | ".join(map(str, (row["row"], row["statement"], row["outcome"], holders(row, tests, passed)))) + " |"
    )


def holders(row: Mapping[str, Any], tests: list[str], passed: Mapping[str, int]) -> str:
    """Write what holds a row: how many tests, and behind that which."""
    if "later" in row:
        return f"not implemented: {row['later']}"
    names = [f"`{test}`" + (f" ({passed[test]} passed)" if test in passed else "") for test in tests]
    total = sum(passed.get(test, 0) for test in tests)
    count = f"{len(tests)} tests" if len(tests) > 1 else "1 test"
    summary = count + (f" ({total} passed)" if total else "")
    return f"<details><summary>{summary}</summary>{'<br>'.join(names)}</details>"


def run() -> dict[str, int]:
    """Run the marked tests and give how often each passed.

    Raises:
        SystemExit: One failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "conformance", "-n", "2", f"--junit-xml={report}"]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            sys.exit("a test of a row failed")
        return passes(ET.parse(report).getroot())  # noqa: S314 - written by pytest just now


def passes(report: ET.Element) -> dict[str, int]:
    """Count how often each test passed, by a report of pytest; one that was skipped did not."""
    cases = [case for case in report.iter("testcase") if case.find("skipped") is None]
    names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
    prefix = "tests."
    return Counter(f"{file.removeprefix(prefix).replace('.', '/')}::{name.partition('[')[0]}" for file, name in names)


def recorded(page: str) -> dict[str, int]:
    """Read from the page how often each test passed."""
    return {test: int(times) for test, times in RECORDED.findall(page)}


def unproven(held: Mapping[int, list[str]], passed: Mapping[str, int]) -> list[str]:
    """Say which row has tests of which none passed."""
    return [
        f"no test of row {number} passed"
        for number, tests in sorted(held.items())
        if not any(passed.get(test) for test in tests)
    ]


HEAD = """---
search:
  exclude: true # the guides answer what users search for
---

# Conformance

This page lists the rules for a strict verifier. Each row has the rule, its source, and the tests that check it.
`scripts/conformance.py` generates the page from marks in the tests. If a row has no test and is not listed as missing,
the build fails.{later}
"""
MISTAKES = """## Ways to be open by mistake

An app must not be open because of something that a developer forgets or confuses. Each row has such a mistake, what
happens instead, and the tests that check it. The tests try each mistake on routes, routers and whole apps, for HTTP and
WebSockets.

| | mistake | what happens | tests |
|---|---|---|---|"""
FOOT = """## Attacks, fuzzing and mutation

### Forged requests

The tests send {attacks}.
The servers are uvicorn with h11, uvicorn with httptools, and Hypercorn, on real sockets.

### Fuzzing

The fuzzer follows the coverage of the code. It changes everything that is read from outside.

{fuzzing}

### Mutations

Each mutation changes one place of a module that decides.

{mutation}

### Time of a refusal

Compared with the acceptance of a token of the same size, a refusal takes {cost}.

### A long run

Two workers have 1,000 streams and 40 requests per second, on a clock that is 24 times as fast. Keys rotate, the team is
renamed, the certs endpoint fails and hangs, Redis is killed, and callers are revoked.

{long}.

The run fails if the memory of a worker grows by more than 1 MiB an hour, or if a task, a file or a socket is left over.
It fails too if a valid token is refused, if an invalid one is accepted, or if a stream does not end with its token.

### Repeat them

`scripts/soak` repeats the fuzzing, the mutation testing and the long run. It records each mutant that survives in
`tests/vectors/mutants.json`, with the reason why no test can notice it. The forged tokens are in `tests/attacks`. The
seeds and the findings of the fuzzing are in `tests/fuzz`. The examples of RFC 7515 and RFC 7520 are in `tests/vectors`.

## Known differences between servers

Servers process a request before this package sees it. They differ in three points. In each case the package refuses the
request, or the caller gets only what its token allows:

- uvicorn with httptools passes the trailers of a chunked request as headers. The package verifies a token in a trailer
  like any other token. One token in a header and one in a trailer are two tokens, so the package refuses them.
- uvicorn with h11 itself responds with 400 if the headers do not end within the first 16 KiB of a request.
- uvicorn with httptools passes headers of several megabytes. The package refuses them by their size, before any other
  check.
"""


def main(arguments: list[str]) -> int:
    """Give 0 where every row has what it needs."""
    held = tests_of_rows()
    found = problems(held)
    if "--check" in arguments:
        written = PAGE.read_text()
        if RESULT.sub("", written) != page(held, {}):
            found.append("docs/concepts/conformance.md is not what scripts/conformance.py writes")
        found += unproven(held, recorded(written))
    elif not found:
        passed = run()
        found = unproven(held, passed)
        PAGE.write_text(page(held, passed))
    print("\n".join(found) or "every row has its tests")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
