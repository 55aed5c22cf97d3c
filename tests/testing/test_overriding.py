"""An override replaces the caller for every dependency of an access object, and for nothing else."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

from fastapi_cloudflare_access import (
    Claims,
    CloudflareAccess,
    ConfigurationError,
    KeySettings,
    ServiceClaims,
    UserClaims,
)
from fastapi_cloudflare_access.errors import MissingToken
from fastapi_cloudflare_access.protocols import FetchResponse
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch, override


class Custom(BaseModel):
    level: int


class MyClaims(UserClaims):
    custom: Custom


access = CloudflareAccess(team_domain="acme", audience="wiki")
mine = CloudflareAccess(team_domain="acme", audience="wiki", user_model=MyClaims)
app = FastAPI()
team = FakeTeam("acme")
ada, bot = team.user("ada@example.com"), team.service("deploy-bot")


def is_ada(caller: Claims) -> bool:
    return isinstance(caller, UserClaims) and caller.email == "ada@example.com"


@app.get("/any")
async def any_caller(caller: Annotated[UserClaims | ServiceClaims, Depends(access)]) -> tuple[str, str]:
    return caller.principal


@app.get("/user")
async def user(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
    return user.email


@app.get("/service")
async def service(service: Annotated[ServiceClaims, Depends(access.service)]) -> str:
    return service.common_name


@app.get("/optional")
async def optional(caller: Annotated[Any, Depends(access.optional)]) -> bool:
    return caller is not None


@app.get("/ada", dependencies=[Depends(access.require(is_ada))])
async def only_ada(request: Request) -> str | None:
    email: str | None = request.state.cloudflare_access.email
    return email


@app.get("/mine")
async def level(user: Annotated[MyClaims, Depends(mine.user)]) -> int:
    return user.custom.level


router = APIRouter(prefix="/router", dependencies=[Depends(access.user)])


@router.get("/")
async def routed() -> str:
    return "in"


@app.websocket("/ws")
async def talk(socket: WebSocket, user: Annotated[UserClaims, Depends(access.user)]) -> None:
    await socket.accept()
    await socket.send_text(str(user.email))
    await socket.close()


app.include_router(router)
mounted = FastAPI(dependencies=[Depends(access)])
mounted.add_api_route("/", lambda: "in")
app.mount("/mounted", mounted)
client = TestClient(app)


def statuses() -> dict[str, int]:
    paths = ("any", "user", "service", "optional", "ada", "router/")
    return {path: client.get(f"/{path}").status_code for path in paths}


def test_a_user_is_what_every_dependency_sees() -> None:
    with override(access, ada):
        assert statuses() == {"any": 200, "user": 200, "service": 403, "optional": 200, "ada": 200, "router/": 200}
        assert client.get("/user").json() == client.get("/ada").json() == "ada@example.com"
        assert client.get("/optional").json() is True


def test_a_service_is_what_every_dependency_sees() -> None:
    with override(access, bot):
        assert statuses() == {"any": 200, "user": 403, "service": 200, "optional": 200, "ada": 403, "router/": 403}
        assert client.get("/service").json() == bot.common_name


def test_a_request_without_a_caller_is_rejected_unless_the_caller_is_optional() -> None:
    with override(access, None):
        assert statuses() == {"any": 401, "user": 401, "service": 401, "optional": 200, "ada": 401, "router/": 401}
        assert client.get("/optional").json() is False


def test_policies_still_run() -> None:
    with override(access, team.user("bob@example.com")):
        assert client.get("/ada").status_code == 403


def test_websockets_are_reached() -> None:
    with override(access, ada), client.websocket_connect("/ws") as socket:
        assert socket.receive_text() == "ada@example.com"


def test_a_token_in_the_request_changes_nothing() -> None:
    with override(access, ada):
        headers = {"Cf-Access-Jwt-Assertion": "nonsense"}
        assert client.get("/user", headers=headers).json() == "ada@example.com"


@pytest.mark.anyio
async def test_it_works_in_an_async_test() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        with override(access, ada):
            assert (await client.get("/user")).json() == "ada@example.com"
        assert (await client.get("/user")).status_code == 401


def test_afterwards_no_caller_is_accepted() -> None:
    with override(access, ada):
        pass
    assert (app.dependency_overrides, client.get("/user").status_code) == ({}, 401)


def test_afterwards_no_caller_is_accepted_even_if_the_test_fails() -> None:
    with pytest.raises(LookupError), override(access, ada):
        raise LookupError
    assert app.dependency_overrides == {}


def test_overrides_nest() -> None:
    with override(access, ada):
        with override(access, bot):
            assert client.get("/any").json() == list(bot.principal)
        assert client.get("/any").json() == list(ada.principal)


def test_an_override_of_fastapi_wins_since_it_replaces_the_dependency_itself() -> None:
    app.dependency_overrides[access.user] = lambda: team.user("own@example.com")
    try:
        with override(access, ada):
            assert client.get("/user").json() == "own@example.com"
            assert client.get("/any").json() == list(ada.principal)
    finally:
        app.dependency_overrides.clear()


def test_overrides_that_end_in_any_other_order_leave_no_caller_behind() -> None:
    first, second, third = override(access, ada), override(access, bot), override(access, None)
    first.__enter__()
    second.__enter__()
    third.__enter__()
    second.__exit__(None, None, None)
    assert client.get("/optional").json() is False
    first.__exit__(None, None, None)
    assert client.get("/optional").json() is False
    third.__exit__(None, None, None)
    assert statuses() == dict.fromkeys(statuses(), 401) | {"optional": 200}
    with override(access, bot):
        assert client.get("/any").json() == list(bot.principal)


def test_overrides_and_patches_end_in_any_order() -> None:
    patched, overridden = team.patch(access), override(access, bot)
    patched.__enter__()
    overridden.__enter__()
    patched.__exit__(None, None, None)
    assert client.get("/any").json() == list(bot.principal)
    overridden.__exit__(None, None, None)
    assert client.get("/any", headers=team.headers(ada)).status_code in {401, 503}


@pytest.mark.anyio
async def test_verify_and_authenticate_return_the_caller_too() -> None:
    with override(access, ada):
        assert await access.verify("any token") is ada
    with override(access, None), pytest.raises(MissingToken):
        await access.verify("any token")


def test_middleware_is_reached() -> None:
    outer = FastAPI()
    outer.add_api_route("/", lambda: "in")

    @outer.middleware("http")
    async def ask(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        caller = await access.authenticate(request)
        response.headers["X-Caller"] = "none" if caller is None else caller.principal.subject
        return response

    with override(access, bot):
        assert TestClient(outer).get("/").headers["x-caller"] == bot.client_id


@asynccontextmanager
async def counted(url: str, *, headers: object) -> AsyncGenerator[FetchResponse]:
    fetched.append(url)
    raise ConnectionError
    yield


fetched: list[str] = []
strict = CloudflareAccess(
    team_domain="acme", audience="wiki", key_settings=KeySettings(fail_fast=True), fetch=counted, clock=team.clock
)
guarded = FastAPI(lifespan=strict.lifespan, dependencies=[Depends(strict)])
guarded.add_api_route("/", lambda: "in")


def test_the_lifespan_of_an_app_fetches_no_keys() -> None:
    with override(strict, ada), TestClient(guarded) as client:
        assert client.get("/").status_code == 200
    assert (fetched, strict.keys.health().state) == ([], "cold")


@pytest.mark.anyio
async def test_a_lifespan_that_began_before_ends_as_usual() -> None:
    served = CloudflareAccess(team_domain="acme", audience="wiki", fetch=MemoryFetch(team), clock=team.clock)
    await served.keys.start()
    with override(served, ada):
        async with served:
            assert served.keys.health().refresher_alive
        assert served.keys.health().refresher_alive
    assert served.keys.health().refresher_alive
    await served.keys.stop()
    assert not served.keys.health().refresher_alive


@pytest.mark.anyio
async def test_an_override_may_end_before_the_lifespan_that_it_began_with() -> None:
    served = CloudflareAccess(team_domain="acme", audience="wiki", fetch=MemoryFetch(team), clock=team.clock)
    await served.keys.start()
    with override(served, ada):
        await served.__aenter__()
    await served.__aexit__(None, None, None)
    assert served.keys.health().refresher_alive
    await served.keys.stop()


def test_another_access_object_is_not_reached() -> None:
    with override(access, ada):
        assert client.get("/mine").status_code == 401


def test_a_copy_needs_its_own_override() -> None:
    copied = access.with_audience("shop")
    shop = FastAPI(dependencies=[Depends(copied)])
    shop.add_api_route("/", lambda: "in")
    with override(access, ada):
        assert TestClient(shop).get("/").status_code == 401
    with override(copied, ada):
        assert TestClient(shop).get("/").status_code == 200


def test_an_override_leaves_no_callback_in_the_key_source() -> None:
    callbacks = access.keys._cache.refreshed
    before = len(callbacks)
    for _ in range(5):
        with override(access, ada):
            assert client.get("/any").status_code == 200
    assert len(callbacks) == before


def test_mounted_apps_and_mounted_routers_are_reached() -> None:
    raw = APIRouter()
    raw.add_api_route("/", lambda: "in", dependencies=[Depends(access)])
    outer = FastAPI()
    outer.mount("/raw", raw)
    with override(access, ada):
        assert client.get("/mounted/").status_code == 200
        assert TestClient(outer).get("/raw/").status_code == 200
    assert client.get("/mounted/").status_code == 401


def test_a_user_becomes_an_instance_of_the_user_model() -> None:
    with override(mine, team.user("ada@example.com", custom={"level": 5})) as user:
        assert type(user) is MyClaims
        assert client.get("/mine").json() == 5
    with override(mine, user) as same:
        assert same is user


def test_claims_of_a_user_model_keep_their_names_on_the_wire() -> None:
    class Named(UserClaims):
        level: int = Field(alias="https://example.com/level")

    class Other(UserClaims):
        height: int = Field(alias="https://example.com/level")

    named = CloudflareAccess(team_domain="acme", audience="wiki", user_model=Named)
    other = Other.model_validate(team.user_claims("ada@example.com", claims={"https://example.com/level": 5}))
    with override(named, other) as user:
        assert user.level == 5


def test_a_user_that_is_not_valid_for_the_user_model_is_rejected() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"not a valid MyClaims: see custom\.level"),
        override(mine, team.user("ada@example.com", custom={"floor": 1})),
    ):
        pytest.fail("the caller was accepted")


@pytest.mark.parametrize("caller", ["ada@example.com", {"sub": "1"}])
def test_a_caller_of_another_type_is_rejected(caller: Any) -> None:
    error = rf"team\.user\(…\), team\.service\(…\) or None, not {type(caller).__name__}"
    with pytest.raises(ConfigurationError, match=error), override(access, caller):
        pytest.fail("the caller was accepted")
