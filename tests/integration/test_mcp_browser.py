"""A login in a real browser, and MCP clients that then act as the user, through the local Access."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fastmcp", reason="the MCP SDKs need newer versions than the lowest that the package admits")

from support.browser import browser, needs_browser
from support.mcp_servers import CLIENTS, SERVERS, Recorder

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.local import RunningAccess, run_local_access

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.mcp_sdks

CALL = """async () => {
  const message = (method, params) => fetch("/mcp", {
    method: "POST",
    headers: {
      "Accept": "application/json, text/event-stream", "Content-Type": "application/json",
      "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Mcp-Name": params.name,
    },
    body: JSON.stringify({jsonrpc: "2.0", id: 1, method, params: {...params, _meta: {
      "io.modelcontextprotocol/protocolVersion": "2026-07-28",
      "io.modelcontextprotocol/clientCapabilities": {},
    }}}),
  });
  return await (await message("tools/call", {name: "whoami", arguments: {}})).text();
}"""


@pytest.fixture(scope="module", params=list(SERVERS))
def local(request: pytest.FixtureRequest) -> Iterator[RunningAccess]:
    with run_local_access() as local:
        access = CloudflareAccess(team_domain=local.team_domain, audience=local.audience)
        local.mount(SERVERS[request.param](access))
        yield local


@pytest.fixture(scope="module")
def cookie(local: RunningAccess) -> str:
    """The cookie of a login in a browser."""
    with browser() as context:
        log_in(context, local)
        cookies: list[Any] = context.cookies(local.url("/"))
    return str(next(each["value"] for each in cookies if each["name"] == "CF_Authorization"))


@needs_browser
def test_a_page_calls_a_tool_as_the_user_that_logged_in(local: RunningAccess) -> None:
    with browser() as context:
        page = log_in(context, local)
        answer = json.loads(str(page.evaluate(CALL)))
    assert json.loads(answer["result"]["content"][0]["text"])["email"] == "ada@example.com"


@needs_browser
@pytest.mark.anyio
@pytest.mark.parametrize("client", list(CLIENTS))
async def test_a_client_with_the_cookie_of_the_login_acts_as_the_user(
    local: RunningAccess, cookie: str, client: str
) -> None:
    async with CLIENTS[client](address_of(local), {"Cookie": f"CF_Authorization={cookie}"}, Recorder()) as session:
        _, text = await session.call("whoami")
        _, seen = await session.call("seen")
    assert json.loads(text)["email"] == "ada@example.com"
    assert cookie not in seen


@pytest.mark.anyio
@pytest.mark.parametrize("client", list(CLIENTS))
async def test_a_client_with_a_service_token_acts_as_the_service(local: RunningAccess, client: str) -> None:
    async with CLIENTS[client](address_of(local), local.service_headers(), Recorder()) as session:
        _, text = await session.call("whoami")
    assert json.loads(text)["kind"] == "ServiceClaims"


@pytest.mark.anyio
@pytest.mark.parametrize("client", list(CLIENTS))
async def test_a_client_without_a_login_does_not_reach_the_server(local: RunningAccess, client: str) -> None:
    recorder = Recorder()
    with pytest.raises(Exception):  # noqa: B017, PT011 - each client has exceptions of its own
        async with CLIENTS[client](address_of(local), {}, recorder) as session:
            await session.call("whoami")
    answered = zip(recorder.responses, recorder.pages, strict=True)
    assert {status for (status, _), is_page in answered if not is_page} & {200, 202} == set()


def address_of(local: RunningAccess) -> str:
    return local.url("").partition("://")[2]


def log_in(context: "BrowserContext", local: RunningAccess) -> Any:
    page = context.new_page()
    page.goto(local.url("/login-first"))
    page.get_by_role("button", name="Ada").click()
    page.wait_for_url(local.url("/login-first"))
    return page
