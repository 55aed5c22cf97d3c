"""One line for each request: the time, the host and path, the caller, the policy that decided, and the status."""

import logging
import time
from types import TracebackType
from typing import Self

from starlette.types import Message, Send

from fastapi_cloudflare_access.local.config import Policy
from fastapi_cloudflare_access.local.edge_request import EdgeRequest

logger = logging.getLogger("fastapi_cloudflare_access.local.requests")
"""Logger of the lines; a level above INFO turns them off."""

MAX_PATH = 200
"""Most characters of a path in a line."""


class RequestLine:
    """The line of one request, written when its response starts, or when it ends without one."""

    def __init__(self, request: EdgeRequest) -> None:
        """Store the request; the edge adds what it decides."""
        self._request = request
        self._decision = ""
        self._note = ""
        self._is_forwarded = False
        self._is_written = False

    def decided(self, policy: Policy | None, caller: str, *, is_forwarded: bool, note: str = "") -> None:
        """Store the decision about the request, with a note for the reader if it is hard to guess."""
        self._note = f" ({printable(note)})" if note else ""
        name = f' "{policy.name}"' if policy and policy.name else ""
        self._decision = f"{caller or '-'} {policy.decision if policy else 'no policy'}{name} "
        self._is_forwarded = is_forwarded

    def wrap(self, send: Send) -> Send:
        """Return a `send` that writes the line with the first event."""

        async def send_and_log(event: Message) -> None:
            if not self._is_written:
                self._write(event.get("status", 101 if event["type"] == "websocket.accept" else 403))
            await send(event)

        return send_and_log

    def __enter__(self) -> Self:
        """Return the line itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the line of a request without a response: 500 after an error, else `-`."""
        if not self._is_written:
            self._write(500 if isinstance(error, Exception) else "-")

    def _write(self, status: int | str) -> None:
        """Write the line as a record of its own: `logger.info` would search the stack for its caller."""
        self._is_written = True
        request = self._request
        method = "WS" if request.is_websocket else request.method
        path = printable(request.target.partition("?")[0][:MAX_PATH])
        place = "app" if self._is_forwarded else "edge"
        text = f"{method} {request.netloc or '-'}{path} {self._decision}{place} {status}{self._note}"
        logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, text, (), None))


class LineFormatter(logging.Formatter):
    """A format of the time and the text, which formats the time once in a second."""

    _second = -1
    _time = ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        second = int(record.created)
        if second != self._second:
            self._second, self._time = second, time.strftime("%H:%M:%S", time.localtime(second))
        return f"{self._time} {record.getMessage()}"


def printable(text: str) -> str:
    """Return the text with control characters and everything outside ASCII escaped."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
