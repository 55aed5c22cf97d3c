"""The command `cf-access dev`: its options."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local import config_file
from fastapi_cloudflare_access.local.app_loading import entrypoint
from fastapi_cloudflare_access.local.config import Origin
from fastapi_cloudflare_access.local.config_file import load_config_or_default
from fastapi_cloudflare_access.local.dev_server import AppSource, DevServer, check_team_domain, reload_server
from fastapi_cloudflare_access.local.server import Listeners, is_loopback

PORT = 8787
STATE_FOLDER = ".cf-access"
RISK_FLAG = "--anyone-who-reaches-this-port-may-log-in-as-anyone"


# The options of the command, with their help.
AppName = Annotated[
    str | None,
    typer.Argument(
        help="The app to protect, as for uvicorn: package.module:app. By default the entrypoint under "
        "[tool.fastapi] in pyproject.toml."
    ),
]
Factory = Annotated[bool, typer.Option("--factory", help="APP is a function that returns the app.")]
AppFolder = Annotated[Path, typer.Option(help="The folder to import the app from.")]
EnvFile = Annotated[Path | None, typer.Option(help="A file with environment variables for the app; set ones stay.")]
Reload = Annotated[
    bool, typer.Option("--reload", help="Restart the app when its files or the configuration file change.")
]
UpstreamOrigin = Annotated[str | None, typer.Option(help="A server to protect instead: http://127.0.0.1:8000")]
UpstreamCa = Annotated[Path | None, typer.Option(help="The certificate authority of an HTTPS upstream, in PEM.")]
ConfigFile = Annotated[Path | None, typer.Option(help="The configuration file; by default access.toml, if it exists.")]
Init = Annotated[bool, typer.Option("--init", help="Write a configuration file with comments, and exit.")]
StateFolder = Annotated[Path, typer.Option(help="The folder for keys and sessions.")]
Host = Annotated[str, typer.Option(help="The address to listen on; only the loopback.")]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="The port for HTTP; 0 selects a free one.")]
Tls = Annotated[bool, typer.Option("--tls", help="Serve HTTPS too, with a new local CA.")]
TlsPort = Annotated[int, typer.Option(min=0, max=65_535, help="The port for HTTPS.")]
ReadyFile = Annotated[Path | None, typer.Option(help="A file to write, as JSON, when the app can be used.")]
AccessLog = Annotated[bool, typer.Option("--access-log/--no-access-log", help="Write one line for each request.")]
Risk = Annotated[bool, typer.Option(RISK_FLAG, help="Allow a --host that other machines can reach.")]


def dev(  # noqa: PLR0913 - each is an option
    app: AppName = None,
    *,
    factory: Factory = False,
    app_dir: AppFolder = Path(),
    env_file: EnvFile = None,
    reload: Reload = False,
    upstream: UpstreamOrigin = None,
    upstream_ca: UpstreamCa = None,
    config: ConfigFile = None,
    init: Init = False,
    state: StateFolder = Path(STATE_FOLDER),
    host: Host = "127.0.0.1",
    port: Port = PORT,
    tls: Tls = False,
    tls_port: TlsPort = 8443,
    ready_file: ReadyFile = None,
    access_log: AccessLog = True,
    risk: Risk = False,
) -> None:
    """Run a local Access in front of an app, or of a server in any language."""
    try:
        if init:
            file = config or Path(config_file.FILE_NAME)
            config_file.write_template(file)
            typer.echo(f"{file} is written; edit it, then start cf-access dev")
            return
        if app is None and upstream is None:
            app = entrypoint(Path())
        ca = str(upstream_ca) if upstream_ca else None
        source = AppSource(app, app_dir, factory, env_file, upstream, ca)
        _check_source(source, reload=reload)
        _check_host(host, risk=risk)
        loaded = load_config_or_default(config)
        check_team_domain(loaded, is_encrypted=tls)
        server = DevServer(loaded, state, source, tls, 0, config, ready_file, access_log)
        _run(server, (host, port, tls_port if tls else None), reload=reload)
    except ConfigurationError as problem:
        typer.echo(f"cf-access dev: {problem}", err=True)
        raise typer.Exit(2) from None


def _check_source(source: AppSource, *, reload: bool) -> None:
    if source.name and source.upstream:
        raise ConfigurationError("name an app or --upstream, not both")
    if source.upstream is not None:
        try:
            Origin.parse(source.upstream)
        except ValueError as problem:
            raise ConfigurationError(f"--upstream {problem}") from None
    if not source.name:
        for option, is_given in (("--reload", reload), ("--factory", source.is_factory)):
            if is_given:
                raise ConfigurationError(f"{option} needs an app; name one")
    if source.env_file and not source.env_file.is_file():
        raise ConfigurationError(f"--env-file {source.env_file} is not a file")


def _check_host(host: str, *, risk: bool) -> None:
    if not is_loopback(host) and not risk:
        raise ConfigurationError(
            f"--host {host} lets other machines log in as any user; to allow that, add {RISK_FLAG}"
        )


def _run(server: DevServer, listen_on: tuple[str, int, int | None], *, reload: bool) -> None:
    listeners = Listeners.open(*listen_on)
    server = replace(server, plain_sockets=len(listeners.plain))
    sockets = [*listeners.plain, *listeners.encrypted]
    try:
        with suppress(KeyboardInterrupt, asyncio.CancelledError):
            if reload:
                reload_server(server, sockets, server.config_file or Path(config_file.FILE_NAME))
            else:
                server(sockets)
    finally:
        listeners.close()
