"""What requests get: 401 for what is revoked, also after a hit of the token cache, and 503 if the setting says so."""

import asyncio
import gc
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from pydantic import TypeAdapter, field_validator
from starlette.websockets import WebSocketDisconnect
from support.revocation_rig import ADA, BOB, HOUR, BreakableStore, RevocationRig, source_of
from support.stream_rig import wait_forever

from fastapi_cloudflare_access import (
    AccessWebSocketException,
    CloudflareAccess,
    ConfigurationError,
    ServiceClaims,
    UserClaims,
)
from fastapi_cloudflare_access._verifier import Verifier
from fastapi_cloudflare_access.errors import RevocationsUnavailable, TokenRevoked
from fastapi_cloudflare_access.guard import AccessGuard
from fastapi_cloudflare_access.revocations import Revocation, Revocations, RevocationsHealth
from fastapi_cloudflare_access.stores._problem import StoreProblem
from fastapi_cloudflare_access.stores.memory import MemoryStore
from fastapi_cloudflare_access.testing import FakeTeam, override

pytestmark = pytest.mark.anyio

AUD = "0" * 64


@pytest.fixture
async def rig() -> Any:
    async with RevocationRig() as rig:
        yield rig


# the verbs


@pytest.mark.conformance(91)
@pytest.mark.parametrize("by", ["sub", "email"])
async def test_a_log_out_refuses_earlier_tokens_and_accepts_later_ones(rig: RevocationRig, by: str) -> None:
    access, token = await rig.worker(), rig.token()
    caller = await access.verify(token)
    assert await rig.outcome(access, token) == "ok"  # and is in the cache now
    await rig.do(access.revocations.log_out(**{by: caller.sub if by == "sub" else "ADA@example.com"}))
    assert await rig.outcome(access, token) == "token_revoked"
    rig.clock.advance(1)
    assert await rig.outcome(access, token) == "token_revoked"
    assert [await rig.outcome(access, each) for each in (rig.token(), rig.token(BOB))] == ["ok", "ok"]


