"""The servers of the edge: sockets on the loopback, HTTP and HTTPS."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.certs import CLOSE_CONNECTION
from fastapi_cloudflare_access.local.config import Config
from fastapi_cloudflare_access.local.edge import Edge
from fastapi_cloudflare_access.local.local_access import Addresses, LocalAccess, ShiftedClock
from fastapi_cloudflare_access.local.state import State
from fastapi_cloudflare_access.local.tls import TlsFiles

SHUTDOWN_GRACE = 3
"""Seconds for open requests when the server stops."""
BIND_RETRIES = 10
"""Retries to find a port that is free for IPv4 and IPv6."""

_NO_IPV6 = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def is_loopback(host: str) -> bool:
    """Return whether only this computer can reach the host."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets, for IPv4 and IPv6 if the host is a loopback.

    Raises:
        ConfigurationError: The port is not available.
    """
    hosts = [host] if host != "localhost" else []
    if is_loopback(host):
        hosts = list(dict.fromkeys(["127.0.0.1", "::1", *hosts]))
    for _ in range(0 if port else BIND_RETRIES):
        with suppress(ConfigurationError):
            return _listen_all(hosts, port)
    return _listen_all(hosts, port)


def _listen_all(hosts: list[str], port: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    for host in hosts:
        try:
            listeners.append(_listen(host, port_of(listeners) if listeners else port))
        except OSError as problem:
            if host == "::1" and problem.errno in _NO_IPV6:
                continue
            for listener in listeners:
                listener.close()
            raise ConfigurationError(f"cannot listen on port {port} of {host}: {problem.strerror}") from None
    return listeners


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; clients can connect before the server starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With an explicit protocol, asyncio turns Nagle's algorithm off for every connection.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # pragma: no branch - on Windows two servers could share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def port_of(sockets: list[socket.socket]) -> int:
    """Return the port of the first socket."""
    return int(sockets[0].getsockname()[1])


@dataclass(frozen=True, slots=True)
class Listeners:
    """The sockets of one local Access.

    Attributes:
        plain: Sockets for HTTP.
        encrypted: Sockets for HTTPS; may be empty.
    """

    plain: list[socket.socket]
    encrypted: list[socket.socket]

    @classmethod
    def open(cls, host: str, port: int, tls_port: int | None) -> Self:
        """Return sockets that listen on these ports.

        Raises:
            ConfigurationError: A port is not available.
        """
        plain = bind(host, port)
        try:
            return cls(plain, [] if tls_port is None else bind(host, tls_port))
        except ConfigurationError:
            for listener in plain:
                listener.close()
            raise

    def close(self) -> None:
        """Close all sockets."""
        for listener in (*self.plain, *self.encrypted):
            listener.close()

    def addresses(self, config: Config) -> Addresses:
        """Return the addresses of the sockets."""
        return Addresses(port_of(self.plain), port_of(self.encrypted) if self.encrypted else None, config.team.domain)


def build_local_access(config: Config, folder: Path | None, listeners: Listeners) -> LocalAccess:
    """Return a local Access.

    Raises:
        ConfigurationError: The state folder cannot be used.
    """
    return LocalAccess(config, State(folder), ShiftedClock(), listeners.addresses(config))


def app_environment(local_access: LocalAccess, tls: TlsFiles | None = None) -> dict[str, str]:
    """Return the environment variables of the protected app."""
    tags = [app.tag for app in local_access.config.apps if app.upstream is None] or list(local_access.config.tags)
    settings = {"CF_ACCESS_TEAM_DOMAIN": local_access.addresses.issuer, "CF_ACCESS_AUDIENCE": ",".join(tags)}
    return settings | ({"SSL_CERT_FILE": str(tls.ca)} if tls and local_access.addresses.domain else {})


class _MainServer(uvicorn.Server):
    """A server that calls `on_start` when it listens."""

    on_start: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_start()


class _TlsServer(uvicorn.Server):
    """A server that leaves signals to the main server."""

    def capture_signals(self) -> Any:
        return nullcontext()


class _HttpProtocol(HttpToolsProtocol):
    """A protocol that lets the edge close the connection, which ASGI cannot express."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, CLOSE_CONNECTION: transport.close}


class LocalServer:
    """The HTTP and HTTPS servers of one local Access."""

    def __init__(self, edge: Edge, listeners: Listeners, tls: TlsFiles | None = None) -> None:
        """Create the servers, without starting them."""
        self._listeners = listeners
        self.main = _MainServer(_uvicorn_config(edge, lifespan="on"))
        self._tls_server = _TlsServer(_uvicorn_config(edge, lifespan="off", ssl_certfile=tls.server)) if tls else None

    async def serve(self) -> None:
        """Serve until a signal or a call of `stop`."""
        tls_server = self._tls_server
        if tls_server is None:
            await self.main.serve(sockets=self._listeners.plain)
            return
        running = asyncio.ensure_future(tls_server.serve(sockets=self._listeners.encrypted))
        try:
            await self.main.serve(sockets=self._listeners.plain)
        finally:
            tls_server.should_exit = True
            await running

    def stop(self, *, force: bool = False) -> None:
        """Stop `serve`; any thread may call this."""
        self.main.should_exit = True
        self.main.force_exit = self.main.force_exit or force

    def run(self) -> None:
        """Serve in this thread."""
        with asyncio.Runner(loop_factory=self.main.config.get_loop_factory()) as runner:
            runner.run(self.serve())


def _uvicorn_config(edge: Edge, *, lifespan: Any, ssl_certfile: Path | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        edge,
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        http=_HttpProtocol,
        ws="websockets-sansio",
        timeout_graceful_shutdown=SHUTDOWN_GRACE,
        ssl_certfile=ssl_certfile,
    )


@contextmanager
def environment(values: Mapping[str, str]) -> Generator[None]:
    """Set environment variables until the context exits."""
    previous = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
