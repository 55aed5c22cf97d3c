"""Teams that change their name: tokens with a former name over the team's own keys, and nothing from the old host."""

import logging
from typing import Any

import pytest

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.errors import AccessError, WrongIssuer
from fastapi_cloudflare_access.events import AccessEvent, FormerTeamDomainSeen
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam, MemoryFetch
from fastapi_cloudflare_access.testing.team import shared_key

pytestmark = pytest.mark.anyio

OLD, NEW = "https://oldname.cloudflareaccess.com", "https://newname.cloudflareaccess.com"


class Rig:
    """A team at its new name, and an app that knows the old one."""

    def __init__(self, **options: Any) -> None:
        self.team = FakeTeam("newname")
        self.certs = MemoryFetch(self.team)
        self.events: list[AccessEvent] = []
        given: dict[str, Any] = {"former_team_domains": ["oldname"], **options}
        self.access = CloudflareAccess(
            team_domain="newname",
            audience=self.team.audience,
            fetch=self.certs,
            clock=self.team.clock,
            listeners=[self.events.append],
            **given,
        )

    def token(self, issuer: str, email: str = "ada@acme.example", **options: Any) -> str:
        return self.team.user_token(email, claims={"iss": issuer}, **options)

    def seen(self) -> list[str]:
        return [event.issuer for event in self.events if isinstance(event, FormerTeamDomainSeen)]


@pytest.mark.conformance(79)
async def test_a_former_name_is_accepted_and_the_principal_stays_the_same() -> None:
    rig = Rig()
    old, new = [await rig.access.verify(rig.token(issuer)) for issuer in (OLD, NEW)]
    assert [caller.iss for caller in (old, new)] == [OLD, NEW]
    assert old.principal == new.principal == (NEW, new.principal.subject)
    assert (old.current_issuer, new.current_issuer) == (NEW, NEW)
    assert "current_issuer" not in old.model_dump()
    again = await rig.access.verify(rig.token(OLD))
    assert again.principal == new.principal, "also from the token cache"
    service = await rig.access.verify(rig.team.service_token("bot", claims={"iss": OLD}))
    assert service.principal.issuer == NEW


async def test_the_current_name_survives_copies_and_models_of_the_app() -> None:
    class Mine(UserClaims):
        _note: str = "x"

    rig = Rig(user_model=Mine)
    for _ in range(2):  # the second time the cache builds it anew
        caller = await rig.access.verify(rig.token(OLD))
        assert caller.principal.issuer == NEW
        assert caller.model_copy().principal.issuer == NEW
        assert isinstance(caller, Mine)
        assert caller._note == "x"
    assert UserClaims.model_validate(rig.team.user_claims("ada@acme.example")).principal.issuer == NEW


@pytest.mark.conformance(79)
async def test_other_names_stay_refused_and_nothing_is_fetched_from_a_former_one() -> None:
    rig = Rig()
    for issuer in (
        "https://oldname2.cloudflareaccess.com",
        "http://oldname.cloudflareaccess.com",
        f"{OLD}/",
        "oldname",
    ):
        with pytest.raises(WrongIssuer):
            await rig.access.verify(rig.token(issuer))
    stranger = FakeTeam("oldname", audience=rig.team.audience)  # who took the old name
    for team_token in (stranger.user_token("ada@acme.example"), rig.token(OLD, key=shared_key("stranger", 0))):
        with pytest.raises(AccessError):
            await rig.team.clock.run_until(rig.access.verify(team_token))
    assert {request.url for request in rig.certs.requests} == {f"{NEW}/cdn-cgi/access/certs"}


@pytest.mark.conformance(79)
@pytest.mark.parametrize("name", FORGERIES)
async def test_no_forgery_passes_under_a_former_name(name: str) -> None:
    rig = Rig()
    with pytest.raises(AccessError):
        await rig.team.clock.run_until(rig.access.verify(rig.team.forge(name)))


