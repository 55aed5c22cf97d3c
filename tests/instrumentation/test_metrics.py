"""The table of metrics: its names are well formed, and everything that happens has a place in it."""

import re

import pytest

from fastapi_cloudflare_access import errors, events
from fastapi_cloudflare_access.events import AccessEvent, KeyEvent
from fastapi_cloudflare_access.instrumentation import metrics
from fastapi_cloudflare_access.instrumentation._measuring import (
    MEASUREMENTS,
    NOT_MEASURED,
    OUTCOMES,
    outcome_and_reason,
    verification_attributes,
)
from fastapi_cloudflare_access.instrumentation.metrics import ATTRIBUTES, METRICS, Metric

KINDS = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, AccessEvent)} - {
    AccessEvent,
    KeyEvent,
}


def test_every_event_is_measured_or_listed_as_not_measured() -> None:
    assert MEASUREMENTS.keys() | NOT_MEASURED == KINDS
    assert MEASUREMENTS.keys() & NOT_MEASURED == set()


def test_every_metric_is_in_the_table_once() -> None:
    defined = [value for value in vars(metrics).values() if isinstance(value, Metric)]
    assert sorted(metric.name for metric in METRICS) == sorted(metric.name for metric in defined)
    assert len({metric.prometheus_name for metric in METRICS}) == len(METRICS)
    assert {*METRICS} == {*metrics.RECORDED, *metrics.OBSERVED}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_name_follows_the_semantic_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"cloudflare_access(\.[a-z]+(_[a-z]+)*)+", metric.name)
    assert not metric.name.endswith(("total", "count", "seconds"))
    assert re.fullmatch(r"s||\{[a-z]+\}", metric.unit)
    assert {*metric.attributes} <= {*ATTRIBUTES}
    assert metric.description.endswith(".")
    assert bool(metric.buckets) is (metric.kind == "histogram")
    assert [*metric.buckets] == sorted(metric.buckets)


def test_every_attribute_is_used() -> None:
    assert {name for metric in METRICS for name in metric.attributes} == {*ATTRIBUTES}


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("token_expired", "rejected"),
        ("missing_token", "rejected"),
        ("forbidden", "refused"),
        ("wrong_caller", "refused"),
        ("cross_origin", "refused"),
        ("keys_unavailable", "unavailable"),
        ("key_unconfirmed", "unavailable"),
        ("identity_unavailable", "unavailable"),
    ],
)
def test_the_outcome_of_a_reason_follows_from_its_status(reason: str, outcome: str) -> None:
    assert outcome_and_reason(reason) == (outcome, reason)


def test_every_reason_code_of_the_package_has_an_outcome() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AccessError)]
    assert {kind.reason for kind in kinds} == OUTCOMES.keys()


def test_a_foreign_reason_code_adds_no_value() -> None:
    assert outcome_and_reason("ada@example.com") == ("rejected", "_OTHER")
    assert verification_attributes(None, "ada@example.com", False) == ("rejected", "_OTHER", "", "")  # noqa: FBT003
