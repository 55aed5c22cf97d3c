"""The choice among authenticators: each question goes to the one that the token names, and that one verifies it."""

import json
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access._requests.choosing import ChoosingAuthenticator
from fastapi_cloudflare_access.errors import (
    AccessError,
    AmbiguousToken,
    MalformedToken,
    MissingToken,
    PolicyDenied,
    WrongAudience,
    WrongIssuer,
)
from fastapi_cloudflare_access.events import AccessEvent, RequestRejected
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.policies import Decision, Group
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch, override
from fastapi_cloudflare_access.testing._issuer import base64url

pytestmark = pytest.mark.anyio

ACME, PARTNER = FakeTeam("acme"), FakeTeam("partner")
ADA = ACME.user_token("ada@acme.example", groups=["users"])
BOB = PARTNER.user_token("bob@partner.example", custom={"teams": ["admins"]})
STRANGER = FakeTeam("stranger", audience=ACME.audience).user_token("eve@evil.example")
ADMINS = Group("admins")


class Mine(UserClaims):
    """The model of the second team."""


class Rig:
    """Two authenticators, and the one that chooses."""

    def __init__(self, **options: Any) -> None:
        self.events: dict[str, list[AccessEvent]] = {"acme": [], "partner": []}
        self.first = self.access(ACME, **options)
        self.second = self.access(PARTNER, user_model=Mine, group_claims=("custom.teams",))
        self.both = ChoosingAuthenticator([self.first._authenticator, self.second._authenticator])

    def access(self, team: FakeTeam, **options: Any) -> CloudflareAccess[Any]:
        listeners = [self.events[team.name].append]
        given: dict[str, Any] = {"audience": team.audience, "listeners": listeners, **options}
        return CloudflareAccess(team_domain=team.name, fetch=MemoryFetch(team), clock=team.clock, **given)

    def refused(self) -> list[tuple[str, str, bool, bool]]:
        """Whose listeners heard of which refusal, whether by unverified claims, and whether a digest was known."""
        return [
            (name, event.reason, event.unverified, event.token_digest is not None)
            for name, events in self.events.items()
            for event in events
            if isinstance(event, RequestRejected)
        ]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def scope_of(*tokens: str) -> dict[str, Any]:
    headers = [(b"cf-access-jwt-assertion", token.encode()) for token in tokens]
    return {"type": "http", "method": "GET", "path": "/", "headers": headers}


async def caller_of(rig: Rig, token: str) -> Any:
    return await rig.both.outcome(scope_of(token))


def claiming(**claims: Any) -> str:
    """A token with these claims and no signature of anyone."""
    header = base64url(json.dumps({"alg": "RS256", "kid": ACME.current.kid}).encode())
    return f"{header}.{base64url(json.dumps(claims).encode())}.{base64url(bytes(256))}"


async def test_the_authenticator_of_the_issuer_and_the_audience_verifies(rig: Rig) -> None:
    outcomes = [await rig.both.outcome(scope_of(*tokens)) for tokens in ((ADA,), (BOB,), ())]
    assert [type(outcome) for outcome in outcomes] == [UserClaims, Mine, type(None)]
    service = await rig.both.outcome(scope_of(PARTNER.service_token("bot")))
    assert isinstance(service, ServiceClaims)
    assert isinstance(await rig.both.outcome(scope_of(ADA, BOB)), AmbiguousToken)
    assert rig.both.members == (rig.first._authenticator, rig.second._authenticator)
    assert rig.both.user_models == (UserClaims, Mine)


