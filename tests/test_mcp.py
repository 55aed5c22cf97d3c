"""The bridge for MCP servers: what it refuses at construction, what it passes on, and policies of single tools."""

import asyncio
import inspect
import logging
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from textwrap import dedent
from typing import Any, get_overloads
from unittest.mock import ANY

import pytest

pytest.importorskip("fastmcp", reason="the MCP SDKs need newer versions than the lowest that the package admits")

import fastmcp
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from fastmcp import FastMCP
from fastmcp.server.auth import MultiAuth
from mcp.server import MCPServer
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.settings import AuthSettings
from pydantic import validate_call
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from support.mcp_servers import fastmcp_server, official_server

import fastapi_cloudflare_access.mcp as bridges
from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, KeySettings, ServiceClaims, UserClaims
from fastapi_cloudflare_access._verifier import Verifier
from fastapi_cloudflare_access.errors import IdentityUnavailable
from fastapi_cloudflare_access.events import AccessEvent, RequestRejected
from fastapi_cloudflare_access.mcp import (
    AccessUser,
    Bridge,
    CloudflareAccessProvider,
    bridge,
    get_caller,
    requires,
    versions,
)
from fastapi_cloudflare_access.policies import EmailDomain, Group
from fastapi_cloudflare_access.stores.memory import MemoryStore
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch, override

pytestmark = pytest.mark.mcp_sdks

LOGGER = "fastapi_cloudflare_access"
HEADERS = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam()


@pytest.fixture
def access(team: FakeTeam) -> Iterator[CloudflareAccess]:
    access = CloudflareAccess(team_domain=team.team_domain, audience=team.audience)
    with team.patch(access):
        yield access


async def empty(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


# what is refused at construction


class SomeVerifier:
    async def verify_token(self, token: str) -> None: ...


def own_auth() -> Starlette:
    """Return the app of a server that verifies bearer tokens by itself."""
    auth = AuthSettings(
        issuer_url="https://login.example.com",  # type: ignore[arg-type]
        resource_server_url="https://mcp.example.com",  # type: ignore[arg-type]
        **({"validate_token_resource": False} if "validate_token_resource" in AuthSettings.model_fields else {}),  # type: ignore[arg-type]
    )
    return MCPServer("x", auth=auth, token_verifier=SomeVerifier()).streamable_http_app()


def wrapped(app: Any) -> Any:
    return Starlette(routes=[Mount("/inner", app=app)])


def app_with(**parts: Any) -> Starlette:
    return Starlette(**parts)


BACKEND = Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(SomeVerifier()))
OTHER_SCHEME = (
    "the app has authentication of its own, which would refuse the callers of the bridge or advertise another login: "
    "remove auth=, auth_server_provider= and token_verifier= from the server"
)
MISTAKES: dict[str, tuple[Callable[[Any], object], str]] = {
    "no object": (lambda access: bridge(empty, None), "access must be a CloudflareAccess, not NoneType: "),  # type: ignore[arg-type]
    "the class": (
        lambda access: bridge(empty, CloudflareAccess),  # type: ignore[arg-type]
        "access must be a CloudflareAccess, not the class CloudflareAccess: write bridge(app, access)",
    ),
    "a dependency": (
        lambda access: bridge(empty, access.user),
        "access must be the whole object, not access.user: write bridge(app, access)",
    ),
    "the object as the app": (
        lambda access: bridge(access, access),
        "the first argument of bridge must be the app of the SDK: write bridge(app, access)",
    ),
    "a server instead of its app": (
        lambda access: bridge(MCPServer("x"), access),  # type: ignore[arg-type]
        "the first argument of bridge must be the app of the SDK: write bridge(app, access)",
    ),
    "a class as the app": (lambda access: bridge(Starlette, access), "the first argument of bridge must be the app"),  # type: ignore[arg-type]
    "auth of the official SDK": (lambda access: bridge(own_auth(), access), OTHER_SCHEME),
    "auth of the official SDK, mounted": (lambda access: bridge(wrapped(own_auth()), access), OTHER_SCHEME),
    "a backend of the official SDK alone": (
        lambda access: bridge(app_with(middleware=[BACKEND]), access),
        OTHER_SCHEME,
    ),
    "a guard of the official SDK alone": (
        lambda access: bridge(app_with(routes=[Route("/", RequireAuthMiddleware(empty, []))]), access),
        OTHER_SCHEME,
    ),
    "the bridge as middleware": (
        lambda access: bridge(app_with(middleware=[Middleware(Bridge, access=access)]), access),
        "the app has FastMCP(auth=CloudflareAccessProvider(access)) already, which contains the bridge: take bridge(…)",
    ),
    "another provider of FastMCP": (
        lambda access: bridge(
            FastMCP("x", auth=MultiAuth(verifiers=[CloudflareAccessProvider(access)])).http_app(),  # type: ignore[list-item]
            access,
        ),
        OTHER_SCHEME,
    ),
    "the provider and the bridge": (
        lambda access: bridge(wrapped(FastMCP("x", auth=CloudflareAccessProvider(access)).http_app()), access),
        "the app has FastMCP(auth=CloudflareAccessProvider(access)) already, which contains the bridge: take bridge(…)",
    ),
    "the bridge twice": (
        lambda access: bridge(bridge(empty, access), access),
        "the app is behind a bridge already: take one of them away",
    ),
    "the provider of another team": (
        lambda access: bridge(
            FastMCP("x", auth=CloudflareAccessProvider(CloudflareAccess(team_domain="b", audience="x"))).http_app(),
            access,
        ),
        "the app verifies the tokens of another object already: give both the same one",
    ),
    "the bridge of another team": (
        lambda access: bridge(bridge(empty, CloudflareAccess(team_domain="b", audience="x")), access),
        "the app verifies the tokens of another object already: give both the same one",
    ),
    "a provider without an object": (
        lambda access: CloudflareAccessProvider(None),  # type: ignore[arg-type]
        "access must be a CloudflareAccess, not NoneType: write FastMCP(auth=CloudflareAccessProvider(access))",
    ),
    "a provider with metadata": (
        lambda access: CloudflareAccessProvider(access, required_scopes=["x"], base_url="https://a.example"),  # type: ignore[arg-type]
        "CloudflareAccessProvider takes no base_url, required_scopes: clients get OAuth metadata from Cloudflare",
    ),
}


