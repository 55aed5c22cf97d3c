"""What a fetch brings into the store, in which order, and how old it is."""

import pytest

from fastapi_cloudflare_access._keys.cache import FetchOptions, KeySetCache, PendingFetch
from fastapi_cloudflare_access._keys.document import Document
from fastapi_cloudflare_access._keys.jwks import JwksProblem
from fastapi_cloudflare_access._keys.snapshot import ClockReading
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import FakeTeam

START = ClockReading(1000, 1e9)


def later(seconds: float) -> ClockReading:
    return ClockReading(START.monotonic + seconds, START.wall + seconds)


def store() -> KeySetCache:
    return KeySetCache(Settings.load(team_domain="acme", audience="tag"), ())


def begun(subject: KeySetCache) -> PendingFetch:
    pending = PendingFetch(FetchOptions(force=True), earliest_start=0, reserved=1)
    subject.record_start(pending)
    return pending


def test_older_response_cannot_overwrite_newer() -> None:
    team, subject = FakeTeam("acme"), store()
    early, late = begun(subject), begun(subject)
    before = Document(team.certs_body(), None, None)
    team.rotate()
    subject.accept(late, Document(team.certs_body(), None, None), at=later(1), seconds=1)
    newest = subject.snapshot
    subject.accept(early, before, at=later(2), seconds=2)
    assert subject.snapshot is newest
    assert early.error is None


def test_a_document_that_cannot_be_used_changes_nothing() -> None:
    team, subject = FakeTeam("acme"), store()
    subject.accept(begun(subject), Document(team.certs_body(), '"v1"', None), at=START, seconds=0)
    good = subject.snapshot
    with pytest.raises(JwksProblem):
        subject.accept(begun(subject), Document(b'{"keys":[]}', '"v2"', None), at=later(1), seconds=0)
    assert subject.snapshot is good


def test_more_keys_than_allowed_are_refused_as_a_whole() -> None:
    subject = store()
    with pytest.raises(JwksProblem, match="33 keys"):
        subject.accept(begun(subject), Document(f'{{"keys":{[0] * 33}}}'.encode(), None, None), at=START, seconds=0)


@pytest.mark.parametrize(
    ("age", "state", "usable"),
    [
        (0, "ok", True),
        (1800, "ok", True),
        (1801, "degraded", True),
        (86_400, "degraded", True),
        (86_401, "expired", False),
    ],
)
def test_keys_go_from_ok_to_degraded_to_expired(age: float, state: str, *, usable: bool) -> None:
    subject = store()
    assert subject.state(START) == "cold"
    assert not subject.is_usable(START)
    subject.accept(begun(subject), Document(FakeTeam("acme").certs_body(), None, None), at=START, seconds=0)
    assert subject.state(later(age)) == state
    assert subject.is_usable(later(age)) is usable


def test_lookups_only_look_until_the_next_refresh_and_never_past_the_hard_limit() -> None:
    subject = store()
    subject.schedule_next_check(START, later(9999).monotonic)
    assert subject.next_check_at < START.monotonic, "without keys there is always more to do"
    subject.accept(begun(subject), Document(FakeTeam("acme").certs_body(), None, None), at=START, seconds=0)
    assert subject.next_check_at == subject._limiter.refresh_at
    assert subject.next_check_wall - START.wall == pytest.approx(subject.next_check_at - START.monotonic)
    subject.schedule_next_check(START, later(1e6).monotonic)
    assert subject.next_check_at == later(86_400).monotonic


def test_a_store_can_be_used_after_a_fork_that_caught_another_thread_with_the_lock() -> None:
    subject = store()
    subject._lock.acquire()
    subject.reset_after_fork(START)
    assert begun(subject).sequence == 1


def test_processes_forked_with_the_same_keys_refresh_them_at_different_times() -> None:
    due = set[float]()
    for _ in range(20):
        subject = store()
        subject._limiter.refresh_at = later(600).monotonic
        subject.reset_after_fork(START)
        due.add(round(subject.due(), 6))
        assert 300 <= subject.due() - START.monotonic <= 600
    assert len(due) == 20
