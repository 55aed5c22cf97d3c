"""The response or the WebSocket of a whole ASGI app, which ends with the token of its caller."""

import asyncio
from abc import abstractmethod
from contextlib import suppress
from typing import Any, ClassVar, cast

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from fastapi_cloudflare_access._clock import run_with_timeout
from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access._requests.open_streams import Validity
from fastapi_cloudflare_access._requests.responses import close_code
from fastapi_cloudflare_access._requests.stream_block import StreamBlock
from fastapi_cloudflare_access.errors import AccessError, TokenExpired

GRACE = 0.25
"""Seconds that a cancelled app has to return before its connection is ended without it."""
CLOSE_TIMEOUT = 0.5
"""Seconds for the last message to a client that may not read."""

_BODY = ("http.response.body", "http.response.zerocopysend")
_FOLLOWING = (OSError, ClientDisconnect, WebSocketDisconnect)
"""The exceptions of an app whose client is gone."""


class _Ended(OSError):
    """The error for an app that sends after the end: the one for a client that is gone."""


class GuardedStream(StreamBlock):
    """An ASGI app that runs until its response or WebSocket ends with the token."""

    __slots__ = ("_closer", "_is_closing", "_receive", "_send", "can_end")

    begins_at_once: ClassVar[bool]
    """Whether there is something to end before the app has sent anything."""
    disconnect: ClassVar[Message]
    """The message that the app receives after the end."""

    def __init__(self, authenticator: Authenticator[Any], validity: Validity, receive: Receive, send: Send) -> None:
        """Prepare the run of an app."""
        super().__init__(authenticator, validity)
        self.can_end = self.begins_at_once
        self._receive, self._send = receive, send
        self._closer: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def has_begun(self) -> bool:
        """Whether there is something to end when the block is entered."""
        return self.can_end

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Run the app; return when it has returned, or has been cancelled and the connection has been ended."""
        self.enter()
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:
            ended = self.leave(type(error))
            if not ended and not isinstance(error, Exception):  # cancelled from elsewhere: the server is in charge
                self._stop_closer()
                raise
            await self._finish()
            if not ended and not (self._closer and _follows(error)):
                raise
        else:
            self.leave(None)
            await self._finish()

    async def receive(self) -> Message:
        """Return the next message to the app, or the disconnect after the end."""
        if self._closer is not None:
            return self.disconnect
        message = await self._receive()
        self.note_received(message)
        return message

    async def send(self, message: Message) -> None:
        """Pass a message of the app on, unless the stream has ended.

        Raises:
            OSError: The stream has ended.
        """
        if self._closer is not None:
            raise _Ended("the stream has ended with the token of its caller")
        await self._send(message)
        had_begun = self.can_end
        self.note_sent(message)
        if self.can_end and not had_begun and self.open_streams is not None and self.error is None:
            if self.ends_at <= self.open_streams.clock.now():
                self.error = TokenExpired("the token has expired")
            else:
                self.open_streams.time(self)
        if self.error is not None and self.open_streams is not None and self.can_end:
            self._end_now()
            self.open_streams.report(self.validity, self.error)
            raise _Ended("the token of the caller ended before the stream began")

    def end(self, error: AccessError) -> bool:
        """End the stream for this reason, now or as soon as it begins; return whether it was ended now."""
        self.error = error
        if self.can_end:
            self._end_now()
        return self.can_end

    def _end_now(self) -> None:
        self.cancel()
        self._closer = asyncio.create_task(self._close_late())

    async def _close_late(self) -> None:
        """End the connection of an app that does not return, such as one that waits for a thread."""
        await self.authenticator.verifier.keys.clock.sleep(GRACE)
        await self._close()

    async def _finish(self) -> None:
        """End the connection, unless that has been done or the stream has not ended."""
        if self._closer is None:
            return
        if self._is_closing:
            await self._closer
        else:
            self._stop_closer()
            await self._close()

    def _stop_closer(self) -> None:
        if self._closer is not None:
            self._closer.cancel()

    async def _close(self) -> None:
        """Send the last message; a client that does not read gets none, and the server closes its connection.

        Any other failure is the server's: it closes a connection whose app raises.
        """
        self._is_closing = True
        clock = self.authenticator.verifier.keys.clock
        with suppress(OSError):  # also a TimeoutError, or a client that is gone
            await run_with_timeout(clock, self._send_last(), timeout=CLOSE_TIMEOUT)

    async def _send_last(self) -> None:
        await self._send(self.last_message())

    # what differs between a response and a WebSocket

    @abstractmethod
    def note_received(self, message: Message) -> None:
        """Read what the client sent."""

    @abstractmethod
    def note_sent(self, message: Message) -> None:
        """Read what the app sent."""

    @abstractmethod
    def last_message(self) -> Message:
        """Return the message that ends the connection."""


class GuardedResponse(GuardedStream):
    """An HTTP response. It is a stream, and ends early, if it has no `Content-Length`."""

    __slots__ = ()

    begins_at_once = False
    disconnect: ClassVar[Message] = {"type": "http.disconnect"}

    def note_received(self, message: Message) -> None:
        """Read nothing: a response to a client that has gone ends as any other."""

    def note_sent(self, message: Message) -> None:
        """Read whether the response begins as a stream, or is complete."""
        if message["type"] == "http.response.start":
            self.can_end = not any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
        elif message["type"] in _BODY:
            self.can_end = self.can_end and message.get("more_body", False)
        elif message["type"] == "http.response.pathsend":
            self.can_end = False

    def last_message(self) -> Message:
        """Return the end of the body."""
        return {"type": "http.response.body", "body": b"", "more_body": False}


class GuardedWebSocket(GuardedStream):
    """A WebSocket, from its handshake on."""

    __slots__ = ()

    begins_at_once = True
    disconnect: ClassVar[Message] = {"type": "websocket.disconnect", "code": 1006}

    def note_received(self, message: Message) -> None:
        """Read whether the client has gone."""
        self.can_end = self.can_end and message["type"] != "websocket.disconnect"

    def note_sent(self, message: Message) -> None:
        """Read whether the app has closed or refused."""
        self.can_end = self.can_end and message["type"] in ("websocket.accept", "websocket.send")

    def last_message(self) -> Message:
        """Return the close with the reason code."""
        error = self.error or AccessError()
        return {"type": "websocket.close", "code": close_code(error), "reason": error.reason}


def _follows(error: BaseException) -> bool:
    """Check whether an app raised this only because its client is gone."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(_FOLLOWING)[1] is None
    return isinstance(error, _FOLLOWING)
