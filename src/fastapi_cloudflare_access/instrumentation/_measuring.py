"""The measurements of every exporter: of events, of verifications, and of the objects themselves."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol
from weakref import WeakSet

from fastapi_cloudflare_access import errors, events
from fastapi_cloudflare_access.errors import AccessError, AuthorizationError, ConfigurationError, TemporarilyUnavailable
from fastapi_cloudflare_access.instrumentation import metrics
from fastapi_cloudflare_access.instrumentation.metrics import Metric
from fastapi_cloudflare_access.keys import KeysHealth, KeySource
from fastapi_cloudflare_access.revocations import Revocations, RevocationsHealth
from fastapi_cloudflare_access.settings import Settings

SLOW = 0.001
"""Seconds from which a verification is timed although the token was in the cache, since something else took them."""
OTHER = "_OTHER"
"""The value for a reason code that is not one of this package, as the semantic conventions spell it."""


class MissingPackage(ConfigurationError, ImportError):
    """The package that an exporter needs is not installed."""


class Measurement(NamedTuple):
    """A value of a metric.

    Attributes:
        metric: The metric.
        value: The value, in the unit of the metric.
        attributes: The values of its attributes, in their order; an empty text for an absent one.
    """

    metric: Metric
    value: float
    attributes: tuple[str, ...] = ()


class Measured(Protocol):
    """The part of `CloudflareAccess` that is read when metrics are collected."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        ...

    @property
    def keys(self) -> KeySource:
        """The key source."""
        ...

    @property
    def revocations(self) -> Revocations:
        """The revocations; without a store for them, reading it raises `ConfigurationError`."""
        ...

    @property
    def open_streams(self) -> int:
        """The number of open streams."""
        ...


def _outcome_of(error: type[AccessError]) -> str:
    if issubclass(error, TemporarilyUnavailable):
        return "unavailable"
    return "refused" if issubclass(error, AuthorizationError | errors.CrossOriginRequest) else "rejected"


OUTCOMES: Mapping[str, str] = MappingProxyType(
    {
        kind.reason: _outcome_of(kind)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, AccessError)
    }
)
"""The outcome of each reason code. The codes bound the values of the attribute."""


def outcome_and_reason(reason: str) -> tuple[str, str]:
    """Return the values of the attributes for a reason code."""
    known = OUTCOMES.get(reason)
    return ("rejected", OTHER) if known is None else (known, reason)


def _refused(event: events.RequestRejected) -> Measurement:
    outcome, reason = outcome_and_reason(event.reason)
    return Measurement(metrics.REFUSALS, 1, ("ignored" if event.optional else outcome, reason))


def _refreshed(event: events.KeysRefreshed) -> Measurement:
    return Measurement(metrics.KEY_FETCH, event.seconds, ("modified" if event.modified else "not_modified", ""))


def _refresh_failed(event: events.KeysRefreshFailed) -> Measurement:
    return Measurement(metrics.KEY_FETCH, event.seconds, ("failed", event.reason))


def _identity_fetched(event: events.IdentityFetched) -> Measurement:
    return Measurement(metrics.IDENTITY_FETCH, event.seconds, (event.outcome,))


def _stream_ended(event: events.StreamEnded) -> Measurement:
    return Measurement(metrics.STREAMS_ENDED, 1, (event.connection, outcome_and_reason(event.reason)[1]))


def _change(change: str) -> Callable[[Any], Measurement]:
    measurement = Measurement(metrics.KEY_CHANGES, 1, (change,))
    return lambda _: measurement


MEASUREMENTS: Mapping[type[events.AccessEvent], Callable[[Any], Measurement]] = MappingProxyType(
    {
        events.RequestRejected: _refused,
        events.StreamEnded: _stream_ended,
        events.IdentityFetched: _identity_fetched,
        events.KeysRefreshed: _refreshed,
        events.KeysRefreshFailed: _refresh_failed,
        events.KeyFetchLimited: lambda event: Measurement(metrics.KEY_LIMITED, 1, (event.reason,)),
        events.KeyAdded: _change("added"),
        events.KeyUnpublished: _change("unpublished"),
        events.KeyRemoved: _change("removed"),
        events.JwkIgnored: _change("ignored"),
        events.RefreshTaskCrashed: lambda _: Measurement(metrics.CRASHES, 1),
        events.SnapshotLoaded: lambda _: Measurement(metrics.SNAPSHOTS, 1, ("loaded",)),
        events.SnapshotRejected: lambda _: Measurement(metrics.SNAPSHOTS, 1, ("rejected",)),
        events.SnapshotStoreFailed: lambda event: Measurement(metrics.STORE_FAILURES, 1, (event.operation,)),
        events.RevocationAdded: lambda event: Measurement(metrics.REVOCATIONS_ADDED, 1, (event.action, event.by)),
    }
)
"""The measurement of each event. A new event gets a line here, or in `NOT_MEASURED`."""
NOT_MEASURED = frozenset(
    {
        events.RequestAccepted,
        events.KeysStale,
        events.RevocationsRead,
        events.RevocationIgnored,
        events.RevocationsUnreachable,
        events.FormerTeamDomainSeen,
    }
)
"""Events without a measurement: other metrics have the state that they report, and the last comes once an hour."""

