"""A local Access in a thread, for tests."""

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TypeVar

from starlette.types import ASGIApp

from fastapi_cloudflare_access.local.app_loading import fresh_modules, load_app
from fastapi_cloudflare_access.local.backends import Backend, InProcessApp, NoBackend
from fastapi_cloudflare_access.local.config import App, Config
from fastapi_cloudflare_access.local.control_commands import ControlCommands
from fastapi_cloudflare_access.local.edge import Edge
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.server import (
    Listeners,
    LocalServer,
    app_environment,
    build_local_access,
    environment,
)
from fastapi_cloudflare_access.local.state_lock import optional_lock
from fastapi_cloudflare_access.local.tls import TlsFiles, create_tls_files
from fastapi_cloudflare_access.local.upstream import Upstream

T = TypeVar("T")


class RunningAccess:
    """A running local Access.

    Attributes:
        local_access: Configuration and state; only its own thread may change them.
        ca_file: Certificate authority for clients to trust; None without TLS.
        environment: Environment variables for the app.
    """

    def __init__(self, local_access: LocalAccess, edge: Edge, tls: TlsFiles | None) -> None:
        """Store the local Access, its edge and its TLS files."""
        self.local_access = local_access
        self.ca_file = tls.ca if tls else None
        self.environment = app_environment(local_access, tls)
        self._edge = edge
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mounted: ASGIApp | None = None
        self._loaded: dict[str, ASGIApp] = {}

    @property
    def team_domain(self) -> str:
        """Value for the `team_domain` of `CloudflareAccess`."""
        return self.local_access.addresses.issuer

    @property
    def audience(self) -> str:
        """AUD tag of the first app."""
        return self.local_access.config.apps[0].tag

    def app(self, name: str) -> App:
        """Return the app of this name.

        Raises:
            KeyError: No app has this name.
        """
        for app in self.local_access.config.apps:
            if app.name == name:
                return app
        raise KeyError(name)

    def url(self, path: str = "/", *, app: str | None = None) -> str:
        """Return the URL of a path of an app, by default of the first app."""
        found = self.app(app) if app else self.local_access.config.apps[0]
        return self.local_access.addresses.origin(found.host) + path

    def service_headers(self, name: str | None = None) -> dict[str, str]:
        """Return the credential headers of a service token, by default of the first one."""
        client_id = next(found for found, known in self.local_access.services.items() if name in (None, known))
        secret = self.local_access.service_secret(client_id, self.local_access.services[client_id])
        return {"CF-Access-Client-Id": client_id, "CF-Access-Client-Secret": secret}

    def control(self, command: str, **values: Any) -> dict[str, Any]:
        """Run a command of the control page, such as `rotate`, `certs`, `rename`, `revoke`, `token` or `reset`.

        Raises:
            ControlError: The command is unknown, or it fails.
        """
        controls = ControlCommands(self.local_access, self._edge.open_requests)
        return self._run_in_loop(lambda: controls.run(command, values))

    def mount(self, app: ASGIApp | str, *, time_limit: float = 30.0) -> None:
        """Set the app that receives the requests, and wait until it has started.

        Create the app inside the context, with its `team_domain` and `audience`. Or pass an import string: its package
        is imported with `environment` set, again if that happened before. An app that is mounted stays as it is.

        Raises:
            ConfigurationError: The import string is wrong.
            AppImportError: The module raises.
            RuntimeError: The app did not start.
        """
        if isinstance(app, str):
            app = self._load(app)
        if app is self._mounted:
            return
        self._mounted = app
        backend = InProcessApp(app)
        loop = self._running_loop()
        asyncio.run_coroutine_threadsafe(self._replace(backend), loop).result(time_limit)
        asyncio.run_coroutine_threadsafe(backend.wait_started(), loop).result(time_limit)

    def _load(self, name: str) -> ASGIApp:
        """Import an app once, as a copy of its own if another test has imported it with other settings."""
        if name not in self._loaded:
            with environment(self.environment), fresh_modules(name):
                self._loaded[name] = load_app(name, folder=Path(), is_factory=False)
        return self._loaded[name]

    def forward_to(self, upstream: str) -> None:
        """Set the server that receives the requests; start it with `environment`."""
        loop = self._running_loop()
        self._mounted = None
        asyncio.run_coroutine_threadsafe(self._replace(Upstream(upstream)), loop).result(10)

    async def _replace(self, backend: Backend) -> None:
        await backend.start()
        previous, self._edge.backend = self._edge.backend, backend
        await previous.stop()

    def _run_in_loop(self, work: Callable[[], T]) -> T:
        loop = self._running_loop()

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), loop).result(10)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the local Access has stopped; use it inside `with run_local_access() as local:`")
        return self._loop


@contextmanager
def run_local_access(
    app: ASGIApp | None = None,
    *,
    upstream: str | None = None,
    config: Config | None = None,
    state: Path | None = None,
    port: int = 0,
    tls_port: int | None = None,
    time_limit: float = 30.0,
) -> Generator[RunningAccess]:
    """Run a local Access on the loopback, in a thread.

    Args:
        app: ASGI app to protect, in this process; or call `mount` later.
        upstream: Origin of a server to protect instead.
        config: Configuration; by default one app for everyone on `localhost`.
        state: Folder for keys and sessions; by default they stay in memory.
        port: Port for HTTP; 0 selects a free one.
        tls_port: Port for HTTPS; by default none, and 0 selects a free one.
        time_limit: Seconds to start, and seconds to stop.

    Raises:
        ConfigurationError: The port is not available, or the folder cannot be used.
        TimeoutError: The local Access did not start or stop in time.
    """
    config = config or Config()
    with optional_lock(state), TemporaryDirectory() as folder:
        listeners = Listeners.open("127.0.0.1", port, tls_port)
        try:
            tls = create_tls_files(state or Path(folder), config) if listeners.encrypted else None
            local_access = build_local_access(config, state, listeners)
            edge = Edge(local_access, _backend(app, upstream))
            running = RunningAccess(local_access, edge, tls)
            server = LocalServer(edge, listeners, tls)
            with _serving_thread(server, running, time_limit):
                yield running
        finally:
            listeners.close()


def _backend(app: ASGIApp | None, upstream: str | None) -> Backend:
    if app is not None:
        return InProcessApp(app)
    return Upstream(upstream) if upstream else NoBackend()


@contextmanager
def _serving_thread(server: LocalServer, running: RunningAccess, time_limit: float) -> Generator[None]:
    ready: Future[asyncio.AbstractEventLoop] = Future()
    thread = Thread(target=_serve, args=(server, ready), name="local-access", daemon=True)
    thread.start()
    running._loop = ready.result(time_limit)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        server.stop()
        thread.join(time_limit)
        if thread.is_alive():
            server.stop(force=True)
            thread.join(time_limit)
        running._loop = None  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        if thread.is_alive():
            raise TimeoutError("the local Access did not stop in time")


def _serve(server: LocalServer, ready: "Future[asyncio.AbstractEventLoop]") -> None:
    server.main.on_start = lambda: ready.set_result(asyncio.get_running_loop())
    try:
        server.run()
    finally:
        if not ready.done():
            ready.set_exception(RuntimeError("the local Access did not start; read the log"))