async def test_an_event_and_a_record_say_once_an_hour_that_a_former_name_was_seen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "fastapi_cloudflare_access")
    rig = Rig()
    token = rig.token(OLD)
    for seconds in (0, 1800, 1799, 1, 10):
        rig.team.clock.advance(seconds)
        await rig.access.verify(token)
    await rig.access.verify(rig.token(NEW))
    assert rig.seen() == [OLD, OLD]
    said = [record.getMessage() for record in caplog.records if "former name" in record.getMessage()]
    assert said == [f"cf-access still sees tokens of {OLD}, a former name of the team"] * 2


async def test_policies_and_identities_work_for_a_former_name() -> None:
    rig = Rig(recheck_session=60, recheck_unavailable="deny")
    await rig.access.verify(rig.token(OLD))
    assert [request.url for request in rig.certs.identity.requests] == [f"{NEW}/cdn-cgi/access/get-identity"]


class Rename:
    """A rename: the keys move from the old host to the new one, then tokens carry the new name."""

    def __init__(self, cache: int) -> None:
        self.team = FakeTeam("oldname")
        self.old_host, self.new_host = MemoryFetch(self.team), MemoryFetch(self.team)
        self.new_host.fail_with(404)
        self.issuer = OLD
        common: dict[str, Any] = {"audience": self.team.audience, "clock": self.team.clock, "token_cache_size": cache}
        self.before = CloudflareAccess(
            team_domain="oldname", former_team_domains="newname", fetch=self.old_host, **common
        )
        self.after = CloudflareAccess(
            team_domain="newname", former_team_domains="oldname", fetch=self.new_host, **common
        )
        self.app = self.before

    def happen(self, step: str) -> None:
        if step == "rename":
            self.old_host.fail_with(404)
            self.new_host.recover()
        if step == "deploy":
            self.app = self.after
        if step == "tokens":
            self.issuer = NEW

    async def reason(self, token: str) -> str:
        try:
            caller = await self.team.clock.run_until(self.app.verify(token))
        except AccessError as error:
            return error.reason
        assert caller.principal.issuer == (NEW if self.app is self.after else OLD)
        return "accepted"


@pytest.mark.conformance(79)
@pytest.mark.parametrize(
    "order",
    [("rename", "deploy", "tokens"), ("rename", "tokens", "deploy"), ("deploy", "rename", "tokens")],
    ids="-".join,
)
@pytest.mark.parametrize("rotates", [False, True])
@pytest.mark.parametrize("cache", [0, 1024])
async def test_a_rename_rejects_no_valid_token_and_takes_no_forged_one(
    order: tuple[str, ...], *, rotates: bool, cache: int
) -> None:
    """503 is the worst that a valid token meets, and only while the host that the app asks has no keys."""
    world = Rename(cache)
    tokens = [world.team.user_token("ada@acme.example")]
    assert await world.reason(tokens[0]) == "accepted"
    for step in order:
        world.happen(step)
        if rotates and step == "rename":
            world.team.rotate()
        world.team.clock.advance(60)
        tokens += [world.team.user_token("ada@acme.example", claims={"iss": issuer}) for issuer in {OLD, world.issuer}]
        reasons = [await world.reason(token) for token in tokens]
        if step == "deploy" and order[0] == "deploy":
            assert {*reasons} == {"keys_unavailable"}, "deployed before the new name has keys"
        elif rotates and world.app is world.before:
            assert {*reasons} <= {"accepted", "key_unconfirmed"}, "the old host cannot have the new key"
            assert reasons[0] == "accepted"
        else:
            assert {*reasons} == {"accepted"}
        forged = world.team.user_token("root@acme.example", claims={"iss": OLD}, key=shared_key("stranger", 0))
        assert await world.reason(forged) != "accepted"
    assert {request.url for request in world.new_host.requests} == {f"{NEW}/cdn-cgi/access/certs"}
