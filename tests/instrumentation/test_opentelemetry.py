"""Metrics and traces in a real OpenTelemetry SDK."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import REGISTRY
from support.metrics_rig import TEAM, Rig

from fastapi_cloudflare_access import ConfigurationError
from fastapi_cloudflare_access.errors import AccessError
from fastapi_cloudflare_access.events import (
    IdentityFetched,
    JwkIgnored,
    KeyFetchLimited,
    RefreshTaskCrashed,
    RequestRejected,
    RevocationAdded,
    SnapshotLoaded,
    SnapshotRejected,
    SnapshotStoreFailed,
    StreamEnded,
)
from fastapi_cloudflare_access.instrumentation.metrics import METRICS, VERIFICATION
from fastapi_cloudflare_access.instrumentation.opentelemetry import OpenTelemetryListener
from fastapi_cloudflare_access.stores.memory import MemoryStore
from fastapi_cloudflare_access.testing import FakeClock

pytestmark = pytest.mark.anyio


class Sdk:
    """A real SDK that keeps everything in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self.reader])
        self.spans = InMemorySpanExporter()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = self.traces.get_tracer("the app")

    def listener(self) -> OpenTelemetryListener:
        return OpenTelemetryListener(meter_provider=self.meters, tracer_provider=self.traces)

    def points(self) -> dict[str, list[Any]]:
        """Return the data points of each metric, by name."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        assert [scope.scope.name for scope in scopes] == ["fastapi_cloudflare_access"]
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of a metric, or the counts of a histogram, by the values of the attributes."""
        found: dict[tuple[str, ...], float] = {}
        for point in self.points().get(name, []):
            found[tuple(map(str, point.attributes.values()))] = getattr(point, "value", getattr(point, "count", 0))
        return found

    def finished(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.name == name]


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    made = Sdk()
    yield made
    made.meters.shutdown()
    made.traces.shutdown()


