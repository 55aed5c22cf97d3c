"""The certs endpoint on a real socket, with the standard library alone."""

import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self, cast

from fastapi_cloudflare_access.settings import CERTS_PATH, IDENTITY_PATH
from fastapi_cloudflare_access.testing._issuer import Issuer
from fastapi_cloudflare_access.testing._replacing import replaced
from fastapi_cloudflare_access.testing.certs import CertsEndpoint
from fastapi_cloudflare_access.testing.endpoint import Answer

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class CertsServer(CertsEndpoint):
    """A team's certs on `http://127.0.0.1:<free port>`, served by a thread.

    Inside the context this origin is the team's issuer, so an app configured with it verifies the team's tokens. App
    and team need the same clock: `FakeTeam(clock=SystemClock())`, or `CloudflareAccess(clock=team.clock)`.
    """

    def __init__(self, team: Issuer, *, headers: Mapping[str, str] | None = None, etag: bool = False) -> None:
        """Create a server, which starts in the context; the arguments are those of `CertsEndpoint`."""
        super().__init__(team, headers=headers, etag=etag)
        self._server: _Server | None = None
        self._running = ExitStack()

    @property
    def origin(self) -> str:
        """The origin of the server, a valid `team_domain`.

        Raises:
            RuntimeError: The server is not running.
        """
        if self._server is None:
            raise RuntimeError("the server is not running; use `with CertsServer(team) as server:`")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Start the server, and make its origin the team's issuer.

        Raises:
            RuntimeError: The server is already running.
        """
        if self._server is not None:
            raise RuntimeError("the server is already running; create another CertsServer(team) for a second origin")
        self._server = _Server(self)
        self._running.callback(self._server.stop)
        self._running.enter_context(replaced(self.team, "issuer", self.origin))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server, close its connections, and restore the team's issuer."""
        self._server = None
        self._running.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, endpoint: CertsEndpoint) -> None:
        self.endpoint = endpoint
        self.stopping = Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = Thread(target=self.serve_forever, args=(0.02,), name="certs-server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that disconnects."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.close_connection = True
        if self.path not in (CERTS_PATH, IDENTITY_PATH):
            self.send_error(404)
            return
        answer = self._certs_server.endpoint.answer(self.path, dict(self.headers.items()))
        if self._pause(answer.delay):
            return
        if answer.ending == "refused":
            self._reset_connection()
            return
        self._send(answer)

    @property
    def _certs_server(self) -> _Server:
        return cast("_Server", self.server)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {"connection": "close", **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for number, piece in enumerate(answer.pieces):
            if number and self._pause(answer.pause):
                return
            self.wfile.write(piece)
        if answer.ending == "hang":
            self._pause(float("inf"))
        if answer.ending == "reset":
            self._reset_connection()

    def _pause(self, seconds: float) -> bool:
        """Wait, and return whether the server is stopping."""
        if not seconds:
            return False
        return self._certs_server.stopping.wait(None if seconds == float("inf") else seconds)

    def _reset_connection(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Discard the log message."""