@pytest.mark.conformance(84)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_at_construction(access: CloudflareAccess, mistake: str) -> None:
    make, sentence = MISTAKES[mistake]
    with pytest.raises(ConfigurationError) as refused:
        make(access)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize("used", [bridge, Bridge], ids=["function", "class"])
def test_a_bridge_as_a_dependency_is_refused(used: Any) -> None:
    app = FastAPI()
    with pytest.raises(ConfigurationError, match="a bridge is not a dependency"):
        app.get("/", dependencies=[Depends(used)])(lambda: None)


def test_apps_without_authentication_of_their_own_are_bridged(access: CloudflareAccess) -> None:
    for app in (
        official_server().streamable_http_app(),
        fastmcp_server(None).http_app(),
        FastAPI(),
        Starlette(middleware=[Middleware(Plain)], routes=[Route("/", empty)]),
        empty,
    ):
        assert isinstance(bridge(app, access), Bridge)


def test_an_app_that_is_mounted_in_itself_is_bridged(access: CloudflareAccess) -> None:
    app = Starlette()
    app.router.routes.append(Mount("/again", app=Plain(app)))
    assert isinstance(bridge(app, access), Bridge)


class Plain:
    """Middleware that does nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


# the SDKs


@pytest.mark.parametrize(("name", "lowest"), [("mcp", "2.0"), ("fastmcp", "4.0")])
def test_a_missing_sdk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, lowest: str) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", missing)
    with pytest.raises(ImportError) as refused:
        versions.check_sdk(name)
    assert isinstance(refused.value, ConfigurationError)
    assert str(refused.value) == (
        f"{name} {lowest} or newer is not installed: pip install 'fastapi-cloudflare-access[{name}]'"
    )


@pytest.mark.parametrize("installed", ["1.30.0", "1", "unknown"])
def test_an_old_sdk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, installed: str) -> None:
    monkeypatch.setattr(versions, "version", lambda name: installed)
    with pytest.raises(ConfigurationError, match=f"^mcp {installed} is too old: pip install 'mcp>=2.0'$"):
        versions.check_sdk("mcp")


@pytest.mark.parametrize("installed", ["2.0.0", "2.0.0rc1", "2.0rc1", "2.3", "2", "3.0"])
def test_every_newer_sdk_is_admitted(monkeypatch: pytest.MonkeyPatch, installed: str) -> None:
    monkeypatch.setattr(versions, "version", lambda name: installed)
    versions.check_sdk("mcp")


@pytest.mark.parametrize("installed", ["2.x", "2.0", "2", "x.5"])
def test_what_is_not_a_number_in_a_version_counts_as_zero(monkeypatch: pytest.MonkeyPatch, installed: str) -> None:
    monkeypatch.setattr(versions, "version", lambda name: installed)
    monkeypatch.setattr(versions, "LOWEST", {"mcp": (2, 1), "lowest": (0, 5)})
    with pytest.raises(ConfigurationError, match="is too old"):
        versions.check_sdk("mcp")
    versions.check_sdk("lowest")


def test_the_floors_are_those_of_the_extras() -> None:
    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for name, lowest in versions.LOWEST.items():
        assert extras[name][0].startswith(f"{name}>={lowest[0]}.{lowest[1]}.0,<{lowest[0] + 1}")


def test_the_module_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Cloudflare'"):
        getattr(bridges, "Cloudflare")  # noqa: B009 - unknown to type checkers
    assert all(hasattr(bridges, name) for name in bridges.__all__)


@pytest.mark.conformance(47)
def test_the_provider_advertises_no_metadata(access: CloudflareAccess, team: FakeTeam) -> None:
    app = fastmcp_server(access).http_app()
    with TestClient(app, headers=team.headers(team.user("ada@example.com"))) as client:
        for path in ("oauth-protected-resource", "oauth-protected-resource/mcp", "oauth-authorization-server"):
            assert client.get(f"/.well-known/{path}").status_code == 404


@pytest.mark.conformance(84)
def test_a_bearer_token_is_refused_if_the_provider_is_part_of_another_one(
    access: CloudflareAccess, team: FakeTeam, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastMCP("x", auth=MultiAuth(verifiers=[CloudflareAccessProvider(access)])).http_app()  # type: ignore[list-item]
    token = team.user_token("ada@example.com")
    for bearer in (token, "cloudflare-access"):
        with TestClient(app, headers={"Authorization": f"Bearer {bearer}"}) as client:
            assert client.post("/mcp", json={}).status_code == 401
    assert "CloudflareAccessProvider stands alone" in caplog.text
    assert token not in caplog.text


# what is passed on


def echo() -> Starlette:
    """Return an app that tells what it receives."""

    async def show(request: Any) -> JSONResponse:
        user = request.user
        seen = {"headers": request.headers.items(), "is_access_user": isinstance(user, AccessUser)}
        return JSONResponse(seen | {"name": user.display_name, "scopes": request.auth.scopes})

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(get_caller().principal.subject)
        await socket.close()

    return Starlette(routes=[Route("/", show), WebSocketRoute("/socket", talk)])


def test_an_app_sees_the_caller_as_the_user(access: CloudflareAccess, team: FakeTeam) -> None:
    with TestClient(bridge(echo(), access)) as client:
        for caller, name in (
            (team.user("ada@example.com"), team.audience),
            (bot := team.service("bot"), bot.client_id),
        ):
            seen = client.get("/", headers=team.headers(caller)).json()
            assert (seen["is_access_user"], seen["name"], seen["scopes"]) == (True, name, [])


def test_an_app_behind_the_bridge_receives_no_authorization(access: CloudflareAccess, team: FakeTeam) -> None:
    """FastMCP insists on one, so its provider puts a fixed word there."""
    headers = team.headers(team.user("ada@example.com"))
    for given in ({}, {"Authorization": "Bearer secret"}):
        bridged: list[ASGIApp] = [bridge(echo(), access), Bridge(app=echo(), access=access)]
        for app in bridged:
            seen = TestClient(app, headers=headers | given).get("/").json()
            assert "authorization" not in dict(seen["headers"])
    (middleware,) = CloudflareAccessProvider(access).get_middleware()
    provided: Any = middleware.cls(echo(), *middleware.args, **middleware.kwargs)
    assert dict(TestClient(provided, headers=headers).get("/").json()["headers"])["authorization"] == (
        "Bearer cloudflare-access"
    )


def test_the_client_id_of_a_user_is_the_first_audience_of_the_token(team: FakeTeam) -> None:
    user = AccessUser(team.user("ada@example.com").model_copy(update={"aud": ("first", "second", "third")}))
    assert (user.username, user.access_token.client_id) == ("first", "first")


def test_a_revoked_caller_is_refused(team: FakeTeam) -> None:
    access = CloudflareAccess(
        team_domain="acme", audience="0" * 64, revocation_store=MemoryStore(), revocations_unavailable="closed"
    )
    app = bridge(Starlette(routes=[Route("/", PlainTextResponse("ok"))]), access)
    with team.patch(access), TestClient(app) as client:
        headers = team.headers(team.user("ada@example.com"))
        assert client.get("/", headers=headers).status_code == 200
        asyncio.run(access.revocations.log_out(email="ADA@example.com"))
        assert client.get("/", headers=headers).status_code == 401


def test_either_of_two_objects_can_be_bridged(access: CloudflareAccess, team: FakeTeam) -> None:
    other = CloudflareAccess(team_domain="other", audience="b" * 64)
    other_team = FakeTeam("other")
    either = access | other
    with other_team.patch(other), TestClient(bridge(echo(), either)) as client:
        for issuer in (team, other_team):
            assert client.get("/", headers=issuer.headers(issuer.user("ada@example.com"))).json()["is_access_user"]
        assert client.get("/").status_code == 401


def test_the_user_has_no_scopes_and_the_claims_without_the_nonce(team: FakeTeam) -> None:
    ada = team.user("ada@example.com")
    user = AccessUser(ada)
    claims = user.access_token.claims or {}
    assert (user.scopes, user.access_token.scopes, user.access_token.subject) == ([], [], ada.sub)
    assert ada.identity_nonce
    assert ada.identity_nonce not in user.access_token.model_dump_json()
    assert (claims["iss"], claims["email"]) == (team.issuer, "ada@example.com")


@pytest.mark.conformance(82)
def test_a_websocket_is_authenticated_before_it_is_accepted(access: CloudflareAccess, team: FakeTeam) -> None:
    ada = team.user("ada@example.com")
    with TestClient(bridge(echo(), access)) as client:
        with client.websocket_connect("/socket", headers=team.headers(ada)) as socket:
            assert socket.receive_text() == ada.sub
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket"):
            """Not reached."""


@pytest.mark.conformance(82)
def test_the_response_to_a_refused_client_is_that_of_a_dependency(access: CloudflareAccess, team: FakeTeam) -> None:
    app = FastAPI(dependencies=[Depends(access)])
    app.get("/")(lambda: None)
    with TestClient(app) as dependency, TestClient(bridge(echo(), access)) as bridged:
        for headers in ({}, team.headers(team.forge("expired")), team.headers(team.forge("two_segments"))):
            expected, got = dependency.get("/", headers=headers), bridged.get("/", headers=headers)
            assert (got.status_code, got.json(), got.headers) == (401, expected.json(), expected.headers)


def test_a_claim_of_another_object_is_not_the_callers(access: CloudflareAccess, team: FakeTeam) -> None:
    """Routes behind the bridge reuse its verification, but only that of the same object."""
    other = access.with_audience("0" * 64)
    app = FastAPI()
    app.get("/same", dependencies=[Depends(access.user)])(lambda: "same")
    app.get("/other", dependencies=[Depends(other.user)])(lambda: "other")
    with TestClient(bridge(app, access), headers=team.headers(team.user("ada@example.com"))) as client:
        assert [client.get(path).status_code for path in ("/same", "/other")] == [200, 401]


def test_mounted_in_a_fastapi_app_it_protects_the_mount_alone(access: CloudflareAccess, team: FakeTeam) -> None:
    app = FastAPI(lifespan=access.lifespan)
    app.mount("/mcp", bridge(echo(), access))
    app.get("/open")(lambda: "open")
    with TestClient(app) as client:
        headers = team.headers(team.user("ada@example.com"))
        assert [client.get(path).status_code for path in ("/open", "/mcp/")] == [200, 401]
        assert client.get("/mcp/", headers=headers).json()["is_access_user"]


def test_an_override_replaces_the_caller(access: CloudflareAccess) -> None:
    app = bridge(official_server().streamable_http_app(host="0.0.0.0"), access)
    ada = FakeTeam().user("ada@example.com")
    call = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
    with override(access, ada), TestClient(app) as client:
        answer = client.post("/mcp", json=call, headers=HEADERS)
    assert (answer.status_code, "serverInfo" in answer.text) == (200, True)


INITIALIZE = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}


# DNS rebinding


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda: official_server().streamable_http_app(), 421),
        (lambda: official_server().streamable_http_app(transport_security=security("mcp.example.com")), 200),
        (lambda: official_server().streamable_http_app(transport_security=security("other.example.com")), 421),
        (lambda: fastmcp_server(None).http_app(), 200),
        (lambda: fastmcp_server(None).http_app(host_origin_protection="auto"), 421),
        (lambda: fastmcp_server(None).http_app(host_origin_protection="auto", allowed_hosts=["mcp.example.com"]), 200),
        (
            lambda: fastmcp_server(None).http_app(host_origin_protection="auto", allowed_hosts=["other.example.com"]),
            421,
        ),
    ],
    ids=[
        *(f"official, {hosts}" for hosts in ("by default", "public host", "other host")),
        *(f"fastmcp, {hosts}" for hosts in ("by default", "automatic", "public host", "other host")),
    ],
)
def test_behind_a_tunnel_the_sdk_must_know_the_public_host(
    access: CloudflareAccess, team: FakeTeam, make: Callable[[], Any], status: int
) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
    headers = HEADERS | team.headers(team.user("ada@example.com")) | {"Host": "mcp.example.com"}
    with TestClient(bridge(make(), access), base_url="http://127.0.0.1:8000") as client:
        assert client.post("/mcp", json=call, headers=headers).status_code == status


def security(host: str) -> Any:
    from mcp.server.transport_security import TransportSecuritySettings

    return TransportSecuritySettings(allowed_hosts=[host], allowed_origins=[f"https://{host}"])


# the lifespan


def test_the_bridge_starts_and_stops_the_refresh_of_the_keys_with_the_app(access: CloudflareAccess) -> None:
    with TestClient(bridge(Starlette(), access)):
        assert access.keys.health().refresher_alive
    assert not access.keys.health().refresher_alive


def test_the_refresh_has_stopped_when_the_server_hears_of_the_shutdown(access: CloudflareAccess) -> None:
    """A server may then stop the event loop, with every task on it."""
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    seen: list[tuple[str, bool]] = []

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        seen.append((message["type"], access.keys.health().refresher_alive))

    asyncio.run(bridge(Starlette(), access)({"type": "lifespan", "state": {}}, receive, send))
    assert seen == [("lifespan.startup.complete", True), ("lifespan.shutdown.complete", False)]


def made_anew(text: str) -> str:
    """Return an equal text that is another object."""
    return text.encode().decode()


@pytest.mark.anyio
async def test_the_refresh_is_started_once_and_by_texts_that_a_server_makes(
    access: CloudflareAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[object] = []
    enter = CloudflareAccess.__aenter__

    async def counted(self: Any) -> Any:
        entered.append(self)
        return await enter(self)

    monkeypatch.setattr(CloudflareAccess, "__aenter__", counted)
    messages = iter([{"type": made_anew("lifespan.startup")}, {"type": made_anew("lifespan.shutdown")}])

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None: ...

    await bridge(Starlette(), access)({"type": made_anew("lifespan"), "state": {}}, receive, send)
    assert entered == [access]


def test_the_refresh_has_stopped_when_the_server_hears_of_a_failed_start(access: CloudflareAccess) -> None:
    seen: list[tuple[str, bool]] = []

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": ""})

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        seen.append((message["type"], access.keys.health().refresher_alive))

    asyncio.run(bridge(failing, access)({"type": "lifespan"}, receive, send))
    assert seen == [("lifespan.startup.failed", False)]


def test_an_app_that_does_not_start_leaves_no_refresh_behind(access: CloudflareAccess) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": ""})
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"), TestClient(bridge(failing, access)):
        """Not reached."""
    assert not access.keys.health().refresher_alive


def test_with_fail_fast_the_app_does_not_start_without_keys(team: FakeTeam) -> None:
    certs = MemoryFetch(team)
    certs.fail_with(503)
    settings = KeySettings(fail_fast=True, startup_timeout=0.1)
    access = CloudflareAccess(team_domain="acme", audience=team.audience, fetch=certs, key_settings=settings)
    sent: list[Message] = []
    reached: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        reached.append("the app")

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(Exception, match="keys"):
        asyncio.run(bridge(app, access)({"type": "lifespan"}, receive, send))
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert reached == []


@pytest.mark.conformance(59)
@pytest.mark.parametrize("protocol", ["webtransport", "grpc"])
def test_an_unknown_protocol_is_refused(access: CloudflareAccess, protocol: str) -> None:
    with pytest.raises(ConfigurationError, match="a bridge knows HTTP, WebSocket and lifespan"):
        asyncio.run(bridge(empty, access)({"type": protocol}, no_message, no_message))


async def no_message(*_: object) -> Any:
    raise AssertionError("not called")


# policies of single tools

admins = requires(Group("admins"))


def of_users(user: UserClaims) -> bool:
    return user.email == "ada@example.com"


def of_services(service: ServiceClaims) -> bool:
    return service.client_id != ""


class Rig:
    """An app that calls one function for each request, and the events of its object."""

    def __init__(self, team: FakeTeam, function: Any, policy_check: Any = None) -> None:
        self.events: list[AccessEvent] = []
        self.access = CloudflareAccess(
            team_domain=team.team_domain, audience=team.audience, listeners=[self.events.append]
        )
        self.team, self.function, self.check = team, function, policy_check
        self.raised: Any = None

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = str(await self.function())
        except Exception as error:  # noqa: BLE001 - as the SDKs do
            self.raised = error
            answer = f"{type(error).__name__}: {error}"
        await PlainTextResponse(answer)(scope, receive, send)

    def call(self, caller: Any) -> str:
        with self.team.patch(self.access):
            client = TestClient(bridge(self.app, self.access), headers=self.team.headers(caller))
            return client.get("/").text


@pytest.fixture
def ada(team: FakeTeam) -> UserClaims:
    return team.user("ada@example.com", custom={"groups": ["admins"]})


@pytest.fixture
def eve(team: FakeTeam) -> UserClaims:
    return team.user("eve@example.com", custom={"groups": ["users"]})


async def asynchronous() -> str:
    return f"hello {get_caller().principal.subject}"


def synchronous() -> str:
    return f"hello {get_caller().principal.subject}"


@pytest.mark.parametrize("function", [asynchronous, synchronous])
def test_a_guarded_function_runs_for_callers_that_the_policy_admits(
    team: FakeTeam, ada: UserClaims, eve: UserClaims, function: Any
) -> None:
    rig = Rig(team, admins(function))
    assert rig.call(ada) == f"hello {ada.sub}"
    assert rig.call(eve) == "CallRefused: This caller is not allowed here"
    assert rig.raised.error.code == -32003
    refusals = [event for event in rig.events if isinstance(event, RequestRejected)]
    assert [(event.reason, event.policy) for event in refusals] == [("forbidden", "Group('admins')")]


def test_a_policy_about_users_refuses_services_and_the_other_way_round(team: FakeTeam, ada: UserClaims) -> None:
    bot = team.service("bot")
    refused = "CallRefused: This caller is not allowed here"
    for policy, admitted, other in ((of_users, ada, bot), (of_services, bot, ada)):
        rig = Rig(team, requires(policy)(asynchronous))
        assert rig.call(admitted) == f"hello {admitted.principal.subject}"
        assert rig.call(other) == refused


def test_policies_find_groups_where_the_object_looks_for_them(team: FakeTeam) -> None:
    rig = Rig(team, admins(asynchronous))
    rig.access = CloudflareAccess(team_domain=team.team_domain, audience=team.audience, group_claims=["custom.roles"])
    user = team.user("ada@example.com", custom={"roles": ["admins"]})
    assert rig.call(user) == f"hello {user.sub}"
    rig.function = partial(admins, AuthCheckContext())
    assert rig.call(user) == "True"


class AuthCheckContext:
    """The argument of an auth check of FastMCP."""

    token: Any = None
    component: Any = None


def test_as_an_auth_check_it_answers_without_an_event(team: FakeTeam, ada: UserClaims, eve: UserClaims) -> None:
    rig = Rig(team, partial(admins, AuthCheckContext()))
    assert [rig.call(caller) for caller in (ada, eve, team.service("bot"))] == ["True", "False", "False"]
    assert [event for event in rig.events if isinstance(event, RequestRejected)] == []
    rig.function = partial(requires(of_users), AuthCheckContext())
    assert [rig.call(caller) for caller in (ada, eve, team.service("bot"))] == ["True", "False", "False"]


async def unavailable(*_: object) -> IdentityUnavailable:
    return IdentityUnavailable("not now")


@pytest.mark.parametrize("kind", ["decorator", "auth check"])
def test_a_policy_that_needs_an_identity_asks_it(team: FakeTeam, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Here get-identity cannot be asked, so nothing is decided and the caller is refused."""
    monkeypatch.setattr(Verifier, "identity", unavailable)
    function = admins(asynchronous) if kind == "decorator" else partial(admins, AuthCheckContext())
    rig = Rig(team, function)
    user = team.user("ada@example.com", custom={})
    assert "hello" not in (answer := rig.call(user))
    expected = "CallRefused: Cloudflare Access" if kind == "decorator" else "False"
    assert answer.startswith(expected)
    assert [event.reason for event in rig.events if isinstance(event, RequestRejected)] == ["identity_unavailable"]


