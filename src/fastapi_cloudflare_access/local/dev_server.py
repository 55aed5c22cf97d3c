"""The server of `cf-access dev`, in this process or in one that each reload starts again."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from pathlib import Path
from socket import socket
from types import FrameType
from typing import Any, NoReturn

import typer
import uvicorn
from dotenv import load_dotenv
from uvicorn.supervisors import ChangeReload

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local import request_log
from fastapi_cloudflare_access.local.app_loading import AppImportError, load_app
from fastapi_cloudflare_access.local.backends import Backend, FailedApp, InProcessApp, NoBackend
from fastapi_cloudflare_access.local.config import Config
from fastapi_cloudflare_access.local.config_file import load_config_or_default
from fastapi_cloudflare_access.local.edge import Edge
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.open_routes import reporting_open_routes
from fastapi_cloudflare_access.local.ready_file import ready_file, write_ready_file
from fastapi_cloudflare_access.local.server import (
    Listeners,
    LocalServer,
    app_environment,
    build_local_access,
    environment,
)
from fastapi_cloudflare_access.local.start_checks import check_surroundings
from fastapi_cloudflare_access.local.state_lock import locked
from fastapi_cloudflare_access.local.tls import TlsFiles, create_tls_files
from fastapi_cloudflare_access.local.upstream import Upstream

logger = logging.getLogger("fastapi_cloudflare_access.local")


@dataclass(frozen=True, slots=True)
class AppSource:
    """The app to protect.

    Attributes:
        name: Import string; None without an app in Python.
        folder: Folder to import from.
        is_factory: Whether the object is certainly a function that returns the app.
        env_file: File with environment variables for the app.
        upstream: Origin to forward to instead.
        upstream_ca: File with the authority of an HTTPS upstream.
    """

    name: str | None = None
    folder: Path = Path()
    is_factory: bool = False
    env_file: Path | None = None
    upstream: str | None = None
    upstream_ca: str | None = None

    def load_env_file(self) -> None:
        """Set the variables of the env file that are not set.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        if self.env_file is None:
            return
        try:
            load_dotenv(self.env_file)
        except OSError as problem:
            raise ConfigurationError(f"--env-file {self.env_file} cannot be read: {problem.strerror}") from None
        except ValueError:
            raise ConfigurationError(
                f"--env-file {self.env_file} is not an env file: it must be UTF-8 text without null bytes"
            ) from None

    def backend(self) -> Backend:
        """Return the backend, which for an app in Python imports it.

        Raises:
            ConfigurationError: An option is wrong.
            AppImportError: The app raises.
        """
        if self.upstream:
            return Upstream(self.upstream, ca=self.upstream_ca)
        if not self.name:
            return NoBackend()
        return InProcessApp(load_app(self.name, folder=self.folder, is_factory=self.is_factory))


@dataclass(frozen=True, slots=True)
class DevServer:
    """A local Access to run; each reload sends a pickled copy to a new process.

    Attributes:
        config: Configuration of the local Access.
        state: Folder for keys and sessions.
        source: App to protect.
        is_encrypted: Whether TLS is served too.
        plain_sockets: Number of sockets for plain HTTP; the others are for TLS.
        config_file: File to read again with each reload; None for `access.toml`, if it exists.
        ready_file: File to write when the app can be used.
        logs_requests: Whether each request writes a line.
    """

    config: Config
    state: Path
    source: AppSource
    is_encrypted: bool
    plain_sockets: int
    config_file: Path | None = None
    ready_file: Path | None = None
    logs_requests: bool = True

    def __call__(self, sockets: list[socket] | None = None) -> None:
        """Serve until a signal.

        Raises:
            ConfigurationError: Something cannot be used; a process of a reload prints the sentence and exits.
            SystemExit: The app raised when it was imported, and its error is printed; or the signal was SIGTERM.
        """
        sockets = sockets or []
        set_up_logging(logs_requests=self.logs_requests)
        try:
            with exit_on_sigterm(), locked(self.state), ready_file(self.ready_file):
                self._serve(Listeners(sockets[: self.plain_sockets], sockets[self.plain_sockets :]))
        except AppImportError as problem:
            self._print_import_error(problem)
            raise SystemExit(1) from None
        except ConfigurationError as problem:
            if parent_process() is None:
                raise
            typer.echo(f"cf-access dev: {problem}", err=True)
            raise SystemExit(2) from None

    def reloaded(self) -> "DevServer":
        """Return a copy with the present content of the configuration file; keep the old one if that is not valid."""
        try:
            config = load_config_or_default(self.config_file)
            check_team_domain(config, is_encrypted=self.is_encrypted)
        except ConfigurationError as problem:
            logger.error("%s; the last valid configuration stays in use", problem)  # noqa: TRY400 - one sentence
            return self
        return replace(self, config=config)

    def _serve(self, listeners: Listeners) -> None:
        self.source.load_env_file()
        tls = create_tls_files(self.state, self.config) if self.is_encrypted else None
        local_access = build_local_access(self.config, self.state, listeners)
        with environment(app_environment(local_access, tls)):
            backend = self._backend()
            server = LocalServer(Edge(local_access, backend), listeners, tls)
            print_addresses(local_access, tls, self.source)
            check_surroundings(local_access, has_server=not isinstance(backend, NoBackend))
            with self._open_routes(backend) as report:

                def on_start() -> None:
                    report()
                    self._announce(backend, local_access, tls)

                server.main.on_start = on_start
                gc.freeze()  # imported objects stay; the collections of the exit would take longer than the stop itself
                server.run()

    def _backend(self) -> Backend:
        """Return the backend; with reloads, an app that cannot be imported gets a page until it is corrected."""
        try:
            return self.source.backend()
        except AppImportError as problem:
            if parent_process() is None:
                raise
            self._print_import_error(problem)
        except ConfigurationError as problem:
            if parent_process() is None:
                raise
            typer.echo(f"cf-access dev: {problem}", err=True)
        return FailedApp()

    def _print_import_error(self, problem: AppImportError) -> None:
        typer.echo(f"cf-access dev: {self.source.name} cannot be imported:\n{problem}", err=True)

    def _open_routes(self, backend: Backend) -> AbstractContextManager[Callable[[], None]]:
        if self.source.name is None or not isinstance(backend, InProcessApp):
            return nullcontext(lambda: None)
        return reporting_open_routes(self.source.name, self.source.folder, is_factory=self.source.is_factory)

    def _announce(self, backend: Backend, local_access: LocalAccess, tls: TlsFiles | None) -> None:
        """Write the ready file once the app has started."""
        if self.ready_file is not None:
            task = asyncio.ensure_future(_write_when_started(self.ready_file, backend, local_access, tls))
            _announcements.add(task)
            task.add_done_callback(_announcements.discard)


