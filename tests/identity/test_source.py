"""Asking get-identity: what an answer means, what is kept, what is shared, and what is limited."""

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from threading import Thread
from typing import Any

import pytest
from support.options import load

from fastapi_cloudflare_access import UserClaims
from fastapi_cloudflare_access._identity import limits, source
from fastapi_cloudflare_access._identity.document import MAX_IDENTITY
from fastapi_cloudflare_access._identity.source import IdentitySource, Session
from fastapi_cloudflare_access._verifier import Verifier
from fastapi_cloudflare_access.errors import AccessError, IdentityUnavailable, TokenRevoked
from fastapi_cloudflare_access.events import AccessEvent, IdentityFetched
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.protocols import FetchResponse
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

pytestmark = pytest.mark.anyio


class Rig:
    """A source over the get-identity endpoint of a team of its own."""

    def __init__(self, **options: Any) -> None:
        self.team = FakeTeam("acme")
        self.settings = load(team_domain="acme", audience=self.team.audience, **options)
        self.certs = MemoryFetch(self.team)
        self.endpoint = self.certs.identity
        self.events: list[AccessEvent] = []
        self.source = IdentitySource(
            self.settings, fetch=self.certs, clock=self.team.clock, listeners=[self.events.append]
        )

    def token(self, email: str = "ada@acme.example", **options: Any) -> tuple[bytes, UserClaims]:
        claims = self.team.user_claims(email, **options)
        return self.team.sign(claims).encode(), UserClaims.model_validate(claims)

    async def ask(self, email: str = "ada@acme.example", **options: Any) -> Identity | AccessError:
        return await self.team.clock.run_until(self.source.identity(*self.token(email, **options)))

    async def recheck(self, token: bytes, caller: UserClaims) -> AccessError | None:
        return await self.team.clock.run_until(self.source.recheck(token, caller))

    def fetched(self) -> list[IdentityFetched]:
        return [event for event in self.events if isinstance(event, IdentityFetched)]

    def outcomes(self) -> list[str]:
        return [event.outcome for event in self.fetched()]

    def keep(self, name: str, *, size: int = 0, at: float = 0.0, is_alive: bool = True) -> None:
        """Keep an answer about a token of this name."""
        identity = Identity(user_uuid=name) if size else None
        self.source._keep(name.encode(), Session(is_alive, at), identity, size)

    def kept(self) -> tuple[int, int, int]:
        """The number of sessions and of documents that are kept, and the bytes of the documents."""
        return len(self.source._sessions), len(self.source._documents), self.source._bytes


@pytest.fixture
def rig() -> Rig:
    return Rig()


def name_of(answer: Any) -> str:
    return "identity" if isinstance(answer, Identity) else answer.reason if answer else "alive"


# What an answer means


async def test_the_identity_of_a_user_is_typed_and_has_the_unknown_fields(rig: Rig) -> None:
    rig.team.set_identity("ada@acme.example", groups=[{"id": "1", "name": "admins"}], new_field={"a": [1]})
    identity = await rig.ask()
    assert isinstance(identity, Identity)
    assert (identity.email, identity.groups) == ("ada@acme.example", [{"id": "1", "name": "admins"}])
    assert identity.model_extra == {"new_field": {"a": [1]}}
    [request] = rig.endpoint.requests
    assert request.url == "https://acme.cloudflareaccess.com/cdn-cgi/access/get-identity"
    assert request.headers["cookie"] == f"CF_Authorization={rig.token()[0].decode()}"


@pytest.mark.conformance(75)
@pytest.mark.parametrize(
    "document",
    [
        {"email": 5, "amr": "pwd", "geo": [], "idp": "x", "is_warp": "yes", "iat": "1.5", "oidc_fields": [1]},
        {"email": None, "groups": None, "geo": {"country": 7}, "version": True, "amr": [1]},
        {},
    ],
)
async def test_a_field_of_another_type_is_none_and_does_not_lock_a_user_out(rig: Rig, document: dict[str, Any]) -> None:
    user_id = rig.token()[1].sub
    rig.endpoint.answer_with(json.dumps({**document, "user_uuid": user_id}).encode())
    identity = await rig.ask()
    assert isinstance(identity, Identity)
    assert [getattr(identity, name) for name in document if name not in ("geo", "oidc_fields")] == [
        None for name in document if name not in ("geo", "oidc_fields")
    ]


