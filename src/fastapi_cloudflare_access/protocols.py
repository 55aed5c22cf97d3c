"""The ports: what the outside gives the package, each a Protocol with a working default.

Write your own by writing a class or a function of the same shape; nothing needs to be inherited.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from fastapi_cloudflare_access.events import AccessEvent


class Clock(Protocol):
    """Where time comes from; the default is the machine's clocks."""

    def now(self) -> float:
        """The wall clock, in seconds since 1970 (for claims)."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that is never set (for ages, back-off and deadlines)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


@dataclass(frozen=True, slots=True)
class FetchResponse:
    """What a fetch brought back, before its body was read.

    Attributes:
        status: The HTTP status code.
        headers: The response headers, names in lower case.
        body: The raw body, in pieces of any size, as it arrives.
    """

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]


class Fetch(Protocol):
    """How the certs document is fetched; the default uses httpx.

    The caller bounds time and size. A fetch of your own must verify TLS, must not follow redirects, must leave the
    body undecoded, and must end when it is cancelled.
    """

    def __call__(self, url: str, *, headers: Mapping[str, str]) -> AbstractAsyncContextManager[FetchResponse]:
        """Send a GET request; the context closes the connection."""
        ...


class Listener(Protocol):
    """A function that receives every event.

    It is called on the event loop and must be quick. What it raises is logged, and changes no answer.
    """

    def __call__(self, event: AccessEvent, /) -> object:
        """Receive one event."""
        ...
