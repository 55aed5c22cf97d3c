"""The requests that are open: who sent them, and how they end when the server stops or a session ends."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Scope

from fastapi_cloudflare_access.local.certs import CLOSE_CONNECTION

GRACE = 0.05
"""Seconds for requests that end on their own when the server stops."""
_RETRY = 0.05
_ROUNDS = 20


@dataclass(eq=False, slots=True)
class OpenRequest:
    """One request or WebSocket that is open.

    Attributes:
        task: Task that answers it.
        close: Function that closes its connection; None if the server has none.
        session: Id of the user's session; empty before the decision, and for other callers.
        is_ending: Whether the edge has cancelled the task.
    """

    task: "asyncio.Task[object]"
    close: Callable[[], None] | None = None
    session: str = ""
    is_ending: bool = False

    def end(self) -> None:
        """Close the connection, and cancel the task."""
        self.is_ending = True
        if self.close is not None:
            self.close()
        self.task.cancel()


class OpenRequests:
    """All open requests of one edge."""

    def __init__(self) -> None:
        """Create an empty set."""
        self._open: set[OpenRequest] = set()

    @contextmanager
    def tracked(self, scope: Scope) -> Generator[OpenRequest]:
        """Track the request of the current task; the cancellation by `end` stays inside the context."""
        task = asyncio.current_task()
        assert task is not None, "requests are answered in tasks"  # noqa: S101 - asyncio guarantees it in a coroutine
        request = OpenRequest(task, scope.get("state", {}).get(CLOSE_CONNECTION))
        self._open.add(request)
        try:
            yield request
        except asyncio.CancelledError:
            if not request.is_ending:
                raise
        finally:
            self._open.discard(request)

    def end_session(self, session: str) -> int:
        """End every open request of a session, and return the number of them."""
        found = [request for request in self._open if session and request.session == session]
        for request in found:
            request.end()
        return len(found)

    async def end_all(self) -> None:
        """Wait `GRACE` seconds, then end what is still open; a handler may need several cancellations."""
        await asyncio.sleep(GRACE)
        for _ in range(_ROUNDS):
            if not self._open:
                return
            for request in self._open:
                request.end()
            await asyncio.sleep(_RETRY)
