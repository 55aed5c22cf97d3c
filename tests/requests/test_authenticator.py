"""What an authenticator keeps of a connection: its caller, its policies, and the caller of a fresh token."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access._requests.authentication import FORMER_NAME_INTERVAL, Authenticator
from fastapi_cloudflare_access.errors import (
    AccessError,
    AmbiguousToken,
    IdentityUnavailable,
    MalformedToken,
    MissingToken,
    PolicyDenied,
    TokenExpired,
)
from fastapi_cloudflare_access.events import AccessEvent, FormerTeamDomainSeen, RequestAccepted, RequestRejected
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.policies import Decision, Email, Group
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

pytestmark = pytest.mark.anyio

TEAM = FakeTeam("acme")
ADA, BOT = TEAM.user_token("ada@example.com", groups=["users"]), TEAM.service_token("bot")
FRESH = TEAM.user_token("ada@example.com", claims={"jti": "fresh"})
BOB = TEAM.user_token("bob@example.com")


class Rig:
    """An authenticator whose events are kept."""

    def __init__(self, **options: Any) -> None:
        self.events: list[AccessEvent] = []
        self.certs = MemoryFetch(TEAM)
        access: CloudflareAccess[Any] = CloudflareAccess(
            team_domain="acme",
            audience=TEAM.audience,
            fetch=self.certs,
            clock=TEAM.clock,
            listeners=[self.events.append],
            **options,
        )
        self.it: Authenticator[Any] = access._authenticator

    def refused(self) -> list[tuple[str, bool, bool]]:
        """The reasons, whether the digest of a token was known, and whether the request went on."""
        refusals = [event for event in self.events if isinstance(event, RequestRejected)]
        return [(each.reason, each.token_digest is not None, each.optional) for each in refusals]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def scope_of(*tokens: str, cookies: Sequence[str] = (), kind: str = "http") -> dict[str, Any]:
    headers = [(b"cf-access-jwt-assertion", token.encode()) for token in tokens]
    headers += [(b"cookie", f"CF_Authorization={token}".encode()) for token in cookies]
    return {"type": kind, "method": "GET", "path": "/", "headers": headers}


async def admit(*_: object) -> AccessError | None:
    return None


# the connection


async def test_the_validity_of_a_connection_belongs_to_its_caller(rig: Rig) -> None:
    scope = scope_of(ADA)
    ada = await rig.it.outcome(scope)
    assert scope["state"] == {"cloudflare_access": ada}
    found = rig.it.validity_of(ada)
    assert found is not None
    assert (found[0], found[1].caller, found[1].is_websocket, found[1].outer) == (rig.it, ada, False, None)
    for other in (None, object(), TEAM.user("ada@example.com")):
        assert rig.it.validity_of(other) is None
    found[1].newest = "a newer one"
    assert rig.it.validity_of("a newer one") == found
    assert await asyncio.create_task(rig.it.outcome(scope)) is ada


async def test_a_connection_knows_whether_it_is_a_websocket(rig: Rig) -> None:
    caller = await rig.it.outcome(scope_of(ADA, kind="".join("websocket")))
    found: Any = rig.it.validity_of(caller)
    assert found[1].is_websocket is True
    again = await rig.it.verify(FRESH)
    inner: Any = rig.it.validity_of(again)
    assert inner[1].is_websocket is True, "a token that is verified on a WebSocket is of that WebSocket"
    assert inner[1].outer is found[1]


async def test_where_nothing_was_verified_there_is_no_validity(rig: Rig) -> None:
    assert rig.it.validity_of(None) is None
    assert rig.it.validity_of(object()) is None


async def test_verify_beside_a_request_leaves_the_validity_of_the_request(rig: Rig) -> None:
    ada = await rig.it.outcome(scope_of(ADA))
    of_request: Any = rig.it.validity_of(ada)
    for token in (BOB, BOT):
        caller = await rig.it.verify(token)
        own: Any = rig.it.validity_of(caller)
        assert (own[1].caller, own[1].outer, own[1].is_websocket) == (caller, of_request[1], False)
        assert rig.it.validity_of(ada) == of_request, "however often another token is verified"


async def test_a_scope_that_is_asked_again_restores_its_validity(rig: Rig) -> None:
    first, second = scope_of(ADA), scope_of(BOT)
    ada, bot = await rig.it.outcome(first), await rig.it.outcome(second)
    assert rig.it.validity_of(ada) is None
    assert await rig.it.outcome(first) is ada
    assert rig.it.validity_of(ada) is not None
    assert rig.it.validity_of(bot) is None


async def test_each_policy_of_a_connection_is_kept_once_and_in_order(rig: Rig) -> None:
    async def other(*_: object) -> AccessError | None:
        return None

    ada = await rig.it.outcome(scope := scope_of(ADA))
    for check in (admit, other, admit, other):
        rig.it.add_check(check, scope)
    found: Any = rig.it.validity_of(ada)
    assert found[1].checks == (admit, other)


# a fresh token


async def renewed(rig: Rig, first: str, fresh: str, *checks: Any) -> Any:
    """The caller of a fresh token, or why there is none."""
    caller = await rig.it.outcome(
        scope := scope_of(first) if rig.it.token_sources[0] == "header" else scope_of(cookies=[first])
    )
    for check in checks:
        rig.it.add_check(check, scope)
    found: Any = rig.it.validity_of(caller)
    try:
        return await rig.it.verify_again(fresh, found[1])
    except AccessError as error:
        return error


async def test_a_fresh_token_of_the_same_caller_renews(rig: Rig) -> None:
    caller = await renewed(rig, ADA, FRESH, admit, admit)
    assert caller.principal == TEAM.user("ada@example.com").principal
    assert rig.refused() == []
    assert isinstance(await renewed(rig, BOT, TEAM.service_token("bot", claims={"jti": "x"})), ServiceClaims)


@pytest.mark.parametrize(("first", "fresh"), [(ADA, BOB), (BOB, ADA), (ADA, BOT), (BOT, ADA)])
async def test_a_fresh_token_of_another_caller_is_refused(rig: Rig, first: str, fresh: str) -> None:
    error = await renewed(rig, first, fresh, admit)
    assert type(error) is PolicyDenied
    assert str(error) == "the fresh token is of another caller"
    assert rig.refused() == [(PolicyDenied.reason, True, False)]


async def test_a_user_with_the_subject_of_a_service_is_another_caller(rig: Rig) -> None:
    service = await rig.it.verify(BOT)
    as_user = TEAM.user_token("eve@example.com", claims={"sub": service.principal.subject})
    for first, fresh in ((BOT, as_user), (as_user, BOT)):
        assert type(await renewed(rig, first, fresh)) is PolicyDenied


@pytest.mark.parametrize("sources", ["header", "cookie"])
async def test_each_policy_is_asked_about_the_fresh_token_until_one_refuses(sources: Any) -> None:
    rig, asked = Rig(token_sources=sources), list[Any]()
    no = PolicyDenied("no")

    async def note(caller: UserClaims, connection: HTTPConnection) -> None:
        asked.append((caller.model_extra.get("jti"), await rig.it.outcome({**connection.scope, "path": "/"})))

    async def deny(*_: object) -> AccessError:
        return no

    assert await renewed(rig, ADA, FRESH, note, deny, note) is no
    ((claim, outcome),) = asked
    assert (claim, outcome.model_extra["jti"]) == ("fresh", "fresh"), "the connection carries the fresh token"
    assert rig.refused() == [(PolicyDenied.reason, True, False)]


async def test_a_fresh_token_that_is_not_valid_is_refused_before_any_policy(rig: Rig) -> None:
    assert type(await renewed(rig, ADA, TEAM.forge("expired"))) is TokenExpired
    assert rig.refused() == [(TokenExpired.reason, True, False)]


# decisions and identities


async def test_a_policy_is_decided_by_the_token_and_by_the_identity_only_where_the_token_is_silent(rig: Rig) -> None:
    policies = [Group("users"), Group("admins"), Email("ada@example.com")]
    scope = scope_of(ADA)
    ada = await rig.it.outcome(scope)
    assert isinstance(ada, UserClaims)
    assert [rig.it.decision(policy, ada, scope) for policy in policies] == [
        Decision.ALLOW,
        Decision.DENY,
        Decision.ALLOW,
    ]
    assert await rig.it.decide(policies, ada, scope) == [Decision.ALLOW, Decision.DENY, Decision.ALLOW]
    assert rig.certs.identity.fetches == 0
    bob = await rig.it.outcome(scope := scope_of(BOB))
    TEAM.set_identity("bob@example.com", groups=["admins"])
    assert [rig.it.decision(policy, bob, scope) for policy in policies] == [
        Decision.UNKNOWN,
        Decision.UNKNOWN,
        Decision.DENY,
    ]
    assert await rig.it.decide(policies, bob, scope) == [Decision.DENY, Decision.ALLOW, Decision.DENY]
    assert rig.certs.identity.fetches == 1
    bot = await rig.it.outcome(scope := scope_of(BOT))
    assert await rig.it.decide([Group("users")], bot, scope) == [rig.it.decision(Group("users"), bot, scope)]
    assert rig.certs.identity.fetches == 1


async def test_an_identity_that_cannot_be_had_decides_nothing(rig: Rig) -> None:
    rig.certs.identity.fail_with(500)
    bob = await rig.it.outcome(scope := scope_of(BOB))
    assert isinstance(bob, UserClaims)
    assert isinstance(await rig.it.identity(scope, bob), IdentityUnavailable)
    assert isinstance(await rig.it.decide([Email("bob@example.com"), Group("a")], bob, scope), IdentityUnavailable)
    assert await rig.it.decide([Email("bob@example.com")], bob, scope) == [Decision.ALLOW]
    rig.certs.identity.recover()
    assert isinstance(await rig.it.identity(scope, bob), Identity)


# refusals


@pytest.mark.parametrize(
    ("scope", "error", "is_rejected"),
    [
        (scope_of(cookies=[ADA]), TokenExpired("x"), True),
        (scope_of(ADA), TokenExpired("x"), False),
        (scope_of(ADA, cookies=[ADA]), TokenExpired("x"), False),
        (scope_of(cookies=[ADA]), PolicyDenied("x"), False),
        (scope_of(cookies=[ADA]), IdentityUnavailable("x"), False),
    ],
    ids=["cookie", "header", "both", "policy", "outage"],
)
def test_only_a_cookie_that_is_not_valid_is_a_rejected_cookie(
    rig: Rig, scope: dict[str, Any], error: AccessError, *, is_rejected: bool
) -> None:
    assert rig.it.is_rejected_cookie(error, scope) is is_rejected


async def test_the_event_of_a_refusal_names_the_token_if_there_is_one(rig: Rig) -> None:
    expired = TokenExpired("x")
    for scope in (scope_of(ADA), scope_of(), scope_of(ADA, BOB)):
        rig.it.refuse(expired, HTTPConnection(scope))
        rig.it.ignore(expired, HTTPConnection(scope))
    rig.it.refuse_call(expired, ADA.encode())
    rig.it.refuse_call(expired, b"")
    has_digest = [True, True, False, False, False, False, True, False]
    optional = [False, True, False, True, False, True, False, False]
    assert rig.refused() == [
        (TokenExpired.reason, digest, goes_on) for digest, goes_on in zip(has_digest, optional, strict=True)
    ]
    assert {event.timestamp for event in rig.events} == {TEAM.clock.now()}


async def test_no_caller_and_two_callers_are_no_outcome_that_a_handler_sees(rig: Rig) -> None:
    for scope, kind in ((scope_of(), type(None)), (scope_of(ADA, BOB), AmbiguousToken)):
        assert type(await rig.it.outcome(scope)) is kind
        assert "state" not in scope
    assert [event for event in rig.events if isinstance(event, RequestAccepted)] == []
    with pytest.raises(MissingToken, match=r"^there is no token$"):
        await rig.it.verify(None)


async def test_a_request_and_a_call_of_verify_have_the_same_digest(rig: Rig) -> None:
    await rig.it.outcome(scope_of(ADA))
    await rig.it.verify(ADA)
    await rig.it.verify(BOT)
    accepted = [event for event in rig.events if isinstance(event, RequestAccepted)]
    assert [event.caller for event in accepted] == ["user", "user", "service"]
    assert accepted[0].token_digest == accepted[1].token_digest != accepted[2].token_digest
    assert len(accepted[0].token_digest) == 12


async def test_the_log_shows_where_a_listener_that_measures_failed(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def __call__(self, event: AccessEvent) -> None: ...

        def record_verification(self, *_: object) -> None:
            raise ZeroDivisionError

    access: CloudflareAccess[Any] = CloudflareAccess(
        team_domain="acme", audience=TEAM.audience, fetch=MemoryFetch(TEAM), clock=TEAM.clock, listeners=[Failing()]
    )
    await access.verify(ADA)
    ((kind, _, _),) = [record.exc_info for record in caplog.records if record.exc_info]
    assert kind is ZeroDivisionError


# former names


async def test_each_former_name_is_told_once_an_hour_and_the_present_name_never() -> None:
    rig = Rig(former_team_domains=["aaa", "old", "older"])
    for _ in range(2):
        for name in ("aaa", "old", "older", "acme"):
            issuer = f"https://{name}.cloudflareaccess.com"
            await rig.it.verify(TEAM.user_token("ada@example.com", claims={"iss": issuer}))
    rig.it._former_name_seen("https://old.cloudflareaccess.com")
    TEAM.clock.advance(FORMER_NAME_INTERVAL)
    rig.it._former_name_seen("https://old.cloudflareaccess.com")
    seen = [event for event in rig.events if isinstance(event, FormerTeamDomainSeen)]
    assert [event.issuer.split("//")[1].split(".")[0] for event in seen] == ["aaa", "old", "older", "old"]
    assert seen[3].timestamp - seen[1].timestamp == 3600


# the longest token


def token_of_length(length: int) -> str:
    """A valid token of so many characters."""
    short = len(TEAM.user_token("ada@example.com", claims={"padding": ""}))
    estimate = (length - short) * 3 // 4
    for padding in range(estimate - 3, estimate + 4):
        token = TEAM.user_token("ada@example.com", claims={"padding": "x" * padding})
        if len(token) == length:
            return token
    raise AssertionError(length)


async def test_a_text_that_begins_with_a_valid_token_of_16_kib_and_is_longer_is_refused(rig: Rig) -> None:
    longest = token_of_length(16_384)
    assert await rig.it.verify(ADA), "which fetches the keys"
    assert isinstance(await rig.it.verify(longest), UserClaims)
    for longer in (f"{longest}x", f"{longest}x".encode(), f"{longest}{'x' * 100_000}", f"{longest}ä"):
        with pytest.raises(MalformedToken, match=r"^the token is too long$"):
            await rig.it.verify(longer)
