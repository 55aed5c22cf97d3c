"""The open streams of one object, and one timer for each event loop that ends them with their tokens."""

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any, Literal, TypeAlias
from weakref import ref

from fastapi_cloudflare_access._logging import emit, log
from fastapi_cloudflare_access.errors import AccessError, TemporarilyUnavailable, TokenExpired, TokenRevoked
from fastapi_cloudflare_access.events import StreamEnded
from fastapi_cloudflare_access.protocols import Clock, Listener

WALL_CLOCK_POLL = 1.0
"""Seconds after which the timer reads the wall clock again: the monotonic one stops while a machine sleeps."""
TIMER_TASK = "cloudflare-access-streams"
"""Name of the timer's asyncio task."""

logger = logging.getLogger("fastapi_cloudflare_access")

Check: TypeAlias = Callable[[Any, Any], Awaitable[AccessError | None]]
"""A policy: it returns why it refuses these claims of this connection, or None."""


class Validity:
    """The verified caller of a connection, and the time until which its token allows streams.

    Attributes:
        caller: The claims that authentication returned.
        newest: The claims of the newest token of the connection.
        is_websocket: Whether the connection is a WebSocket.
        ends_at: Wall time at which the streams of the connection end; None before there is one.
        checks: The policies that admitted the caller.
        outer: The validity of the connection, if this one comes from a call of `verify` on it.
        task: A weak reference to the task that authenticated, since that task's context keeps this object.
    """

    __slots__ = ("caller", "checks", "ends_at", "is_websocket", "newest", "outer", "task")

    def __init__(self, caller: Any, is_websocket: bool, outer: "Validity | None" = None) -> None:  # noqa: FBT001 - positional, since one is made for each request
        """Begin with the claims that a token gave."""
        self.caller = self.newest = caller
        self.is_websocket = is_websocket
        self.outer = outer
        self.ends_at: float | None = None
        self.checks: tuple[Check, ...] = ()
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no asyncio event loop runs, as in a server on Trio
            task = None
        self.task = None if task is None else ref(task)


class OpenStream(ABC):
    """A stream that has to end with its token."""

    __slots__ = ()

    validity: Validity
    """The caller, and the time of the end."""

    @property
    @abstractmethod
    def ends_at(self) -> float:
        """The wall time of the end, in seconds since 1970."""

    @abstractmethod
    def end(self, error: AccessError) -> bool:
        """End the stream for this reason; return whether there was something to end."""


