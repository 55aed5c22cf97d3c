"""The ports: the interfaces that an app can implement, each a Protocol with a working default.

An implementation is a class or a function of the same shape; it needs no base class.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from fastapi_cloudflare_access.events import AccessEvent


class Clock(Protocol):
    """The source of time; the default reads the machine's clocks."""

    def now(self) -> float:
        """Return the wall clock's time, in seconds since 1970 (for claims)."""
        ...

    def monotonic(self) -> float:
        """Return the seconds of a clock that is never set (for ages, back-off and deadlines)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


@dataclass(frozen=True, slots=True)
class FetchResponse:
    """The response to a fetch, before its body is read.

    Attributes:
        status: The HTTP status code.
        headers: The response headers, names in lower case.
        body: The undecoded body, in pieces of any size.
    """

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]


class Fetch(Protocol):
    """A function that fetches the certs document, and identities where they are asked for; the default uses httpx.

    Send the headers as they are: those of a fetch for an identity contain the user's token, and without it every user
    seems to be logged out. Never log them.

    The callers bound time and size. An implementation must verify TLS, must not follow redirects, must not decode
    the body, and must end when it is cancelled.
    """

    def __call__(self, url: str, *, headers: Mapping[str, str]) -> AbstractAsyncContextManager[FetchResponse]:
        """Send a GET request; the context closes the connection."""
        ...


class Listener(Protocol):
    """A function that receives every event.

    It is called on the event loop and must be quick. What it raises is logged, and changes no response.
    """

    def __call__(self, event: AccessEvent, /) -> object:
        """Receive one event."""
        ...
