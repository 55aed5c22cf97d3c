"""The certs endpoint on a real socket, by the standard library alone."""

import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self, cast

from fastapi_cloudflare_access.settings import CERTS_PATH
from fastapi_cloudflare_access.testing._issuer import Issuer
from fastapi_cloudflare_access.testing._replacing import replaced
from fastapi_cloudflare_access.testing.certs import Answer, CertsEndpoint

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class CertsServer(CertsEndpoint):
    """A team's certs on `http://127.0.0.1:<free port>`, served by a thread.

    Inside the context that origin is the team's issuer, so that an app configured with it verifies the team's tokens as
    it would Cloudflare's. The app reads the machine's clock unless told otherwise, so give the team that clock, or the
    app the team's.
    """

    def __init__(self, team: Issuer, *, headers: Mapping[str, str] | None = None, etag: bool = False) -> None:
        """Serve this team, once entered; the arguments are those of `CertsEndpoint`."""
        super().__init__(team, headers=headers, etag=etag)
        self._server: _Server | None = None
        self._running = ExitStack()

    @property
    def origin(self) -> str:
        """Where it listens; a `team_domain`.

        Raises:
            RuntimeError: It is not running.
        """
        if self._server is None:
            raise RuntimeError("the server runs inside `with CertsServer(team) as server:` only")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Listen, and let the team issue from here.

        Raises:
            RuntimeError: It runs already.
        """
        if self._server is not None:
            raise RuntimeError("this server runs already; make another CertsServer(team) for a second origin")
        self._server = _Server(self)
        self._running.callback(self._server.stop)
        self._running.enter_context(replaced(self.team, "issuer", self.origin))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, let go whoever hangs, and give the team its issuer back."""
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
        """Say nothing where a client went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.close_connection = True
        if self.path != CERTS_PATH:
            self.send_error(404)
            return
        answer = self._host.endpoint.answer(self.path, dict(self.headers.items()))
        if self._pause(answer.delay):
            return
        if answer.ending == "refused":
            self._break()
            return
        self._send(answer)

    @property
    def _host(self) -> _Server:
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
            self._break()

    def _pause(self, seconds: float) -> bool:
        """Wait, and tell whether the server stops."""
        if not seconds:
            return False
        return self._host.stopping.wait(None if seconds == float("inf") else seconds)

    def _break(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Log nothing."""
