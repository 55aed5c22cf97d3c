"""The listeners that measure: each verification reaches them, and each object."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError
from fastapi_cloudflare_access.errors import AccessError
from fastapi_cloudflare_access.events import AccessEvent
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam, MemoryFetch, override

pytestmark = pytest.mark.anyio


class Recorder:
    """A listener that measures."""

    def __init__(self) -> None:
        self.verifications: list[tuple[float, str | None, str | None, bool]] = []
        self.watched: list[Any] = []
        self.events: list[str] = []

    def __call__(self, event: AccessEvent) -> None:
        self.events.append(event.name)

    def record_verification(self, *result: Any) -> None:
        self.verifications.append(result)

    def watch(self, access: Any) -> None:
        self.watched.append(access)


class CountingClock:
    """A clock that counts how often its monotonic time is read."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock, self.monotonic_readings = clock, 0
        self.now, self.sleep = clock.now, clock.sleep

    def monotonic(self) -> float:
        self.monotonic_readings += 1
        return self._clock.monotonic()


class Rig:
    def __init__(self, *listeners: Any, **options: Any) -> None:
        self.team = FakeTeam("acme")
        self.recorder = Recorder()
        self.fetch = MemoryFetch(self.team)
        self.access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain="acme",
            audience=self.team.audience,
            fetch=self.fetch,
            clock=self.team.clock,
            listeners=[self.recorder, *listeners],
            **options,
        )

    def connection(self, token: str | None) -> HTTPConnection:
        headers = [] if token is None else [(b"cf-access-jwt-assertion", token.encode())]
        return HTTPConnection({"type": "http", "method": "GET", "path": "/", "headers": headers})

    async def ask(self, token: str | None) -> None:
        try:
            await self.access.user(connection=self.connection(token))
        except Exception as error:  # noqa: BLE001 - which one is no matter here
            assert hasattr(error, "error")  # noqa: PT017 - a refusal


async def test_the_first_verification_of_a_token_is_a_miss_and_the_next_a_hit() -> None:
    rig = Rig()
    await rig.access.keys.refresh()
    user, service = rig.team.user_token("ada@example.com"), rig.team.service_token("bot")
    for token in (user, user, service, service):
        await rig.ask(token)
    accepted = [(caller, reason, is_cached) for _, caller, reason, is_cached in rig.recorder.verifications]
    assert accepted == [
        ("user", None, False),
        ("user", None, True),
        ("service", None, False),
        ("service", None, True),
    ]


async def test_a_rejected_token_is_recorded_with_its_reason_and_a_request_without_one_is_not() -> None:
    rig = Rig()
    await rig.ask(rig.team.forge("expired"))
    await rig.ask("a.b.c")
    await rig.ask(None)
    found = [result[1:] for result in rig.recorder.verifications]
    assert found == [(None, "token_expired", False), (None, "malformed_token", False)]


async def test_a_request_is_recorded_once_whatever_its_dependencies_are() -> None:
    rig = Rig()
    connection = rig.connection(rig.team.user_token("ada@example.com"))
    for dependency in (rig.access, rig.access.user, rig.access.optional):
        await dependency(connection=connection)
    assert len(rig.recorder.verifications) == 1


async def test_the_duration_contains_the_wait_for_the_keys() -> None:
    rig = Rig()
    rig.fetch.slow(2)
    await rig.team.clock.run_until(rig.ask(rig.team.user_token("ada@example.com")))
    ((seconds, caller, reason, is_cached),) = rig.recorder.verifications
    assert (round(seconds, 6), caller, reason, is_cached) == (2.0, "user", None, False)


async def test_a_call_of_verify_is_recorded_as_a_request_is() -> None:
    rig = Rig()
    token = rig.team.user_token("ada@example.com")
    await rig.access.verify(token)
    await rig.access.verify(token)
    for wrong in (rig.team.forge("wrong_audience"), "", None):
        with pytest.raises(AccessError):
            await rig.access.verify(wrong)  # type: ignore[arg-type]
    assert [result[1:] for result in rig.recorder.verifications] == [
        ("user", None, False),
        ("user", None, True),
        (None, "wrong_audience", False),
    ]


async def test_a_hit_stays_a_hit_if_another_token_is_verified_while_its_session_is_checked() -> None:
    rig = Rig(recheck_session=60, recheck_unavailable="deny")
    known, other = rig.team.user_token("ada@example.com"), rig.team.user_token("bob@example.com")
    await rig.team.clock.run_until(rig.ask(known))
    rig.team.clock.advance(90)
    rig.fetch.identity.slow(2)
    rig.recorder.verifications.clear()
    asking = asyncio.ensure_future(rig.ask(known))
    await rig.team.clock.run_for(1)
    assert not asking.done()
    await rig.team.clock.run_until(rig.ask(other))
    await rig.team.clock.run_until(asking)
    assert sorted((round(seconds), is_cached) for seconds, _, _, is_cached in rig.recorder.verifications) == [
        (2, False),
        (2, True),
    ]


