"""A block of code that ends with the token of its caller, as `asyncio.timeout` ends one with its time."""

import asyncio
import logging
from types import TracebackType
from typing import Any

from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access._requests.open_streams import LoopStreams, OpenStream, Validity
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, ConfigurationError

logger = logging.getLogger("fastapi_cloudflare_access")


class StreamBlock(OpenStream):
    """A block that runs in the current task, and is cancelled when its stream ends.

    Attributes:
        authenticator: The authenticator that verified the caller.
        error: Why the stream ended; None as long as it has not.
        is_open: Whether the block was entered and not left.
        open_streams: The streams of the event loop of the block; None before it is entered.
    """

    __slots__ = ("_task", "_timeout", "authenticator", "error", "is_open", "open_streams")

    def __init__(self, authenticator: Authenticator[Any], validity: Validity) -> None:
        """Prepare the block; nothing is timed before it is entered."""
        super().__init__(validity)
        self.authenticator = authenticator
        self.error: AccessError | None = None
        self.is_open = False
        self._timeout = asyncio.Timeout(None)  # asyncio.timeout(None) would need an event loop here
        self.open_streams: LoopStreams | None = None
        self._task: asyncio.Task[Any] | None = None

    async def enter(self) -> None:
        """Begin to time the stream.

        Raises:
            ConfigurationError: The block was entered before, or no asyncio task runs.
        """
        if self.open_streams is not None:
            raise ConfigurationError("a lease is entered once: call access.while_valid(caller) again for another block")
        if (task := _current_task()) is None:
            raise ConfigurationError(
                "access.while_valid ends an asyncio task, and none runs here: write it in an async handler"
            )
        verifier, validity = self.authenticator.verifier, self.validity
        validity.ends_at = verifier.end_of(validity.newest)
        await self._timeout.__aenter__()
        self._task = task
        self.open_streams = self.authenticator.open_streams.of_running_loop(verifier.keys.clock)
        self.open_streams.add(self, timed=self.has_begun)
        self.is_open = True

    @property
    def has_begun(self) -> bool:
        """Whether there is something to end when the block is entered."""
        return True

    async def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Stop timing the stream; return whether the exception is the cancellation that ended it."""
        if self.open_streams is None:
            raise ConfigurationError("a lease was left without being entered: write `async with`")
        self.is_open = False
        self.open_streams.discard(self)
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            return True
        return False

    def end(self, error: AccessError) -> bool:
        """End the stream for this reason; return whether there was something to end."""
        self.error = error
        self.cancel()
        return True

    def cancel(self) -> None:
        """Cancel the task of the block.

        A generator can be read by one task after another. If the task that entered the block has finished, the task of
        the request is cancelled instead.
        """
        self._timeout.reschedule(0)  # in the past
        if self._task is not None and self._task.done():
            reference = (self.validity.outer or self.validity).task
            owner = None if reference is None else reference()
            if owner is None or not owner.cancel():
                log(logger, logging.ERROR, "a stream outlives its token: the task that entered its block has finished")

    @property
    def was_cancelled(self) -> bool:
        """Whether the task was cancelled by this block."""
        return self._timeout.expired()


def checked_validity(authenticator: Authenticator[Any], caller: object) -> tuple[Authenticator[Any], Validity]:
    """Return the validity of the caller of a stream, and the authenticator that verified the caller.

    Raises:
        ConfigurationError: The caller is None, no claims, or was not verified in the current context.
    """
    if caller is None:
        raise ConfigurationError(
            "access.while_valid was given None, which access.optional returns without a token: "
            "open the stream only for a caller"
        )
    if not isinstance(caller, UserClaims | ServiceClaims):
        raise ConfigurationError(
            f"access.while_valid was given {_shown(caller)}: pass the claims that a dependency of access returned"
        )
    if (found := authenticator.validity_of(caller)) is None:
        raise ConfigurationError(
            "access.while_valid was given claims that this object did not verify for this connection: pass the claims "
            "that its own dependency returned, and in tests use override(access, caller)"
        )
    return found


def _shown(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # no asyncio event loop runs
        return None
