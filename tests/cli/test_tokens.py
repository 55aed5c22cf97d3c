"""A token comes from the argument, standard input or the environment, and is never shown whole."""

import sys
from pathlib import Path

import pytest
from support.command_line import Cli, shell

from fastapi_cloudflare_access.cli import main
from fastapi_cloudflare_access.cli.tokens import MAX_INPUT
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import FakeTeam


@pytest.fixture
def token(configured: FakeTeam) -> str:
    return configured.user_token("ada@example.com")


def test_the_token_is_read_from_the_argument(cli: Cli, token: str) -> None:
    assert cli("verify", token).code == 0


def test_the_token_is_read_from_standard_input_for_a_dash(cli: Cli, token: str) -> None:
    assert cli("verify", "-", stdin=f"\n {token}\r\n").code == 0


def test_the_token_is_read_from_the_environment_without_an_argument(
    cli: Cli, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CF_ACCESS_TOKEN", token)
    assert cli("verify").code == 0
    assert cli("verify", "eyJ").code == 1


def test_the_variable_of_the_token_is_not_a_setting(configured: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Settings.load()
    monkeypatch.setenv("CF_ACCESS_TOKEN", "eyJ.eyJ.x")
    assert Settings.load() == before
    assert "token" not in Settings.model_fields


@pytest.mark.parametrize(
    "text",
    [
        "Cf-Access-Jwt-Assertion: {}",
        "cf-access-jwt-assertion:{}",
        "> CF-Access-JWT-Assertion: {}",
        "Cookie: a=b; CF_Authorization={}; c=d",
        "CF_Authorization={}",
        "CF_Authorization={}; other=1",
        "GET / HTTP/1.1\r\nHost: app\r\nCookie: CF_Authorization=stale\r\nCf-Access-Jwt-Assertion: {}\r\n\r\n",
    ],
)
def test_a_header_a_cookie_or_a_whole_request_is_accepted(cli: Cli, token: str, text: str) -> None:
    assert cli("verify", "-", stdin=text.format(token)).code == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "why"),
    [
        (["verify"], "", "There is no token: pass it as the argument, pipe it to -, or set CF_ACCESS_TOKEN."),
        (["verify", ""], "", "There is no token: the argument is empty."),
        (["inspect", "-"], " \n", "There is no token: standard input is empty."),
        (
            ["inspect", "-"],
            "Cookie: a=b",
            "There is no token: the cookies in standard input contain no CF_Authorization.",
        ),
        (
            ["doctor", "-"],
            "Cookie: CF_Authorization=a; CF_Authorization=b",
            "There is no unique token in standard input: there is more than one cookie.",
        ),
        (
            ["verify", "-"],
            "x" * (MAX_INPUT + 1),
            f"Standard input is longer than {MAX_INPUT} bytes: pipe one token only.",
        ),
    ],
)
def test_a_missing_token_is_reported_in_one_sentence(
    cli: Cli, configured: FakeTeam, arguments: list[str], stdin: str, why: str
) -> None:
    result = cli(*arguments, stdin=stdin)
    assert (result.code, result.out, result.err) == (2, "", f"cf-access: {why}\n")


HINT = "pass the token as the argument, or set CF_ACCESS_TOKEN"


@pytest.mark.parametrize(("redirection", "state"), [("<&-", "is closed"), ("0>/dev/null", "cannot be read (")])
def test_an_unreadable_input_is_reported_in_one_sentence(redirection: str, state: str) -> None:
    done = shell(f"$CF inspect - {redirection}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"cf-access: Standard input {state}")
    assert done.stderr.endswith(f": {HINT}.\n")


def test_a_closed_standard_input_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["verify", "-"]) == 2
    assert capsys.readouterr() == ("", f"cf-access: Standard input is closed: {HINT}.\n")


def test_an_unreadable_standard_input_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with (tmp_path / "in").open("w") as to_write:
        monkeypatch.setattr(sys, "stdin", to_write)
        assert main(["verify", "-"]) == 2
    assert capsys.readouterr() == ("", f"cf-access: Standard input cannot be read (read): {HINT}.\n")


def test_an_empty_variable_differs_from_a_missing_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCESS_TOKEN", "")
    assert cli("inspect").err == "cf-access: There is no token: CF_ACCESS_TOKEN is empty.\n"


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("command", ["doctor", "inspect", "verify"])
def test_no_command_shows_a_token_whole(cli: Cli, token: str, command: str, options: list[str]) -> None:
    """The output contains neither the token nor one of its encoded parts."""
    result = cli(command, token, *options)
    assert [part for part in (token, *token.split(".")) if part in result.out + result.err] == []
    assert "h_INTERNAL_DO_NOT_USE" in result.out or command != "inspect"


@pytest.mark.parametrize(
    "arguments",
    [
        ["{}"],
        ["verify", "x", "--{}"],
        ["verify", "x", "--certs", "{}"],
        ["keys", "--interval", "{}"],
        ["verify", "x", "{}"],
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_token_in_the_wrong_place_is_not_shown_either(
    cli: Cli, token: str, arguments: list[str], options: list[str]
) -> None:
    result = cli(*[argument.format(token) for argument in arguments], *options)
    written = result.out + result.err
    assert result.code == 2
    assert [part for part in token.split(".") if part in written] == []


def test_the_identity_nonce_is_truncated(cli: Cli, token: str, configured: FakeTeam) -> None:
    nonce = configured.user_claims("ada@example.com")["identity_nonce"]
    result = cli("inspect", token)
    assert nonce not in result.out
    assert f"identity_nonce {nonce[:4]}…" in result.out
    assert cli("inspect", token, "--json").json["claims"]["identity_nonce"] == f"{nonce[:4]}…"


def test_the_content_of_a_token_cannot_control_the_terminal(cli: Cli, configured: FakeTeam) -> None:
    token = configured.sign({"type": "app", "email": "\x1b[31m\x9b2J\u202e\r", "\x1b]0;x\x07": "[bold]x[/bold]"})
    for options in ([], ["--json"]):
        out = cli("inspect", token, *options).out
        assert [char for char in out if char != "\n" and not char.isprintable()] == []
        assert "[bold]x[/bold]" in out
