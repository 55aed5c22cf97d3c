"""The ports: the interfaces that an app can implement, each a Protocol with a working default.

An implementation is a class or a function of the same shape; it needs no base class.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from fastapi_cloudflare_access.events import AccessEvent

Secret: TypeAlias = str | bytes | Sequence[str | bytes]
"""The secret of a store, of at least 32 bytes. In a list the first one signs, and records of each are accepted."""


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


class SnapshotStore(Protocol):
    """A store through which the workers of a fleet share keys, such as `RedisStore`.

    It carries bytes. The package signs each snapshot with `secret`. It checks the signature, the team and the age of
    each snapshot that it loads. It limits the time of each call, and cancels a call that takes longer. If a call
    raises, the package counts and logs it, and the worker goes on alone.

    An implementation must not bind anything to an event loop or to a process at construction.
    """

    @property
    def secret(self) -> Secret:
        """The secret that signs the snapshots, the same in every worker."""
        ...

    async def load(self, team: str) -> bytes | None:
        """Return the snapshot of a team, or None; read at most `MAX_SNAPSHOT` + 1 bytes.

        Args:
            team: The name of the team, of lower-case letters, digits, dots and hyphens.
        """
        ...

    async def save(self, team: str, snapshot: bytes) -> None:
        """Replace the snapshot of a team, in one step."""

    def lock(self, team: str, *, seconds: float) -> AbstractAsyncContextManager[bool]:
        """Lock a team without waiting; the value of the context is False if another worker holds the lock.

        The lock ends with the context. If the worker dies, it ends by itself after so many seconds. The context may be
        left in another task than the one that entered it.
        """
        ...


MAX_SNAPSHOT = 68 * 1024
"""Number of bytes that a signed snapshot has at most."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some records of a log, oldest first.

    Attributes:
        records: The records, as they were added.
        position: Position after the last one, to go on from; None at the beginning.
        is_end: Whether the log has no further record now.
        has_gap: Whether the record before the asked position is gone, so that others may be gone too.
        epoch: A text that differs after a restart or a fail-over of the store; empty if a log is never lost while the
            process runs.
    """

    records: Sequence[bytes]
    position: str | None
    is_end: bool
    has_gap: bool = False
    epoch: str = ""


class RevocationStore(Protocol):
    """A log of revocations for each team, which the workers of a fleet share, such as `RedisStore`.

    It carries bytes. The package signs each record with `secret`, and checks the signature and the team of each record
    that it reads. It limits the time of each call, and cancels a call that takes longer. If a call raises, the package
    logs it, and `revocations_unavailable` decides what holds.

    An implementation must not bind anything to an event loop or to a process at construction.
    """

    @property
    def secret(self) -> Secret:
        """The secret that signs the records, the same in every worker."""
        ...

    async def time(self) -> float:
        """Return the time of the store, in seconds since 1970; it decides which tokens a log-out refuses."""
        ...

    async def append(self, team: str, records: Sequence[bytes], *, keep: float) -> None:
        """Add records to the log of a team.

        Args:
            team: The name of the team, of lower-case letters, digits, dots and hyphens.
            records: The records.
            keep: Seconds after which a record may be removed, by the clock of the store.
        """

    def read(self, team: str, *, after: str | None) -> AsyncGenerator[LogPage]:
        """Yield pages of the log of a team, and then each new record at once, until the generator is closed.

        While there is none, yield an empty page at least once a second, so that the worker knows that it can read.

        Args:
            team: The name of the team.
            after: Position to go on from; None for the beginning.
        """
        ...


class Telemetry(Listener, Protocol):
    """A listener that measures: it also receives each verification, and can read the state of the object.

    A listener whose class has these methods is one. `CloudflareAccess` calls `record_verification` instead of emitting
    `RequestAccepted` to it, since an event for each request costs more than a number.
    """

    def record_verification(
        self,
        seconds: float,
        caller: Literal["user", "service"] | None,
        reason: str | None,
        is_cached: bool,  # noqa: FBT001 - positional, since it is called for each request
        /,
    ) -> object:
        """Receive the result of a verification, on the event loop; it must be quick.

        Args:
            seconds: Duration of the verification; waiting for keys and asking get-identity are included.
            caller: The type of the caller; None if the token was rejected.
            reason: The reason code of the error; None if the token was accepted.
            is_cached: Whether the result comes from the token cache.
        """
        ...

    def watch(self, access: Any, /) -> object:
        """Receive the `CloudflareAccess` object, once it is constructed: its `keys.health()` and `open_streams`.

        Keep only a weak reference.
        """
        ...
