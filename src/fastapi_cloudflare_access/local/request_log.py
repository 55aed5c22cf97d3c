"""One line for each request: the time, the host and path, the caller, the policy that decided, and the status."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

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
        self._is_forwarded = False
        self._is_written = False

    def decided(self, policy: Policy | None, caller: str, *, is_forwarded: bool) -> None:
        """Store the decision about the request."""
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

    @contextmanager
    def written(self) -> Generator[None]:
        """Write the line of a request without a response: 500 after an error, else `-`."""
        try:
            yield
        except Exception:
            if not self._is_written:
                self._write(500)
            raise
        finally:
            if not self._is_written:
                self._write("-")

    def _write(self, status: int | str) -> None:
        self._is_written = True
        request = self._request
        logger.info(
            "%s %s%s %s%s %s",
            "WS" if request.is_websocket else request.method,
            request.netloc or "-",
            printable(request.target.partition("?")[0][:MAX_PATH]),
            self._decision,
            "app" if self._is_forwarded else "edge",
            status,
        )


def printable(text: str) -> str:
    """Return the text with control characters and everything outside ASCII escaped."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
