"""The protocol of a backend, a backend for an app in this process, and one for a missing app."""

import asyncio
import logging
from contextlib import suppress
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cloudflare_access.local.pages import message

logger = logging.getLogger("fastapi_cloudflare_access.local")

START_TIMEOUT = 60.0
"""Seconds for the startup of an app's lifespan."""
STOP_TIMEOUT = 5.0
"""Seconds for its shutdown."""


class Backend(Protocol):
    """The ASGI app that receives the requests of the edge."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

    async def start(self) -> None:
        """Start; the edge calls this before it listens."""

    async def stop(self) -> None:
        """Stop."""


class InProcessApp:
    """An ASGI app in this process.

    Its lifespan starts when the edge listens, because the app fetches its keys from the edge. Requests wait for it.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Store the app, without starting it."""
        self.app = app
        self.failure: str | None = None
        self._state: dict[str, Any] = {}
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the lifespan in a task of its own."""
        self._incoming.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.create_task(self._run_lifespan())

    async def wait_started(self) -> None:
        """Wait until the lifespan has started.

        Raises:
            RuntimeError: The lifespan failed.
        """
        async with asyncio.timeout(START_TIMEOUT):
            await self._started.wait()
        if self.failure is not None:
            raise RuntimeError(self.failure)

    async def stop(self) -> None:
        """Stop the lifespan, and cancel it after `STOP_TIMEOUT`."""
        if self._task is None:
            return
        self._incoming.put_nowait({"type": "lifespan.shutdown"})
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT):
                await self._stopped.wait()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the request to the app."""
        await self._started.wait()
        if self.failure is not None:
            await message("The app did not start", self.failure, status=502)(scope, receive, send)
            return
        await self.app({**scope, "state": self._state.copy()}, receive, send)

    async def _run_lifespan(self) -> None:
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self.app(scope, self._incoming.get, self._handle_event)
        except Exception as problem:
            if self._started.is_set():
                if self.failure is None:
                    logger.exception("the app's lifespan ended with an error")
            else:
                # An app without lifespan support raises too (ASGI, Lifespan Protocol).
                logger.info("the app has no lifespan: %s", type(problem).__name__)
        finally:
            self._started.set()
            self._stopped.set()

    async def _handle_event(self, event: Message) -> None:
        if event["type"] == "lifespan.startup.failed":
            logger.error("the app did not start:\n%s", event.get("message", ""))
            self.failure = "The app's lifespan failed; read the error in the terminal."
        if event["type"] in ("lifespan.startup.complete", "lifespan.startup.failed"):
            self._started.set()
        else:
            self._stopped.set()


class _Page:
    """A backend that sends an error page, and nothing else."""

    title: str
    text: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the page."""
        await message(self.title, self.text, status=502)(scope, receive, send)

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""


class FailedApp(_Page):
    """The backend of an app that cannot be imported; the next reload starts a new process."""

    title = "The app did not start"
    text = "It cannot be imported; read the error in the terminal, and correct the file."


class NoBackend(_Page):
    """The backend of an app that is not set yet."""

    title = "This app has no backend"
    text = "Name an app or --upstream on the command line, or set the app's upstream in access.toml."
