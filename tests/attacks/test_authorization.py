"""Attacks on who may do what, over real sockets: app, certs and get-identity are servers of their own."""

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, NamedTuple, cast

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from support.answer_servers import uvicorn_serving
from support.options import grouped

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._identity.limits import USER_BURST
from fastapi_cloudflare_access._keys.http import HttpxFetch
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.policies import Email, EmailDomain, Group, ServiceToken
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

Team = FakeTeam[SystemClock]
ADMIN_BOT = "0123456789abcdef0123456789abcdef.access"
POLICIES = {
    "domain": EmailDomain("acme.example"),
    "not-domain": ~EmailDomain("acme.example"),
    "root": Email("root@acme.example"),
    "admins": Group("admins"),
    "not-banned": ~Group("banned"),
    "staff": EmailDomain("acme.example") & ~Group("banned"),
    "bot": ServiceToken(ADMIN_BOT),
}


class World(NamedTuple):
    """The running servers."""

    client: httpx.Client
    certs: CertsServer
    rechecked: httpx.Client

    @property
    def team(self) -> Team:
        return cast("Team", self.certs.team)

    def status(self, path: str, token: str) -> int:
        return self.client.get(f"/{path}", headers={"Cf-Access-Jwt-Assertion": token}).status_code


def app_over(certs: CertsServer, **options: Any) -> FastAPI:
    patient = HttpxFetch(trust_env=False, connect_timeout=25, read_timeout=25)  # a busy machine is no outage
    access = CloudflareAccess(
        team_domain=certs.origin,
        audience=certs.team.audience,
        fetch=patient,
        **grouped(options | {"fetch_timeout": 30}),
    )
    app = FastAPI(lifespan=access.lifespan)
    for path, policy in POLICIES.items():
        app.add_api_route(f"/{path}", lambda: "let in", dependencies=[Depends(access.require(policy))])

    @app.get("/identity")
    def identity(request: Request, identity: Annotated[Identity, Depends(access.identity)]) -> str | None:
        return identity.email

    app.add_api_route("/user", lambda: "let in", dependencies=[Depends(access.user)])
    return app


@pytest.fixture(scope="module", params=["h11", "httptools"])
def world(request: pytest.FixtureRequest) -> Generator[World]:
    with (
        CertsServer(FakeTeam("acme", clock=SystemClock())) as certs,
        uvicorn_serving(app_over(certs), http=request.param) as plain,
        uvicorn_serving(
            app_over(certs, recheck_session=5, recheck_unavailable="deny", token_cache_size=8), http=request.param
        ) as rechecked,
        httpx.Client(base_url=f"http://{plain}", trust_env=False, timeout=30) as client,
        httpx.Client(base_url=f"http://{rechecked}", trust_env=False, timeout=30) as other,
    ):
        yield World(client, certs, other)


DOMAINS = [
    "eve@evil-acme.example",
    "eve@acme.example.evil.example",
    "eve@acme.example@evil.example",
    "eve@evil.example@acme.example",
    "eve@sub.acme.example",
    "eve@acme.example.",
    "eve@acme.exаmple",  # noqa: RUF001 - a Cyrillic letter
    "acme.example",
    "@acme.example",
    "eve@",
    "eve@acme.example ",
    "eve@acme.example\n",
    "eve@acme.example\0",
    "",
    None,
    "eve%40acme.example",
    '"eve@acme.example"@evil.example',
]


@pytest.mark.parametrize("email", DOMAINS, ids=repr)
def test_an_address_that_resembles_the_domain_is_not_in_it(world: World, email: str | None) -> None:
    token = world.team.user_token("eve@evil.example", claims={"email": email})
    assert world.status("domain", token) in (401, 403)
    assert world.status("staff", token) in (401, 403)
    if email is None or "@" not in email.strip("@") or email.count("@") > 1:
        assert world.status("not-domain", token) in (401, 403), "what cannot be read is not outside either"


def test_a_service_never_passes_as_a_user_and_a_user_never_as_a_service(world: World) -> None:
    as_user = world.team.service_token("bot", claims={"email": "root@acme.example", "groups": ["admins"]})
    with_name = world.team.user_token("eve@evil.example", claims={"common_name": ADMIN_BOT})
    assert [world.status(path, as_user) for path in ("root", "domain", "admins", "staff")] == [403] * 4
    assert world.status("bot", with_name) == 403
    assert world.status("bot", world.team.service_token(ADMIN_BOT)) == 200
    assert world.status("bot", world.team.service_token(ADMIN_BOT.upper())) == 403
    assert world.status("identity", as_user) == 403


