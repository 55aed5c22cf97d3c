"""The servers of the edge: sockets on the loopback, HTTP and HTTPS."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import uvicorn

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.config import Config
from fastapi_cloudflare_access.local.edge import Edge
from fastapi_cloudflare_access.local.local_access import Addresses, LocalAccess, ShiftedClock
from fastapi_cloudflare_access.local.policies import bypass_policy
from fastapi_cloudflare_access.local.server_protocols import MAX_MESSAGE, HttpProtocol, WebSocketProtocol
from fastapi_cloudflare_access.local.state import State
from fastapi_cloudflare_access.local.tls import TlsFiles

SHUTDOWN_GRACE = 3
"""Seconds after which uvicorn cancels requests that the edge could not end."""
TICK = 0.02
"""Seconds between two looks for a signal."""
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""Variables that name the CA for OpenSSL and httpx, for requests, and for Node."""
MAX_PORT = 65_535
"""Largest number of a port."""
BIND_RETRIES = 10
"""Retries to find a port that is free for IPv4 and IPv6."""

_NO_IPV6 = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def is_loopback(host: str) -> bool:
    """Return whether only this computer can reach the host."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def bind(host: str, port: int, *, option: str = "--port") -> list[socket.socket]:
    """Return listening sockets, for IPv4 and IPv6 if the host is a loopback; the option is for the error.

    Raises:
        ConfigurationError: The port is not available.
    """
    hosts = [host] if host != "localhost" else []
    if is_loopback(host):
        hosts = list(dict.fromkeys(["127.0.0.1", "::1", *hosts]))
    for _ in range(0 if port else BIND_RETRIES):
        with suppress(ConfigurationError):
            return _listen_all(hosts, port, option)
    return _listen_all(hosts, port, option)


def _listen_all(hosts: list[str], port: int, option: str) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    for host in hosts:
        try:
            listeners.append(_listen(host, port_of(listeners) if listeners else port))
        except OSError as problem:
            if host == "::1" and problem.errno in _NO_IPV6:
                continue
            for listener in listeners:
                listener.close()
            other = f"{option} {port + 1 if port < MAX_PORT else 0}"
            advice = f"; stop what uses it, or add {other}" if problem.errno == errno.EADDRINUSE else ""
            raise ConfigurationError(f"cannot listen on port {port} of {host}: {problem.strerror}{advice}") from None
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
            return cls(plain, [] if tls_port is None else bind(host, tls_port, option="--tls-port"))
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


def app_environment(
    local_access: LocalAccess, tls: TlsFiles | None = None, *, upstream: str | None = None
) -> dict[str, str]:
    """Return the environment variables of a protected app.

    Args:
        local_access: Configuration and addresses.
        tls: TLS files, if HTTPS is served.
        upstream: Origin of the app, if access.toml names it; by default the app on the command line.
    """
    apps = [app for app in local_access.config.apps if app.upstream == upstream] or local_access.config.apps
    tags = [app.tag for app in apps if not bypass_policy(app)] or [app.tag for app in apps]
    settings = {"CF_ACCESS_TEAM_DOMAIN": local_access.addresses.issuer, "CF_ACCESS_AUDIENCE": ",".join(tags)}
    return settings | (dict.fromkeys(CA_VARIABLES, str(tls.ca)) if tls and local_access.addresses.domain else {})


class _MainServer(uvicorn.Server):
    """The server for HTTP; it starts and stops the edge, and the server for HTTPS.

    uvicorn would run the edge's lifespan in a task of its own, and log a traceback where a second signal cuts it off.
    """

    def __init__(self, config: uvicorn.Config, edge: Edge) -> None:
        super().__init__(config)
        self.on_start: Callable[[], None] = lambda: None
        self.start_companion: Callable[[], asyncio.Future[None]] | None = None
        self.stop_companion: Callable[[], None] = lambda: None
        self._edge = edge
        self._companion: asyncio.Future[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._edge.start()
        if self.start_companion:
            self._companion = self.start_companion()
        await super().startup(sockets)
        self.on_start()

    async def main_loop(self) -> None:
        """Serve until a signal, which is noticed sooner than in uvicorn's own loop."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(TICK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, end the open requests, and stop the apps."""
        self.stop_companion()
        ending = asyncio.ensure_future(self._edge.open_requests.end_all())
        await super().shutdown(sockets)
        await ending
        if self._companion:
            await self._companion
        await self._unless_forced(self._edge.stop())

    async def _unless_forced(self, stop: Coroutine[Any, Any, None]) -> None:
        """Wait for a coroutine, until a second Ctrl-C."""
        stopping = asyncio.ensure_future(stop)
        while not stopping.done() and not self.force_exit:
            await asyncio.wait({stopping}, timeout=0.1)
        stopping.cancel()
        await asyncio.wait({stopping})


class _TlsServer(uvicorn.Server):
    """The server for HTTPS, which leaves signals to the main server."""

    def capture_signals(self) -> Any:
        return nullcontext()


class LocalServer:
    """The HTTP and HTTPS servers of one local Access."""

    def __init__(self, edge: Edge, listeners: Listeners, tls: TlsFiles | None = None) -> None:
        """Create the servers, without starting them."""
        self._listeners = listeners
        self.main = _MainServer(_uvicorn_config(edge), edge)
        if tls:
            tls_server = _TlsServer(_uvicorn_config(edge, ssl_certfile=tls.server))
            self.main.start_companion = lambda: asyncio.ensure_future(tls_server.serve(listeners.encrypted))
            self.main.stop_companion = lambda: setattr(tls_server, "should_exit", True)

    async def serve(self) -> None:
        """Serve until a signal or a call of `stop`."""
        await self.main.serve(sockets=self._listeners.plain)

    def stop(self, *, force: bool = False) -> None:
        """Stop `serve`; any thread may call this."""
        self.main.should_exit = True
        self.main.force_exit = self.main.force_exit or force

    def run(self) -> None:
        """Serve in this thread."""
        with asyncio.Runner(loop_factory=self.main.config.get_loop_factory()) as runner:
            runner.run(self.serve())


def _uvicorn_config(edge: Edge, *, ssl_certfile: Path | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        edge,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=MAX_MESSAGE,
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
