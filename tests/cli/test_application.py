"""Every command ends with a documented exit code, and every error is one sentence."""

import io
import logging
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from support.command_line import Cli, shell

from fastapi_cloudflare_access.cli import application, main
from fastapi_cloudflare_access.cli.reports import ExitCode
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

ROOT = Path(__file__).parents[2]
LOCAL = "fastapi_cloudflare_access.local"
STARTING = "cf-access dev: starting…\n"
COMMANDS = ["doctor", "inspect", "verify", "keys", "routes", "revoke", "revocations", "dev"]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes modules impossible to import, as without an extra."""

    def hide(*names: str) -> None:
        for module in list(sys.modules):
            if module.startswith(("fastapi_cloudflare_access.cli.", *names)):
                monkeypatch.delitem(sys.modules, module)
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_a_missing_extra_is_named_in_one_sentence(
    without: Any, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    without(missing)
    assert main(["doctor"]) == ExitCode.USAGE_ERROR
    assert capsys.readouterr() == (
        "",
        "cf-access needs the extra `cli`: pip install 'fastapi-cloudflare-access[cli]'\n",
    )


def test_another_missing_module_is_not_blamed_on_the_extra(without: Any) -> None:
    without("fastapi_cloudflare_access.cli.application")
    with pytest.raises(ModuleNotFoundError):
        main(["doctor"])


def test_importing_the_command_needs_no_extra() -> None:
    code = "import sys; sys.modules.update(typer=None, rich=None); import fastapi_cloudflare_access.cli"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.sources  # pytest loads the modules of an installed plugin itself, and `runpy` cannot run those
def test_the_package_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["cf-access", "--version"])
    monkeypatch.delitem(sys.modules, "fastapi_cloudflare_access.__main__", raising=False)  # another test imports it
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("fastapi_cloudflare_access", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out[0].isdigit()


def test_importing_the_main_module_runs_nothing() -> None:
    module = import_module("fastapi_cloudflare_access.__main__")
    assert module.main is main


def test_without_a_command_the_help_lists_them_all(cli: Cli) -> None:
    result = cli()
    assert result.code == 0
    listed = [line.split()[0] for line in result.out.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert listed[: len(COMMANDS)] == COMMANDS
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS[:5])
def test_every_command_has_json_and_help_that_fits_a_screen(cli: Cli, command: str) -> None:
    out = cli(command, "--help").out
    assert "--json" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["docter"], "No such command 'docter'"),
        (["keys", "--watsh"], "No such option"),
        (["verify", "a", "b"], "unexpected extra argument"),
        (["keys", "--interval", "0"], "--interval"),
    ],
)
def test_a_usage_error_is_one_sentence(cli: Cli, arguments: list[str], error: str) -> None:
    result = cli(*arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert error in result.err
    assert result.err.endswith("; see cf-access --help.\n")


@pytest.mark.parametrize(("arguments", "command"), [(["keys", "--json"], "keys"), (["--json"], None)])
def test_an_error_is_json_with_the_json_option(cli: Cli, arguments: list[str], command: str | None) -> None:
    result = cli(*arguments)
    assert (result.code, result.err) == (2, "")
    assert (result.json["command"], result.json["exit_code"]) == (command, 2)


def test_the_missing_extra_local_is_named_in_one_sentence(cli: Cli, without: Any) -> None:
    without(LOCAL)
    result = cli("dev")
    assert (result.code, result.out) == (2, "")
    assert result.err == STARTING + (
        "cf-access: `cf-access dev` needs the extra `local`: pip install 'fastapi-cloudflare-access[cli,local]'\n"
    )


def test_only_the_dev_command_loads_the_local_access(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, configured: FakeTeam
) -> None:
    def dev(port: int = 0) -> int:
        sys.stdout.write(f"on port {port}\n")
        return 5

    module = ModuleType(f"{LOCAL}.cli")
    vars(module)["dev"] = dev
    asked: list[str] = []

    def load(name: str) -> ModuleType:
        asked.append(name)
        return module

    monkeypatch.setattr(application, "import_module", load)
    assert (cli("--help").code, cli("keys").code, asked) == (0, 0, [])
    result = cli("dev", "--port", "7")
    assert (result.code, result.out, asked) == (5, "on port 7\n", [f"{LOCAL}.cli"])


def test_an_invalid_setting_of_the_local_access_is_one_sentence(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def dev() -> None:
        raise ConfigurationError("the port is taken")

    monkeypatch.setattr(application, "_local_command", lambda: dev)
    result = cli("dev")
    assert (result.code, result.err) == (2, f"{STARTING}cf-access: The settings are not valid: the port is taken.\n")


@pytest.mark.parametrize("option", ["--help", "--init"])
def test_the_local_access_says_at_once_that_it_starts_unless_it_ends_soon(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def dev(*, init: bool = False) -> None: ...

    monkeypatch.setattr(application, "_local_command", lambda: dev)
    assert (cli("dev").err, cli("dev", option).err) == (STARTING, "")


def test_dev_as_an_argument_is_not_the_command(cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "_local_command", None)
    assert cli("verify", "dev").code == 1


def test_a_placeholder_lists_the_dev_command(cli: Cli) -> None:
    application._placeholder()
    assert "Run a local Access." in cli("--help").out


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, typer.Abort])
def test_an_interrupt_prints_nothing(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    def interrupt(*_: object) -> None:
        raise interruption

    monkeypatch.setattr(application, "_run_command", interrupt)
    result = cli("keys")
    assert (result.code, result.out, result.err) == (130, "", "")


@pytest.mark.parametrize(("code", "given"), [(7, 7), ("why", 1), (None, 1)])
def test_a_command_that_exits_keeps_its_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, code: object, given: int
) -> None:
    def end(*_: object) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(application, "_run_command", end)
    assert cli("dev").code == given


def test_it_writes_to_a_redirected_standard_output(configured: FakeTeam) -> None:
    with redirect_stdout(io.StringIO()) as out:
        assert main(["inspect", configured.user_token("ada@example.com")], clock=configured.clock) == 0
    assert "ada@example.com" in out.getvalue()


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fastapi_cloudflare_access", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


@pytest.mark.parametrize("arguments", ["inspect", "inspect --json", "--version"])
def test_a_closed_pipe_causes_no_traceback(
    configured: FakeTeam, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    monkeypatch.setenv("CF_ACCESS_TOKEN", configured.user_token("ada@example.com", custom={"note": "x" * 3000}))
    process = run(*arguments.split())
    assert process.stdout
    process.stdout.close()
    with process:
        assert process.stderr
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_nothing_more_is_written_to_a_closed_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def write(*_: object) -> None:
        sys.stdout.write("lost")
        raise BrokenPipeError

    monkeypatch.setattr(application, "_run_command", write)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["keys"]) == 141
    assert (tmp_path / "out").read_text() == ""


REDIRECT = "redirect it to a writable file or to /dev/null."
FULL = f"Standard output cannot be written: No space left on device; {REDIRECT}"
CLOSED = f"Standard output cannot be written: it is closed; {REDIRECT}"


def in_a_shell(command: str) -> tuple[int, str]:
    """Run a shell command in which `$CF` is the command line; return its exit code and standard error."""
    done = shell(command)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", ["inspect --json x.y.z", "--help", "--version", "verify --json"])
def test_a_full_output_is_one_sentence_and_not_a_verdict(arguments: str) -> None:
    assert in_a_shell(f"$CF {arguments} >/dev/full") == (3, f"cf-access: {FULL}\n")


def test_a_closed_output_is_one_sentence_and_not_a_verdict() -> None:
    assert in_a_shell("$CF inspect x.y.z >&-") == (3, f"cf-access: {CLOSED}\n")


@pytest.mark.parametrize("nowhere", ["/dev/full", "&-"])
def test_the_exit_code_is_the_same_if_the_error_cannot_be_written(nowhere: str) -> None:
    assert in_a_shell(f"unset CF_ACCESS_TOKEN; $CF verify 2>{nowhere}")[0] == 2


@pytest.mark.parametrize(
    "arguments", [["keys"], ["inspect", "x.y.z"], ["inspect", "x.y.z", "--json"], ["--help"], ["--version"], ["verify"]]
)
def test_every_command_reports_a_full_output(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        result = cli(*arguments)
    if arguments == ["verify"]:
        assert result.code == 2
    else:
        assert (result.code, result.err) == (3, f"cf-access: {FULL}\n")


@pytest.mark.parametrize("arguments", [["keys", "--json"], ["--version"]])
def test_every_command_reports_a_closed_output(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    result = cli(*arguments)
    assert (result.code, result.err) == (3, f"cf-access: {CLOSED}\n")


@pytest.mark.parametrize("broken", ["/dev/full", None])
def test_an_unwritable_standard_error_does_not_change_the_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str | None
) -> None:
    with Path(broken or tmp_path / "err").open("w") as errors:
        monkeypatch.setattr(sys, "stderr", errors if broken else None)
        assert cli("verify").code == 2


def test_an_unreadable_file_is_not_reported_as_an_output_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/ca\x1b.pem")

    monkeypatch.setattr(application, "_run_command", refuse)
    result = cli("doctor")
    assert (result.code, result.err) == (3, "cf-access: /ca\\x1b.pem cannot be used: Permission denied.\n")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_log_records_of_the_package_are_discarded(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str]
) -> None:
    """Without a handler, logging writes a record to standard error."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    (tmp_path / "certs.json").write_text('{"keys":[]}')
    token = configured.user_token("ada@example.com")
    result = cli("verify", token, "--certs", str(tmp_path / "certs.json"), *options)
    assert (result.code, result.err) == (3, "")
    assert logging.getLogger("fastapi_cloudflare_access").handlers == []


