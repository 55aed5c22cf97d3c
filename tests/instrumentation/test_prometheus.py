"""Metrics in a registry of the Prometheus client."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, Metric
from support.metrics_rig import TEAM, Rig

from fastapi_cloudflare_access import ConfigurationError
from fastapi_cloudflare_access.events import IdentityFetched, JwkIgnored, KeysStale, RefreshTaskCrashed, StreamEnded
from fastapi_cloudflare_access.instrumentation.metrics import METRICS
from fastapi_cloudflare_access.instrumentation.prometheus import PrometheusListener

pytestmark = pytest.mark.anyio


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    own = {"error_type", "le"}
    named = {name if name in own else f"cloudflare_access_{name}": text for name, text in labels.items()}
    return registry.get_sample_value(f"cloudflare_access_{name}", named)


def verified(registry: CollectorRegistry, outcome: str, reason: str = "", caller: str = "", cache: str = "") -> Any:
    labels = {"outcome": outcome, "error_type": reason, "caller_type": caller, "token_cache_result": cache}
    return value(registry, "verifications_total", **labels)


def refused(registry: CollectorRegistry, outcome: str, reason: str) -> float | None:
    return value(registry, "refusals_total", outcome=outcome, error_type=reason)


async def test_a_short_life_is_counted(registry: CollectorRegistry) -> None:
    rig = Rig(PrometheusListener(registry=registry))
    await rig.live()
    assert verified(registry, "accepted", caller="user", cache="miss") == 1
    assert verified(registry, "accepted", caller="user", cache="hit") == 3
    assert verified(registry, "accepted", caller="service", cache="miss") == 1
    assert verified(registry, "rejected", "token_expired") == 1
    assert verified(registry, "unavailable", "key_unconfirmed") == 1
    assert refused(registry, "refused", "wrong_caller") == 1
    assert refused(registry, "rejected", "missing_token") == 1
    assert refused(registry, "refused", "forbidden") == 1
    duration = {"outcome": "accepted", "error_type": "", "caller_type": "user"}
    assert value(registry, "verification_duration_seconds_count", **duration) == 1
    assert value(registry, "verification_duration_seconds_bucket", **duration, le="0.00025") is not None
    assert value(registry, "keys_fetch_duration_seconds_count", outcome="failed", error_type="fetch_failed") == 1
    assert value(registry, "keys_limited_total", limit="back_off") == 1
    assert value(registry, "keys_changes_total", change="removed") == 1
    assert value(registry, "keys_fetches_total", team_domain=TEAM) == 3


async def test_the_state_is_read_when_the_registry_is(registry: CollectorRegistry) -> None:
    rig = Rig(PrometheusListener(registry=registry))
    assert value(registry, "keys_ready", team_domain=TEAM) == 0
    assert value(registry, "keys_age_seconds", team_domain=TEAM) is None
    await rig.live()
    before = rig.access.keys.health().age
    rig.clock.advance(100)
    assert before is not None
    assert value(registry, "keys_ready", team_domain=TEAM) == 1
    assert value(registry, "keys_age_seconds", team_domain=TEAM) == before + 100
    assert value(registry, "keys_consecutive_failures", team_domain=TEAM) == 1


async def test_an_event_without_attributes_and_events_of_rare_kinds_are_counted(registry: CollectorRegistry) -> None:
    listener = PrometheusListener(registry=registry)
    listener(KeysStale(timestamp=5, age=2000))  # the age is a gauge
    listener(RefreshTaskCrashed(timestamp=5, cause="ValueError"))
    listener(JwkIgnored(timestamp=5, reason="a key that is too short"))
    listener(StreamEnded(timestamp=5, reason="token_revoked", connection="websocket", open_streams=0))
    listener(IdentityFetched(timestamp=5, outcome="no_session", seconds=0.5))
    assert value(registry, "keys_refresh_task_crashes_total") == 1
    assert value(registry, "keys_changes_total", change="ignored") == 1
    assert value(registry, "streams_ended_total", connection="websocket", error_type="token_revoked") == 1
    assert value(registry, "identity_fetch_duration_seconds_sum", outcome="no_session") == 0.5


async def test_every_metric_of_the_table_is_exported_with_its_labels_and_no_other(registry: CollectorRegistry) -> None:
    rig = Rig(PrometheusListener(registry=registry))
    await rig.live()
    families: list[Metric] = list(registry.collect())
    exported = {family.name + ("_total" if family.type == "counter" else ""): family for family in families}
    assert sorted(exported) == sorted(metric.prometheus_name for metric in METRICS)
    for metric in METRICS:
        family = exported[metric.prometheus_name]
        assert family.documentation == metric.description
        bounds = {float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels}
        assert bounds <= {*metric.buckets, float("inf")}
        labels = {name for sample in family.samples for name in sample.labels}
        assert not labels or labels - {"le"} == {*metric.labels}


async def test_nothing_that_is_exported_is_personal(registry: CollectorRegistry) -> None:
    rig = Rig(PrometheusListener(registry=registry))
    await rig.live()
    texts = {text for family in registry.collect() for sample in family.samples for text in sample.labels.values()}
    known = {TEAM, "user", "service", "hit", "miss", "modified", "failed", "added", "removed", "back_off", ""}
    known |= {"accepted", "rejected", "refused", "unavailable", "fetch_failed"}
    known |= {"token_expired", "missing_token", "wrong_caller", "forbidden", "key_unconfirmed"}
    assert {text for text in texts if not text.replace(".", "").replace("+Inf", "").isdigit()} - {""} <= known | {
        "+Inf",
        "5e-05",
    }


# wrong use


def test_a_second_listener_for_a_registry_is_an_error_of_one_sentence(registry: CollectorRegistry) -> None:
    PrometheusListener(registry=registry)
    with pytest.raises(ConfigurationError) as wrong:
        PrometheusListener(registry=registry)
    assert str(wrong.value) == (
        "the registry already has the metrics of a PrometheusListener: create one, and pass it to each CloudflareAccess"
    )


@pytest.mark.parametrize("taken", ["cloudflare_access_refusals_total", "cloudflare_access_streams_open"])
def test_after_an_error_the_registry_has_no_metric_of_the_listener(registry: CollectorRegistry, taken: str) -> None:
    Gauge(taken, "of the app", registry=registry)
    with pytest.raises(ConfigurationError):
        PrometheusListener(registry=registry)
    assert [family.name for family in registry.collect()] == [taken]


@pytest.mark.parametrize("wrong", [None, "default", CollectorRegistry, 9000])
def test_a_registry_of_another_type_is_an_error_of_one_sentence(wrong: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        PrometheusListener(registry=wrong)
    assert str(raised.value) == (
        f"registry must be a CollectorRegistry of prometheus_client, not {type(wrong).__name__}: leave it out for the "
        "default one"
    )
