"""The table of the metrics: the names, units and attributes that every exporter uses.

Names follow the semantic conventions of OpenTelemetry, and Prometheus names follow from them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

OUTCOME = "cloudflare_access.outcome"
REASON = "error.type"
CALLER = "cloudflare_access.caller.type"
CACHE = "cloudflare_access.token_cache.result"
LIMIT = "cloudflare_access.limit"
CHANGE = "cloudflare_access.change"
CONNECTION = "cloudflare_access.connection"
OPERATION = "cloudflare_access.store.operation"
ACTION = "cloudflare_access.revocation.action"
BY = "cloudflare_access.revocation.by"
TEAM = "cloudflare_access.team_domain"

ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        OUTCOME: "The result, one of a few words for each metric.",
        REASON: "The reason code of the error; absent after a success.",
        CALLER: "`user` or `service`; absent if the token was rejected.",
        CACHE: "`hit` or `miss`; absent if the token was rejected.",
        LIMIT: "`bucket`, `back_off` or `waiters`.",
        CHANGE: "`added`, `unpublished`, `removed` or `ignored`.",
        CONNECTION: "`websocket` or `http`.",
        OPERATION: "`load`, `save` or `lock`.",
        ACTION: "`log_out`, `block` or `unblock`.",
        BY: "`sub`, `email`, `client_id` or `token`.",
        TEAM: "The team domain of the object.",
    }
)
"""The attributes and their values. Each has a fixed, small set of values, and no caller can add one."""

_SUFFIXES = {"s": "_seconds"}
"""The ends of Prometheus names, by unit; a unit in braces only describes what is counted."""


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: The name in OpenTelemetry.
        kind: The instrument. `observed_counter` and `gauge` are read when metrics are collected.
        unit: The unit, as the Unified Code for Units of Measure writes it.
        attributes: The names of the attributes.
        description: One sentence.
        buckets: The upper bounds of a histogram, in its unit.
    """

    name: str
    kind: Literal["histogram", "counter", "observed_counter", "gauge"]
    unit: str
    attributes: tuple[str, ...]
    description: str
    buckets: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus, as an exporter of OpenTelemetry also forms it."""
        suffix = _SUFFIXES.get(self.unit, "") + ("_total" if "counter" in self.kind else "")
        return self.name.replace(".", "_") + suffix

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels in Prometheus."""
        return tuple(name.replace(".", "_") for name in self.attributes)