def test_the_local_access_keeps_its_log(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def dev() -> None:
        logging.getLogger(LOCAL).warning("a session ended")

    monkeypatch.setattr(application, "_local_command", lambda: dev)
    assert cli("dev").err == f"{STARTING}a session ended\n"


def test_characters_outside_the_encoding_are_escaped(configured: FakeTeam) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    token = configured.user_token("ada@example.com", claims={"name": "Ädä"})
    out, err = run("inspect", token, environment=environment).communicate()
    assert err == b""
    assert b"name         \\xc4d\\xe4" in out
    assert b"\nx the token has expired" in out
    assert b"\n  > log in again" in out


def test_a_pipe_gets_plain_text_without_wrapping(cli: Cli, configured: FakeTeam) -> None:
    out = cli("verify", configured.forge("expired")).out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) > 100


def test_the_environment_forces_and_disables_colours(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    token = configured.forge("expired")
    assert "\x1b[1;38;5;196m✗" in cli("verify", token).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "38;5" not in cli("verify", token).out


def test_the_installed_command_is_this_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"cf-access": "fastapi_cloudflare_access.cli:main"}
    monkeypatch.setattr(sys, "argv", ["cf-access", "inspect", ""])
    assert main() == 2
    assert capsys.readouterr().err == "cf-access: There is no token: the argument is empty.\n"