def test_outside_a_request_there_is_no_caller() -> None:
    assert asyncio.run(admins(AuthCheckContext())) is False  # type: ignore[arg-type]
    for call in (asynchronous(), admins(asynchronous)(), admins(synchronous)()):
        with pytest.raises(ConfigurationError, match="no caller outside a request that Access verified"):
            asyncio.run(call)


@pytest.mark.conformance(84)
def test_without_http_a_guarded_tool_of_fastmcp_refuses(access: CloudflareAccess) -> None:
    async def call() -> list[str]:
        async with fastmcp.Client(fastmcp_server(access)) as client:
            names = ("delete_note", "delete_listed")
            results = [await client.call_tool(name, {"number": 1}, raise_on_error=False) for name in names]
            assert all(result.is_error for result in results)
            return [tool.name for tool in await client.list_tools()]

    assert "delete_note" not in asyncio.run(call())


def test_a_guarded_function_keeps_its_name_and_its_parameters() -> None:
    @admins
    def delete(number: int, force: str = "no") -> str:
        """Delete a note."""
        return f"{number} {force}"

    assert (delete.__name__, delete.__doc__) == ("delete", "Delete a note.")
    assert str(inspect.signature(delete)) == "(number: int, force: str = 'no') -> str"


@pytest.mark.conformance(84)
@pytest.mark.parametrize("attribute", ["token", "component", "__wrapped__"])
def test_a_function_with_attributes_of_its_own_is_guarded(
    team: FakeTeam, ada: UserClaims, eve: UserClaims, attribute: str
) -> None:
    def hello() -> str:
        return "hello"

    setattr(hello, attribute, hello)
    rig = Rig(team, admins(hello))
    assert [rig.call(ada), rig.call(eve)] == ["hello", "CallRefused: This caller is not allowed here"]


