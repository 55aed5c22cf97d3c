"""The events that `listeners` receive, as they happen.

```
AccessEvent
├── RequestAccepted    a request was accepted
├── RequestRejected     a request was refused
└── KeyEvent           something happened to the keys
    ├── KeysRefreshed          a fetch brought a usable document, or 304
    ├── KeysRefreshFailed      it did not; the keys stay
    ├── KeyAdded           a key is used from now on
    ├── KeyUnpublished         a key is no longer published; it goes once that is confirmed
    ├── KeyRemoved         a key is used no more
    ├── JwkIgnored         an entry of the document cannot be used
    ├── KeyFetchLimited        an unknown key cannot be looked for now
    ├── KeysStale          the keys are older than `degraded_after`
    └── RefreshTaskCrashed      the refreshing task died; it is started again
```

Listeners are called in the event loop and must be quick; what they raise is logged and goes no further.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessEvent:
    """The root of the events.

    Attributes:
        name: What happened, `snake_case`, for metrics.
        at: When, in seconds since 1970.
    """

    name: ClassVar[str] = "access_event"
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAccepted(AccessEvent):
    """The token of a request, a WebSocket handshake or a call of `verify` was accepted.

    It is emitted once per request; a dependency may still refuse the caller with 403.

    Attributes:
        caller: `user` or `service`.
        token_digest: The first 12 hexadecimal digits of the token's SHA-256.
    """

    name = "request_accepted"
    caller: Literal["user", "service"]
    token_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRejected(AccessEvent):
    """A request, a WebSocket handshake or a call of `verify` was refused.

    Attributes:
        reason: The reason code of the error.
        token_digest: The first 12 hexadecimal digits of the token's SHA-256; None if the request has no single token.
        unverified: Whether the reason comes from claims whose signature was not verified, since the key is unknown.
        optional: Whether `access.optional` goes on without a caller: the token was an old cookie.
    """

    name = "request_rejected"
    reason: str
    token_digest: str | None
    unverified: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvent(AccessEvent):
    """The root of the events of the key source."""

    name = "key_event"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRefreshed(KeyEvent):
    """A fetch brought a usable document, or 304.

    Attributes:
        kids: How many keys are used now.
        generation: The number of this set of keys.
        seconds: How long the fetch took.
        modified: False for 304.
    """

    name = "keys_refreshed"
    kids: int
    generation: int
    seconds: float
    modified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRefreshFailed(KeyEvent):
    """A fetch brought nothing that can be used; the keys stay as they are.

    Attributes:
        reason: `fetch_failed` or `parse_failed`.
        cause: Why, in words.
        consecutive_failures: How many fetches failed in a row.
        retry_in: Until the next try, in seconds.
    """

    name = "keys_refresh_failed"
    reason: Literal["fetch_failed", "parse_failed"]
    cause: str
    consecutive_failures: int
    retry_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdded(KeyEvent):
    """A key is used from now on.

    Attributes:
        kid: The first 16 characters of its id.
    """

    name = "key_added"
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUnpublished(KeyEvent):
    """A key is no longer published; it is used until a second fetch confirms that.

    Attributes:
        kid: The first 16 characters of its id.
    """

    name = "key_unpublished"
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRemoved(KeyEvent):
    """A key is used no more.

    Attributes:
        kid: The first 16 characters of its id.
    """

    name = "key_removed"
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JwkIgnored(KeyEvent):
    """An entry of the document cannot be used.

    Attributes:
        reason: Why.
    """

    name = "jwk_ignored"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFetchLimited(KeyEvent):
    """An unknown key cannot be looked for now; the request got 503.

    Attributes:
        reason: `bucket` (too many were looked for), `back_off` (fetches fail) or `waiters` (too many requests wait).
        retry_after: When a fetch is allowed again, in seconds.
    """

    name = "key_fetch_limited"
    reason: Literal["bucket", "back_off", "waiters"]
    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysStale(KeyEvent):
    """The keys are older than `degraded_after`; told once until a fetch succeeds.

    Attributes:
        age: Seconds since the last good fetch.
    """

    name = "keys_stale"
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTaskCrashed(KeyEvent):
    """The refreshing task died; it is started again.

    Attributes:
        cause: The type of the exception.
    """

    name = "refresh_task_crashed"
    cause: str
