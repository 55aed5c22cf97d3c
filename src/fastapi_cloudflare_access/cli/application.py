"""From the arguments to an exit code, whatever happens."""

import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from importlib import import_module, metadata
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.cli.commands import Session
from fastapi_cloudflare_access.cli.formatting import printable, redacted
from fastapi_cloudflare_access.cli.output import Screen, abandon, say_error
from fastapi_cloudflare_access.cli.reports import CommandError, ExitCode, Failure
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import Clock, Fetch

NAME = "cf-access"
LOCAL_COMMAND = "fastapi_cloudflare_access.local.cli"
LOCAL_MISSING = (
    "`cf-access dev` is the local Access and needs the extra `local`: "
    "pip install 'fastapi-cloudflare-access[cli,local]'"
)
EPILOG = "Exit codes: 0 good, 1 bad, 2 ask otherwise, 3 nobody can tell."

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run(arguments: list[str], *, clock: Clock | None, fetch: Fetch | None) -> int:
    """Run one command; whatever happens, it ends with a sentence and an exit code."""
    if sys.stdout is None:
        return _unwritten("it is closed")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _answer(arguments, Session(clock or SystemClock(), fetch))
        sys.stdout.flush()
    except BrokenPipeError:
        code = _unread()
    except OSError as problem:
        code = _failed(problem)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer and rich end so where nobody reads any more
            code = _unread()
        else:
            code = ended.code if isinstance(ended.code, int) else ExitCode.BAD
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    return code


def _answer(arguments: list[str], session: Session) -> int:
    try:
        return _run(arguments, session)
    except (CommandError, ConfigurationError, _UsageError) as error:
        return _fail(error, arguments)


def _unread() -> int:
    abandon(sys.stdout)
    return ExitCode.NOT_READ


def _failed(problem: OSError) -> int:
    """Tell what the system refused; what names no file is the output."""
    why = problem.strerror or "that is not possible"
    if problem.filename is None:
        abandon(sys.stdout)
        return _unwritten(why)
    say_error(f"{printable(str(problem.filename))} cannot be used: {why}.")
    return ExitCode.CANNOT_TELL


def _unwritten(why: str) -> int:
    say_error(f"Standard output cannot be written: {why}; direct it to where there is room, or to /dev/null.")
    return ExitCode.CANNOT_TELL


def _run(arguments: list[str], session: Session) -> int:
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    is_local = command == "dev"
    app = _app(session, with_dev=is_local)
    with nullcontext() if is_local else _without_log():
        done: Any = app(arguments or ["--help"], prog_name=NAME, standalone_mode=False)
    return int(done or 0)


@contextmanager
def _without_log() -> Generator[None]:
    """Leave out what the app would log: where nobody handles a record, logging writes it to standard error."""
    logger, nowhere = logging.getLogger("fastapi_cloudflare_access"), logging.NullHandler()
    logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)


def _fail(error: Exception, arguments: list[str]) -> int:
    code = error.exit_code if isinstance(error, CommandError) else ExitCode.ASKED_WRONGLY
    message = redacted(printable(_sentence(error), limit=1000))
    if "--json" in arguments:
        command = next((name for name in arguments if name in {"doctor", "inspect", "verify", "keys"}), None)
        Screen(as_json=True).report(Failure(command=command, error=message, exit_code=code))
    else:
        say_error(message)
    return code


def _sentence(error: Exception) -> str:
    if isinstance(error, ConfigurationError):
        return f"The settings will not do: {error}."
    if isinstance(error, _UsageError):
        message: Callable[[], str] = getattr(error, "format_message")  # noqa: B009 - has no public type
        return f"{message().rstrip('.')}; see {NAME} --help."
    return str(error)


def _app(session: Session, *, with_dev: bool) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=EPILOG)
    app.callback()(_options)
    for command in (session.doctor, session.inspect, session.verify, session.keys):
        app.command()(command)
    app.command("dev", help="Run a local Access.")(_local_command() if with_dev else _nothing)
    return app


def _version(asked: bool) -> None:  # noqa: FBT001 - typer calls it
    if asked:
        sys.stdout.write(f"{metadata.version('fastapi-cloudflare-access')}\n")
        raise typer.Exit


def _options(
    *, _: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False
) -> None:
    """Ask Cloudflare Access, its tokens and its keys by hand."""


def _local_command() -> Callable[..., Any]:
    """Load the local Access only where it is asked for."""
    try:
        command: Callable[..., Any] = import_module(LOCAL_COMMAND).dev
    except ModuleNotFoundError:
        raise CommandError(LOCAL_MISSING) from None
    return command


def _nothing() -> None:
    """Stand in the list of commands."""