async def test_verifications_are_counted_by_outcome_reason_caller_and_cache(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    await rig.live()
    assert sdk.values("cloudflare_access.verifications") == {
        ("accepted", "user", "miss"): 1,
        ("accepted", "user", "hit"): 3,
        ("accepted", "service", "miss"): 1,
        ("rejected", "token_expired"): 1,
        ("unavailable", "key_unconfirmed"): 1,
    }


async def test_only_verifications_that_the_cache_did_not_answer_are_timed(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    await rig.live()
    assert sdk.values("cloudflare_access.verification.duration") == {
        ("accepted", "user"): 1,
        ("accepted", "service"): 1,
        ("rejected", "token_expired"): 1,
        ("unavailable", "key_unconfirmed"): 1,
    }
    (point, *_) = sdk.points()["cloudflare_access.verification.duration"]
    assert tuple(point.explicit_bounds) == VERIFICATION.buckets


async def test_a_hit_that_waits_for_something_else_is_timed(sdk: Sdk) -> None:
    listener = sdk.listener()
    listener.record_verification(0.002, "user", None, True)  # noqa: FBT003
    listener.record_verification(0.0005, "user", None, True)  # noqa: FBT003
    assert sdk.values("cloudflare_access.verification.duration") == {("accepted", "user"): 1}
    assert sdk.values("cloudflare_access.verifications") == {("accepted", "user", "hit"): 2}


async def test_refusals_are_counted_by_outcome_and_reason(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    await rig.live()
    await rig.access.optional(connection=rig.connection(rig.team.forge("expired"), cookie=True))
    assert sdk.values("cloudflare_access.refusals") == {
        ("refused", "wrong_caller"): 1,
        ("rejected", "token_expired"): 1,
        ("rejected", "missing_token"): 1,
        ("refused", "forbidden"): 1,
        ("unavailable", "key_unconfirmed"): 1,
        ("ignored", "token_expired"): 1,
    }


async def test_fetches_and_changes_of_keys_are_measured(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    await rig.live()
    assert sdk.values("cloudflare_access.keys.fetch.duration") == {("modified",): 2, ("failed", "fetch_failed"): 1}
    assert sdk.values("cloudflare_access.keys.changes") == {("added",): 3, ("removed",): 1}
    assert sdk.values("cloudflare_access.keys.limited") == {("back_off",): 1}
    assert sdk.values("cloudflare_access.keys.fetches") == {(TEAM,): 3}


async def test_the_state_of_the_keys_is_read_when_metrics_are_collected(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    assert "cloudflare_access.keys.age" not in sdk.points()
    assert sdk.values("cloudflare_access.keys.ready") == {(TEAM,): 0}
    await rig.live()
    rig.clock.advance(100)
    health = rig.access.keys.health()
    assert sdk.values("cloudflare_access.keys.age") == {(TEAM,): health.age}
    assert sdk.values("cloudflare_access.keys.ready") == {(TEAM,): 1}
    assert sdk.values("cloudflare_access.keys.in_use") == {(TEAM,): health.keys}
    assert sdk.values("cloudflare_access.keys.consecutive_failures") == {(TEAM,): 1}
    rig.clock.advance(25 * 3600)
    assert sdk.values("cloudflare_access.keys.ready") == {(TEAM,): 0}


async def test_the_revocations_are_read_when_metrics_are_collected(sdk: Sdk) -> None:
    clock = FakeClock()
    rig = Rig(sdk.listener(), revocation_store=MemoryStore(clock=clock), revocations_unavailable="closed")
    assert sdk.values("cloudflare_access.revocations.ready") == {(TEAM,): 0}
    assert sdk.values("cloudflare_access.revocations.age") == {}
    token = rig.team.user_token("ada@example.com")
    assert await rig.clock.run_until(rig.ask(token)) == "ok"
    clock.advance(5)
    await rig.clock.run_until(rig.access.revocations.log_out(email="ada@example.com"))
    other = rig.access.with_audience("b" * 64)
    assert await rig.clock.run_until(rig.ask(token)) == "token_revoked"
    assert sdk.values("cloudflare_access.verifications")["rejected", "token_revoked"] == 1
    assert sdk.values("cloudflare_access.revocations.ready") == {(TEAM,): 1}
    assert sdk.values("cloudflare_access.revocations.in_force") == {(TEAM,): 1}
    assert sdk.values("cloudflare_access.revocations.ignored") == {(TEAM,): 0}
    assert sdk.values("cloudflare_access.revocations.age") == {(TEAM,): rig.access.revocations.health().age}
    assert other.revocations.health().records == 1


async def test_open_streams_are_read_when_metrics_are_collected(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    caller: Any = await rig.access.authenticate(rig.connection(rig.team.user_token("ada@example.com")))
    async with rig.access.while_valid(caller):
        assert sdk.values("cloudflare_access.streams.open") == {(TEAM,): 1}
    assert sdk.values("cloudflare_access.streams.open") == {(TEAM,): 0}


@pytest.mark.parametrize(
    ("event", "metric", "attributes"),
    [
        (
            StreamEnded(timestamp=5, reason="token_expired", connection="http", open_streams=0),
            "streams.ended",
            ("http", "token_expired"),
        ),
        (
            StreamEnded(timestamp=5, reason="a mistake", connection="websocket", open_streams=0),
            "streams.ended",
            ("websocket", "_OTHER"),
        ),
        (KeyFetchLimited(timestamp=5, reason="bucket", retry_after=1), "keys.limited", ("bucket",)),
        (JwkIgnored(timestamp=5, reason="a key that is too short"), "keys.changes", ("ignored",)),
        (RefreshTaskCrashed(timestamp=5, cause="ValueError"), "keys.refresh_task.crashes", ()),
        (SnapshotLoaded(timestamp=5, age=1, keys=2, generation=1), "keys.snapshots", ("loaded",)),
        (SnapshotRejected(timestamp=5, reason="a wrong signature"), "keys.snapshots", ("rejected",)),
        (SnapshotStoreFailed(timestamp=5, operation="save", cause="refused"), "keys.store.failures", ("save",)),
        (RevocationAdded(timestamp=5, action="block", by="email"), "revocations.added", ("block", "email")),
        (IdentityFetched(timestamp=5, outcome="limited", seconds=0), "identity.fetch.duration", ("limited",)),
        (IdentityFetched(timestamp=5, outcome="identity", seconds=0.5), "identity.fetch.duration", ("identity",)),
    ],
    ids=[
        "stream",
        "foreign-reason",
        "limited",
        "ignored",
        "crash",
        "loaded",
        "forged",
        "store",
        "revoked",
        "identity-limited",
        "identity",
    ],
)
async def test_an_event_is_counted_with_its_attributes(sdk: Sdk, event: Any, metric: str, attributes: Any) -> None:
    sdk.listener()(event)
    assert sdk.values(f"cloudflare_access.{metric}") == {attributes: 1}


async def test_several_objects_of_a_team_are_one_series(sdk: Sdk) -> None:
    listener = sdk.listener()
    rigs = [Rig(listener), Rig(listener)]
    other = rigs[0].access.with_audience("b" * 64)
    await rigs[0].clock.run_until(rigs[0].access.keys.refresh())
    assert sdk.values("cloudflare_access.keys.ready") == {(TEAM,): 0}
    await rigs[1].clock.run_until(rigs[1].access.keys.refresh())
    rigs[1].clock.advance(60)
    assert sdk.values("cloudflare_access.keys.ready") == {(TEAM,): 1}
    assert sdk.values("cloudflare_access.keys.age") == {(TEAM,): 60}
    assert sdk.values("cloudflare_access.keys.fetches") == {(TEAM,): 2}
    assert other.keys is rigs[0].access.keys


async def test_two_teams_are_two_series(sdk: Sdk) -> None:
    listener = sdk.listener()
    rigs = [Rig(listener), Rig(listener, team="partner")]
    assert sdk.values("cloudflare_access.keys.ready") == {
        (TEAM,): 0,
        ("https://partner.cloudflareaccess.com",): 0,
    }
    assert len(rigs) == 2


async def test_an_object_that_is_gone_has_no_series_any_more(sdk: Sdk) -> None:
    listener = sdk.listener()
    rigs = [Rig(listener)]
    assert sdk.values("cloudflare_access.keys.ready")
    rigs.clear()
    gc.collect()
    assert sdk.values("cloudflare_access.keys.ready") == {}


async def test_two_listeners_of_one_provider_measure_both_objects(sdk: Sdk) -> None:
    rigs = [Rig(sdk.listener()), Rig(sdk.listener(), team="partner")]
    for rig in rigs:
        await rig.ask(rig.team.user_token("ada@example.com"))
        await rig.ask(rig.team.forge("expired"))
    assert len(sdk.values("cloudflare_access.keys.ready")) == 2
    assert sdk.values("cloudflare_access.verifications")["accepted", "user", "miss"] == 2
    assert sdk.values("cloudflare_access.refusals") == {("rejected", "token_expired"): 2}


async def test_without_an_sdk_the_global_provider_is_used_and_nothing_fails() -> None:
    assert type(get_meter_provider()).__module__.startswith("opentelemetry.metrics")
    rig = Rig(OpenTelemetryListener())
    await rig.live()


# traces


async def test_a_request_gets_no_span_and_a_refusal_marks_the_current_one(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    await rig.clock.run_until(rig.access.keys.refresh())
    sdk.spans.clear()
    with sdk.tracer.start_as_current_span("GET /me"):
        await rig.ask(rig.team.user_token("ada@example.com"))
    with sdk.tracer.start_as_current_span("GET /me"):
        await rig.ask(rig.team.forge("expired"))
    good, bad = sdk.spans.get_finished_spans()
    assert good.attributes == {}
    assert bad.attributes == {
        "cloudflare_access.refusal.reason": "token_expired",
        "cloudflare_access.refusal.unverified": False,
    }


async def test_a_refusal_by_a_policy_names_no_policy_since_its_name_may_have_an_address(sdk: Sdk) -> None:
    listener = sdk.listener()
    event = RequestRejected(timestamp=5, reason="forbidden", token_digest="0" * 12, policy="Email('ada@example.com')")
    with sdk.tracer.start_as_current_span("GET /me"):
        listener(event)
    (span,) = sdk.spans.get_finished_spans()
    assert span.attributes == {
        "cloudflare_access.refusal.reason": "forbidden",
        "cloudflare_access.refusal.unverified": False,
    }
    assert (span.name, list(span.events), list(span.links)) == ("GET /me", [], [])


async def test_a_fetch_of_the_keys_is_a_span_of_its_own(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    rig.certs.slow(2)
    begun = rig.clock.now()
    with sdk.tracer.start_as_current_span("GET /me"):
        await rig.clock.run_until(rig.ask(rig.team.user_token("ada@example.com")))
    (span,) = sdk.finished("cloudflare_access.fetch_keys")
    assert (span.kind, span.parent, span.status.status_code) == (SpanKind.CLIENT, None, StatusCode.UNSET)
    assert span.attributes == {"cloudflare_access.outcome": "modified"}
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time / 1e9 == pytest.approx(begun, abs=0.1)
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(2, abs=0.001)


async def test_a_failed_fetch_is_a_span_with_an_error_and_its_duration(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    rig.certs.hang()
    with pytest.raises(AccessError):
        await rig.clock.run_until(rig.access.keys.refresh())
    (span,) = sdk.finished("cloudflare_access.fetch_keys")
    assert span.status.status_code is StatusCode.ERROR
    assert span.start_time is not None
    assert span.end_time is not None
    timeout = rig.access.settings.key_settings.fetch_timeout
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(timeout, abs=0.001)
    assert span.attributes == {"cloudflare_access.outcome": "failed", "error.type": "fetch_failed"}


async def test_a_question_to_get_identity_is_a_span_below_the_one_of_its_request(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    await rig.clock.run_until(rig.access.keys.refresh())
    rig.certs.identity.fail_with(500)
    with sdk.tracer.start_as_current_span("GET /me") as request:
        token = rig.team.user_token("ada@example.com")
        assert await rig.clock.run_until(rig.ask(token, rig.access.identity)) == "identity_unavailable"
    (span,) = sdk.finished("cloudflare_access.get_identity")
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id
    assert (span.status.status_code, span.attributes) == (StatusCode.ERROR, {"cloudflare_access.outcome": "failed"})


@pytest.mark.parametrize(("outcome", "spans"), [("identity", 1), ("no_session", 1), ("limited", 0)])
async def test_a_question_that_is_answered_is_no_error_and_one_that_is_not_sent_is_no_span(
    sdk: Sdk, outcome: Any, spans: int
) -> None:
    sdk.listener()(IdentityFetched(timestamp=5, outcome=outcome, seconds=1))
    found = sdk.finished("cloudflare_access.get_identity")
    assert [span.status.status_code for span in found] == [StatusCode.UNSET] * spans


async def test_nothing_that_is_recorded_is_personal(sdk: Sdk) -> None:
    rig = Rig(sdk.listener())
    with sdk.tracer.start_as_current_span("GET /me"):
        await rig.live()
        user = rig.team.user("ada@example.com")
        await rig.ask(rig.team.user_token("ada@example.com"))
    data = sdk.reader.get_metrics_data()
    assert data is not None
    recorded = data.to_json() + "".join(span.to_json() for span in sdk.spans.get_finished_spans())
    for personal in ("ada@example.com", user.sub, "bot", "eyJ"):
        assert personal not in recorded


# names


async def test_an_exporter_to_prometheus_forms_the_names_of_the_table() -> None:
    reader = PrometheusMetricReader(disable_target_info=True)
    meters = MeterProvider(metric_readers=[reader])
    try:
        listener = OpenTelemetryListener(meter_provider=meters)
        rig = Rig(listener)
        await rig.live()
        for event in (
            StreamEnded(timestamp=5, reason="token_expired", connection="http", open_streams=0),
            RefreshTaskCrashed(timestamp=5, cause="ValueError"),
            IdentityFetched(timestamp=5, outcome="identity", seconds=0.5),
            SnapshotLoaded(timestamp=5, age=1, keys=2, generation=1),
            SnapshotStoreFailed(timestamp=5, operation="save", cause="refused"),
            RevocationAdded(timestamp=5, action="block", by="email"),
        ):
            listener(event)
        other = Rig(listener, team="partner", revocation_store=MemoryStore(), revocations_unavailable="open")
        await other.clock.run_until(other.ask(other.team.user_token("ada@example.com")))
        families = [family for family in REGISTRY.collect() if family.name.startswith("cloudflare_access")]
    finally:
        meters.shutdown()
    exported = {family.name + ("_total" if family.type == "counter" else ""): family for family in families}
    assert sorted(exported) == sorted(metric.prometheus_name for metric in METRICS)
    for metric in METRICS:
        labels = {name for sample in exported[metric.prometheus_name].samples for name in sample.labels}
        assert labels - {"le", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"} <= {*metric.labels}


# wrong use


@pytest.mark.parametrize("name", ["meter_provider", "tracer_provider"])
def test_a_provider_of_another_type_is_an_error_of_one_sentence(name: str) -> None:
    given: Any = {name: "http://collector:4317"}
    with pytest.raises(ConfigurationError) as wrong:
        OpenTelemetryListener(**given)
    kind = "MeterProvider" if name == "meter_provider" else "TracerProvider"
    assert str(wrong.value) == (f"{name} must be a {kind} of OpenTelemetry, not str: leave it out for the global one")
