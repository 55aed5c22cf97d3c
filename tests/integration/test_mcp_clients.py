"""The real clients of both MCP SDKs against servers of both, over real sockets."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastmcp", reason="the MCP SDKs need newer versions than the lowest that the package admits")

import anyio
from support.answer_servers import uvicorn_serving
from support.mcp_servers import CLIENTS, HEADER, MODES, SERVERS, Recorder, Session

from fastapi_cloudflare_access import CloudflareAccess, KeySettings
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

pytestmark = [pytest.mark.anyio, pytest.mark.mcp_sdks]

Team = FakeTeam[SystemClock]
OPAQUE = {"Authorization": "Bearer oauth:opaque"}


@pytest.fixture(scope="module")
def team() -> Team:
    return FakeTeam("acme", clock=SystemClock())


@pytest.fixture(scope="module")
def access(team: Team) -> Iterator[CloudflareAccess[Any]]:
    with CertsServer(team) as certs:
        yield CloudflareAccess(team_domain=certs.origin, audience=team.audience)


@pytest.fixture(scope="module", params=list(SERVERS))
def address(request: pytest.FixtureRequest, access: CloudflareAccess[Any]) -> Iterator[str]:
    with uvicorn_serving(SERVERS[request.param](access)) as address:
        yield address


@pytest.fixture(params=list(CLIENTS))
def connect(request: pytest.FixtureRequest) -> Any:
    return CLIENTS[request.param]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def headers(token: str) -> dict[str, str]:
    return {HEADER: token}


async def whoami(session: Session) -> Any:
    is_error, text = await session.call("whoami")
    assert not is_error
    return json.loads(text)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("beside", [{}, OPAQUE], ids=["alone", "beside an opaque bearer"])
async def test_a_tool_knows_the_user(
    connect: Any, address: str, recorder: Recorder, team: Team, mode: str, beside: dict[str, str]
) -> None:
    user = team.user("ada@example.com")
    async with connect(address, headers(team.token(user)) | beside, recorder, mode) as session:
        assert await whoami(session) == {"kind": "UserClaims", "subject": user.sub, "email": "ada@example.com"}


@pytest.mark.parametrize("mode", MODES)
async def test_a_tool_knows_the_service(connect: Any, address: str, recorder: Recorder, team: Team, mode: str) -> None:
    service = team.service("deploy-bot")
    async with connect(address, headers(team.token(service)), recorder, mode) as session:
        assert await whoami(session) == {"kind": "ServiceClaims", "subject": service.client_id, "email": None}


async def test_a_portal_that_sends_the_cookie_too_is_known_by_the_header(
    connect: Any, address: str, recorder: Recorder, team: Team
) -> None:
    sent = headers(team.user_token("ada@example.com")) | {"Cookie": f"CF_Authorization={team.forge('expired')}"}
    async with connect(address, sent, recorder) as session:
        assert (await whoami(session))["email"] == "ada@example.com"


REFUSED = {
    "nothing, at the direct URL": (None, "Cloudflare-Access"),
    "forged": ("tampered_signature", 'error="invalid_token"'),
    "expired": ("expired", "The Cloudflare Access token has expired"),
    "another audience": ("wrong_audience", 'error="invalid_token"'),
}


@pytest.mark.conformance(82)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("beside", [{}, OPAQUE], ids=["alone", "beside an opaque bearer"])
@pytest.mark.parametrize("row", list(REFUSED))
async def test_other_clients_get_401_from_the_bridge(
    connect: Any, address: str, recorder: Recorder, team: Team, mode: str, beside: dict[str, str], row: str
) -> None:
    forgery, challenge = REFUSED[row]
    sent = beside if forgery is None else headers(team.forge(forgery)) | beside
    with pytest.raises(Exception):  # noqa: B017, PT011 - each client has exceptions of its own
        async with connect(address, sent, recorder, mode) as session:
            await session.call("whoami")
    assert {status for status, _ in recorder.responses} == {401}
    for _, header in recorder.responses:
        assert str(header).startswith("Cloudflare-Access")
        assert challenge in str(header)


@pytest.mark.parametrize("server", list(SERVERS))
async def test_without_keys_clients_get_503(connect: Any, recorder: Recorder, team: Team, server: str) -> None:
    with CertsServer(team) as certs:
        certs.fail_with(503)
        token = team.user_token("ada@example.com")
        settings = KeySettings(startup_timeout=0)
        access = CloudflareAccess(team_domain=certs.origin, audience=team.audience, key_settings=settings)
        with uvicorn_serving(SERVERS[server](access)) as address, pytest.raises(Exception):  # noqa: B017, PT011
            async with connect(address, headers(token), recorder) as session:
                await session.call("whoami")
    assert {status for status, _ in recorder.responses} == {503}


@pytest.mark.conformance(82)
@pytest.mark.parametrize("mode", MODES)
async def test_what_a_tool_finds_is_nothing_of_the_token(
    connect: Any, address: str, recorder: Recorder, team: Team, mode: str
) -> None:
    user = team.user("ada@example.com")
    token = team.token(user)
    sent = headers(token) | OPAQUE
    sent |= {"Cookie": f"theme=dark; CF_Authorization={token}; lang=en", "Cf-Access-Token": token}
    sent |= {"Cf-Access-Client-Secret": "cfast_secret"}
    async with connect(address, sent, recorder, mode) as session:
        is_error, text = await session.call("seen")
    assert not is_error
    assert [
        secret for secret in (*token.split("."), "oauth:", "cfast_", str(user.identity_nonce)) if secret in text
    ] == []
    found = json.loads(text)
    assert "cookie: theme=dark; lang=en" in found["headers"]
    authorization = [header for header in found["headers"] if header.startswith("authorization")]
    assert authorization in ([], ["authorization: Bearer cloudflare-access"])
    assert (found["word"], found["expires_at"]) == ("cloudflare-access", None)
    assert (found["claims"]["iss"], found["claims"]["email"]) == (user.iss, "ada@example.com")
    assert found["client_id"] == team.audience


@pytest.mark.conformance(83)
async def test_two_users_at_once_are_never_mixed(connect: Any, address: str, team: Team) -> None:
    async def ask(email: str, mode: str) -> None:
        async with connect(address, headers(team.user_token(email)), Recorder(), mode) as session:
            for _ in range(5):
                _, text = await session.call("whoami_later")
                assert json.loads(text)["email"] == email

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            for mode in MODES:
                tasks.start_soon(ask, f"user{number}@example.com", mode)


@pytest.mark.parametrize("mode", MODES)
async def test_a_policy_admits_its_callers_to_a_tool_a_resource_and_a_prompt(
    connect: Any, address: str, recorder: Recorder, team: Team, mode: str
) -> None:
    user = team.user("ada@example.com", custom={"groups": ["admins"]})
    async with connect(address, headers(team.token(user)), recorder, mode) as session:
        assert await session.call("delete_note", number=7) == (False, f"{user.sub} deleted 7")
        assert "delete_note" in await session.tools()
        assert "secret" in str(await session.read("notes://secret"))
        assert "summarize" in str(await session.prompt("summarize"))


@pytest.mark.parametrize("mode", MODES)
async def test_a_policy_refuses_other_callers(
    connect: Any, address: str, recorder: Recorder, team: Team, mode: str
) -> None:
    token = team.user_token("ada@example.com", custom={"groups": ["users"]})
    async with connect(address, headers(token), recorder, mode) as session:
        for call in (
            lambda: session.call("delete_note", number=7),
            lambda: session.read("notes://secret"),
            lambda: session.prompt("summarize"),
        ):
            assert "deleted" not in (answer := await outcome(call))
            assert "admins" not in answer
            assert any(words in answer for words in ("not allowed", "Unknown", "not found")), answer


async def outcome(call: Any) -> str:
    try:
        return str(await call())
    except Exception as error:  # noqa: BLE001 - each client has exceptions of its own
        return str(error)
