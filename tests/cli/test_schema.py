"""The output of `--json` conforms to the published schema."""

import json
import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from support.command_line import Cli

from fastapi_cloudflare_access.cli.reports import AnyReport
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam, MemoryFetch

PUBLISHED = Path(__file__).parents[2] / "docs/reference/cli.schema.json"
EMAIL = "ada@example.com"


@pytest.fixture(scope="module")
def schema() -> Any:
    validator = import_module("jsonschema").Draft202012Validator
    published = json.loads(PUBLISHED.read_text())
    validator.check_schema(published)
    return validator(published)


def test_the_published_schema_is_that_of_the_code() -> None:
    generated = TypeAdapter[Any](AnyReport).json_schema(mode="serialization")
    assert plain(json.loads(PUBLISHED.read_text())) == plain(generated)


def plain(schema: Any) -> Any:
    """Remove a member that only newer versions of Pydantic write."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: plain(item) for name, item in schema.items() if (name, item) != ("additionalProperties", True)}


def test_the_schema_rejects_other_objects(schema: Any) -> None:
    assert not schema.is_valid({})
    assert not schema.is_valid({"command": "keys", "error": "x", "exit_code": 2, "more": 1})


@pytest.mark.parametrize("command", ["doctor", "inspect", "verify"])
@pytest.mark.parametrize("name", [None, *sorted(FORGERIES.keys() - {"empty"})])
def test_the_output_for_every_token_conforms_to_the_schema(
    cli: Cli, configured: FakeTeam, schema: Any, command: str, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    token = configured.forge(name) if name else configured.service_token("backup")
    result = cli(command, "-", "--json", stdin=token)
    schema.validate(result.json)
    assert result.json["command"] == command
    assert result.err == ""


@pytest.mark.parametrize("fault", [None, "html", "garbage", "no_keys", "fail_with", "refuse"])
@pytest.mark.parametrize("command", ["doctor", "keys"])
def test_the_output_for_every_fault_conforms_to_the_schema(
    cli: Cli, configured: FakeTeam, certs: MemoryFetch, schema: Any, command: str, fault: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    if fault:
        getattr(certs, fault)()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    result = cli(command, "--json")
    schema.validate(result.json)
    assert result.err == ""


@pytest.mark.parametrize("arguments", [["verify"], ["keys", "--bogus"], ["nothing"], ["inspect", ""]])
def test_failures_conform_to_the_schema(cli: Cli, schema: Any, arguments: list[str]) -> None:
    result = cli(*arguments, "--json")
    schema.validate(result.json)
    assert result.json["exit_code"] == result.code == 2
