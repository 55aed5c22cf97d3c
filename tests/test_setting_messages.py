"""Wrong and nearly right settings: each gets one sentence that says what is wrong and what to write."""

import json
import logging
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, KeySettings
from fastapi_cloudflare_access._setting_hints import audience_problem
from fastapi_cloudflare_access.stores.file import FileStore
from fastapi_cloudflare_access.stores.redis import RedisStore

ROWS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors/setting_messages.json").read_text())
"""The call, its arguments as a Python literal, the environment, and the message."""
CALLS: dict[str, Any] = {
    "CloudflareAccess": CloudflareAccess,
    "KeySettings": KeySettings,
    "RedisStore": RedisStore,
    "FileStore": FileStore,
}
AUD = "a" * 64


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_table_has_more_than_sixty_rows() -> None:
    assert len(ROWS) > 60


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_a_wrong_setting_gets_the_sentence_of_the_table(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in row.get("environment", {}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as wrong:
        CALLS[row["call"]](**literal_eval(row["arguments"]))
    assert str(wrong.value) == row["message"]


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_no_sentence_is_long_or_has_a_line_break(row: dict[str, Any]) -> None:
    assert "\n" not in row["message"]
    assert len(row["message"]) <= 200


def test_an_env_file_that_is_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"CF_ACCESS_AUDIENCE={AUD}")
    with pytest.raises(
        ConfigurationError, match=r"the file \.env is not read by itself: load it, such as with uvicorn"
    ):
        CloudflareAccess(team_domain="acme")


@pytest.mark.parametrize(
    ("tag", "problem"),
    [
        (AUD, None),
        ("7335d417-61da-459d-899c-0a01c76a2f94", "it looks like the application's id"),
        ("A" * 64, "it has upper-case letters"),
        ("YOUR_AUD_TAG", "it has 12 characters, not 64 hexadecimal digits"),
        ("x", "it has 1 character, not 64 hexadecimal digits"),
        ("O" + "a" * 63, "it contains the character 'O', which is not a hexadecimal digit"),
    ],
)
def test_an_audience_that_is_probably_wrong_is_a_warning_at_construction(
    tag: str, problem: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert audience_problem(tag) == problem
    first = CloudflareAccess(team_domain="acme", audience=tag)
    first.with_audience(tag)
    logged = [record.getMessage() for record in caplog.records]
    expected = f"audience {tag[:8]}… is not an AUD tag: {problem}; copy the Application Audience (AUD) Tag"
    assert [message.startswith(expected) for message in logged] == ([True, True] if problem else [])
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}


def test_tags_in_a_list_are_passed_one_by_one() -> None:
    with pytest.raises(ConfigurationError, match="a list as an entry; pass the tags one by one, or as one list"):
        CloudflareAccess(team_domain="acme", audience=AUD).with_audience([AUD])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - on purpose


def test_a_team_in_the_code_beside_a_local_access_in_the_environment_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = "http://127.0.0.1:8788"
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", local)
    CloudflareAccess(team_domain="acme", audience=AUD)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"the code sets team_domain to https://acme.cloudflareaccess.com, and the environment names the local Access "
        f"{local}, whose tokens are rejected: leave team_domain and audience out to read them from the environment"
    )
    caplog.clear()
    CloudflareAccess(audience=AUD)
    assert "for development only" in caplog.text
    assert "the code sets" not in caplog.text


def test_the_host_of_local_apps_as_the_team_is_told_where_the_local_access_is(caplog: pytest.LogCaptureFixture) -> None:
    for team in ("http://localhost:8787", "http://127.0.0.1:8787"):
        CloudflareAccess(team_domain=team, audience=AUD)
    assert [record.getMessage().partition(": for development only")[2] for record in caplog.records] == [
        "; the local Access of this package is the team http://127.0.0.1:8787",
        "",
    ]


@pytest.mark.parametrize(
    ("variable", "closest"),
    [("CF_ACCESS_TOKEN_SOURCE", "CF_ACCESS_TOKEN_SOURCES"), ("CF_ACCESS_FAILFAST", "CF_ACCESS_FAIL_FAST"),
     ("CF_ACCESS_EXP_LEWAY", "CF_ACCESS_EXP_LEEWAY"), ("CF_ACCESS_AUDIANCE", "CF_ACCESS_AUDIENCE")],
)  # fmt: skip
def test_a_variable_that_is_nearly_one_of_ours_is_a_warning(
    variable: str, closest: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("CF_ACCESS_CLIENT_ID", "x")
    monkeypatch.setenv("CF_ACCESS_TOKEN", "x")
    CloudflareAccess(team_domain="acme", audience=AUD)
    assert [record.getMessage() for record in caplog.records] == [
        f"the environment variable {variable} is not read; did you mean {closest}?"
    ]
