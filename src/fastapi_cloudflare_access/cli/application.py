"""The application behind `cf-access`: it parses arguments, runs one command and maps errors to exit codes."""

import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from importlib import import_module, metadata
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from dotenv import load_dotenv

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.cli.formatting import printable, redacted
from fastapi_cloudflare_access.cli.imports import without_garbage_collection
from fastapi_cloudflare_access.cli.reports import CommandError, ExitCode, Failure
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import Clock, Fetch

NAME = "cf-access"
COMMANDS = ("doctor", "inspect", "verify", "keys", "routes", "revoke", "revocations")
"""Names of the commands, which are those of the methods of `Commands`."""
ENV_FILE = "--env-file"
LOCAL_COMMAND = "fastapi_cloudflare_access.local.cli"
LOCAL_MISSING = "`cf-access dev` needs the extra `local`: pip install 'fastapi-cloudflare-access[cli,local]'"
EPILOG = "Exit codes: 0 success, 1 rejected or check failed, 2 usage error, 3 inconclusive."

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run(arguments: list[str], *, clock: Clock | None, fetch: Fetch | None) -> int:
    """Run one command and return its exit code; print each error as one sentence."""
    if sys.stdout is None:
        return _output_error("it is closed")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run_with_errors(arguments, clock or SystemClock(), fetch)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _broken_pipe()
    except OSError as problem:
        code = _system_error(problem)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer and rich turn a broken pipe into SystemExit
            code = _broken_pipe()
        else:
            code = ended.code if isinstance(ended.code, int) else ExitCode.FAILURE
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    return code


def _run_with_errors(arguments: list[str], clock: Clock, fetch: Fetch | None) -> int:
    try:
        return _run_command(arguments, clock, fetch)
    except (CommandError, ConfigurationError, _UsageError) as error:
        return _report_error(error, arguments)


def _broken_pipe() -> int:
    _output().discard_output(sys.stdout)
    return ExitCode.BROKEN_PIPE


def _system_error(problem: OSError) -> int:
    """Print an error of the operating system; an error without a file name comes from standard output."""
    why = problem.strerror or "unknown error"
    if problem.filename is None:
        _output().discard_output(sys.stdout)
        return _output_error(why)
    _output().print_error(f"{printable(str(problem.filename))} cannot be used: {why}.")
    return ExitCode.INCONCLUSIVE


def _output_error(why: str) -> int:
    _output().print_error(f"Standard output cannot be written: {why}; redirect it to a writable file or to /dev/null.")
    return ExitCode.INCONCLUSIVE


def _run_command(arguments: list[str], clock: Clock, fetch: Fetch | None) -> int:
    pairs = pairwise(["", *arguments])
    command = next((given for before, given in pairs if not given.startswith("-") and before != ENV_FILE), None)
    is_local = command == "dev"
    if is_local and not {"--help", "--init"} & {*arguments}:
        sys.stderr.write("cf-access dev: starting…\n")  # the imports take seconds
        sys.stderr.flush()
    with without_garbage_collection():
        app = _local_app() if is_local else _app(clock, fetch)
    with nullcontext() if is_local else _without_log():
        done: Any = app(arguments or ["--help"], prog_name=NAME, standalone_mode=False)
    return int(done or 0)


@contextmanager
def _without_log() -> Generator[None]:
    """Discard the package's log records; without a handler, logging writes them to standard error."""
    logger, handler = logging.getLogger("fastapi_cloudflare_access"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _report_error(error: Exception, arguments: list[str]) -> int:
    code = error.exit_code if isinstance(error, CommandError) else ExitCode.USAGE_ERROR
    message = redacted(printable(_message(error), limit=1000))
    if "--json" in arguments:
        command = next((name for name in arguments if name in COMMANDS), None)
        _output().Screen(as_json=True).report(Failure(command=command, error=message, exit_code=code))
    else:
        _output().print_error(message)
    return code


def _output() -> Any:
    """Import what writes to a terminal; `cf-access dev` starts without it."""
    return import_module("fastapi_cloudflare_access.cli.output")


def _message(error: Exception) -> str:
    if isinstance(error, ConfigurationError):
        return f"The settings are not valid: {error}."
    if isinstance(error, _UsageError):
        text: Callable[[], str] = getattr(error, "format_message")  # noqa: B009 - has no public type
        if f"No such option: {ENV_FILE}" in text():
            return f"{ENV_FILE} comes before the command: {NAME} {ENV_FILE} FILE doctor."
        return f"{text().rstrip('.')}; see {NAME} --help."
    return str(error)


def _app(clock: Clock, fetch: Fetch | None) -> typer.Typer:
    """Return the app with all commands, of which `dev` is only for the list."""
    from fastapi_cloudflare_access.cli.commands import Commands  # noqa: PLC0415 - `dev` starts without them

    app, commands = _empty_app(), Commands(clock, fetch)
    for name in COMMANDS:
        app.command()(getattr(commands, name))
    app.command("dev", help="Run a local Access.")(_placeholder)
    return app


def _local_app() -> typer.Typer:
    """Return the app with the command `dev` alone, which is to start soon."""
    app = _empty_app()
    app.command("dev", help="Run a local Access.")(_local_command())
    return app


def _empty_app() -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=EPILOG)
    app.callback()(_global_options)
    return app


def _print_version(requested: bool) -> None:  # noqa: FBT001 - typer calls it
    if requested:
        sys.stdout.write(f"{metadata.version('fastapi-cloudflare-access')}\n")
        raise typer.Exit


def _load_env_file(path: Path | None) -> None:
    if path is None:
        return
    try:
        load_dotenv(path)
    except ValueError:
        raise CommandError(f"{path} is not an env file: it must be UTF-8 text without null bytes.") from None


def _global_options(
    *,
    _env_file: Annotated[
        Path | None,
        typer.Option(
            ENV_FILE,
            metavar="FILE",
            help="Read environment variables from this file first; those that are set stay.",
            callback=_load_env_file,
            is_eager=True,
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
        ),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Diagnose Cloudflare Access: settings, network, keys and tokens."""


def _local_command() -> Callable[..., Any]:
    """Import the local Access; only `cf-access dev` needs it."""
    try:
        command: Callable[..., Any] = import_module(LOCAL_COMMAND).dev
    except ModuleNotFoundError:
        raise CommandError(LOCAL_MISSING) from None
    return command


def _placeholder() -> None:
    """Represent `dev` in the list of commands without importing the local Access."""