async def test_a_token_of_the_second_of_the_log_out_is_refused(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.do(access.revocations.log_out(email=ADA))
    assert await rig.outcome(access, rig.token()) == "token_revoked"


async def test_a_service_is_logged_out_by_its_client_id(rig: RevocationRig) -> None:
    access, token = await rig.worker(), rig.team.service_token("0123.access")
    assert await rig.outcome(access, token) == "ok"
    await rig.do(access.revocations.log_out(client_id=(await access.verify(token)).client_id))
    assert await rig.outcome(access, token) == "token_revoked"
    assert await rig.outcome(access, rig.team.service_token("4567.access")) == "ok"


async def test_a_user_with_the_common_name_of_a_service_is_not_that_service(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.do(access.revocations.log_out(client_id="0123.access"))
    assert await rig.outcome(access, rig.token(claims={"common_name": "0123.access"})) == "ok"


async def test_a_block_refuses_new_tokens_too_until_its_end(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.do(access.revocations.block(email=ADA, for_=HOUR))
    await rig.clock.run_for(60)
    assert await rig.outcome(access, rig.token()) == "token_revoked"
    assert await rig.outcome(access, rig.token(BOB)) == "ok"
    rig.clock.advance(3541)
    await rig.clock.run_for(1)  # the reader was interrupted by so long a step
    assert await rig.outcome(access, rig.token()) == "ok"


async def test_an_unblock_ends_a_block_and_no_log_out(rig: RevocationRig) -> None:
    access, token = await rig.worker(), rig.token()
    await rig.do(access.revocations.block(email=ADA, for_=HOUR))
    await rig.clock.run_for(0.1)
    await rig.do(access.revocations.unblock(email=ADA))
    assert await rig.outcome(access, token) == "ok"
    await rig.do(access.revocations.log_out(email=ADA))
    await rig.clock.run_for(0.1)
    await rig.do(access.revocations.unblock(email=ADA))
    assert await rig.outcome(access, token) == "token_revoked"


async def test_one_token_is_revoked_and_others_of_its_caller_are_not(rig: RevocationRig) -> None:
    access = await rig.worker()
    token, other = rig.token(), rig.token(expires_in=1000)
    await rig.do(access.revocations.revoke(token))
    assert [await rig.outcome(access, each) for each in (token, other)] == ["token_revoked", "ok"]


async def test_an_expired_token_is_not_stored(rig: RevocationRig) -> None:
    access, token = await rig.worker(), rig.token(expires_in=60)
    rig.clock.advance(7200)
    await rig.clock.run_for(1)
    writes = rig.store.writes
    await rig.do(access.revocations.revoke(token))
    assert (rig.store.writes, access.revocations.in_force()) == (writes, [])


@pytest.mark.conformance(91)
async def test_a_revocation_reaches_the_other_workers_within_a_second(rig: RevocationRig) -> None:
    first, *others = await rig.workers(3)
    token = rig.token()
    assert [await rig.outcome(each, token) for each in others] == ["ok", "ok"]
    await rig.do(first.revocations.log_out(email=ADA))
    await rig.clock.run_for(0.6)
    assert [await rig.outcome(each, token) for each in others] == ["token_revoked", "token_revoked"]


async def test_records_in_force_are_listed_the_latest_first(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.do(access.revocations.log_out(sub="ada"))
    await rig.clock.run_for(0.5)
    await rig.do(access.revocations.block(client_id="0123.access", for_=HOUR))
    await rig.do(access.revocations.unblock(sub="other"))
    blocked, logged_out = access.revocations.in_force()
    assert isinstance(blocked, Revocation)
    assert (blocked.action, blocked.by, blocked.key) == ("block", "client_id", "0123.access")
    assert blocked.until is not None
    assert HOUR <= blocked.until - blocked.added_at <= HOUR + timedelta(seconds=1)
    assert (logged_out.action, logged_out.by, logged_out.key, logged_out.until) == ("log_out", "sub", "ada", None)
    assert blocked.added_at - logged_out.added_at == timedelta(seconds=0.5)


async def test_the_package_keeps_records_in_the_store_for_31_days_and_an_hour(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.do(access.revocations.log_out(sub="ada"))
    assert rig.store.keep[-1] == 31 * 86_400 + 3600


# every way in


async def test_verify_raises_and_a_copy_for_another_audience_shares_the_revocations(rig: RevocationRig) -> None:
    access = await rig.worker()
    copy = access.with_audience("other")
    tokens = [rig.token(), rig.token(claims={"aud": ["other"]})]
    assert await rig.outcome(copy, tokens[1]) == "ok"
    await rig.do(copy.revocations.log_out(email=ADA))
    for one, token in zip((access, copy), tokens, strict=True):
        with pytest.raises(TokenRevoked, match="the token was revoked") as refused:
            await one.verify(token)
        assert refused.value.__cause__ is None
        assert await rig.outcome(one, token) == "token_revoked"


async def test_each_member_of_a_combination_asks_its_own_revocations(rig: RevocationRig) -> None:
    first = await rig.worker()
    second = await rig.worker(audience=AUD)
    either, token = first | second, rig.token(claims={"aud": [AUD]})
    assert await rig.outcome(either, token) == "ok"
    await rig.do(second.revocations.log_out(email=ADA))
    assert await rig.outcome(either, token) == "token_revoked"


async def test_a_revoked_cookie_is_no_caller_for_optional_and_a_revoked_header_is_refused(rig: RevocationRig) -> None:
    access, token = await rig.worker(), rig.token()
    await rig.do(access.revocations.log_out(email=ADA))
    assert await access.optional(connection=rig.connection(token, source="cookie")) is None
    assert [event.optional for event in rig.named("request_rejected")] == [True]
    with pytest.raises(Exception, match="401"):
        await access.optional(connection=rig.connection(token))


async def test_a_revocation_counts_without_a_token_cache(rig: RevocationRig) -> None:
    access, token = await rig.worker(token_cache_size=0), rig.token()
    assert await rig.outcome(access, token) == "ok"
    await rig.do(access.revocations.revoke(token))
    assert await rig.outcome(access, token) == "token_revoked"


class Mutable(UserClaims, frozen=False):
    """A model that is built again for each request."""

    email: str | None = "hidden"


async def test_a_revocation_counts_for_a_model_that_is_not_frozen(rig: RevocationRig) -> None:
    access, token = await rig.worker(user_model=Mutable), rig.token()
    assert await rig.outcome(access, token) == "ok"
    await rig.do(access.revocations.log_out(email=ADA))
    assert await rig.outcome(access, token) == "token_revoked"


async def test_a_revocation_counts_for_a_token_with_a_new_key(rig: RevocationRig) -> None:
    access = await rig.worker()
    await rig.do(access.revocations.block(email=ADA, for_=HOUR))
    rig.team.rotate()
    assert await rig.outcome(access, rig.token()) == "token_revoked"


def test_the_testing_kit_has_revocations_without_a_store() -> None:
    """`team.patch` replaces the store by memory on the clock of the team."""
    store, team = BreakableStore(FakeTeam().clock), FakeTeam()
    store.problem = OSError()
    access = CloudflareAccess(
        team_domain="acme", audience=team.audience, revocation_store=store, revocations_unavailable="closed"
    )
    app = FastAPI(lifespan=access.lifespan)
    app.add_middleware(AccessGuard, access=access, exempt=["/ready"])
    app.add_route("/ready", access.readiness)

    @app.post("/log-out")
    async def log_out(user: Annotated[UserClaims, Depends(access.user)]) -> int:
        await access.revocations.log_out(sub=user.sub)
        await access.revocations.revoke(team.user_token(BOB, expires_in=-9000))
        return len(access.revocations.in_force())

    with team.patch(access), TestClient(app) as client:
        headers = team.headers(team.user(ADA))
        assert [client.post("/log-out", headers=headers).status_code for _ in range(2)] == [200, 401]
        assert client.get("/ready").json() == {"ready": True, "state": "ok"}
        team.clock.advance(86_400)
        assert client.post("/log-out", headers=team.headers(team.user(ADA))).json() == 1
        assert access.revocations.health().state == "ok"
        with override(access, team.user(ADA)):
            assert [client.post("/log-out").json() for _ in range(2)] == [1, 1]  # nothing is verified
    with override(access, team.user(ADA)), TestClient(app) as client:
        assert client.post("/log-out").json() == 1
    assert store.reads == 0


async def test_a_callback_that_fails_does_not_keep_a_record_from_counting(
    rig: RevocationRig, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def fail(self) -> None:
            raise ValueError

    first, second = await rig.workers(2)
    broken = Broken()
    source_of(second).on_change(broken.fail)
    token = rig.token()
    await rig.do(first.revocations.log_out(email=ADA))
    await rig.clock.run_for(1)
    assert await rig.outcome(second, token) == "token_revoked"
    assert second.revocations.health().last_error is None
    assert "could not end the streams of revoked callers" in caplog.text
    assert "Traceback" in caplog.text


async def test_only_weak_references_to_callbacks_are_kept(rig: RevocationRig) -> None:
    access = await rig.worker()
    for number in range(3):
        access.with_audience(str(number))
    gc.collect()
    await rig.do(access.revocations.log_out(email=ADA))
    source_of(access).on_change(rig.clock.now)
    assert len(source_of(access)._callbacks) == 2


async def test_records_of_a_former_secret_count_and_can_be_unblocked(rig: RevocationRig) -> None:
    old, new = "former" * 6, "newest" * 6
    rig.store.secret = old
    before = await rig.worker()
    await rig.do(before.revocations.block(email=ADA, for_=HOUR))
    rig.store.secret = [new, old]
    after = await rig.worker()
    assert await rig.outcome(after, rig.token()) == "token_revoked"
    await rig.clock.run_for(0.1)
    await rig.do(after.revocations.unblock(email=ADA))
    assert await rig.outcome(after, rig.token()) == "ok"


def test_two_objects_of_one_test_share_revocations_as_they_do_in_the_app() -> None:
    team = FakeTeam()
    access = CloudflareAccess(
        team_domain="acme", audience=AUD, revocation_store=MemoryStore(), revocations_unavailable="closed"
    )
    other = access.with_audience("other")
    with team.patch(access, other):
        asyncio.run(access.revocations.log_out(sub="ada"))
        assert len(other.revocations.in_force()) == 1


# streams


@pytest.mark.conformance(91)
@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("verb", ["log_out", "block", "revoke"])
async def test_a_revocation_of_another_worker_ends_streams(rig: RevocationRig, kind: str, verb: str) -> None:
    first, second = await rig.workers(2)
    token = rig.token()
    ended: list[str | None] = []

    async def stream(given: str) -> None:
        caller: Any = await second.authenticate(rig.connection(given, kind=kind))
        lease = second.while_valid(caller)
        with suppress(AccessWebSocketException):
            async with lease:
                await wait_forever()
        ended.append(lease.ended)

    tasks = [asyncio.create_task(stream(each)) for each in (token, rig.token(BOB))]
    await rig.clock.run_for(1)
    work = {
        "log_out": first.revocations.log_out(email=ADA),
        "block": first.revocations.block(email=ADA, for_=HOUR),
        "revoke": first.revocations.revoke(token),
    }
    for name, each in work.items():
        if name == verb:
            await rig.do(each)
        else:
            each.close()
    await rig.clock.run_for(1)
    assert (ended, [task.done() for task in tasks]) == (["token_revoked"], [True, False])
    assert [event.reason for event in rig.named("stream_ended")] == ["token_revoked"]
    tasks[1].cancel()


class Rewritten(UserClaims):
    """A model whose claims differ from those of the token."""

    email: Any = None

    @field_validator("sub", "email")
    @classmethod
    def rewrite(cls, value: str) -> str:
        return f"id-of-{value}"


@pytest.mark.parametrize("by", ["sub", "email"])
@pytest.mark.parametrize("size", [0, 100])
async def test_streams_end_by_the_claims_of_the_token_whatever_the_model_makes_of_them(
    rig: RevocationRig, by: str, size: int
) -> None:
    access, token = await rig.worker(user_model=Rewritten, token_cache_size=size), rig.token()
    names = {"sub": rig.team.user(ADA).sub, "email": ADA}
    ended: list[str | None] = []

    async def stream() -> None:
        caller: Any = await access.authenticate(rig.connection(token))
        assert caller.email == f"id-of-{ADA}"
        async with access.while_valid(caller) as lease:
            await wait_forever()
        ended.append(lease.ended)

    tasks = [asyncio.create_task(stream()) for _ in range(2)]  # the second one from the cache
    await rig.clock.run_for(1)
    await rig.do(access.revocations.log_out(**{by: names[by]}))
    await rig.clock.run_for(1)
    assert ended == ["token_revoked"] * 2
    assert all(task.done() for task in tasks)


async def test_the_keys_of_a_revocation_are_no_part_of_a_model(rig: RevocationRig) -> None:
    access, token = await rig.worker(user_model=Mutable), rig.token()
    caller: Any = await access.verify(token)
    other = caller.model_copy()
    assert len(vars(other).pop("_revocation_keys").names) == 3
    assert caller == other
    assert other == caller
    assert (repr(caller), dict(caller), caller.model_dump_json()) == (repr(other), dict(other), other.model_dump_json())
    assert TypeAdapter(Mutable | ServiceClaims).dump_json(caller) == other.model_dump_json().encode()


async def test_a_stream_that_opens_after_the_revocation_of_its_request_ends_at_once(rig: RevocationRig) -> None:
    access = await rig.worker()
    caller: Any = await access.authenticate(rig.connection(rig.token()))
    await rig.do(access.revocations.log_out(email=ADA))
    async with access.while_valid(caller) as lease, asyncio.timeout(20):
        await wait_forever()
    assert lease.ended == "token_revoked"


@pytest.mark.conformance(91)
async def test_a_revoked_token_does_not_renew_a_stream(rig: RevocationRig, monkeypatch: pytest.MonkeyPatch) -> None:
    access = await rig.worker()
    caller: Any = await access.authenticate(rig.connection(rig.token()))
    fresh = rig.token(expires_in=80_000)
    async with access.while_valid(caller) as lease:
        verifying = lease._block.authenticator.verify_again

        async def revoked_meanwhile(token: Any, validity: Any) -> Any:
            verified = await verifying(token, validity)
            monkeypatch.setattr(Verifier, "is_revoked", lambda *_: True)
            return verified

        monkeypatch.setattr(lease._block.authenticator, "verify_again", revoked_meanwhile)
        with pytest.raises(TokenRevoked, match="the token was revoked"):
            await lease.renew(fresh)


async def test_streams_of_copies_end_too_and_copies_are_not_kept_alive(rig: RevocationRig) -> None:
    access = await rig.worker()
    for _ in range(3):
        access.with_audience("other")
    copy = access.with_audience("other")
    caller: Any = await copy.authenticate(rig.connection(rig.token(claims={"aud": ["other"]})))

    async def stream() -> Any:
        async with copy.while_valid(caller) as lease:
            await wait_forever()
        return lease.ended

    task = asyncio.create_task(stream())
    await rig.clock.run_for(1)
    await rig.do(access.revocations.log_out(email=ADA))
    await rig.clock.run_for(1)
    assert task.done()
    assert task.result() == "token_revoked"


def test_a_guard_refuses_a_revoked_websocket_and_ends_an_open_one() -> None:
    team = FakeTeam()
    access = CloudflareAccess(
        team_domain="acme", audience=AUD, revocation_store=MemoryStore(), revocations_unavailable="closed"
    )
    app = FastAPI()
    app.add_middleware(AccessGuard, access=access, end_streams=True)

    @app.websocket("/")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        await access.revocations.log_out(email=ADA)
        await asyncio.wait_for(socket.receive_text(), 20)

    with team.patch(access), TestClient(app) as client:
        headers = team.headers(team.user(ADA))
        with client.websocket_connect("/", headers=headers) as socket:
            socket.send_text("log out")
            assert socket.receive()["reason"] == "token_revoked"
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/", headers=headers):
            pass


# without the store


@pytest.mark.conformance(93)
async def test_closed_refuses_valid_tokens_while_the_store_cannot_be_reached(rig: RevocationRig) -> None:
    access, token = await rig.worker(), rig.token()
    await rig.do(access.revocations.log_out(email=BOB))
    bob = rig.token(BOB)
    rig.store.problem = OSError()
    await rig.clock.run_for(9)
    assert await rig.outcome(access, token) == "ok"
    await rig.clock.run_for(2)
    assert await rig.outcome(access, token) == "revocations_unavailable"
    assert await rig.outcome(access, bob) == "token_revoked"
    assert await rig.outcome(access, "x") == "malformed_token"
    ready = await access.readiness()
    assert (ready.status_code, bytes(ready.body)) == (503, b'{"ready":false,"state":"revocations_unavailable"}')
    rig.store.problem = None
    await rig.clock.run_for(2)
    assert await rig.outcome(access, token) == "ok"
    assert (await access.readiness()).status_code == 200


@pytest.mark.conformance(93)
async def test_open_accepts_valid_tokens_and_says_so_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async with RevocationRig(unavailable="open") as rig:
        access, token = await rig.worker(), rig.token()
        await rig.do(access.revocations.log_out(email=BOB))
        bob = rig.token(BOB)
        rig.store.problem = OSError()
        await rig.clock.run_for(30)
        assert [await rig.outcome(access, each) for each in (token, bob)] == ["ok", "token_revoked"]
        said = rig.named("revocations_unreachable")
        assert [(event.cause, event.unavailable) for event in said] == [("it failed with OSError", "open")]
        assert (
            caplog.text.count("cf-access cannot use the store of revocations: it failed with OSError; tokens are") == 1
        )
        await rig.clock.run_for(40)
        assert len(rig.named("revocations_unreachable")) == 2
        assert (await access.readiness()).status_code == 200
        health = access.revocations.health()
        assert (health.state, health.ready, health.following) == ("unavailable", True, True)
        assert health.last_error == "it failed with OSError"
        assert health.age is not None
        assert health.age > 60


async def test_nothing_is_stored_when_the_store_cannot_be_used(rig: RevocationRig) -> None:
    access, token = await rig.worker(), rig.token()
    causes = {OSError("secret"): "it failed", TimeoutError(): "no response", StoreProblem("it is full"): "it is full"}
    for problem, cause in causes.items():
        rig.store.write_problem = problem
        with pytest.raises(RevocationsUnavailable, match=f"nothing was stored: {cause}") as refused:
            await rig.do(access.revocations.log_out(email=ADA))
        assert refused.value.__cause__ is None
        assert "secret" not in str(refused.value)
    assert await rig.outcome(access, token) == "ok"


async def test_a_repeated_revocation_is_stored_again_and_changes_nothing(rig: RevocationRig) -> None:
    access = await rig.worker()
    for _ in range(2):
        await rig.do(access.revocations.log_out(sub="ada"))
    assert len(access.revocations.in_force()) == 1
    assert [(event.action, event.by) for event in rig.named("revocation_added")] == [("log_out", "sub")] * 2


async def test_a_store_that_hangs_is_given_up(rig: RevocationRig) -> None:
    access = await rig.worker()
    rig.store.hangs = True
    with pytest.raises(RevocationsUnavailable, match="no response in time"):
        await rig.do(access.revocations.log_out(email=ADA))


@pytest.mark.parametrize("skew", [301, -301, float("nan"), 1e12])
async def test_a_store_with_a_wrong_clock_revokes_nothing(rig: RevocationRig, skew: float) -> None:
    access = await rig.worker()
    rig.store.skew = skew
    with pytest.raises(RevocationsUnavailable, match="nothing was stored: "):
        await rig.do(access.revocations.log_out(email=ADA))
    assert access.revocations.in_force() == []


async def test_the_clock_of_the_store_decides(rig: RevocationRig) -> None:
    access = await rig.worker()
    rig.store.skew = 60
    await rig.do(access.revocations.log_out(email=ADA))
    await rig.clock.run_for(30)
    assert await rig.outcome(access, rig.token()) == "token_revoked"
    await rig.clock.run_for(31)
    assert await rig.outcome(access, rig.token()) == "ok"


async def test_one_record_beyond_the_limit_is_an_error_for_its_sender(
    rig: RevocationRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_cloudflare_access._revocations.table.MAX_RECORDS", 2)
    access = await rig.worker()
    await rig.do(access.revocations.block(sub="ada", for_=timedelta(seconds=60)))
    await rig.do(access.revocations.log_out(sub="bob"))
    with pytest.raises(RevocationsUnavailable, match="revocations are in force, and no more fit"):
        await rig.do(access.revocations.log_out(sub="eve"))
    assert len(rig.store.content()) == 2 + 1  # and that the log is complete
    assert len(access.revocations.in_force()) == 2
    await rig.clock.run_for(62)  # the block has ended
    await rig.do(access.revocations.log_out(sub="eve"))
    assert len(access.revocations.in_force()) == 2


# the settings


def made(**options: Any) -> CloudflareAccess[Any]:
    return CloudflareAccess(team_domain="acme", audience=AUD, **options)


@pytest.mark.conformance(93)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"revocation_store": MemoryStore()}, "revocation_store needs revocations_unavailable"),
        ({"revocations_unavailable": "open"}, "revocations_unavailable needs revocation_store"),
        ({"revocation_store": "redis://u:p@h", "revocations_unavailable": "open"}, "must be a RevocationStore"),
        ({"revocation_store": MemoryStore, "revocations_unavailable": "open"}, "must be a RevocationStore"),
        ({"revocation_store": MemoryStore(), "revocations_unavailable": "no"}, "must be 'open' or 'closed'"),
        ({"revocation": MemoryStore()}, "did you mean revocation_store?"),
    ],
    ids=range(6),
)
def test_a_wrong_setting_is_an_error_at_construction(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        made(**options)
    assert message in str(wrong.value)
    assert "u:p" not in str(wrong.value)


def test_a_short_secret_is_an_error_at_construction() -> None:
    store: Any = BreakableStore(FakeTeam().clock, secret="short")
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        made(revocation_store=store, revocations_unavailable="open")


def test_the_choice_comes_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCESS_REVOCATIONS_UNAVAILABLE", "closed")
    assert made(revocation_store=MemoryStore()).settings.revocations_unavailable == "closed"
    with pytest.raises(ConfigurationError, match="needs revocation_store"):
        made()


def test_an_object_without_a_store_has_no_revocations() -> None:
    with pytest.raises(ConfigurationError, match=r"access\.revocations needs revocation_store: write"):
        _ = made().revocations


@pytest.mark.parametrize("name", ["log_out", "block", "unblock", "revoke", "in_force", "health"])
def test_no_method_is_a_dependency(name: str) -> None:
    access = made(revocation_store=MemoryStore(), revocations_unavailable="open")
    with pytest.raises(ConfigurationError, match=r"access\.revocations"):
        FastAPI().get("/", dependencies=[Depends(getattr(access.revocations, name))])(lambda: None)


@pytest.mark.parametrize("kind", [Revocations, Revocation, RevocationsHealth])
def test_no_class_is_a_dependency(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"access\.revocations"):
        FastAPI().get("/", dependencies=[Depends(kind)])(lambda: None)


def test_every_field_of_the_health_is_described() -> None:
    described = (RevocationsHealth.__doc__ or "").split("Attributes:")[1]
    assert [name for name in RevocationsHealth.model_fields if f"    {name}: " not in described] == []


async def test_an_object_that_has_read_nothing_is_cold(rig: RevocationRig) -> None:
    health = rig.make().revocations.health()
    assert (health.state, health.ready, health.age, health.records, health.following) == ("cold", False, None, 0, False)
    assert source_of(rig.make()).is_read_due


async def test_a_start_that_is_cancelled_while_it_reads_the_revocations_leaves_no_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async with RevocationRig() as rig:
        access = rig.make()
        monkeypatch.setattr(source_of(access), "start", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await rig.do(access.__aenter__())
        assert access.keys.health().refresher_alive is False