@pytest.mark.parametrize("kept", ["under another name", "without a description"])
def test_a_function_that_the_app_keeps_in_a_table_of_its_own_is_guarded(
    team: FakeTeam, ada: UserClaims, eve: UserClaims, kept: str
) -> None:
    def hello() -> str:
        return "hello"

    tables: dict[str, dict[str, Any]] = {
        "under another name": {"name": "hello", "description": "Greet.", "handler": hello},
        "without a description": {"fn": hello, "name": "hello"},
    }
    rig = Rig(team, admins(tables[kept].get("handler", hello)))
    assert [rig.call(ada), rig.call(eve)] == ["hello", "CallRefused: This caller is not allowed here"]


class EqualToAll(type):
    """The type of a class that is equal to every other."""

    def __eq__(cls, other: object) -> bool:
        return True

    __hash__ = type.__hash__


class Kept(metaclass=EqualToAll):
    """What an app keeps a function in."""

    __slots__ = ("function",)

    def __init__(self, function: Any) -> None:
        self.function = function


@pytest.mark.parametrize("name", ["raw_function", "fn", None])
def test_what_is_equal_to_the_function_does_not_register_it(team: FakeTeam, ada: UserClaims, name: str | None) -> None:
    """Such as `unittest.mock.ANY`, which is equal to everything."""

    def hello() -> str:
        return "hello"

    kept: Any = {name: ANY, "name": hello, "description": ""} if name else Kept(hello)
    rig = Rig(team, admins(hello))
    assert (rig.call(ada), bool(kept)) == ("hello", True)