async def test_nothing_of_an_identity_can_be_changed(rig: Rig) -> None:
    rig.team.set_identity("ada@acme.example", groups=["a"], oidc_fields={"b": ["c"]})
    identity: Any = await rig.ask()
    identity.model_fields_set.clear()
    assert identity.model_fields_set
    changes: list[Callable[[], object]] = [
        lambda: identity.groups.append("admins"),
        lambda: identity.oidc_fields.update(b=1),
        lambda: identity.oidc_fields["b"].append("d"),
        lambda: identity.amr.append("mfa"),
        lambda: identity.model_extra.update(clearance="top"),
        lambda: identity.geo.model_extra.update(city="Ulm"),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="cannot be changed"):
            change()


ANSWERS: dict[str, tuple[int, bytes, dict[str, str], str]] = {
    "the documented refusal": (400, b'{"err":"no app token set"}', {}, "token_revoked"),
    "another refusal": (400, b'{"err":"invalid"}', {}, "identity_unavailable"),
    "a refusal as a list": (400, b'["no app token set"]', {}, "identity_unavailable"),
    "a refusal as HTML": (400, b"<h1>no app token set</h1>", {}, "identity_unavailable"),
    "the refusal with 401": (401, b'{"err":"no app token set"}', {}, "identity_unavailable"),
    "the refusal with 200": (200, b'{"err":"no app token set"}', {}, "identity_unavailable"),
    "403": (403, b"{}", {}, "identity_unavailable"),
    "404 as of a renamed team": (404, b"<h1>Unable to find your Access organization!</h1>", {}, "identity_unavailable"),
    "a redirect": (302, b"", {"location": "https://evil.example/"}, "identity_unavailable"),
    "an outage": (503, b"", {}, "identity_unavailable"),
    "an empty body": (200, b"", {}, "identity_unavailable"),
    "HTML": (200, b"<html>", {}, "identity_unavailable"),
    "null": (200, b"null", {}, "identity_unavailable"),
    "another person": (200, b'{"user_uuid":"somebody else"}', {}, "identity_unavailable"),
    "no person": (200, b'{"email":"ada@acme.example"}', {}, "identity_unavailable"),
    "a person by number": (200, b'{"user_uuid":1}', {}, "identity_unavailable"),
    "twice the same member": (200, b'{"user_uuid":"x","user_uuid":"y"}', {}, "identity_unavailable"),
    "deep nesting": (200, b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", {}, "identity_unavailable"),
    "too many bytes": (200, b'{"a":"' + b"x" * MAX_IDENTITY + b'"}', {}, "identity_unavailable"),
    "a compressed body": (200, b"{}", {"content-encoding": "gzip"}, "identity_unavailable"),
}


@pytest.mark.conformance(75)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
async def test_only_the_documented_refusal_means_that_the_session_is_gone(
    rig: Rig, answer: tuple[int, bytes, dict[str, str], str], caplog: pytest.LogCaptureFixture
) -> None:
    status, body, headers, reason = answer
    caplog.set_level(logging.DEBUG, "fastapi_cloudflare_access")
    rig.endpoint.answer_with(body, status=status, headers=headers)
    found = await rig.ask()
    assert name_of(found) == reason
    assert rig.endpoint.fetches == 1, "no redirect is followed"
    assert rig.outcomes() == ["no_session" if reason == "token_revoked" else "failed"]
    said = f"{found} {[record.getMessage() for record in caplog.records]}"
    assert "evil" not in said
    assert "<h" not in said
    assert rig.token()[0].decode() not in said


@pytest.mark.conformance(75)
@pytest.mark.parametrize("fault", ["reset", "refuse", "truncate", "gzip_bomb", "oversize", "hang", "stall", "garbage"])
async def test_a_fault_of_the_endpoint_ends_within_the_deadline_as_503(rig: Rig, fault: str) -> None:
    getattr(rig.endpoint, fault)()
    started_at = rig.team.clock.monotonic()
    assert name_of(await rig.ask()) == "identity_unavailable"
    assert rig.team.clock.monotonic() - started_at <= rig.settings.key_settings.fetch_timeout


async def test_a_fetch_of_the_app_that_raises_anything_becomes_503(rig: Rig) -> None:
    @asynccontextmanager
    async def broken(url: str, *, headers: Mapping[str, str]) -> AsyncIterator[FetchResponse]:
        raise ValueError(headers["Cookie"])
        yield

    asked = IdentitySource(rig.settings, fetch=broken, clock=rig.team.clock)
    answer = await rig.team.clock.run_until(asked.identity(*rig.token()))
    assert str(answer) == "get-identity could not be asked: the fetch failed with ValueError"


# What is kept, and what is shared


async def test_an_identity_is_asked_once_a_minute_for_each_token(rig: Rig) -> None:
    for _ in range(3):
        assert name_of(await rig.ask()) == "identity"
    assert rig.endpoint.fetches == 1
    rig.team.clock.advance(source.MAX_IDENTITY_AGE - 0.1)
    await rig.ask("ada@acme.example", claims={"iat": rig.token()[1].iat})
    rig.team.clock.advance(0.2)
    await rig.ask()
    assert rig.endpoint.fetches == 3, "each token has an entry of its own"


async def test_an_identity_is_used_again_for_less_than_a_minute(rig: Rig) -> None:
    token = rig.token()
    for seconds, fetches in ((0, 1), (59.75, 1), (0.25, 2), (59.75, 2), (60, 3)):
        rig.team.clock.advance(seconds)
        assert name_of(await rig.source.identity(*token)) == "identity"
        assert rig.endpoint.fetches == fetches


async def test_a_session_that_was_not_found_is_no_identity_for_less_than_a_minute(rig: Rig) -> None:
    token = rig.token()
    rig.endpoint.answer_with(b'{"err":"no app token set"}', status=400, times=1)
    for seconds, reason in ((0, "token_revoked"), (59.75, "token_revoked"), (0.25, "identity")):
        rig.team.clock.advance(seconds)
        assert name_of(await rig.source.identity(*token)) == reason


async def test_each_event_has_the_seconds_that_the_fetch_took(rig: Rig) -> None:
    rig.team.end_sessions("bob@acme.example")
    rig.endpoint.slow(3)
    for email in ("ada@acme.example", "bob@acme.example", "eve@acme.example"):
        rig.team.clock._monotonic = 1.0  # as on a machine that has just started
        if email.startswith("eve"):
            rig.endpoint.hang()
        await rig.ask(email)
    assert [(event.outcome, round(event.seconds, 6)) for event in rig.fetched()] == [
        ("identity", 3),
        ("no_session", 3),
        ("failed", 5),
    ]


async def test_an_age_counts_from_the_start_of_the_fetch(rig: Rig) -> None:
    """As the session may have ended right after the endpoint looked."""
    token = rig.token()
    rig.endpoint.slow(3, times=1)
    assert name_of(await rig.team.clock.run_until(rig.source.identity(*token))) == "identity"
    rig.team.clock.advance(57)
    await rig.source.identity(*token)
    assert rig.endpoint.fetches == 2


async def test_a_failure_is_logged_once_a_minute_and_how_often_it_was_left_out(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.endpoint.fail_with(404)
    for seconds in (0, 10, 40, 10):
        rig.team.clock.advance(seconds)
        failed = await rig.ask()
        assert isinstance(failed, IdentityUnavailable)
        assert failed.retry_after == 1
    sentence = "cf-access could not ask get-identity: a response with HTTP status 404"
    assert [record.getMessage() for record in caplog.records] == [
        sentence,
        f"{sentence} (2 equal records since the last one were not logged)",
    ]


@pytest.mark.conformance(74)
async def test_the_identity_of_one_token_is_never_given_to_another(rig: Rig) -> None:
    answers = [await rig.ask(email) for email in ("ada@acme.example", "bob@acme.example", "ada@acme.example")]
    assert [answer.email for answer in answers if isinstance(answer, Identity)] == [
        "ada@acme.example",
        "bob@acme.example",
        "ada@acme.example",
    ]


async def test_requests_of_one_token_share_one_fetch_and_other_tokens_do_not_wait_for_it(rig: Rig) -> None:
    rig.endpoint.hang(times=1)
    hanging = [asyncio.ensure_future(rig.source.identity(*rig.token())) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    before = rig.team.clock.monotonic()
    assert name_of(await rig.source.identity(*rig.token("bob@acme.example"))) == "identity"
    assert rig.team.clock.monotonic() == before
    hanging[0].cancel()
    await rig.team.clock.run_for(6)
    assert {name_of(await each) for each in hanging[1:]} == {"identity_unavailable"}
    assert rig.endpoint.fetches == 2


async def test_a_cancelled_request_does_not_end_the_fetch_of_the_others(rig: Rig) -> None:
    rig.endpoint.slow(2, times=1)
    first, second = (asyncio.ensure_future(rig.source.identity(*rig.token())) for _ in range(2))
    await rig.team.clock.run_for(1)
    first.cancel()
    await rig.team.clock.run_for(1.5)
    assert name_of(await second) == "identity"


async def test_a_fetch_that_is_cancelled_from_outside_is_an_outage_to_its_waiters(rig: Rig) -> None:
    rig.endpoint.hang()
    waiting = asyncio.ensure_future(rig.source.identity(*rig.token()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == source.FETCH_TASK]
    task.cancel()
    assert name_of(await waiting) == "identity_unavailable"


def test_each_event_loop_makes_its_own_fetch(rig: Rig) -> None:
    rig.endpoint.hang(times=1)

    async def abandoned() -> None:
        _ = asyncio.ensure_future(rig.source.identity(*rig.token()))  # noqa: RUF006 - the loop ends first
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(abandoned())
    assert name_of(asyncio.run(rig.ask())) == "identity"


@pytest.mark.conformance(77)
@pytest.mark.parametrize(("name", "value", "padding"), [("MAX_DOCUMENTS", 3, 0), ("MAX_BYTES", 4_000, 500)])
async def test_the_number_and_the_size_of_kept_identities_are_bounded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str, value: int, padding: int
) -> None:
    monkeypatch.setattr(source, name, value)
    for number in range(5):
        email = f"user{number}@acme.example"
        rig.team.set_identity(email, padding="x" * padding)
        await rig.ask(email)
    await rig.ask("user4@acme.example")
    assert rig.endpoint.fetches == 5, "the last one is kept"
    await rig.ask("user0@acme.example")
    assert rig.endpoint.fetches == 6, "the first one is not"


def test_the_answers_for_65536_tokens_are_remembered_and_those_not_used_for_longest_go_first(rig: Rig) -> None:
    for number in range(65_536):
        rig.keep(str(number))
    assert rig.source._known(b"0")[0] is not None, "which is then the most recently used"
    assert rig.kept() == (65_536, 0, 0)
    rig.keep("another")
    assert rig.kept() == (65_536, 0, 0)
    assert [rig.source._known(name)[0] is not None for name in (b"0", b"1", b"another")] == [True, False, True]


def test_1024_identities_are_kept_and_those_not_used_for_longest_go_first(rig: Rig) -> None:
    for number in range(1024):
        rig.keep(str(number), size=1)
    assert rig.source._known(b"0")[1] is not None, "which is then the most recently used"
    assert rig.kept() == (1024, 1024, 1024)
    rig.keep("another", size=1)
    assert rig.kept() == (1025, 1024, 1024)
    assert [rig.source._known(name)[1] is not None for name in (b"0", b"1", b"another")] == [True, False, True]


def test_8_mib_of_identities_are_kept(rig: Rig) -> None:
    for number in range(128):
        rig.keep(str(number), size=65_536)
    assert rig.kept() == (128, 128, 8_388_608)
    rig.keep("another", size=1)
    assert rig.kept() == (129, 128, 8_388_608 - 65_535)
    rig.keep("a third", size=65_535)
    assert rig.kept() == (130, 129, 8_388_608)


def test_an_answer_without_an_identity_removes_the_one_that_was_kept(rig: Rig) -> None:
    rig.keep("ada", size=100)
    rig.keep("bob", size=50)
    rig.keep("ada", at=1, is_alive=False)
    assert rig.kept() == (2, 1, 50)
    rig.keep("ada", at=0.5, size=100)
    assert rig.source._known(b"ada") == (Session(is_alive=False, asked_at=1), None), "the later answer counts"
    rig.keep("ada", at=1, size=70)
    assert rig.kept() == (2, 2, 120)


async def test_asking_again_replaces_the_entry_and_counts_its_bytes_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_BYTES", 3_000)
    token, caller = rig.token()
    for _ in range(10):
        await rig.team.clock.run_until(rig.source.identity(token, caller))
        rig.team.clock.advance(source.MAX_IDENTITY_AGE + 1)
    await rig.ask("bob@acme.example")
    assert rig.source._bytes == sum(size for _, size in rig.source._documents.values())
    assert len(rig.source._documents) == 2


async def test_another_thread_may_remove_an_entry_while_it_is_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reading(OrderedDict[bytes, Any]):
        def get(self, key: bytes, default: Any = None) -> Any:
            found = super().get(key, default)
            removal = Thread(target=remove)
            removal.start()
            removal.join(0.2)
            return found

    def remove() -> None:
        with rig.source._lock:
            rig.source._sessions.pop(sha256(token).digest(), None)

    token, caller = rig.token()
    await rig.ask()
    monkeypatch.setattr(rig.source, "_sessions", Reading(rig.source._sessions))
    assert isinstance(await rig.source.identity(token, caller), Identity)


# What is limited


@pytest.mark.conformance(77)
async def test_one_user_with_many_tokens_is_limited_and_others_are_not(rig: Rig) -> None:
    answers = [await rig.ask(claims={"jti": str(number)}) for number in range(limits.USER_BURST + 5)]
    assert [name_of(answer) for answer in answers] == ["identity"] * limits.USER_BURST + ["identity_unavailable"] * 5
    assert rig.outcomes()[-5:] == ["limited"] * 5
    limited = answers[-1]
    assert isinstance(limited, IdentityUnavailable)
    assert limited.retry_after == pytest.approx(limits.USER_INTERVAL)
    assert str(limited) == "get-identity could not be asked: too many fetches for this user"
    assert [event.seconds for event in rig.fetched()[-5:]] == [0] * 5
    assert name_of(await rig.ask("bob@acme.example")) == "identity"
    rig.team.clock.advance(limits.USER_INTERVAL)
    assert name_of(await rig.ask(claims={"jti": "later"})) == "identity"
    assert name_of(await rig.ask(claims={"jti": "too soon"})) == "identity_unavailable"


@pytest.mark.conformance(77)
async def test_a_flood_of_users_opens_a_bounded_number_of_connections(rig: Rig) -> None:
    rig.endpoint.hang()
    many = limits.MAX_IN_FLIGHT + 20
    asked = [
        asyncio.ensure_future(rig.source.identity(*rig.token(f"user{number}@acme.example"))) for number in range(many)
    ]
    for _ in range(5):
        await asyncio.sleep(0)
    assert rig.endpoint.fetches == limits.MAX_IN_FLIGHT
    assert sum(task.done() for task in asked) == 20
    await rig.team.clock.run_for(6)
    assert {name_of(await task) for task in asked} == {"identity_unavailable"}


@pytest.mark.conformance(77)
async def test_an_outage_costs_a_request_its_timeout_only_while_it_is_not_known(rig: Rig) -> None:
    rig.endpoint.fail_with(503)
    for number in range(limits.FAILURES + 20):
        await rig.ask(f"user{number}@acme.example")
    assert rig.endpoint.fetches == limits.FAILURES
    rig.team.clock.advance(limits.PAUSE)
    await rig.ask("later@acme.example")
    await rig.ask("too-soon@acme.example")
    assert rig.endpoint.fetches == limits.FAILURES + 1
    rig.endpoint.recover()
    rig.team.clock.advance(2 * limits.PAUSE)
    assert [name_of(await rig.ask(f"user{number}@acme.example")) for number in range(3)] == ["identity"] * 3


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"user_uuid":"somebody else"}'),
        (200, b" " * (MAX_IDENTITY + 1)),
        (200, b"<html>"),
        (302, b""),
        (401, b""),
        (403, b""),
    ],
    ids=["another person", "too many bytes", "HTML", "a redirect", "401", "403"],
)
async def test_an_answer_that_is_odd_for_one_user_pauses_no_other(rig: Rig, status: int, body: bytes) -> None:
    rig.endpoint.answer_with(body, status=status, times=limits.FAILURES + 2)
    for number in range(limits.FAILURES + 2):
        await rig.ask(f"user{number}@acme.example")
    assert name_of(await rig.ask("bob@acme.example")) == "identity"


