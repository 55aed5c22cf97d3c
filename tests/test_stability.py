"""The page "Stability" promises what the code has, and nothing else."""

import logging
import re
from dataclasses import fields
from enum import IntEnum
from pathlib import Path
from typing import get_args

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from support.public_names import MODULES, PACKAGE, load, members, public_names

import pytest_fastapi_cloudflare_access as plugin
from fastapi_cloudflare_access import AnyAccess, CloudflareAccess, KeysHealth, errors, events
from fastapi_cloudflare_access._keys.metrics import logger as keys_logger
from fastapi_cloudflare_access.cli.reports import ExitCode
from fastapi_cloudflare_access.testing import FakeTeam

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/reference/stability.md").read_text()
ELSEWHERE = {"access": PACKAGE, "any_access": PACKAGE}
"""Modules whose names users import from another one."""
INTERNAL = {
    "belongs_to",
    "caller_models",
    "dependency",
    "depends_on",
    "expression",
    "for_authenticator",
    "members",
    "policy_name",
    "result_types",
    "scheme_name",
    "useless_alone",
}
"""Attributes of the object that other modules of the package, or FastAPI, read."""


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def rows(title: str) -> dict[str, list[str]]:
    """Return the code spans of each row of a table, by the first one."""
    found = [codes(line) for line in section(title).splitlines() if line.startswith("| `")]
    return {row[0]: row[1:] for row in found}


def promised(word: str) -> list[str]:
    """Return the code spans of the sentence that begins with these words."""
    sentence = re.search(rf"{word}.*?\.(?=\s[A-Z]|\n\n|\Z)", PAGE, re.DOTALL)
    assert sentence is not None, word
    return codes(sentence[0])


@pytest.mark.parametrize("module", ["", *sorted({*MODULES} - ELSEWHERE.keys() - {"errors", "events"})])
def test_the_page_promises_the_public_names_of_a_module(module: str) -> None:
    if module == "mcp":
        pytest.importorskip(f"{PACKAGE}.mcp", reason="the MCP SDKs need newer versions", exc_type=ImportError)
    name = f"{PACKAGE}.{module}" if module else PACKAGE
    assert rows("Names")[name] == sorted(public_names(module))


def test_the_page_names_no_other_module() -> None:
    modules = {f"{PACKAGE}.{module}" for module in {*MODULES} - ELSEWHERE.keys()} | {PACKAGE}
    assert rows("Names").keys() == modules


@pytest.mark.parametrize("module", ELSEWHERE)
def test_the_names_of_a_module_without_promises_are_those_of_the_package(module: str) -> None:
    assert public_names(module) <= set(load("").__all__)


def test_the_page_promises_the_attributes_of_the_object() -> None:
    lists = re.findall(r"^- [A-Z][\w ]+: (.+)$", section("Names"), re.MULTILINE)
    stars = {name: star for line in lists for name, star in re.findall(r"`(\w+)`(\\\*)?", line)}
    assert stars.keys() == members(CloudflareAccess) - INTERNAL
    assert {name for name, star in stars.items() if not star} == members(AnyAccess) - INTERNAL


def test_the_page_promises_the_fixtures() -> None:
    found = {name for name, value in vars(plugin).items() if type(value).__name__ == "FixtureFunctionDefinition"}
    assert set(promised("The\npytest plugin has the fixtures")) == found


def test_the_page_promises_the_reason_of_every_error() -> None:
    kinds = [getattr(errors, name) for name in sorted(public_names("errors"))]
    assert rows("Reason codes") == {kind.__name__: [kind.reason] for kind in kinds}


def test_the_page_promises_the_name_and_the_fields_of_every_event() -> None:
    kinds = [getattr(events, name) for name in sorted(public_names("events"))]
    shown = {
        kind.__name__: [kind.name, *(field.name for field in fields(kind) if field.name != "timestamp")]
        for kind in kinds
    }
    assert rows("Events") == shown


def test_the_page_promises_the_attributes_of_a_refusal_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    team = FakeTeam()
    access = CloudflareAccess(team_domain="acme", audience="0" * 64)
    app = FastAPI(dependencies=[Depends(access)])
    with team.patch(access), TestClient(app) as client, caplog.at_level(logging.INFO):
        client.get("/docs", headers=team.headers(team.forge("expired")))
        app.get("/")(lambda: None)
        client.get("/", headers=team.headers(team.forge("expired")))
    (record,) = [one for one in caplog.records if one.name == PACKAGE]
    ordinary = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}
    assert set(promised("It has the attributes")) == vars(record).keys() - ordinary
    assert promised("The loggers are") == [PACKAGE, keys_logger.name]
    assert (record.levelname, promised("All other refusals have")) == ("WARNING", ["WARNING"])


def test_the_page_promises_the_states_of_the_health() -> None:
    assert promised("The states are") == list(get_args(KeysHealth.model_fields["state"].annotation))


def test_the_page_promises_the_metrics_with_their_attributes() -> None:
    metrics = pytest.importorskip(f"{PACKAGE}.instrumentation.metrics", reason="there are no metrics yet")
    assert rows("Metrics") == {metric.name: [*metric.attributes] for metric in metrics.METRICS}


def test_the_page_promises_the_exit_codes() -> None:
    table = re.findall(r"^\| (\d+) \| (.+) \|$", section("Command line"), re.MULTILINE)
    kinds: type[IntEnum] = ExitCode
    assert [(int(code), meaning) for code, meaning in table] == [
        (code.value, code.name.lower().replace("_", " ")) for code in kinds
    ]
