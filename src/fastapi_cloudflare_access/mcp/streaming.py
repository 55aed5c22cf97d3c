"""Event streams that end with the token of their caller."""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.claims import Claims

POLL = 1.0
"""Seconds after which a stream's timer reads the wall clock again."""

_EVENT_STREAM = b"text/event-stream"


async def run_while_valid(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, access: CloudflareAccess[Any], caller: Claims
) -> None:
    """Run an app for one request; end an event stream that it sends when the token of the caller has expired."""
    stream = _Stream(send, access, caller)
    try:
        await app(scope, receive, stream.send)
    except asyncio.CancelledError:
        if not stream.stop():
            raise
    finally:
        stream.stop()
    await stream.finish()


class _Stream:
    """The response of one request; a timer begins with the start of an event stream."""

    # Values of the class, since most responses are no event streams, and each store would cost them time.
    _timer: "asyncio.Task[None] | None" = None
    _other_cancellations: int | None = None
    _is_open = _has_ended = False

    def __init__(self, send: Send, access: CloudflareAccess[Any], caller: Claims) -> None:
        self._send, self._access, self._caller = send, access, caller
        self._task: Any = asyncio.current_task()

    async def send(self, message: Message) -> None:
        """Send a message, unless the stream has ended."""
        if self._has_ended:
            return
        if message["type"] == "http.response.start":
            if _is_event_stream(message):
                self._is_open = True
                self._timer = asyncio.create_task(self._run(), name="cloudflare-access-mcp-stream")
        elif self._is_open and not message.get("more_body", False):
            self._is_open = False
        await self._send(message)

    async def _run(self) -> None:
        verifier = self._access._authenticator.verifier  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        clock, ends_at = verifier.keys.clock, verifier.end_of(self._caller)
        while (left := ends_at - clock.now()) > 0:
            await clock.sleep(min(left, POLL))
        self._has_ended = True
        self._task.cancel()

    def stop(self) -> bool:
        """Stop the timer; return whether it alone cancelled the request."""
        if self._timer is not None:
            self._timer.cancel()
        if self._has_ended and self._other_cancellations is None:
            self._other_cancellations = self._task.uncancel()
        return self._other_cancellations == 0

    async def finish(self) -> None:
        """Send the end of a stream that the timer ended."""
        if self._has_ended and self._is_open:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _is_event_stream(message: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(_EVENT_STREAM)
        for name, value in message.get("headers", ())
    )
