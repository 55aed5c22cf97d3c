"""A block of code that ends with the token of its caller, as `asyncio.timeout` ends one with its time."""

import asyncio
import logging
from typing import Any

from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access._requests.open_streams import LoopStreams, OpenStream, Validity
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, ConfigurationError, TokenRevoked

logger = logging.getLogger("fastapi_cloudflare_access")

_OUTLIVES = "cf-access cannot end a stream, which outlives its token: the task that entered its block has finished"


class StreamBlock(OpenStream):
    """A block that runs in the current task, and is cancelled when its stream ends.

    It cancels the task and recognises this cancellation as `asyncio.Timeout` does. Entering and leaving a `Timeout`
    costs 2 µs more, and every request behind a guard that ends streams would pay it.

    Attributes:
        authenticator: The authenticator that verified the caller.
        validity: The caller, and the time of the end.
        error: Why the stream ended; None as long as it has not.
        is_open: Whether the block was entered and not left.
        open_streams: The streams of the event loop of the block; None before it is entered.
        was_cancelled: Whether the task was cancelled by this block.
    """

    __slots__ = (
        "_cancellation",
        "_cancelling",
        "_task",
        "authenticator",
        "error",
        "is_open",
        "open_streams",
        "validity",
        "was_cancelled",
    )

    _task: "asyncio.Task[Any]"
    _cancelling: int  # cancellations of the task that were under way when it entered

    def __init__(self, authenticator: Authenticator[Any], validity: Validity) -> None:
        """Prepare the block; nothing is timed before it is entered."""
        self.authenticator = authenticator
        self.validity = validity
        self.error: AccessError | None = None
        self.is_open = self.was_cancelled = False
        self.open_streams: LoopStreams | None = None
        self._cancellation: asyncio.Handle | None = None

    @property
    def ends_at(self) -> float:
        """The wall time of the end, in seconds since 1970."""
        validity = self.validity
        if validity.ends_at is None:
            validity.ends_at = self.authenticator.verifier.end_of(validity.newest)
        return validity.ends_at

    def enter(self) -> None:
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
        self._task, self._cancelling = task, task.cancelling()
        authenticator = self.authenticator
        self.open_streams = authenticator.open_streams.of_running_loop(authenticator.verifier.keys.clock)
        self.open_streams.add(self, timed=self.has_begun)
        self.is_open = True
        if authenticator.verifier.is_revoked(self.validity.newest):  # since the request was accepted
            self.open_streams.end_matching(lambda _: True, TokenRevoked("the token was revoked"), of=self.validity)

    @property
    def has_begun(self) -> bool:
        """Whether there is something to end when the block is entered."""
        return True

    def leave(self, kind: type[BaseException] | None) -> bool:
        """Stop timing the stream; return whether an exception of this type is the cancellation that ended it.

        Raises:
            ConfigurationError: The block was not entered.
        """
        if self.open_streams is None:
            raise ConfigurationError("a lease was left without being entered: write `async with`")
        self.is_open = False
        self.open_streams.discard(self)
        if self._cancellation is None:
            return False
        self._cancellation.cancel()
        is_alone = self.was_cancelled and self._task.uncancel() <= self._cancelling
        return is_alone and kind is not None and issubclass(kind, asyncio.CancelledError)

    def end(self, error: AccessError) -> bool:
        """End the stream for this reason; return whether there was something to end."""
        self.error = error
        self.cancel()
        return True

    def cancel(self) -> None:
        """Cancel the task of the block with the next iteration of the event loop, since it may be the one that runs.

        A generator can be read by one task after another. If the task that entered the block has finished, the task of
        the request is cancelled instead.
        """
        self._cancellation = self._task.get_loop().call_soon(self._cancel)
        if self._task.done():
            reference = (self.validity.outer or self.validity).task
            owner = None if reference is None else reference()
            if owner is None or not owner.cancel():
                log(logger, logging.ERROR, _OUTLIVES)

    def _cancel(self) -> None:
        self.was_cancelled = True
        self._task.cancel()


def checked_validity(authenticator: Authenticator[Any], caller: object) -> tuple[Authenticator[Any], Validity]:
    """Return the validity of the caller of a stream, and the authenticator that verified the caller.

    Raises:
        ConfigurationError: The caller is None, no claims, or was not verified in the current context.
    """
    found = None if caller is None else authenticator.validity_of(caller)
    if found is None:
        raise ConfigurationError(_why_not_verified(caller))
    return found


def _why_not_verified(caller: object) -> str:
    if caller is None:
        return (
            "access.while_valid was given None, which access.optional returns without a token: "
            "open the stream only for a caller"
        )
    if not isinstance(caller, UserClaims | ServiceClaims):
        return f"access.while_valid was given {_shown(caller)}: pass the claims that a dependency of access returned"
    return (
        "access.while_valid was given claims that this object did not verify for this connection: pass the claims "
        "that its own dependency returned, and in tests use override(access, caller)"
    )


def _shown(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # no asyncio event loop runs
        return None