async def test_a_choice_is_made_once_for_the_headers_of_a_scope(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    choices: list[bytes] = []
    choose = rig.both._choose

    def counted(token: bytes) -> Any:
        choices.append(token)
        return choose(token)

    monkeypatch.setattr(rig.both, "_choose", counted)
    scope = scope_of(ADA)
    first = await rig.both.outcome(scope)
    assert await rig.both.outcome(scope) is first
    scope["headers"] = [*scope["headers"]]
    assert await rig.both.outcome(scope) is first
    assert choices == [ADA.encode()]
    other = await rig.both.outcome({**scope, "headers": scope_of(BOB)["headers"]})
    assert isinstance(other, Mine)
    assert choices == [ADA.encode(), BOB.encode()]


def test_one_member_is_enough() -> None:
    alone = Rig().first._authenticator
    assert ChoosingAuthenticator([alone]).members == (alone,)


async def test_identities_and_decisions_are_those_of_the_chosen_one(rig: Rig) -> None:
    ada, bob = await caller_of(rig, ADA), await caller_of(rig, BOB)
    identity = await rig.both.identity(scope_of(BOB), bob)
    assert isinstance(identity, Identity)
    assert identity.user_uuid == bob.sub
    assert [rig.both.decision(ADMINS, *each) for each in ((ada, scope_of(ADA)), (bob, scope_of(BOB)))] == [
        Decision.DENY,
        Decision.ALLOW,
    ]
    assert await rig.both.decide([ADMINS, Group("others")], bob, scope_of(BOB)) == [Decision.ALLOW, Decision.DENY]


async def test_where_no_member_fits_there_is_no_identity_and_nothing_is_allowed(rig: Rig) -> None:
    bob = await caller_of(rig, BOB)
    for scope, error in ((scope_of(ADA, BOB), AmbiguousToken), (scope_of(STRANGER), WrongIssuer)):
        assert isinstance(await rig.both.identity(scope, bob), error)
        assert rig.both.decision(ADMINS, bob, scope) is Decision.DENY
        assert isinstance(await rig.both.decide([ADMINS], bob, scope), error)


async def test_verify_chooses_by_text_and_by_bytes(rig: Rig) -> None:
    for token in (BOB, BOB.encode()):
        assert isinstance(await rig.both.verify(token), Mine)
    assert type(await rig.both.verify(ADA)) is UserClaims


@pytest.mark.parametrize(
    ("token", "error", "unverified", "has_digest"),
    [
        (None, MissingToken, False, False),
        (5, MalformedToken, False, False),
        ("", MalformedToken, False, False),
        ("\ud800", MalformedToken, False, True),
        ("a.b.c", MalformedToken, False, True),
        ("a" * 20_000, MalformedToken, False, True),
        (STRANGER, WrongIssuer, True, True),
        (STRANGER.encode(), WrongIssuer, True, True),
    ],
    ids=["none", "number", "empty", "surrogate", "segments", "long", "stranger", "bytes"],
)
async def test_verify_refuses_what_fits_none_and_the_first_member_tells(
    rig: Rig, token: Any, error: type[AccessError], *, unverified: bool, has_digest: bool
) -> None:
    with pytest.raises(error):
        await rig.both.verify(token)
    assert rig.refused() == [("acme", error.reason, unverified, has_digest)]


async def test_the_listeners_of_the_chosen_one_hear_of_a_refusal(rig: Rig) -> None:
    denied = PolicyDenied("no")
    for refuse in (rig.both.refuse, rig.both.ignore):
        for scope in (scope_of(BOB), scope_of(ADA), scope_of(ADA, BOB), scope_of()):
            refuse(denied, HTTPConnection(scope))
    assert rig.refused() == [
        *[("acme", PolicyDenied.reason, False, has_digest) for has_digest in (True, False, False)] * 2,
        *[("partner", PolicyDenied.reason, False, True)] * 2,
    ]


async def test_the_validity_of_a_caller_is_found_at_the_member_that_verified(rig: Rig) -> None:
    async def check(*_: object) -> None: ...

    scope = scope_of(BOB)
    bob = await rig.both.outcome(scope)
    rig.both.add_check(check, scope)
    found = rig.both.validity_of(bob)
    assert found is not None
    assert found[0] is rig.second._authenticator
    assert found[1].checks == (check,)
    assert rig.both.validity_of(object()) is None


async def test_a_caller_that_a_test_has_fixed_needs_no_choice(rig: Rig) -> None:
    either = rig.first | rig.second
    bob = PARTNER.user("bob@partner.example")
    with override(either, bob):
        outcome: Any = await either._authenticator.outcome(scope_of(STRANGER))
        assert outcome.principal == bob.principal


async def test_a_caller_that_a_test_has_fixed_for_the_first_member_is_the_caller_of_every_request(rig: Rig) -> None:
    ada = ACME.user("ada@acme.example")
    with override(rig.first, ada):
        for token in (STRANGER, BOB, "a.b.c"):
            outcome: Any = await rig.both.outcome(scope_of(token))
            assert outcome.principal == ada.principal


# unverified claims


def chosen_by(rig: Rig, token: str) -> str:
    """The name of the team that is chosen, or why none is."""
    chosen: Authenticator[Any] | AccessError = rig.both._choose(token.encode())
    if isinstance(chosen, AccessError):
        assert (chosen.__traceback__, chosen.__cause__, chosen.__context__) == (None, None, None)
        assert chosen.unverified == (not isinstance(chosen, MalformedToken))
        return chosen.reason
    return chosen.verifier.settings.team_domain.split("//")[1].split(".")[0]


@pytest.mark.parametrize(
    ("issuer", "audience", "chosen"),
    [
        (ACME.issuer, [ACME.audience], "acme"),
        (PARTNER.issuer, [PARTNER.audience], "partner"),
        (PARTNER.issuer, PARTNER.audience, "partner"),
        (PARTNER.issuer, ["x", 5, None, [], PARTNER.audience], "partner"),
        (ACME.issuer, [PARTNER.audience], WrongAudience.reason),
        (PARTNER.issuer, [], WrongAudience.reason),
        (PARTNER.issuer, None, WrongAudience.reason),
        (PARTNER.issuer, {PARTNER.audience: 1}, WrongAudience.reason),
        (PARTNER.issuer, [[PARTNER.audience]], WrongAudience.reason),
        ("https://a.example", [ACME.audience], WrongIssuer.reason),
        ("https://z.example", [ACME.audience], WrongIssuer.reason),
        ("", [ACME.audience], WrongIssuer.reason),
        ([ACME.issuer], [ACME.audience], WrongIssuer.reason),
        ({ACME.issuer: 1}, [ACME.audience], WrongIssuer.reason),
        (5, [ACME.audience], WrongIssuer.reason),
        (None, [ACME.audience], WrongIssuer.reason),
    ],
)
def test_issuer_and_audience_have_to_fit_one_member(rig: Rig, issuer: Any, audience: Any, chosen: str) -> None:
    assert chosen_by(rig, claiming(iss=issuer, aud=audience)) == chosen


def test_of_several_members_that_fit_the_first_is_chosen_and_a_former_name_fits() -> None:
    rig = Rig()
    renamed = rig.access(ACME, former_team_domains=["older", "old"])
    same = rig.access(ACME)
    rig.both = ChoosingAuthenticator([each._authenticator for each in (rig.second, renamed, same)])
    for issuer in (ACME.issuer, "https://older.cloudflareaccess.com", "https://old.cloudflareaccess.com"):
        chosen = rig.both._choose(claiming(iss=issuer, aud=[ACME.audience]).encode())
        assert chosen is renamed._authenticator
    assert chosen_by(rig, claiming(iss="https://oldest.cloudflareaccess.com", aud=[ACME.audience])) == "wrong_issuer"


def test_a_payload_of_8_kib_is_read_before_it_is_verified_and_a_longer_one_is_not(rig: Rig) -> None:
    claims = {"iss": ACME.issuer, "aud": [ACME.audience], "padding": ""}
    room = 8192 - len(json.dumps(claims))
    assert chosen_by(rig, claiming(**claims | {"padding": "x" * room})) == "acme"
    longer = rig.both._choose(claiming(**claims | {"padding": "x" * (room + 1)}).encode())
    assert str(longer) == "the payload is too long to choose a team by it"


@pytest.mark.parametrize("payload", [b"{", b"[]", b"null", b"not json", b'{"iss":1,"iss":2}', b"\xff"])
def test_a_payload_that_is_no_object_chooses_none(rig: Rig, payload: bytes) -> None:
    header, _, signature = claiming().split(".")
    token = f"{header}.{base64url(payload)}.{signature}"
    assert chosen_by(rig, token) == "malformed_token"
    assert str(rig.both._choose(token.encode())).startswith("the payload is malformed: ")