def test_generators_are_guarded_too(team: FakeTeam, ada: UserClaims, eve: UserClaims) -> None:
    @admins
    def count() -> Iterator[int]:
        yield from (1, 2)

    async def collect() -> list[int]:
        return [*await count()]

    rig = Rig(team, collect)
    assert [rig.call(ada), rig.call(eve)] == ["[1, 2]", "CallRefused: This caller is not allowed here"]


REGISTERING: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "tool of the official SDK": lambda: MCPServer("x").tool(),
    "resource of the official SDK": lambda: MCPServer("x").resource("notes://all"),
    "prompt of the official SDK": lambda: MCPServer("x").prompt(),
    "validating wrapper": lambda: validate_call,
    "tool of FastMCP": lambda: FastMCP("x").tool,
    "resource of FastMCP": lambda: FastMCP("x").resource("notes://all"),
    "prompt of FastMCP": lambda: FastMCP("x").prompt,
}


@pytest.mark.conformance(84)
@pytest.mark.parametrize("kind", REGISTERING)
def test_a_requirement_above_the_decorator_of_the_sdk_is_refused(kind: str) -> None:
    register = REGISTERING[kind]()

    def note() -> str:
        return "note"

    registered = register(note)
    with pytest.raises(ConfigurationError, match="guards nothing above the decorator that registers note"):
        admins(note)
    assert registered


