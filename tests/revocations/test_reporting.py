"""What a worker reports about revocations: once a minute, and nothing of what a store returned."""

from typing import Any

import pytest

from fastapi_cloudflare_access._revocations.reporting import Report
from fastapi_cloudflare_access.events import (
    AccessEvent,
    RevocationAdded,
    RevocationIgnored,
    RevocationsRead,
    RevocationsUnreachable,
)
from fastapi_cloudflare_access.testing import FakeClock


def report_of(events: list[AccessEvent], unavailable: Any = "closed") -> tuple[Report, FakeClock]:
    clock = FakeClock()
    return Report(clock, [events.append], unavailable), clock


def test_nothing_has_been_read_and_nothing_has_failed_at_first() -> None:
    report, _ = report_of([])
    assert (report.ignored, report.has_read_own, report.last_error) == (0, False, None)


@pytest.mark.parametrize(
    ("unavailable", "then"),
    [("open", "tokens are still accepted"), ("closed", "valid tokens get 503 after a while")],
)
def test_a_failure_is_reported_once_a_minute_with_what_holds_then(
    unavailable: str, then: str, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[AccessEvent] = []
    report, clock = report_of(events, unavailable)
    began = clock.now()
    for _ in range(3):
        report.failed(OSError("redis://:password@host"))
    message = f"cf-access cannot use the store of revocations: it failed with OSError; {then}"
    assert caplog.messages == [message]
    assert report.last_error == "it failed with OSError"
    report.succeeded()
    assert report.last_error is None
    clock.advance(61)
    report.failed(OSError())
    assert caplog.messages[1] == f"{message} (2 equal records since the last one were not logged)"
    cause, expected = "it failed with OSError", list[AccessEvent]()
    for at in (began, began + 61):
        expected.append(RevocationsUnreachable(timestamp=at, cause=cause, unavailable=report._unavailable))
    assert events == expected


def test_each_ignored_record_counts_and_each_reason_is_reported_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[AccessEvent] = []
    report, clock = report_of(events)
    for reason in ("it is of another team", "it is of another team", "its form is not known"):
        report.ignore(reason)
    assert report.ignored == 3
    assert events == [
        RevocationIgnored(timestamp=clock.now(), reason=reason)
        for reason in ("it is of another team", "its form is not known")
    ]
    assert caplog.messages == [
        "cf-access ignored a revocation: it is of another team",
        "cf-access ignored a revocation: its form is not known",
    ]


def test_what_this_worker_adds_and_reads_is_an_event() -> None:
    events: list[AccessEvent] = []
    report, clock = report_of(events)
    report.added("block", "sub")
    report.read_all(7, 2)
    assert events == [
        RevocationAdded(timestamp=clock.now(), action="block", by="sub"),
        RevocationsRead(timestamp=clock.now(), records=7, written_back=2),
    ]
