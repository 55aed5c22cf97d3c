"""What the package tells about itself: the health of the keys, when asked, and events, as they happen.

```
AccessEvent
├── RequestRefused     a request was refused
└── KeyEvent           something happened to the keys
    ├── Refreshed          a fetch brought a usable document, or 304
    ├── RefreshFailed      it did not; the keys stay
    ├── KeyAdded           a key is used from now on
    ├── KeyMissing         a key is no longer published; it goes once that is confirmed
    ├── KeyRemoved         a key is used no more
    ├── KeySkipped         an entry of the document cannot be used
    ├── RateLimited        an unknown key cannot be looked for now
    ├── KeysStale          the keys are older than `soft_staleness`
    └── RefresherDied      the refreshing task died; it is started again
```

Listeners are called in the event loop and must be quick; what they raise is logged and goes no further.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

State: TypeAlias = Literal["cold", "ok", "degraded", "expired"]
"""How good the keys are.

`cold`: there are none yet. `degraded`: older than `soft_staleness`, still used. `expired`: older than `max_staleness`,
used no longer.
"""


class Health(BaseModel):
    """The state of a key source at one moment. Durations are in seconds.

    Attributes:
        state: `cold`, `ok`, `degraded` or `expired`.
        ready: Whether tokens can be checked: `ok` or `degraded`.
        local: Whether the team is a loopback one.
        age: Since the last good fetch.
        generation: A number that grows whenever the keys change.
        kids: How many keys are used.
        missing: How many of them are no longer published, to be confirmed.
        skipped: How many entries of the last document cannot be used.
        last_error: Why the last fetch failed, in words; None once one succeeded.
        consecutive_failures: How many fetches failed since the last good one.
        next_refresh_in: Until the next fetch is due.
        refresher_alive: Whether the refreshing task runs; without a lifespan requests refresh the keys.
        fetching: Whether a fetch is under way.
        waiting: How many requests wait for one.
        remembered_unknown_keys: How many unknown keys are remembered as looked for.
        fetches: How many fetches were begun, tries again counted.
        fetch_failures: How many brought no document.
        parse_failures: How many brought a document that cannot be used.
        rate_limited: How many requests were told to come back because no fetch was allowed.
        key_absent: How many requests were refused for a key that was looked for.
    """

    model_config = ConfigDict(frozen=True)

    state: State
    ready: bool
    local: bool
    age: float | None
    generation: int
    kids: int
    missing: int
    skipped: int
    last_error: str | None
    consecutive_failures: int
    next_refresh_in: float
    refresher_alive: bool
    fetching: bool
    waiting: int
    remembered_unknown_keys: int
    fetches: int
    fetch_failures: int
    parse_failures: int
    rate_limited: int
    key_absent: int


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
class RequestRefused(AccessEvent):
    """A request or WebSocket handshake was refused.

    Attributes:
        reason: The reason code of the error.
        token_digest: The first 12 hexadecimal digits of the token's SHA-256; None where there is no one token.
    """

    name = "request_refused"
    reason: str
    token_digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvent(AccessEvent):
    """The root of the events of the key source."""

    name = "key_event"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed(KeyEvent):
    """A fetch brought a usable document, or 304.

    Attributes:
        kids: How many keys are used now.
        generation: The number of this set of keys.
        seconds: How long the fetch took.
        modified: False for 304.
    """

    name = "refreshed"
    kids: int
    generation: int
    seconds: float
    modified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshFailed(KeyEvent):
    """A fetch brought nothing that can be used; the keys stay as they are.

    Attributes:
        reason: `fetch_failed` or `parse_failed`.
        cause: Why, in words.
        consecutive_failures: How many fetches failed in a row.
        retry_in: Until the next try, in seconds.
    """

    name = "refresh_failed"
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
class KeyMissing(KeyEvent):
    """A key is no longer published; it is used until a second fetch confirms that.

    Attributes:
        kid: The first 16 characters of its id.
    """

    name = "key_missing"
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
class KeySkipped(KeyEvent):
    """An entry of the document cannot be used.

    Attributes:
        reason: Why.
    """

    name = "key_skipped"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimited(KeyEvent):
    """An unknown key cannot be looked for now; the request got 503.

    Attributes:
        reason: `bucket` (too many were looked for), `back_off` (fetches fail) or `crowd` (too many requests wait).
        retry_after: When a fetch is allowed again, in seconds.
    """

    name = "rate_limited"
    reason: Literal["bucket", "back_off", "crowd"]
    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysStale(KeyEvent):
    """The keys are older than `soft_staleness`; told once until a fetch succeeds.

    Attributes:
        age: Seconds since the last good fetch.
    """

    name = "keys_stale"
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefresherDied(KeyEvent):
    """The refreshing task died; it is started again.

    Attributes:
        cause: The type of the exception.
    """

    name = "refresher_died"
    cause: str


EventListener: TypeAlias = Callable[[AccessEvent], object]
"""What `on_event` takes."""
