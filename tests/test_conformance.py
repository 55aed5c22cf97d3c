"""The conformance table is complete, and the page shows it."""

import json
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/conformance.py"
REPORT = """<testsuites><testsuite>
<testcase classname="tests.attacks.test_cost" name="test_one[a]" />
<testcase classname="tests.attacks.test_cost" name="test_one[b]"><properties /></testcase>
<testcase classname="tests.attacks.test_cost" name="test_one[c]"><skipped message="no such tool" /></testcase>
<testcase classname="tests.test_token" name="test_two"><skipped message="no such tool" /></testcase>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_every_row_of_the_conformance_table_has_a_test_and_the_page_names_it() -> None:
    command = [sys.executable, str(SCRIPT), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout.strip()) == (0, "every row has its tests")


def test_a_test_that_was_skipped_did_not_pass(script: dict[str, Any]) -> None:
    passed = script["passes"](ET.fromstring(REPORT))  # noqa: S314 - written above
    assert passed == {"attacks/test_cost::test_one": 2}


def test_a_row_of_which_no_test_passed_is_an_error(script: dict[str, Any]) -> None:
    held = {1: ["test_token::test_two", "attacks/test_cost::test_one"], 2: ["test_token::test_two"], 3: ["gone::test"]}
    passed = {"attacks/test_cost::test_one": 2, "gone::test": 0}
    assert script["unproven"](held, passed) == ["no test of row 2 passed", "no test of row 3 passed"]


def test_the_page_is_read_as_it_is_written(script: dict[str, Any]) -> None:
    row, tests = {"row": 1, "level": "M", "statement": "x", "source": "y"}, ["a/test_b::test_c", "test_d::test_e"]
    written = script["line"](row, tests, {"a/test_b::test_c": 12})
    assert script["recorded"](written) == {"a/test_b::test_c": 12}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], ""),
        (["47"], " Row 47 is not implemented yet."),
        (["47", "51", "52"], " Rows 47, 51 and 52 are not implemented yet."),
    ],
)
def test_the_page_says_which_rows_are_missing(script: dict[str, Any], rows: list[str], sentence: str) -> None:
    assert script["missing"](rows) == sentence


def test_the_page_shows_each_mistake_with_what_happens(script: dict[str, Any]) -> None:
    page = script["PAGE"].read_text()
    table = page.partition("## Ways to be open by mistake")[2].partition("\n## ")[0]
    for mistake in script["mistakes"]():
        assert f"| {mistake['row']} | {mistake['statement']} | {mistake['outcome']} | <details>" in table


def test_each_recorded_mutant_that_survived_is_explained() -> None:
    record = json.loads((ROOT / "tests/vectors/mutants.json").read_text())
    assert {*record} == {
        *(f"_verification.{name}" for name in ("request_token", "signature", "strict", "token", "token_cache")),
        *("_verifier", "guard", "identity", "keys", "revocations", "settings", "streams"),
        *(f"_identity.{name}" for name in ("document", "limits", "source")),
        *(f"_keys.{name}" for name in ("jwks", "shared_snapshot", "sharing", "snapshot", "weak_moduli")),
        *(f"_requests.{name}" for name in ("authentication", "choosing", "login_redirect", "refusing", "urls")),
        *(f"_requests.{name}" for name in ("guarded_streams", "open_streams", "stream_block")),
        *(f"_revocations.{name}" for name in ("arguments", "following", "record", "reporting", "source")),
        *(f"_revocations.{name}" for name in ("subjects", "table")),
        *(f"_routes.{name}" for name in ("check", "guarded_app", "tree")),
        *(f"mcp.{name}" for name in ("bridging", "calls", "other_schemes", "provider", "requirements", "sdk")),
        *(f"policies.{name}" for name in ("callers", "expressions", "logic", "reading", "roles")),
        *(f"stores.{name}" for name in ("_checks", "_signing", "file", "memory", "redis")),
        *(f"stores._redis.{name}" for name in ("connection", "revocations", "snapshots")),
        "mcp.versions",
    }
    for module, found in record.items():
        assert found["noticed"] == found["mutants"] - len(found["survivors"]), module
        assert [one["change"] for one in found["survivors"] if len(one["reason"].split()) < 4] == []
        assert found["mutants"] < found.get("sample_of", float("inf"))
        source = (ROOT / "src/fastapi_cloudflare_access" / f"{module.replace('.', '/')}.py").read_text().splitlines()
        removed = [line[1:] for one in found["survivors"] for line in one["change"] if line.startswith("-")]
        assert [line for line in removed if line not in source] == [], f"{module} has changed since: record it again"


def test_the_page_has_the_figures_of_the_recorded_mutants(script: dict[str, Any]) -> None:
    record = json.loads((ROOT / "tests/vectors/mutants.json").read_text()).values()
    made, noticed = (sum(found[name] for found in record) for name in ("mutants", "noticed"))
    figures = f"the tests notice {noticed:,} ({100 * noticed / made:.1f}%) of {made:,}"
    assert figures in " ".join(script["PAGE"].read_text().split())