async def test_fetches_of_a_loop_that_stopped_are_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_IN_FLIGHT", 1)
    rig.endpoint.hang(times=1)
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(rig.source.identity(*rig.token("eve@acme.example")))
    thread = Thread(target=lambda: loop.run_until_complete(asyncio.sleep(0.05)))
    thread.start()
    thread.join()
    for seconds in (0, 9, 1):
        rig.team.clock.advance(seconds)
        assert name_of(await rig.ask()) == "identity_unavailable"
    rig.team.clock.advance(0.5)
    assert name_of(await rig.ask()) == "identity"
    tasks = asyncio.all_tasks(loop)
    assert abandoned in tasks
    for task in tasks:
        task.cancel()
    thread = Thread(target=lambda: loop.run_until_complete(asyncio.wait(tasks)))
    thread.start()
    thread.join()
    loop.close()


# Rechecking sessions

RECHECK: dict[str, Any] = {"recheck_session": 60, "recheck_unavailable": "allow", "recheck_grace": 300}


async def test_a_session_is_asked_for_at_most_once_in_the_interval(rig: Rig) -> None:
    rig = Rig(**RECHECK)
    token, caller = rig.token()
    for seconds in (0, 30, 29.9, 0.2, 59):
        rig.team.clock.advance(seconds)
        assert await rig.recheck(token, caller) is None
    assert rig.endpoint.fetches == 2