@pytest.mark.parametrize("target", ["text", None, UserClaims, FastMCP("x"), partial(synchronous)])
def test_a_requirement_on_something_else_than_a_function_is_refused(target: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"requires\(Group\('admins'\)\) decorates a function, not "):
        admins(target)


async def async_policy(caller: object) -> bool:
    return bool(caller)


@pytest.mark.parametrize("policy", [None, async_policy, lambda: True, Group])
def test_what_is_not_a_policy_is_refused(policy: Any) -> None:
    with pytest.raises(ConfigurationError):
        requires(policy)


def test_type_checkers_know_the_three_uses_of_a_requirement() -> None:
    targets = [inspect.signature(use).parameters["target"] for use in get_overloads(type(admins).__call__)]
    assert ["Context" in str(target) for target in targets] == [True, False, False]
    assert ["Awaitable" in str(target) for target in targets] == [False, True, False]


def test_a_requirement_shows_its_policy() -> None:
    assert repr(requires(EmailDomain("acme.example") & ~Group("x"))) == (
        "requires(EmailDomain('acme.example') & ~Group('x'))"
    )


# streams


class Stream:
    """An ASGI app that sends a stream, and what the server behind the bridge receives."""

    def __init__(self, media_type: str = "text/event-stream") -> None:
        self.media_type = media_type
        self.sent: list[Message] = []
        self.started = asyncio.Event()
        self.is_stubborn = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x", b"y"), (b"Content-Type", self.media_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await send({"type": "http.response.body", "body": b"late", "more_body": True})
            if not self.is_stubborn:
                raise

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def run(self, access: CloudflareAccess, token: str) -> "asyncio.Task[None]":
        scope = {
            "type": "http",
            "headers": [(b"cf-access-jwt-assertion", token.encode())],
            "path": "/",
            "method": "GET",
        }
        return asyncio.ensure_future(bridge(self, access)(scope, no_message, self.send))

    @property
    def bodies(self) -> list[tuple[bytes, bool]]:
        return [(message["body"], message["more_body"]) for message in self.sent[1:]]