GROUPS: list[tuple[Any, int, int]] = [
    (["admins"], 200, 200),
    ([{"id": "admins"}], 200, 200),
    ([{"id": "1", "name": "admins"}], 200, 200),
    ("admins", 200, 200),
    ("admins,banned", 403, 200),
    ("not-admins", 403, 200),
    (["ADMINS", "admins "], 403, 200),
    ([], 403, 200),
    ({}, 403, 403),
    ({"banned": True}, 403, 403),
    ({"admins": True}, 403, 403),
    ([["admins"]], 403, 403),
    ([None, "admins"], 403, 403),
    (["admins", 5], 403, 403),
    (5, 403, 403),
    (False, 403, 403),
    ([{"id": "admins", "name": ["banned"]}], 403, 403),
    (["banned"], 403, 403),
    ([{"id": "banned", "name": "admins"}], 200, 403),
]


@pytest.mark.parametrize(("groups", "admins", "not_banned"), GROUPS, ids=[repr(row[0]) for row in GROUPS])
def test_groups_in_every_shape_decide_alike_in_token_and_identity(
    world: World, groups: Any, admins: int, not_banned: int
) -> None:
    in_token = world.team.user_token("ada@acme.example", custom={"groups": groups})
    email = f"{abs(hash(repr(groups)))}@acme.example"
    world.team.set_identity(email, groups=groups)
    in_identity = world.team.user_token(email)
    for token in (in_token, in_identity):
        assert [world.status(path, token) for path in ("admins", "not-banned")] == [admins, not_banned]


def test_groups_of_another_team_count_for_nothing(world: World) -> None:
    other = FakeTeam("acme", audience=world.team.audience, clock=SystemClock())
    other.rotate()
    other.rotate()
    stranger = other.user_token("root@acme.example", groups=["admins"], claims={"iss": world.certs.origin})
    assert world.status("admins", stranger) in (401, 503)


def test_null_groups_are_unknown_and_get_identity_decides(world: World) -> None:
    token = world.team.user_token("null@acme.example", custom={"groups": None})
    assert [world.status(path, token) for path in ("admins", "not-banned")] == [403, 403]
    world.team.set_identity("known@acme.example", groups=["admins"])
    token = world.team.user_token("known@acme.example", custom={"groups": None})
    assert [world.status(path, token) for path in ("admins", "not-banned")] == [200, 200]


def test_the_identity_of_another_person_is_refused_and_not_kept(world: World) -> None:
    email = "victim@acme.example"
    world.certs.identity.answer_with(b'{"user_uuid":"eve","groups":["admins"]}', times=1)
    token = world.team.user_token(email)
    assert world.status("admins", token) == 503
    assert world.status("admins", token) == 403, "the next answer is the user's own"


def test_many_tokens_of_one_user_are_limited_and_other_users_are_not(world: World) -> None:
    tokens = [world.team.user_token("flood@acme.example", claims={"jti": str(n)}) for n in range(USER_BURST * 3)]
    before = world.certs.identity.fetches
    with ThreadPoolExecutor(8) as pool:
        statuses = [*pool.map(lambda token: world.status("identity", token), tokens)]
    assert {*statuses} == {200, 503}
    assert world.certs.identity.fetches - before < len(tokens)
    assert world.status("identity", world.team.user_token("other@acme.example")) == 200


def test_an_ended_session_stays_out_of_every_route_and_a_forged_token_causes_no_fetch(world: World) -> None:
    ada, headers = world.team.user_token("leaver@acme.example"), {}
    headers = {"Cf-Access-Jwt-Assertion": ada}
    assert world.rechecked.get("/user", headers=headers).status_code == 200
    world.team.end_sessions("leaver@acme.example")
    deadline = time.monotonic() + 60
    while world.rechecked.get("/user", headers=headers).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [world.rechecked.get(f"/{path}", headers=headers).status_code for path in ("user", "staff", "identity")] == [
        401,
        401,
        401,
    ]
    before = world.certs.identity.fetches
    forged = {"Cf-Access-Jwt-Assertion": world.team.forge("tampered_payload")}
    assert world.rechecked.get("/user", headers=forged).status_code == 401
    assert world.certs.identity.fetches == before


def test_a_rejected_role_of_a_request_says_nothing_to_the_client(world: World) -> None:
    answer = world.client.get(
        "/admins", headers={"Cf-Access-Jwt-Assertion": world.team.user_token("ada@acme.example", groups=["users"])}
    )
    assert (answer.status_code, answer.json()) == (403, {"detail": "This caller is not allowed here"})
    assert "admins" not in f"{answer.headers} {answer.text}"