class LoopStreams:
    """The open streams of one event loop, and its timer, which runs only while there are any."""

    def __init__(self, clock: Clock, listeners: Sequence[Listener]) -> None:
        """Begin without a stream; `clock` is the clock of the timer."""
        self.clock = clock
        self._listeners = listeners
        self._streams: set[OpenStream] = set()
        self._timer: asyncio.Task[None] | None = None
        self._earliest = self._wakes_at = float("inf")

    def __len__(self) -> int:
        return len(self._streams)

    def count(self) -> int:
        """Return the number of streams; nested blocks of a connection are one. Any thread may call it."""
        return len({stream.validity for stream in [*self._streams]})

    def add(self, stream: OpenStream, *, timed: bool = True) -> None:
        """Add a stream of the running event loop.

        Args:
            stream: The stream.
            timed: Whether it has begun; if not, call `time` as soon as it begins.
        """
        self._streams.add(stream)
        if timed:
            self.time(stream)

    def time(self, stream: OpenStream) -> None:
        """Time a stream that has been added; if it ends before the timer wakes, start the timer again."""
        self._earliest = min(self._earliest, stream.ends_at)
        if self._timer is None or self._earliest < self._wakes_at:
            self._start_timer()

    def discard(self, stream: OpenStream) -> None:
        """Remove a stream; without any left, stop the timer."""
        self._streams.discard(stream)
        if self._timer is not None and not self._streams:
            self._stop_timer()

    def end_matching(self, predicate: Callable[[Any], bool], error: AccessError, *, of: Validity | None = None) -> None:
        """End the streams for whose newest claims the predicate is true, by default of all connections."""
        streams = [each for each in self._streams if of is None or each.validity is of]
        self._end([each for each in streams if predicate(each.validity.newest)], error)
        if not self._streams:
            self._stop_timer()

    def _start_timer(self) -> None:
        self._stop_timer()
        # An empty context, so that the timer keeps nothing of the request that happens to start it.
        self._timer = asyncio.create_task(self._run(), name=TIMER_TASK, context=Context())
        self._timer.add_done_callback(self._timer_ended)
        self._wakes_at = self.clock.now()

    def _stop_timer(self) -> None:
        timer, self._timer, self._earliest = self._timer, None, self._earliest if self._streams else float("inf")
        if timer is not None:
            timer.cancel()

    def _timer_ended(self, timer: "asyncio.Task[None]") -> None:
        """Start the timer again if something else cancelled it: streams must not outlive it."""
        if timer is self._timer:
            self._timer = None
            if self._streams:
                self._start_timer()

    async def _run(self) -> None:
        try:
            while self._streams:
                now = self.clock.now()
                if self._earliest > now:
                    pause = min(self._earliest - now, WALL_CLOCK_POLL)
                    self._wakes_at = now + pause
                    await self.clock.sleep(pause)
                else:
                    self._end_expired(now)
        except Exception:  # noqa: BLE001 - a clock may raise anything; without a timer no stream may go on
            log(logger, logging.ERROR, "cf-access ends the open streams, since the clock failed", exc_info=True)
            self.end_matching(lambda _: True, TemporarilyUnavailable("the clock of the streams failed"))

    def _end_expired(self, now: float) -> None:
        self._end([each for each in self._streams if each.ends_at <= now], TokenExpired("the token has expired"))
        self._earliest = min((each.ends_at for each in self._streams), default=float("inf"))

    def _end(self, streams: list[OpenStream], error: AccessError) -> None:
        self._streams.difference_update(streams)
        ended = [stream for stream in streams if stream.end(error)]
        for validity in dict.fromkeys(stream.validity for stream in ended):  # nested blocks are one stream
            self.report(validity, error)

    def report(self, validity: Validity, error: AccessError) -> None:
        """Write the log record and emit the event of a stream that was ended."""
        connection: Literal["websocket", "http"] = "websocket" if validity.is_websocket else "http"
        name = "WebSocket" if validity.is_websocket else "stream"
        log(
            logger,
            logging.INFO,
            "cf-access ended a %s: %s (%s)",
            name,
            error.reason,
            error,
            extra={"reason": error.reason},
        )
        if self._listeners:
            event = StreamEnded(
                timestamp=self.clock.now(),
                reason=error.reason,
                connection=connection,
                open_streams=self.count(),
            )
            emit(self._listeners, event, logger)


class OpenStreams:
    """The open streams of one object, on all event loops of the process."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        """Begin without a stream."""
        self._listeners = listeners
        self._pid = os.getpid()
        self._loops: dict[tuple[asyncio.AbstractEventLoop, int], LoopStreams] = {}
        self._latest: tuple[asyncio.AbstractEventLoop, LoopStreams] | None = None

    def of_running_loop(self, clock: Clock) -> LoopStreams:
        """Return the streams of the running event loop on this clock; those of closed loops are removed.

        A process usually has one loop and one clock, so the latest are compared first. A forked process never runs the
        loop of its parent.
        """
        loop, latest = asyncio.get_running_loop(), self._latest
        if latest is not None and latest[0] is loop and latest[1].clock is clock:
            return latest[1]
        found = self._find(loop, clock)
        self._latest = loop, found
        return found

    def _find(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> LoopStreams:
        if self._pid != os.getpid():
            self._pid, self._loops = os.getpid(), {}
        key = loop, id(clock)
        if key not in self._loops:
            for other, streams in list(self._loops.items()):
                if other[0].is_closed() or (other[0] is loop and not streams):
                    self._loops.pop(other, None)
        return self._loops.setdefault(key, LoopStreams(clock, self._listeners))

    def count(self) -> int:
        """Return the number of open streams, on all event loops; nested blocks of a connection are one stream."""
        return sum(streams.count() for streams in list(self._loops.values()))

    def end_streams_of(self, predicate: Callable[[Any], bool], error: AccessError | None = None) -> None:
        """End the streams for whose claims the predicate is true, on every event loop, for a revocation by default.

        It may be called from any thread.
        """
        error = error or TokenRevoked("the token was revoked")
        running = _running_loop()
        for (loop, _), streams in list(self._loops.items()):
            if loop is running:
                streams.end_matching(predicate, error)
            else:
                with suppress(RuntimeError):  # it is closed
                    loop.call_soon_threadsafe(streams.end_matching, predicate, error)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