class InterruptedImport:
    """An import finder that raises an interrupt during the import of the command line."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "fastapi_cloudflare_access.cli.application":
            raise KeyboardInterrupt


def test_an_interrupt_during_the_imports_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "meta_path", [InterruptedImport(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "fastapi_cloudflare_access.cli.application", raising=False)
    assert main() == 130
    assert capsys.readouterr() == ("", "")


def test_an_env_file_sets_what_the_environment_does_not(
    cli: Cli, team: FakeTeam, certs: MemoryFetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    path = tmp_path / "settings.env"
    path.write_text(f"CF_ACCESS_TEAM_DOMAIN=other\nCF_ACCESS_AUDIENCE={team.audience}\n")
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", "acme")
    result = cli("--env-file", str(path), "verify", team.user_token("ada@example.com"), fetch=certs)
    assert (result.code, "accepts it" in result.out) == (0, True)


def test_an_env_file_that_does_not_exist_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    result = cli("--env-file", str(tmp_path / "none.env"), "keys")
    assert result.code == 2
    assert "does not exist" in result.err


def test_an_env_file_after_the_command_gets_its_place(cli: Cli) -> None:
    result = cli("doctor", "--env-file", ".env")
    assert (result.code, result.err) == (
        2,
        "cf-access: --env-file comes before the command: cf-access --env-file FILE doctor.\n",
    )


def test_a_file_that_is_no_text_is_not_an_env_file(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "latin.env"
    path.write_bytes(b"A=\xe9")
    result = cli("--env-file", str(path), "keys")
    assert "is not an env file: it must be UTF-8 text" in result.err