_announcements: set["asyncio.Future[None]"] = set()


async def _write_when_started(file: Path, backend: Backend, local_access: LocalAccess, tls: TlsFiles | None) -> None:
    if isinstance(backend, FailedApp):
        return
    if isinstance(backend, InProcessApp):
        try:
            await backend.wait_started()
        except (RuntimeError, TimeoutError):
            return  # the log has the reason
    try:
        write_ready_file(file, local_access, tls)
    except ConfigurationError as problem:
        logger.error("%s", problem)  # noqa: TRY400 - one sentence


class Reloader(ChangeReload):  # type: ignore[valid-type,misc] # uvicorn sets the variable for the platform
    """uvicorn's reloader, which reads the configuration file again too."""

    target: Any

    def restart(self) -> None:
        """Start a new process, with the present configuration if it is valid."""
        self.target = self.target.reloaded()
        super().restart()


def reload_server(server: DevServer, sockets: list[socket], config_file: Path) -> None:
    """Run the server in a process, and start it again when a file changes."""
    set_up_logging(logs_requests=server.logs_requests)
    files = [file for file in (config_file, server.source.env_file) if file]
    folders = {server.source.folder.absolute(), *(file.absolute().parent for file in files)}
    watching = uvicorn.Config(
        str(server.source.name),
        reload=True,
        reload_dirs=[str(folder) for folder in sorted(folders)],
        reload_includes=[file.name for file in files],
        log_config=None,
    )
    gc.freeze()
    Reloader(watching, target=server, sockets=sockets).run()


@contextmanager
def exit_on_sigterm() -> Generator[None]:
    """Turn SIGTERM into `SystemExit`, so that contexts exit: else the ready file and its secrets would stay."""
    previous = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def check_team_domain(config: Config, *, is_encrypted: bool) -> None:
    """Raise `ConfigurationError` if a team domain is set without TLS."""
    if config.team.domain and not is_encrypted:
        raise ConfigurationError("a team domain needs --tls, with --tls-port 443 or a forward from port 443")


def set_up_logging(*, logs_requests: bool) -> None:
    """Write logs to standard error; the lines of requests have a time, and no level."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for name in ("httpx", "uvicorn.error", "watchfiles.main"):
        logging.getLogger(name).setLevel(logging.WARNING)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(request_log.LineFormatter())
    request_log.logger.handlers = [handler]
    request_log.logger.propagate = False
    request_log.logger.setLevel(logging.INFO if logs_requests else logging.WARNING)


def print_addresses(local_access: LocalAccess, tls: TlsFiles | None, source: AppSource) -> None:
    """Print the addresses, the credentials and the environment of each app."""
    typer.secho("A local Access, for development only", bold=True)
    for name, value in _address_lines(local_access, tls):
        typer.echo(f"  {name:<24}{value}")
    for names, variables, runs_here in _environments(local_access, tls, source):
        typer.secho(f"Set here for {names}" if runs_here else f"Start {names} with", bold=True)
        for name, value in variables.items():
            typer.echo(f"  {name}={value}")


def _address_lines(local_access: LocalAccess, tls: TlsFiles | None) -> Iterator[tuple[str, str]]:
    for app in local_access.config.apps:
        yield app.name, f"{local_access.addresses.origin(app.host)}{app.paths[0]}"
    yield "team, control page", f"{local_access.addresses.issuer}/"
    for client_id, name in local_access.services.items():
        yield name, f"CF-Access-Client-Id: {client_id}"
        yield "", f"CF-Access-Client-Secret: {local_access.service_secret(client_id, name)}"
    if tls:
        yield "CA to trust", str(tls.ca)


def _environments(
    local_access: LocalAccess, tls: TlsFiles | None, source: AppSource
) -> Iterator[tuple[str, dict[str, str], bool]]:
    """Yield the names of the apps of each server, its variables, and whether the app runs here."""
    for upstream in dict.fromkeys(app.upstream for app in local_access.config.apps):
        names = ", ".join(app.name for app in local_access.config.apps if app.upstream == upstream)
        yield names, app_environment(local_access, tls, upstream=upstream), upstream is None and bool(source.name)
