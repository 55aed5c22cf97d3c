"""What the key source tells: counters, events, log lines."""

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from support.key_rig import KeyRig

from fastapi_cloudflare_access._keys.metrics import KeyMetrics
from fastapi_cloudflare_access._keys.snapshot import ClockReading, Snapshot
from fastapi_cloudflare_access._logging import raised_at
from fastapi_cloudflare_access.events import AccessEvent, JwkIgnored, KeyAdded, KeyRemoved, KeysRefreshed
from fastapi_cloudflare_access.protocols import FetchResponse

pytestmark = pytest.mark.anyio

URL = "https://acme.cloudflareaccess.com/cdn-cgi/access/certs"
LOGGER = "fastapi_cloudflare_access.keys"
NOW = ClockReading(0, 1e9)


async def test_a_successful_fetch_reports_each_key_by_the_beginning_of_its_id() -> None:
    rig = KeyRig()
    await rig.find(rig.kid)
    at = rig.clock.now()
    refreshed, *added = rig.events
    assert refreshed == KeysRefreshed(timestamp=at, keys=2, generation=1, seconds=0, modified=True)
    assert added == [KeyAdded(timestamp=at, kid=rig.old_kid[:16]), KeyAdded(timestamp=at, kid=rig.kid[:16])]


async def test_a_rotation_reports_the_added_and_the_removed_key() -> None:
    rig = KeyRig(removal_grace=0)
    await rig.find(rig.kid)
    await rig.clock.run_for(2)
    gone, kid = rig.old_kid, rig.rotate()
    await rig.find(kid)
    at = rig.clock.now()
    assert rig.events[-2:] == [KeyRemoved(timestamp=at, kid=gone[:16]), KeyAdded(timestamp=at, kid=kid[:16])]


async def test_an_ignored_entry_is_an_event_each_time_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    rig = KeyRig(jitter=False)
    document = rig.team.certs()
    document["keys"].append({"kty": "EC", "kid": "\r\nforged"})
    rig.certs.answer_with(json.dumps(document).encode())
    for _ in range(3):
        await rig.find(rig.kid)
        await rig.clock.run_for(601)
    await rig.clock.run_for(1)
    skipped = [event for event in rig.events if isinstance(event, JwkIgnored)]
    assert [event.reason for event in skipped] == ["not an RSA key"] * rig.count("keys_refreshed")
    assert rig.count("keys_refreshed") > 1
    assert rig.keys.health().skipped == 1
    assert caplog.text.count("cf-access ignores an entry of the certs document: ") == 1
    assert "forged" not in caplog.text


async def test_a_listener_that_fails_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def listener(event: AccessEvent) -> None:
        raise LookupError(event.name)

    rig = KeyRig()
    rig.keys._cache._metrics.listeners = [listener]
    assert await rig.find(rig.kid) == "ok"
    assert "called a listener that failed at the event keys_refreshed" in caplog.text


async def test_every_failed_fetch_is_a_warning_without_a_word_of_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    rig = KeyRig()
    rig.certs.answer_with(b"<secret>", status=500, headers={"x": "secret"})
    await rig.find(rig.kid)
    (record,) = [record for record in caplog.records if record.name == LOGGER]
    assert record.levelno == logging.WARNING
    assert "HTTP status 500" in record.getMessage()
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("problem", "cause"),
    [
        (LookupError("secret"), r"LookupError at \S+test_metrics\.py:\d+"),
        (ConnectionError("secret"), "failed or was lost"),
    ],
)
async def test_only_an_unexpected_error_of_a_fetch_is_logged_with_its_place(
    problem: Exception, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fetch(url: str, *, headers: Mapping[str, str]) -> AbstractAsyncContextManager[FetchResponse]:
        raise problem

    rig = KeyRig()
    rig.keys._fetcher._fetch = fetch
    await rig.find(rig.kid)
    assert re.search(rf": .*{cause}$", caplog.text, re.MULTILINE)
    assert "secret" not in caplog.text
    assert ".py" not in str(rig.keys.health().last_error)


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    assert raised_at(LookupError()) == "an unknown place"


@pytest.mark.conformance(53)
async def test_no_kid_of_a_token_is_logged_or_emitted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    rig = KeyRig()
    await rig.find(rig.kid)
    for number in range(20):
        await rig.find(f"hostile-{number}")
    assert "hostile" not in caplog.text
    assert "hostile" not in repr(rig.events)


@pytest.mark.conformance(54)
def test_turning_requests_away_is_counted_each_time_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    told: list[AccessEvent] = []
    report = KeyMetrics([told.append], URL)
    for second in range(121):
        report.report_limited("bucket", 3.0, ClockReading(second, second))
    assert report.counts["rate_limited"] == len(told) == 121
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    why = "too many tokens with unknown keys have arrived"
    said = f"cf-access may not fetch {URL} for an unknown key now: {why}; next try in 3.0 s"
    more = " (59 equal records since the last one were not logged)"
    assert [record.getMessage() for record in caplog.records] == [said, said + more, said + more]
    assert all(URL in record.getMessage() for record in caplog.records)


async def test_a_failure_is_logged_once_and_then_once_a_minute_with_the_count_of_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = KeyRig()
    rig.certs.answer_with(b"", status=500)
    starting = asyncio.ensure_future(rig.keys.start())
    await rig.clock.run_for(3600)
    await starting
    await rig.keys.stop()
    logged = [record.getMessage() for record in caplog.records if "could not fetch" in record.getMessage()]
    failures = [int(re.findall(r"\(failure (\d+) in a row", message)[0]) for message in logged]
    assert rig.keys.health().fetch_failures > len(logged) > 50
    assert failures == sorted(set(failures))
    assert all(rig.settings.certs_url in message for message in logged)


def test_another_cause_and_a_failure_after_a_success_are_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    report = KeyMetrics((), URL)
    for number, cause in enumerate(["a", "a", "b", "a", "b"]):
        report.report_failure(
            ConnectionError(), cause, at=ClockReading(number, number), failures=number + 1, retry_in=1
        )
    report.report_refresh(Snapshot(), Snapshot(), at=ClockReading(5, 5), seconds=0, modified=True)
    report.report_failure(ConnectionError(), "a", at=ClockReading(6, 6), failures=1, retry_in=1)
    causes = [record.getMessage()[-1] for record in caplog.records if record.levelname == "WARNING"]
    assert causes == ["a", "b", "a"]


def test_without_a_listener_nothing_is_emitted() -> None:
    KeyMetrics((), URL).report_limited("bucket", 1.0, NOW)


def test_the_same_key_again_is_no_change(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    KeyMetrics([told.append], URL)._report_exchange({"a": 1, "b": 2}, {"a": 1, "b": 3}, NOW)
    assert told == [KeyRemoved(timestamp=1e9, kid="b"), KeyAdded(timestamp=1e9, kid="b")], (
        "another key under the same id"
    )


def test_a_success_forgets_failures_and_not_the_records_of_a_flood(caplog: pytest.LogCaptureFixture) -> None:
    report = KeyMetrics((), URL)
    for second in range(30):
        report.report_limited("bucket", 3.0, ClockReading(second, second))
        report.report_refresh(Snapshot(), Snapshot(), at=ClockReading(second, second), seconds=0, modified=True)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