VERIFICATIONS = Metric(
    "cloudflare_access.verifications",
    "observed_counter",
    "{token}",
    (OUTCOME, REASON, CALLER, CACHE),
    "Tokens that were verified. Outcomes: `accepted`, `rejected` (401), `unavailable` (503).",
)
VERIFICATION = Metric(
    "cloudflare_access.verification.duration",
    "histogram",
    "s",
    (OUTCOME, REASON, CALLER),
    "Duration of a verification, waiting for keys included. Hits of the token cache below 1 ms are not timed. "
    "Outcomes: as above.",
    (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 3.0),
)
REFUSALS = Metric(
    "cloudflare_access.refusals",
    "counter",
    "{request}",
    (OUTCOME, REASON),
    "Requests that were refused. Outcomes: `rejected` (401), `refused` (403), `unavailable` (503), and `ignored` if "
    "`access.optional` ignored a rejected cookie.",
)
KEY_FETCH = Metric(
    "cloudflare_access.keys.fetch.duration",
    "histogram",
    "s",
    (OUTCOME, REASON),
    "Duration of a fetch of the keys, a second attempt included. Outcomes: `modified`, `not_modified`, `failed`.",
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
KEY_LIMITED = Metric(
    "cloudflare_access.keys.limited",
    "counter",
    "{request}",
    (LIMIT,),
    "Requests with an unknown key that got 503, since no fetch was allowed.",
)
KEY_CHANGES = Metric(
    "cloudflare_access.keys.changes", "counter", "{key}", (CHANGE,), "Changes of single keys, and ignored entries."
)
CRASHES = Metric(
    "cloudflare_access.keys.refresh_task.crashes", "counter", "{crash}", (), "Crashes of the task that refreshes keys."
)
SNAPSHOTS = Metric(
    "cloudflare_access.keys.snapshots",
    "counter",
    "{snapshot}",
    (OUTCOME,),
    "Snapshots of keys from the store. Outcomes: `loaded`, and `rejected` such as a forged one.",
)
STORE_FAILURES = Metric(
    "cloudflare_access.keys.store.failures",
    "counter",
    "{operation}",
    (OPERATION,),
    "Operations of the snapshot store that failed.",
)
REVOCATIONS_ADDED = Metric(
    "cloudflare_access.revocations.added",
    "counter",
    "{revocation}",
    (ACTION, BY),
    "Revocations that this process added.",
)
IDENTITY_FETCH = Metric(
    "cloudflare_access.identity.fetch.duration",
    "histogram",
    "s",
    (OUTCOME,),
    "Duration of a question to get-identity. Outcomes: `identity`, `no_session`, `failed`, and `limited` if it was not "
    "asked.",
    KEY_FETCH.buckets,
)
STREAMS_ENDED = Metric(
    "cloudflare_access.streams.ended",
    "counter",
    "{stream}",
    (CONNECTION, REASON),
    "WebSockets and streams that ended with their token.",
)
KEYS_AGE = Metric("cloudflare_access.keys.age", "gauge", "s", (TEAM,), "Age of the keys; absent before a fetch.")
KEYS_READY = Metric("cloudflare_access.keys.ready", "gauge", "", (TEAM,), "Whether tokens can be verified, 1 or 0.")
KEYS_REFRESHING = Metric(
    "cloudflare_access.keys.refreshing", "gauge", "", (TEAM,), "Whether the refresh task runs, 1 or 0."
)
KEYS_IN_USE = Metric("cloudflare_access.keys.in_use", "gauge", "{key}", (TEAM,), "Keys in use.")
KEYS_PENDING_REMOVAL = Metric(
    "cloudflare_access.keys.pending_removal",
    "gauge",
    "{key}",
    (TEAM,),
    "Keys that are no longer published, still used.",
)
KEY_FETCHES = Metric(
    "cloudflare_access.keys.fetches",
    "observed_counter",
    "{fetch}",
    (TEAM,),
    "Requests to the certs endpoint, second attempts included.",
)
KEY_FAILURES = Metric(
    "cloudflare_access.keys.consecutive_failures", "gauge", "{fetch}", (TEAM,), "Failed fetches since the last success."
)
KEY_WAITERS = Metric("cloudflare_access.keys.waiters", "gauge", "{request}", (TEAM,), "Requests that wait for a fetch.")
UNKNOWN_KIDS = Metric(
    "cloudflare_access.keys.unknown_kid_rejections",
    "observed_counter",
    "{request}",
    (TEAM,),
    "Requests that were rejected for a `kid` in the negative cache.",
)
REVOCATIONS_READY = Metric(
    "cloudflare_access.revocations.ready",
    "gauge",
    "",
    (TEAM,),
    "Whether requests get no 503 for the sake of revocations, 1 or 0; absent without a store for them.",
)
REVOCATIONS_AGE = Metric(
    "cloudflare_access.revocations.age",
    "gauge",
    "s",
    (TEAM,),
    "Seconds since the end of the log of revocations was read.",
)
REVOCATIONS_IN_FORCE = Metric(
    "cloudflare_access.revocations.in_force", "gauge", "{revocation}", (TEAM,), "Revocations in force."
)
REVOCATIONS_IGNORED = Metric(
    "cloudflare_access.revocations.ignored",
    "observed_counter",
    "{revocation}",
    (TEAM,),
    "Records of the log of revocations that were ignored, such as forged ones.",
)
STREAMS_OPEN = Metric(
    "cloudflare_access.streams.open", "gauge", "{stream}", (TEAM,), "WebSockets and streams that end with their token."
)

RECORDED = (
    VERIFICATION,
    REFUSALS,
    KEY_FETCH,
    KEY_LIMITED,
    KEY_CHANGES,
    CRASHES,
    SNAPSHOTS,
    STORE_FAILURES,
    REVOCATIONS_ADDED,
    IDENTITY_FETCH,
    STREAMS_ENDED,
)
"""The metrics that events and slow verifications feed."""
OBSERVED = (
    VERIFICATIONS,
    KEYS_AGE,
    KEYS_READY,
    KEYS_REFRESHING,
    KEYS_IN_USE,
    KEYS_PENDING_REMOVAL,
    KEY_FETCHES,
    KEY_FAILURES,
    KEY_WAITERS,
    UNKNOWN_KIDS,
    REVOCATIONS_READY,
    REVOCATIONS_AGE,
    REVOCATIONS_IN_FORCE,
    REVOCATIONS_IGNORED,
    STREAMS_OPEN,
)
"""The metrics that are read when metrics are collected: the state of the objects, and the sums of the listener."""
METRICS = (VERIFICATIONS, *RECORDED, *OBSERVED[1:])
"""All metrics."""