_OF_HEALTH: tuple[tuple[Metric, Callable[[KeysHealth], float | None], Callable[[list[float]], float]], ...] = (
    (metrics.KEYS_AGE, lambda health: health.age, max),
    (metrics.KEYS_READY, lambda health: health.ready, min),
    (metrics.KEYS_REFRESHING, lambda health: health.refresher_alive, min),
    (metrics.KEYS_IN_USE, lambda health: health.keys, min),
    (metrics.KEYS_PENDING_REMOVAL, lambda health: health.keys_pending_removal, max),
    (metrics.KEY_FETCHES, lambda health: health.fetches, sum),
    (metrics.KEY_FAILURES, lambda health: health.consecutive_failures, max),
    (metrics.KEY_WAITERS, lambda health: health.waiters, sum),
    (metrics.UNKNOWN_KIDS, lambda health: health.unknown_kid_rejections, sum),
)
"""The gauges of the health, and how the values of several key sources of a team become one."""
_OF_REVOCATIONS: tuple[
    tuple[Metric, Callable[[RevocationsHealth], float | None], Callable[[list[float]], float]], ...
] = (
    (metrics.REVOCATIONS_READY, lambda health: health.ready, min),
    (metrics.REVOCATIONS_AGE, lambda health: health.age, max),
    (metrics.REVOCATIONS_IN_FORCE, lambda health: health.records, min),
    (metrics.REVOCATIONS_IGNORED, lambda health: health.ignored, max),
)
"""The same of the revocations; objects that share them have equal values."""


class State:
    """The part of a listener that is read when metrics are collected.

    Attributes:
        watched: The objects.
        verifications: The number of verifications, by caller, reason code and whether the token was in the cache.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.watched: WeakSet[Measured] = WeakSet()
        self.verifications: dict[tuple[str | None, str | None, bool], int] = {}


class MetricsListener(ABC):
    """The base of the exporters: a listener for `CloudflareAccess(listeners=[…])`.

    One listener serves all objects of a process.
    """

    def __init__(self, state: State) -> None:
        """Begin with this state."""
        self._watched, self._verifications = state.watched, state.verifications
        self._timers: dict[tuple[str | None, str | None, bool], Callable[[float], object]] = {}

    def __call__(self, event: events.AccessEvent, /) -> None:
        """Record the measurement of an event."""
        if (measure := MEASUREMENTS.get(type(event))) is not None:
            self._record(measure(event))

    @abstractmethod
    def _record(self, measurement: Measurement) -> None:
        """Add a measurement to its metric."""

    @abstractmethod
    def _timer(self, attributes: tuple[str, ...]) -> Callable[[float], object]:
        """Return the function that records the seconds of a verification with these attributes."""

    def record_verification(
        self,
        seconds: float,
        caller: Literal["user", "service"] | None,
        reason: str | None,
        is_cached: bool,  # noqa: FBT001 - positional, since it is called for each request
        /,
    ) -> None:
        """Count a verification, and record its duration if it was more than a hit of the token cache."""
        key = caller, reason, is_cached
        try:
            self._verifications[key] += 1
        except KeyError:
            self._verifications[key] = 1
        if seconds >= SLOW or not is_cached:
            if (record := self._timers.get(key)) is None:
                record = self._timers[key] = self._timer(verification_attributes(*key)[:-1])
            record(seconds)

    def watch(self, access: Measured, /) -> None:
        """Read the state of this object when metrics are collected; only a weak reference is kept."""
        self._watched.add(access)

    def observe(self) -> Iterator[Measurement]:
        """Return the measurements that are read now: the sums, and the state of the watched objects."""
        sums: Counter[tuple[str, ...]] = Counter()
        for key, number in [*self._verifications.items()]:
            sums[verification_attributes(*key)] += number
        for attributes, number in sums.items():
            yield Measurement(metrics.VERIFICATIONS, number, attributes)
        streams: Counter[str] = Counter()
        sources: dict[str, dict[int, KeysHealth]] = {}
        revocations: dict[str, list[RevocationsHealth]] = {}
        for access in [*self._watched]:
            team, keys = access.settings.issuer, access.keys
            streams[team] += access.open_streams
            sources.setdefault(team, {}).setdefault(id(keys), keys.health())
            with suppress(ConfigurationError):  # it has none
                revocations.setdefault(team, []).append(access.revocations.health())
        for team, healths in sources.items():
            yield Measurement(metrics.STREAMS_OPEN, streams[team], (team,))
            yield from _combined(_OF_HEALTH, [*healths.values()], team)
        for team, states in revocations.items():
            yield from _combined(_OF_REVOCATIONS, states, team)


def _combined(table: Any, healths: list[Any], team: str) -> Iterator[Measurement]:
    """Return the measurements of a table, one for each metric that has a value."""
    for metric, read, combine in table:
        if values := [value for health in healths if (value := read(health)) is not None]:
            yield Measurement(metric, combine(values), (team,))


def verification_attributes(
    caller: str | None,
    reason: str | None,
    is_cached: bool,  # noqa: FBT001 - as the port has it
) -> tuple[str, ...]:
    """Return the values of the attributes of `VERIFICATIONS`."""
    if reason is None:
        return "accepted", "", caller or "", "hit" if is_cached else "miss"
    return *outcome_and_reason(reason), "", ""
