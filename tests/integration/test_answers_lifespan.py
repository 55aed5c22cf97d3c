"""The lifespan, what middleware sees and what the docs page offers, on real servers."""

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from support.answer_servers import SERVERS, Serving, uvicorn_serving
from support.answer_table import HEADER, Team, ada, bot, protector

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock


@pytest.fixture
def team() -> Team:
    return FakeTeam("acme", clock=SystemClock())


@pytest.fixture
def certs(team: Team) -> Iterator[CertsServer]:
    with CertsServer(team) as certs:
        yield certs


@pytest.fixture
def access(certs: CertsServer) -> CloudflareAccess[Any]:
    return protector(certs)


@pytest.fixture(params=list(SERVERS))
def serving(request: pytest.FixtureRequest) -> Serving:
    return SERVERS[request.param]


def app_of(access: CloudflareAccess[Any], **options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/me")
    async def me(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
        return user.email

    @app.get("/maybe")
    async def maybe(request: Request, caller: Annotated[Any, Depends(access.optional)]) -> bool:
        return hasattr(request.state, "cloudflare_access")

    return app


def get(address: str, path: str = "/me", token: str | None = None) -> httpx.Response:
    headers = {HEADER: token} if token else {}
    return httpx.get(f"http://{address}{path}", headers=headers, trust_env=False)


def test_with_the_lifespan_keys_are_there_before_the_first_request_and_nothing_stays_after(
    access: CloudflareAccess[Any], certs: CertsServer, serving: Serving, team: Team
) -> None:
    with serving(app_of(access, lifespan=access.lifespan)) as address:
        assert get(address, "/docs").status_code == 200
        health = access.keys.health()
        assert (health.state, health.refresher_alive, certs.fetches) == ("ok", True, 1)
        assert get(address, token=ada(team)).json() == "ada@example.com"
    assert not access.keys.health().refresher_alive
    assert certs.fetches == 1


def test_with_the_lifespan_switched_off_keys_are_fetched_on_the_way(
    access: CloudflareAccess[Any], certs: CertsServer, team: Team
) -> None:
    with uvicorn_serving(app_of(access, lifespan=access.lifespan), lifespan="off") as address:
        assert certs.fetches == 0
        answers = [get(address, token=ada(team)).status_code for _ in range(3)]
        assert (answers, certs.fetches) == ([200, 200, 200], 1)
        assert not access.keys.health().refresher_alive


def test_two_event_loops_one_after_another_share_the_keys(
    access: CloudflareAccess[Any], team: Team, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(access, lifespan=access.lifespan)
    for loop in ("asyncio", "auto"):
        with uvicorn_serving(app, loop=loop) as address:
            assert get(address, token=ada(team)).status_code == 200
            assert access.keys.health().refresher_alive
        assert not access.keys.health().refresher_alive
    with uvicorn_serving(app, lifespan="off") as address:
        assert get(address, token=ada(team)).status_code == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_app_that_starts_without_keys_responds_with_503_and_then_admits_callers(
    certs: CertsServer, team: Team
) -> None:
    certs.refuse()
    access = protector(certs, startup_timeout=0.2)
    with uvicorn_serving(app_of(access, lifespan=access.lifespan)) as address:
        token = ada(team)
        assert get(address, token=token).status_code == 503
        certs.recover()
        access.keys.seed(team.certs_body(), fetched_at=team.clock.now())
        assert get(address, token=token).status_code == 200


def test_a_lifespan_of_ones_own_keeps_its_state_beside_the_claims_and_ends_the_refresh(
    access: CloudflareAccess[Any], team: Team, serving: Serving
) -> None:
    refreshing: list[bool] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, str]]:
        async with access:
            yield {"database": "open"}
        refreshing.append(access.keys.health().refresher_alive)

    app = FastAPI(lifespan=lifespan)

    @app.get("/", dependencies=[Depends(access)])
    async def both(request: Request) -> list[str]:
        return [request.state.database, request.state.cloudflare_access.email]

    with serving(app) as address:
        assert get(address, "/", ada(team)).json() == ["open", "ada@example.com"]
    assert refreshing == [False]


# what middleware sees


class Wrapped:
    """Logging middleware as one writes it for ASGI."""

    def __init__(self, app: ASGIApp, seen: list[Any]) -> None:
        self.app = app
        self.seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
        if scope["type"] == "http":
            self.seen.append(scope.get("state", {}).get("cloudflare_access"))


def test_middleware_finds_the_claims_of_its_own_request_and_of_no_other(
    access: CloudflareAccess[Any], certs: CertsServer, serving: Serving, team: Team
) -> None:
    """Also where a server keeps one state for all requests, and where connections are reused."""
    outer: list[Any] = []
    inner: list[Any] = []
    app = app_of(access, lifespan=access.lifespan)

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        inner.append(getattr(request.state, "cloudflare_access", None))
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    app.add_middleware(Wrapped, seen=outer)
    with serving(app) as address, httpx.Client(base_url=f"http://{address}", trust_env=False) as client:
        assert client.get("/me", headers={HEADER: ada(team)}).status_code == 200
        assert client.get("/maybe").json() is False
        assert client.get("/me", headers={HEADER: team.forge("wrong_key")}).status_code == 401
        assert client.get("/maybe", headers={HEADER: bot(team)}).json() is True
    for seen in (outer, inner):
        assert [getattr(claims, "principal", None) for claims in seen] == [
            (certs.origin, team.user_id("ada@example.com")),
            None,
            None,
            (certs.origin, team.client_id("deploy-bot")),
        ]


# the docs page


def test_the_token_that_the_authorize_button_takes_is_sent_where_it_is_read(
    access: CloudflareAccess[Any], team: Team, serving: Serving
) -> None:
    """The page reads the scheme from the document and sends what was typed under the name that stands there."""
    with serving(app_of(access, lifespan=access.lifespan)) as address:
        document = get(address, "/openapi.json").json()
        usable = [
            scheme
            for alternative in document["paths"]["/me"]["get"]["security"]
            for scheme in [document["components"]["securitySchemes"][name] for name in alternative]
            if len(alternative) == 1 and (scheme["type"], scheme["in"]) == ("apiKey", "header")
        ]
        (scheme,) = usable
        answer = httpx.get(f"http://{address}/me", headers={scheme["name"]: ada(team)}, trust_env=False)
        assert (answer.status_code, answer.json()) == (200, "ada@example.com")


# the challenge


def test_the_scheme_of_the_challenge_is_a_setting(certs: CertsServer, team: Team) -> None:
    with uvicorn_serving(app_of(protector(certs, auth_scheme="Bearer"))) as address:
        assert get(address).headers["www-authenticate"] == "Bearer"
        expired = get(address, token=team.forge("expired")).headers["www-authenticate"]
        assert expired.startswith('Bearer error="invalid_token", ')


def test_the_limiter_says_503_of_a_kid_it_may_not_look_for(certs: CertsServer, team: Team) -> None:
    access = protector(certs, unknown_kid_burst=1)
    first, second = FakeTeam("one", clock=SystemClock()), FakeTeam("two", clock=SystemClock())
    claims = team.user_claims("ada@example.com")
    with uvicorn_serving(app_of(access, lifespan=access.lifespan)) as address:
        answers = [get(address, token=stranger.sign(claims)) for stranger in (first, second)]
    assert [answer.status_code for answer in answers] == [401, 503]
    assert int(answers[1].headers["retry-after"]) >= 1
