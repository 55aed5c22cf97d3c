"""Requests without a token, in this process, to an app whose handlers are replaced."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.types import Message, Scope

from fastapi_cloudflare_access._requests.responses import to_exception
from fastapi_cloudflare_access._routes.tree import Level, Node
from fastapi_cloudflare_access.errors import AccessError
from fastapi_cloudflare_access.testing._audit.replacing import Reached, Replacements, without_handlers
from fastapi_cloudflare_access.testing._audit.tree import Authenticators

TIMEOUT = 10.0
"""Seconds for one request."""
ACCEPTED = 101
"""The status of a handshake that was accepted."""
WEBSOCKET = "WS"
"""The name of a WebSocket handshake where a method is expected."""

T = TypeVar("T")


@dataclass(slots=True)
class Answer:
    """The end of one request without a token.

    Attributes:
        reached: The place whose handler would have run.
        is_refused: Whether an authenticator that counts refused the request.
        status: The status of the response, or the close code of a handshake; None without a response.
        error: The name of the exception that ended it.
    """

    reached: Node | Level | None = None
    is_refused: bool = False
    status: int | None = None
    error: str | None = None


class Asker:
    """An app that is asked without a token.

    Attributes:
        opaque: The routes that cannot be asked, since their own code handles requests.
    """

    def __init__(self, app: Any, opaque: set[Node]) -> None:
        """Ask this app, in which every handler is replaced."""
        self._app, self.opaque = app, opaque
        self._root_path = getattr(app, "root_path", "").rstrip("/")
        self._answer = Answer()

    def reach(self, place: Node | Level) -> None:
        """Record the place that the current request reached."""
        self._answer.reached = place

    def refuse(self, error: AccessError, connection: HTTPConnection, *, auth_scheme: str) -> Exception:
        """Return the exception of a refusal, without a log record and an event."""
        self._answer.is_refused = True
        return to_exception(error, connection, auth_scheme=auth_scheme)

    async def ask(self, method: str, path: str, host: str) -> Answer:
        """Send one request, and return how it ended."""
        answer = self._answer = Answer()
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._app(self._scope(method, path, host), _receiving(method), _sending(answer))
        except Reached:
            pass
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - the app may raise anything
            answer.error = type(error).__name__
        return answer

    def _scope(self, method: str, path: str, host: str) -> Scope:
        is_socket = method == WEBSOCKET
        scope: dict[str, Any] = {
            "type": "websocket" if is_socket else "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_socket else "https",
            "path": self._root_path + path,
            "raw_path": quote(self._root_path + path).encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", host.encode())],
            "client": ("127.0.0.1", 50000),
            "server": (host, 443),
            "state": {},
            "extensions": {"websocket.http.response": {}} if is_socket else {},
            **({"subprotocols": []} if is_socket else {"method": method}),
        }
        return scope


@contextmanager
def asking(app: Any, levels: Iterable[Level], authenticators: Authenticators) -> Generator[Asker]:
    """Replace the handlers of an app, and how these authenticators refuse a request, until the context ends."""
    asker, changes = Asker(app, set()), Replacements()
    try:
        with without_handlers(levels, asker.reach) as asker.opaque:
            for authenticator in authenticators:
                scheme = authenticator.verifier.settings.auth_scheme
                changes.set(authenticator, outcome=_no_caller, refuse=partial(asker.refuse, auth_scheme=scheme))
            yield asker
    finally:
        changes.undo()


async def _no_caller(scope: Scope) -> None:
    """Return the outcome of a request without a token, also while the testing kit overrides the caller."""


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run async work to its end, also if an event loop runs in this thread."""

    async def main() -> T:
        return await work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, main()).result()


def _receiving(method: str) -> Callable[[], Awaitable[Message]]:
    """Return a `receive` with an empty body or a handshake, and then the end of the connection."""
    if method == WEBSOCKET:
        incoming: list[Message] = [{"type": "websocket.connect"}]
        end: Message = {"type": "websocket.disconnect", "code": 1006}
    else:
        incoming, end = [{"type": "http.request", "body": b"", "more_body": False}], {"type": "http.disconnect"}

    async def receive() -> Message:
        return incoming.pop() if incoming else end

    return receive


def _sending(answer: Answer) -> Callable[[Message], Awaitable[None]]:
    async def send(message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            answer.status = message["status"]
        elif kind == "websocket.accept":
            answer.status = ACCEPTED
        elif kind == "websocket.close" and answer.status is None:
            answer.status = message.get("code", 1000)

    return send