async def test_without_a_token_cache_there_is_no_hit() -> None:
    rig = Rig(token_cache_size=0)
    token = rig.team.user_token("ada@example.com")
    for _ in range(2):
        await rig.access.verify(token)
    assert [result[3] for result in rig.recorder.verifications] == [False, False]


async def test_only_a_listener_that_does_not_measure_gets_an_event_for_each_accepted_request() -> None:
    events: list[str] = []
    rig = Rig(lambda event: events.append(event.name))
    await rig.access.keys.refresh()
    await rig.ask(rig.team.user_token("ada@example.com"))
    await rig.ask(rig.team.forge("expired"))
    assert rig.recorder.events == [name for name in events if name != "request_accepted"]
    assert events[-2:] == ["request_accepted", "request_rejected"]


async def test_a_listener_that_fails_is_logged_and_changes_no_response(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        def record_verification(self, *result: Any) -> None:
            raise RuntimeError

    rig = Rig(Failing())
    caller = await rig.access.verify(rig.team.user_token("ada@example.com"))
    assert caller.sub == rig.team.user("ada@example.com").sub
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
        "cf-access called a listener that failed at a verification"
    ]
    assert len(rig.recorder.verifications) == 1


async def test_an_overridden_caller_is_recorded_too() -> None:
    rig = Rig()
    with override(rig.access, rig.team.service("bot")):
        assert await rig.access.authenticate(rig.connection(None)) is not None
    assert [result[1:3] for result in rig.recorder.verifications] == [("service", None)]


async def test_a_listener_sees_each_object_and_its_copies_once() -> None:
    rig = Rig()
    other = rig.access.with_audience("b" * 64)
    assert rig.recorder.watched == [rig.access, other]


async def test_a_listener_without_watch_sees_no_object() -> None:
    class WithoutWatch:
        def __init__(self) -> None:
            self.results: list[Any] = []

        def __call__(self, event: AccessEvent) -> None: ...

        def record_verification(self, *result: Any) -> None:
            self.results.append(result)

    listener = WithoutWatch()
    rig = Rig(listener)
    await rig.ask("a.b.c")
    assert len(listener.results) == 1


async def test_an_object_that_has_every_attribute_is_a_plain_listener() -> None:
    """Such as a mock: what its class has decides."""

    class Anything:
        def __init__(self) -> None:
            self.events: list[str] = []

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return pytest.fail

        def __call__(self, event: AccessEvent) -> None:
            self.events.append(event.name)

    listener = Anything()
    rig = Rig(listener)
    await rig.access.verify(rig.team.user_token("ada@example.com"))
    assert listener.events[-1] == "request_accepted"


def test_the_same_listener_twice_is_an_error() -> None:
    recorder = Recorder()
    with pytest.raises(ConfigurationError, match=r"^listeners contains a listener twice, which would count each event"):
        CloudflareAccess(team_domain="acme", audience="a" * 64, listeners=[recorder, print, recorder])


def test_a_class_instead_of_a_listener_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"^listeners contains the class Recorder: write Recorder\(…\), with"):
        CloudflareAccess(team_domain="acme", audience="a" * 64, listeners=[Recorder])  # type: ignore[list-item]


async def test_without_a_listener_that_measures_no_clock_is_read_for_one() -> None:
    team = FakeTeam("acme")
    access = CloudflareAccess(team_domain="acme", audience=team.audience, fetch=MemoryFetch(team), clock=team.clock)
    await access.keys.refresh()
    readings = CountingClock(team.clock)
    access.keys.clock = readings  # type: ignore[misc]
    token = team.user_token("ada@example.com")
    connection = HTTPConnection({"type": "http", "headers": [(b"cf-access-jwt-assertion", token.encode())]})
    await access.authenticate(connection)
    await access.verify(token)
    assert readings.monotonic_readings == 0


async def test_the_number_of_open_streams_counts_connections() -> None:
    rig = Rig()
    assert rig.access.open_streams == 0
    caller: Any = await rig.access.authenticate(rig.connection(rig.team.user_token("ada@example.com")))
    async with rig.access.while_valid(caller), rig.access.while_valid(caller):
        assert rig.access.open_streams == 1
    assert rig.access.open_streams == 0