@pytest.mark.parametrize("kind", ["polite", "stubborn"])
def test_an_event_stream_ends_with_the_token_and_its_task_is_not_cancelled(
    access: CloudflareAccess, team: FakeTeam, kind: str
) -> None:
    async def serve() -> None:
        stream = Stream()
        stream.is_stubborn = kind == "stubborn"
        request = stream.run(access, team.user_token("ada@example.com", expires_in=900))
        await asyncio.wait_for(stream.started.wait(), 20)
        await team.clock.run_for(909)
        assert not request.done()
        await team.clock.run_for(2)
        assert request.done()
        request.result()
        assert request.cancelling() == 0
        assert stream.bodies == [(b"first", True), (b"", False)]
        assert team.clock.sleeping == 0

    asyncio.run(serve())


def test_a_stream_that_is_cancelled_from_elsewhere_stays_cancelled(access: CloudflareAccess, team: FakeTeam) -> None:
    async def serve() -> None:
        for seconds in (0, 911):
            stream = Stream()
            request = stream.run(access, team.user_token("ada@example.com", expires_in=900))
            await asyncio.wait_for(stream.started.wait(), 20)
            team.clock.advance(seconds)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(request), 20)
            assert request.cancelled()
        await team.clock.run_for(0)
        assert team.clock.sleeping == 0

    asyncio.run(serve())