@pytest.mark.conformance(78)
async def test_a_session_that_ended_is_refused_after_the_interval_and_stays_refused_in_an_outage() -> None:
    rig = Rig(**RECHECK)
    token, caller = rig.token()
    assert await rig.recheck(token, caller) is None
    rig.team.end_sessions("ada@acme.example")
    assert await rig.recheck(token, caller) is None, "it is not asked before the interval has passed"
    rig.team.clock.advance(60)
    assert isinstance(await rig.recheck(token, caller), TokenRevoked)
    rig.endpoint.fail_with(503)
    rig.team.clock.advance(61)
    assert isinstance(await rig.recheck(token, caller), TokenRevoked)


async def test_the_answer_to_an_earlier_question_does_not_replace_a_later_one() -> None:
    """As with two event loops: the session ends while the answer to the first question is on its way."""
    rig = Rig(**RECHECK)
    token, caller = rig.token()
    slow = asyncio.ensure_future(rig.source._run(sha256(token).digest(), token, caller))
    rig.endpoint.slow(3, times=1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await rig.team.clock.run_for(1)
    rig.team.end_sessions("ada@acme.example")
    assert name_of(await rig.source._run(sha256(token).digest(), token, caller)) == "token_revoked"
    await rig.team.clock.run_for(3)
    assert isinstance(await slow, Identity)
    assert name_of(await rig.recheck(token, caller)) == "token_revoked"


@pytest.mark.conformance(78)
async def test_allow_admits_for_the_grace_after_the_check_was_due_and_no_longer() -> None:
    rig = Rig(**RECHECK)
    token, caller = rig.token()
    assert await rig.recheck(token, caller) is None
    rig.endpoint.fail_with(503)
    rig.team.clock.advance(359)
    assert await rig.recheck(token, caller) is None
    rig.team.clock.advance(0.75)
    assert await rig.recheck(token, caller) is None
    rig.team.clock.advance(0.25)
    assert name_of(await rig.recheck(token, caller)) == "identity_unavailable"


async def test_the_grace_of_a_token_that_was_issued_long_ago_counts_from_its_last_check() -> None:
    rig = Rig(**RECHECK)
    token, caller = rig.token(claims={"iat": int(rig.team.clock.now()) - 7200})
    assert await rig.recheck(token, caller) is None
    rig.endpoint.fail_with(503)
    outage = ((61, "alive"), (298, "alive"), (1, "identity_unavailable"), (700, "identity_unavailable"))
    for seconds, found in outage:
        rig.team.clock.advance(seconds)
        assert name_of(await rig.recheck(token, caller)) == found


async def test_a_token_that_was_never_checked_has_its_grace_from_its_issue() -> None:
    """Else a worker that starts in an outage, or an entry that was removed, would give a new grace for ever."""
    rig = Rig(**RECHECK)
    rig.endpoint.fail_with(503)
    fresh = rig.token()
    old = rig.token("bob@acme.example", claims={"iat": int(rig.team.clock.now()) - 361})
    ahead = rig.token("eve@acme.example", claims={"iat": int(rig.team.clock.now()) + 30})
    assert [name_of(await rig.recheck(*each)) for each in (fresh, old, ahead)] == [
        "alive",
        "identity_unavailable",
        "alive",
    ]
    rig.team.clock.advance(361)
    assert name_of(await rig.recheck(*ahead)) == "alive", "its issue is 30 s later"


async def test_the_grace_ends_although_the_wall_clock_was_set_back() -> None:
    rig = Rig(**RECHECK)
    token, caller = rig.token()
    rig.team.clock.shift_wall(86_400)
    assert await rig.recheck(token, caller) is None
    rig.team.clock.shift_wall(-86_400)
    rig.endpoint.fail_with(503)
    rig.team.clock.advance(361)
    assert name_of(await rig.recheck(token, caller)) == "identity_unavailable"


@pytest.mark.conformance(78)
async def test_deny_refuses_at_once_a_user_that_cannot_be_checked() -> None:
    rig = Rig(recheck_session=60, recheck_unavailable="deny")
    rig.endpoint.fail_with(503)
    assert name_of(await rig.recheck(*rig.token())) == "identity_unavailable"


def test_the_endpoint_of_the_kit_knows_only_tokens_of_its_team() -> None:
    rig = Rig()
    token = rig.token()[0].decode()
    assert rig.team.identity_of(token) is not None
    assert rig.team.identity_of(FakeTeam("other").user_token("ada@acme.example")) is None
    assert rig.team.identity_of(rig.team.service_token("bot")) is None
    assert [rig.team.identity_of(text) for text in ("", "a.b.c", "ä", token[:-8] + "AAAAAAAA")] == [None] * 4
    answer = rig.endpoint.answer("…", {})
    assert (answer.status, b"".join(answer.pieces)) == (400, b'{"err":"no app token set"}')
    assert sha256(token.encode()).digest() not in rig.source._sessions


async def test_sessions_are_remembered_longer_than_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else many users would be asked for on each request, and an evicted answer would start a new grace."""
    monkeypatch.setattr(source, "MAX_DOCUMENTS", 2)
    rig = Rig(**RECHECK)
    users = [rig.token(f"user{number}@acme.example") for number in range(10)]
    for _ in range(3):
        for user in users:
            assert await rig.recheck(*user) is None
    assert rig.endpoint.fetches == len(users)
    assert len(rig.source._documents) == 2
    monkeypatch.setattr(source, "MAX_SESSIONS", 5)
    await rig.recheck(*rig.token("another@acme.example"))
    assert len(rig.source._sessions) == len(users)


async def test_a_session_that_was_not_found_is_asked_for_again_after_a_minute() -> None:
    """One odd answer must not lock a user out for a day."""
    rig = Rig(**RECHECK | {"recheck_session": 86_400})
    token, caller = rig.token()
    rig.endpoint.answer_with(b'{"err":"no app token set"}', status=400, times=1)
    assert isinstance(await rig.recheck(token, caller), TokenRevoked)
    rig.team.clock.advance(59)
    assert isinstance(await rig.recheck(token, caller), TokenRevoked)
    rig.team.clock.advance(1)
    assert await rig.recheck(token, caller) is None


@pytest.mark.conformance(74)
async def test_an_identity_is_never_the_one_of_another_token(rig: Rig) -> None:
    ada, bob = rig.token(), rig.token("bob@acme.example")
    await rig.ask()
    assert name_of(await rig.source.identity(ada[0], bob[1])) == "identity_unavailable"
    await rig.ask("bob@acme.example")
    changed = await rig.source.identity(bob[0], ada[1])
    assert str(changed) == "get-identity could not be asked: the token has changed"
    assert ada[1].sub != bob[1].sub, "one sorts before the other, and neither gets the other's"


async def test_a_verifier_of_tokens_alone_asks_for_no_identity(rig: Rig) -> None:
    """Such as that of the command line."""
    keys = KeySource(rig.settings, fetch=rig.certs, clock=rig.team.clock)
    verifier = Verifier(rig.settings, keys=keys, user_model=UserClaims)
    assert name_of(await verifier.identity([], rig.token()[1])) == "identity_unavailable"
    assert await verifier.recheck(*rig.token()) is None
