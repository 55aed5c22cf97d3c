"""The events that `listeners` receive, as they happen.

```
AccessEvent
├── RequestAccepted         a request was accepted
├── RequestRejected         a request was rejected
├── StreamEnded             a WebSocket or a stream was ended with its token
├── FormerTeamDomainSeen    a token carries a former name of the team
├── IdentityFetched         get-identity was asked for a user
├── RevocationAdded         this process added a revocation to the store
├── RevocationsRead         all revocations were read from the store
├── RevocationIgnored       a record of the store is not a valid revocation
├── RevocationsUnreachable  the store of revocations cannot be used
└── KeyEvent                the root of the events of the key source
    ├── KeysRefreshed       a fetch brought a usable document, or 304
    ├── KeysRefreshFailed   a fetch failed; the keys stay
    ├── KeyAdded            a key is in use from now on
    ├── KeyUnpublished      a key is no longer published, and pending removal
    ├── KeyRemoved          a key is no longer in use
    ├── JwkIgnored          an entry of the certs document is unusable
    ├── KeyFetchLimited     a request got 503, since no fetch was allowed for its key
    ├── KeysStale           the keys are older than `degraded_after`
    ├── RefreshTaskCrashed  the refresh task crashed and is restarted
    ├── SnapshotLoaded      keys that another worker fetched are in use
    ├── SnapshotRejected    a snapshot of the store cannot be used
    └── SnapshotStoreFailed the store could not be asked
```

Listeners are called on the event loop and must be quick. What they raise is logged, and changes no response.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

LimitReason: TypeAlias = Literal["bucket", "back_off", "waiters"]
"""The limit that allowed no fetch: `bucket` (too many fetches for unknown keys), `back_off` or `waiters`."""

StoreOperation: TypeAlias = Literal["load", "save", "lock"]
"""An operation of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessEvent:
    """The root of the events.

    Attributes:
        name: The name of the event in `snake_case`, for metrics.
        timestamp: Time of the event, in seconds since 1970.
    """

    name: ClassVar[str] = "access_event"
    timestamp: float


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
    """A request, a WebSocket handshake or a call of `verify` was rejected.

    Attributes:
        reason: The reason code of the error.
        token_digest: The first 12 hexadecimal digits of the token's SHA-256; None if the request has no single token.
        unverified: Whether the reason comes from unverified claims, since the key is unknown.
        optional: Whether the request goes on without a caller, since `access.optional` ignores a rejected cookie.
        method: The HTTP method, `WEBSOCKET` for a handshake; None for a call of `verify`.
        route: The template of the path, such as `/items/{id}`; None before routing, such as at a guard.
        policy: The name of the policy that refused the caller; None if none did.
    """

    name = "request_rejected"
    reason: str
    token_digest: str | None
    unverified: bool = False
    optional: bool = False
    method: str | None = None
    route: str | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded(AccessEvent):
    """A WebSocket or a stream under `access.while_valid` was ended, since its token is no longer valid.

    Attributes:
        reason: The reason code: `token_expired`, `token_revoked`, or `cannot_decide` if the clock failed.
        connection: `websocket` or `http`.
        open_streams: Number of streams that the object still keeps open on this event loop.
    """

    name = "stream_ended"
    reason: str
    connection: Literal["websocket", "http"]
    open_streams: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerTeamDomainSeen(AccessEvent):
    """An accepted token carries a former name of the team; emitted once an hour for each name.

    Attributes:
        issuer: The former team domain.
    """

    name = "former_team_domain_seen"
    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityFetched(AccessEvent):
    """get-identity was asked for the identity of a user, or a limit did not allow it.

    Attributes:
        outcome: `identity`, `no_session`, `failed` or `limited`.
        seconds: Duration of the fetch.
    """

    name = "identity_fetched"
    outcome: Literal["identity", "no_session", "failed", "limited"]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationAdded(AccessEvent):
    """This process added a revocation to the store.

    Attributes:
        action: `log_out`, `block` or `unblock`.
        by: `sub`, `email`, `client_id` or `token`.
    """

    name = "revocation_added"
    action: Literal["log_out", "block", "unblock"]
    by: Literal["sub", "email", "client_id", "token"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationsRead(AccessEvent):
    """All revocations were read from the store: at the start, after the store has lost some, or in between.

    Attributes:
        records: Number of revocations in force.
        written_back: Number of records that the store had lost, and that this process wrote back.
    """

    name = "revocations_read"
    records: int
    written_back: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationIgnored(AccessEvent):
    """A record of the store is not a valid revocation of this team; emitted once a minute for each reason.

    Attributes:
        reason: Why, such as a wrong signature.
    """

    name = "revocation_ignored"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationsUnreachable(AccessEvent):
    """The store of revocations cannot be used; emitted once a minute.

    Attributes:
        cause: Why, in words.
        unavailable: The setting `revocations_unavailable`: with `open` tokens go on to be accepted.
    """

    name = "revocations_unreachable"
    cause: str
    unavailable: Literal["open", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvent(AccessEvent):
    """The root of the events of the key source."""

    name = "key_event"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRefreshed(KeyEvent):
    """A fetch brought a usable document, or 304.

    Attributes:
        keys: Number of keys in use.
        generation: Number that grows whenever the keys change.
        seconds: Duration of the fetch.
        modified: False after a 304.
    """

    name = "keys_refreshed"
    keys: int
    generation: int
    seconds: float
    modified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRefreshFailed(KeyEvent):
    """A fetch failed; the keys stay.

    Attributes:
        reason: `fetch_failed` or `parse_failed`.
        cause: Why, in words.
        consecutive_failures: Number of failed fetches since the last successful one.
        retry_in: Seconds until the next attempt.
        seconds: Duration of the fetch.
    """

    name = "keys_refresh_failed"
    reason: Literal["fetch_failed", "parse_failed"]
    cause: str
    consecutive_failures: int
    retry_in: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdded(KeyEvent):
    """A key is in use from now on.

    Attributes:
        kid: The first 16 characters of its `kid`.
    """

    name = "key_added"
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUnpublished(KeyEvent):
    """A key is no longer published; it stays in use until a second fetch confirms that.

    Attributes:
        kid: The first 16 characters of its `kid`.
    """

    name = "key_unpublished"
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRemoved(KeyEvent):
    """A key is no longer in use.

    Attributes:
        kid: The first 16 characters of its `kid`.
    """

    name = "key_removed"
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JwkIgnored(KeyEvent):
    """An entry of the certs document is unusable and is ignored.

    Attributes:
        reason: Why.
    """

    name = "jwk_ignored"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFetchLimited(KeyEvent):
    """A request with an unknown `kid` got 503, since no fetch was allowed.

    It is not emitted during a back-off without usable keys: every request then gets 503, and `KeysRefreshFailed` was
    emitted.

    Attributes:
        reason: `bucket` (too many fetches for unknown keys), `back_off` (fetches fail) or `waiters` (too many requests
            wait).
        retry_after: Seconds until a fetch may be allowed.
    """

    name = "key_fetch_limited"
    reason: LimitReason
    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysStale(KeyEvent):
    """The keys are older than `degraded_after`; emitted once until a fetch succeeds.

    Attributes:
        age: Seconds since the last successful fetch.
    """

    name = "keys_stale"
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTaskCrashed(KeyEvent):
    """The refresh task crashed and is restarted.

    Attributes:
        cause: The type of the exception.
    """

    name = "refresh_task_crashed"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotLoaded(KeyEvent):
    """Keys that another worker fetched replaced the older keys of this one.

    Attributes:
        age: Seconds since that fetch.
        keys: Number of keys in use.
        generation: Number that grows whenever the keys change.
    """

    name = "snapshot_loaded"
    age: float
    keys: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRejected(KeyEvent):
    """A snapshot of the store cannot be used; the keys stay.

    Attributes:
        reason: Why, in words.
    """

    name = "snapshot_rejected"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotStoreFailed(KeyEvent):
    """The store of the snapshots could not be asked; the worker goes on alone.

    Attributes:
        operation: `load`, `save` or `lock`.
        cause: Why, in words.
    """

    name = "snapshot_store_failed"
    operation: StoreOperation
    cause: str