def test_a_refused_call_is_logged_without_the_token(
    team: FakeTeam, eve: UserClaims, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(team, admins(asynchronous))
    token = team.token(eve)
    with caplog.at_level(logging.INFO, LOGGER):
        rig.call(token)
    assert "forbidden (the policy Group('admins') refused the caller)" in caplog.text
    assert token not in caplog.text


# the docs


GUIDE = (Path(__file__).parents[1] / "docs/guides/mcp.md").read_text().partition("## Mistakes that become errors")[2]
ROWS = re.findall(r"^\| `(.+?)`.*? \| (.+) \|$", GUIDE, re.MULTILINE)


@pytest.mark.parametrize(("mistake", "sentence"), ROWS, ids=[mistake for mistake, _ in ROWS])
def test_a_mistake_in_the_guide_becomes_the_error_that_the_guide_shows(
    access: CloudflareAccess, mistake: str, sentence: str
) -> None:
    server = FastMCP("x", auth=CloudflareAccessProvider(access))
    other = CloudflareAccess(team_domain="b", audience="x")
    names = {"access": access, "app": empty, "server": server, "other": other}
    names |= {name: getattr(bridges, name) for name in bridges.__all__}
    with pytest.raises(ConfigurationError, match=f"^{re.escape(sentence).replace('…', '.*')}$"):
        eval(mistake.replace("(…", "(access").replace("=…", "=[]"), names)  # noqa: S307 - what the guide shows


@pytest.mark.parametrize("documented", [bridge, CloudflareAccessProvider, requires])
def test_the_example_of_a_docstring_runs(documented: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", "acme")
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", "0" * 64)
    section = (inspect.getdoc(documented) or "").partition("Examples:\n")[2]
    code = re.sub(r"^```\w*$", "", dedent(section), flags=re.MULTILINE)
    assert code.strip()
    exec(code, {"__name__": "an_example"})  # noqa: S102 - the package's own
