"""A patched access object verifies the tokens of the team; afterwards it is restored."""

import asyncio
from contextlib import nullcontext
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, ServiceClaims, UserClaims
from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

access = CloudflareAccess(team_domain="acme", audience=["wiki", "shop"])
app = FastAPI(lifespan=access.lifespan)


@app.get("/me")
async def me(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
    return user.email


@app.get("/jobs")
async def jobs(service: Annotated[ServiceClaims, Depends(access.service)]) -> str:
    return service.common_name


@app.websocket("/ws")
async def talk(socket: WebSocket, user: Annotated[UserClaims, Depends(access.user)]) -> None:
    await socket.accept()
    await socket.send_text(str(user.email))
    await socket.close()


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam("some-other-name", audience="its-own")


def ada(team: FakeTeam[Any]) -> dict[str, str]:
    return team.headers(team.user("ada@example.com"))


def test_the_app_accepts_the_callers_of_the_team_only(team: FakeTeam) -> None:
    with team.patch(access), TestClient(app) as client:
        assert client.get("/me", headers=ada(team)).json() == "ada@example.com"
        assert client.get("/jobs", headers=team.headers(team.service("bot"))).json() == team.client_id("bot")
        assert client.get("/me", headers=team.headers(team.service("bot"))).status_code == 403
        assert client.get("/me", headers=team.headers(team.forge("wrong_key"))).status_code == 401
        assert client.get("/me").status_code == 401


def test_cookies_are_verified_too(team: FakeTeam) -> None:
    with team.patch(access), TestClient(app, cookies=team.cookies(team.user("ada@example.com"))) as client:
        assert client.get("/me").json() == "ada@example.com"


def test_websockets_are_verified_too(team: FakeTeam) -> None:
    with team.patch(access), TestClient(app) as client:
        with client.websocket_connect("/ws", headers=ada(team)) as socket:
            assert socket.receive_text() == "ada@example.com"
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/ws"):
            pytest.fail("it was accepted")
        assert refused.value.status_code == 401


def test_no_lifespan_is_needed(team: FakeTeam) -> None:
    with team.patch(access):
        assert TestClient(app).get("/me", headers=ada(team)).status_code == 200


def test_it_may_begin_inside_a_running_lifespan(team: FakeTeam) -> None:
    other = FakeTeam("acme", audience="wiki")
    with other.patch(access), TestClient(app) as client:
        theirs = ada(other)
        with team.patch(access):
            assert client.get("/me", headers=ada(team)).status_code == 200
            assert client.get("/me", headers=theirs).status_code == 401
        assert client.get("/me", headers=theirs).status_code == 200


@pytest.mark.anyio
async def test_it_works_in_an_async_test(team: FakeTeam) -> None:
    transport = httpx.ASGITransport(app)
    with team.patch(access):
        async with access, httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            team.rotate()
            assert (await client.get("/me", headers=ada(team))).json() == "ada@example.com"


def test_the_team_has_the_issuer_and_audiences_of_the_app_inside_the_context(team: FakeTeam) -> None:
    before = team.issuer, team.audiences
    with team.patch(access):
        assert (team.issuer, team.audiences) == ("https://acme.cloudflareaccess.com", ("wiki", "shop"))
    assert (team.issuer, team.audiences) == before


def test_every_audience_of_the_app_is_accepted(team: FakeTeam) -> None:
    with team.patch(access), TestClient(app) as client:
        user = team.user("ada@example.com", audience="shop")
        assert client.get("/me", headers=team.headers(user)).status_code == 200


def state(access: CloudflareAccess) -> list[object]:
    return [*vars(access.keys).items(), access.keys.clock, access.keys.health(), access.keys.get_or_fetch.__func__]  # type: ignore[attr-defined]


def test_afterwards_the_object_is_restored(team: FakeTeam) -> None:
    before = state(access)
    with team.patch(access), TestClient(app) as client:
        client.get("/me", headers=ada(team))
        assert access.keys.health().keys == 2
    assert state(access) == before
    assert isinstance(access.keys.clock, SystemClock)


def test_afterwards_the_object_is_restored_even_if_the_test_fails(team: FakeTeam) -> None:
    before, own = state(access), (team.issuer, team.audiences)
    with pytest.raises(LookupError), team.patch(access):
        raise LookupError
    assert (state(access), (team.issuer, team.audiences)) == (before, own)


def test_contexts_that_end_in_any_order_restore_everything(team: FakeTeam) -> None:
    second = FakeTeam("second")
    before, own = state(access), (team.issuer, team.audiences)
    first, other = team.patch(access), second.patch(access)
    first.__enter__()
    other.__enter__()
    with TestClient(app) as client:
        first.__exit__(None, None, None)
        assert client.get("/me", headers=ada(second)).status_code == 200
        assert (team.issuer, team.audiences) == own
    other.__exit__(None, None, None)
    assert state(access) == before


def test_a_team_that_patches_two_objects_is_restored_in_any_order(team: FakeTeam) -> None:
    own, fed = (team.issuer, team.audiences), CloudflareAccess(team_domain="fed", audience="shop")
    first, other = team.patch(access), team.patch(fed)
    first.__enter__()
    other.__enter__()
    first.__exit__(None, None, None)
    assert (team.issuer, team.audiences) == ("https://fed.cloudflareaccess.com", ("shop",))
    other.__exit__(None, None, None)
    assert (team.issuer, team.audiences) == own


def test_the_fetch_of_an_object_is_restored(team: FakeTeam) -> None:
    fetch = MemoryFetch(team)
    mine = CloudflareAccess(team_domain="acme", audience="wiki", fetch=fetch, clock=team.clock)
    with team.patch(mine) as certs:
        asyncio.run(mine.keys.refresh())
        assert (certs.fetches, fetch.fetches) == (1, 0)
    asyncio.run(mine.keys.refresh())
    assert (certs.fetches, fetch.fetches) == (1, 1)


def test_the_keys_are_there_from_the_start(team: FakeTeam) -> None:
    with team.patch(access) as certs, TestClient(app) as client:
        assert access.keys.health().keys == 2
        assert client.get("/me", headers=ada(team)).status_code == 200
        assert certs.fetches == 0


def test_a_rotation_is_followed_by_one_fetch(team: FakeTeam) -> None:
    with team.patch(access) as certs, TestClient(app) as client:
        team.rotate()
        assert [client.get("/me", headers=ada(team)).status_code for _ in range(3)] == [200, 200, 200]
        assert certs.fetches == 1


def test_the_app_works_through_an_outage_of_a_day(team: FakeTeam) -> None:
    with team.patch(access) as certs, TestClient(app) as client:
        certs.fail_with(503)
        team.clock.advance(86_000)
        during = client.get("/me", headers=ada(team)).status_code
        team.clock.advance(1_000)
        after = client.get("/me", headers=ada(team))
        assert (during, after.status_code, "retry-after" in after.headers) == (200, 503, True)


def test_a_request_that_waits_moves_the_clock_and_not_the_test(team: FakeTeam) -> None:
    with team.patch(access) as certs, TestClient(app) as client:
        client.get("/me", headers=ada(team))
        certs.hang()
        team.rotate()
        headers, before = ada(team), team.clock.now()
        assert client.get("/me", headers=headers).status_code == 503
        assert 0 < team.clock.now() - before <= 10


@pytest.mark.parametrize("is_running", [True, False])
def test_the_end_of_a_hang_is_noticed_within_a_minute(team: FakeTeam, is_running: bool) -> None:  # noqa: FBT001
    client = TestClient(app)
    with team.patch(access) as certs, client if is_running else nullcontext():
        certs.hang()
        team.rotate()
        team.rotate()
        headers = ada(team)
        during = client.get("/me", headers=headers).status_code
        certs.recover()
        team.clock.advance(60)
        assert (during, client.get("/me", headers=headers).status_code) == (503, 200)


def test_an_app_that_starts_in_an_outage_starts_without_waiting(team: FakeTeam) -> None:
    with team.patch(access) as certs:
        certs.hang()
        team.clock.advance(100_000)
        with TestClient(app) as client:
            assert client.get("/me", headers=ada(team)).status_code == 503


def test_the_app_can_refresh_its_keys_itself(team: FakeTeam) -> None:
    with team.patch(access) as certs:
        certs.slow(4)
        asyncio.run(access.keys.refresh())
        assert certs.fetches == 1


def test_a_token_expires_when_the_clock_is_moved(team: FakeTeam) -> None:
    with team.patch(access), TestClient(app) as client:
        headers = team.headers(team.user("ada@example.com", expires_in=60))
        before = client.get("/me", headers=headers).status_code
        team.clock.advance(71)
        assert (before, client.get("/me", headers=headers).status_code) == (200, 401)


def test_the_machines_clock_can_be_kept() -> None:
    team = FakeTeam(clock=SystemClock())
    with team.patch(access), TestClient(app) as client:
        assert client.get("/me", headers=ada(team)).status_code == 200


def test_copies_are_patched_together(team: FakeTeam) -> None:
    copied = access.with_audience("admin")
    admin_app = FastAPI()

    @admin_app.get("/")
    async def admin(user: Annotated[UserClaims, Depends(copied.user)]) -> None: ...

    with team.patch(access, copied), TestClient(admin_app) as client:
        user = team.user("ada@example.com", audience="admin")
        assert team.audiences == ("wiki", "shop", "admin")
        assert client.get("/", headers=team.headers(user)).status_code == 200
        assert client.get("/", headers=ada(team)).status_code == 401


@pytest.mark.parametrize("make", ["headers", "user", "service_token"])
def test_what_a_team_makes_before_it_is_patched_in_is_a_warning(
    team: FakeTeam, make: str, caplog: pytest.LogCaptureFixture
) -> None:
    made: dict[str, Any] = {
        "headers": ada,
        "user": lambda team: team.user("ada@example.com"),
        "service_token": lambda team: team.service_token("bot"),
    }
    made[make](team)
    with team.patch(access):
        pass
    (record,) = caplog.records
    assert record.getMessage().endswith("rejects as wrong_audience: make them inside of the context")


def test_what_a_team_makes_for_the_app_or_inside_of_the_context_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    own, early = FakeTeam(), FakeTeam(audience="wiki")
    ada(early)
    for team in (own, early):
        for _ in range(2):
            with team.patch(access):
                ada(team)
    other = CloudflareAccess(team_domain="other", audience="x")
    with own.patch(other):
        ada(own)
    assert [record.getMessage() for record in caplog.records if "patch" in record.getMessage()] == []


def test_patch_needs_an_object(team: FakeTeam) -> None:
    with pytest.raises(ConfigurationError, match="needs the CloudflareAccess object of your app"), team.patch():
        pytest.fail("the team was patched in")


def test_one_fake_team_replaces_one_team(team: FakeTeam) -> None:
    other = CloudflareAccess(team_domain="other", audience="a")
    with (
        pytest.raises(ConfigurationError, match=r"acme\.cloudflareaccess\.com, https://other"),
        team.patch(access, other),
    ):
        pytest.fail("the team was patched in")
