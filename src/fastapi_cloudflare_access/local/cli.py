"""The command `cf-access dev`: its options, and the server that it runs."""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Annotated

import typer
import uvicorn
from rich.console import Console
from uvicorn.importer import ImportFromStringError, import_from_string
from uvicorn.supervisors import ChangeReload

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local import config_file
from fastapi_cloudflare_access.local.backends import Backend, InProcessApp, NoBackend
from fastapi_cloudflare_access.local.config import Config, Origin
from fastapi_cloudflare_access.local.edge import Edge
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.server import (
    Listeners,
    LocalServer,
    app_environment,
    build_local_access,
    environment,
    is_loopback,
)
from fastapi_cloudflare_access.local.tls import TlsFiles, create_tls_files
from fastapi_cloudflare_access.local.upstream import Upstream

PORT = 8787
STATE_FOLDER = ".cf-access"
RISK_FLAG = "--anyone-who-reaches-this-port-may-log-in-as-anyone"


@dataclass(frozen=True, slots=True)
class DevServer:
    """A local Access to run; each reload sends a pickled copy to a new process.

    Attributes:
        config: Configuration of the local Access.
        state: Folder for keys and sessions.
        app: Import string of the app.
        upstream: Origin to forward to.
        is_encrypted: Whether TLS is served too.
        plain_sockets: Number of sockets for plain HTTP; the others are for TLS.
    """

    config: Config
    state: Path
    app: str | None
    upstream: str | None
    is_encrypted: bool
    plain_sockets: int

    def __call__(self, sockets: list[socket] | None = None) -> None:
        """Serve until a signal."""
        sockets = sockets or []
        listeners = Listeners(sockets[: self.plain_sockets], sockets[self.plain_sockets :])
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        for name in ("httpx", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.WARNING)
        tls = create_tls_files(self.state, self.config) if self.is_encrypted else None
        local_access = build_local_access(self.config, self.state, listeners)
        with environment(app_environment(local_access, tls)):
            edge = Edge(local_access, self._backend())
            print_addresses(local_access, tls, self)
            LocalServer(edge, listeners, tls).run()

    def _backend(self) -> Backend:
        if self.upstream:
            return Upstream(self.upstream)
        if not self.app:
            return NoBackend()
        sys.path.insert(0, str(Path.cwd()))
        try:
            return InProcessApp(import_from_string(self.app))
        except ImportFromStringError as problem:
            raise ConfigurationError(str(problem)) from None
        except ModuleNotFoundError as missing:
            if not self.app.startswith(str(missing.name)):
                raise
            raise ConfigurationError(f"the module {missing.name} does not exist; check the import string") from None


def dev(  # noqa: PLR0913 - each is an option
    app: Annotated[str | None, typer.Argument(help="The app to protect, as for uvicorn: package.module:app")] = None,
    *,
    upstream: Annotated[str | None, typer.Option(help="A server to protect instead: http://127.0.0.1:8000")] = None,
    config: Annotated[
        Path | None, typer.Option(help="The configuration file; by default access.toml, if it exists.")
    ] = None,
    init: Annotated[bool, typer.Option("--init", help="Write a configuration file with comments, and exit.")] = False,
    state: Annotated[Path, typer.Option(help="The folder for keys and sessions.")] = Path(STATE_FOLDER),
    host: Annotated[str, typer.Option(help="The address to listen on; only the loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port for HTTP; 0 selects a free one.")] = PORT,
    reload: Annotated[bool, typer.Option("--reload", help="Restart the app when its files change.")] = False,
    tls: Annotated[bool, typer.Option("--tls", help="Serve HTTPS too, with a new local CA.")] = False,
    tls_port: Annotated[int, typer.Option(min=0, max=65_535, help="The port for HTTPS.")] = 8443,
    risk: Annotated[bool, typer.Option(RISK_FLAG, help="Allow a --host that other machines can reach.")] = False,
) -> None:
    """Run a local Access in front of an app, or of a server in any language."""
    try:
        if init:
            config_file.write_template(config or Path(config_file.FILE_NAME))
            return
        _check_options(app, upstream, host, reload=reload, risk=risk)
        _run(
            app, upstream, load_config_or_default(config), state, (host, port, tls_port if tls else None), reload=reload
        )
    except ConfigurationError as problem:
        typer.echo(f"cf-access dev: {problem}", err=True)
        raise typer.Exit(2) from None


def load_config_or_default(path: Path | None) -> Config:
    """Read the named file, else `access.toml`, else return the defaults.

    Raises:
        ConfigurationError: The file is not valid.
    """
    if path is None and not Path(config_file.FILE_NAME).exists():
        return Config()
    return config_file.load_config(path or Path(config_file.FILE_NAME))


def _check_options(app: str | None, upstream: str | None, host: str, *, reload: bool, risk: bool) -> None:
    if app and upstream:
        raise ConfigurationError("name an app or --upstream, not both")
    if upstream is not None:
        try:
            Origin.parse(upstream)
        except ValueError as problem:
            raise ConfigurationError(f"--upstream {problem}") from None
    if reload and not app:
        raise ConfigurationError("--reload needs an app; name one")
    if not is_loopback(host) and not risk:
        raise ConfigurationError(
            f"--host {host} lets other machines log in as any user; to allow that, add {RISK_FLAG}"
        )


def _run(
    app: str | None,
    upstream: str | None,
    config: Config,
    state: Path,
    listen_on: tuple[str, int, int | None],
    *,
    reload: bool,
) -> None:
    if config.team.domain and listen_on[2] is None:
        raise ConfigurationError("a team domain needs --tls, with --tls-port 443 or a forward from port 443")
    listeners = Listeners.open(*listen_on)
    server = DevServer(config, state, app, upstream, listen_on[2] is not None, len(listeners.plain))
    sockets = [*listeners.plain, *listeners.encrypted]
    try:
        with suppress(KeyboardInterrupt, asyncio.CancelledError):
            if reload:
                watching = uvicorn.Config(str(app), reload=True, log_config=None)
                ChangeReload(watching, target=server, sockets=sockets).run()
            else:
                server(sockets)
    finally:
        listeners.close()


def print_addresses(local_access: LocalAccess, tls: TlsFiles | None, server: DevServer) -> None:
    """Print the addresses, the credentials and the environment of the app."""
    console = Console(soft_wrap=True, highlight=False)
    console.print("A local Access, for development only", style="bold")
    for name, value in _address_lines(local_access, tls):
        console.print(f"  {name:<24}{value}")
    if not server.app:
        console.print("Start your app with", style="bold")
        for name, value in app_environment(local_access, tls).items():
            console.print(f"  {name}={value}")


def _address_lines(local_access: LocalAccess, tls: TlsFiles | None) -> Iterator[tuple[str, str]]:
    for app in local_access.config.apps:
        yield app.name, f"{local_access.addresses.origin(app.host)}{app.paths[0]}"
    yield "team, control page", f"{local_access.addresses.issuer}/"
    for client_id, name in local_access.services.items():
        yield name, f"CF-Access-Client-Id: {client_id}"
        yield "", f"CF-Access-Client-Secret: {local_access.service_secret(client_id, name)}"
    if tls:
        yield "CA to trust", str(tls.ca)
