"""A real MCP client logs in through managed OAuth, and refreshes its token."""

import asyncio
import re
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.local import App, Config, RunningAccess, run_local_access

pytest.importorskip("mcp.server.mcpserver", reason="needs the MCP SDK, version 2")

CALLBACK = "http://localhost:3030/callback"


def make_server(access: "CloudflareAccess[Any]") -> Any:
    """Return an MCP server that verifies the assertion of the edge."""
    security = import_module("mcp.server.transport_security").TransportSecuritySettings
    server = import_module("mcp.server.mcpserver").MCPServer("local")

    async def whoami(context: Any) -> str:
        token = context.request_context.request.headers["cf-access-jwt-assertion"]
        claims = await access.verify(token)
        return f"{claims.principal.subject} {840 < claims.exp - claims.iat <= 900}"

    whoami.__annotations__["context"] = import_module("mcp.server.mcpserver").Context
    server.tool()(whoami)
    return server.streamable_http_app(transport_security=security(allowed_hosts=["localhost:*"]))


class Storage:
    """Tokens and the registration of the client, in memory."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.client: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client_info: Any) -> None:
        self.client = client_info


class Browser:
    """A browser that chooses Ada, and stops at the callback of the client."""

    def __init__(self) -> None:
        self.opened = 0
        self.answer: dict[str, list[str]] = {}

    async def open(self, address: str) -> None:
        self.opened += 1
        await asyncio.to_thread(self._log_in, address)

    def _log_in(self, address: str) -> None:
        with httpx.Client(trust_env=False) as client:
            page = client.get(address)
            csrf = re.search(r'name="csrf" value="(\w+)"', page.text)
            assert csrf is not None, page.text
            cookies = "; ".join(line.partition(";")[0] for line in page.headers.get_list("set-cookie"))
            form = {"csrf": csrf[1], "email": "ada@example.com"}
            sent = client.post(address, data=form, headers={"cookie": cookies})
            cookies = "; ".join(line.partition(";")[0] for line in sent.headers.get_list("set-cookie"))
            location = client.get(address, headers={"cookie": cookies}).headers["location"]
        assert location.startswith(CALLBACK)
        self.answer = parse_qs(urlsplit(location).query)

    async def callback(self) -> Any:
        return import_module("mcp.shared.auth").AuthorizationCodeResult(
            **{name: values[0] for name, values in self.answer.items()}
        )


async def ask(local: RunningAccess, storage: Storage, browser: Browser) -> str:
    """Call the tool with the client of the SDK."""
    metadata = import_module("mcp.shared.auth").OAuthClientMetadata.model_validate(
        {"client_name": "test", "redirect_uris": [CALLBACK]}
    )
    make_provider = import_module("mcp.client.auth").OAuthClientProvider
    open_streams = import_module("mcp.client.streamable_http").streamable_http_client
    provider = make_provider(local.url("/mcp"), metadata, storage, browser.open, browser.callback)
    async with (
        import_module("httpx2").AsyncClient(auth=provider, trust_env=False) as client,
        open_streams(local.url("/mcp"), http_client=client) as streams,
        import_module("mcp").ClientSession(*streams) as session,
    ):
        await session.initialize()
        result: Any = await session.call_tool("whoami", {})
        return str(result.content[0].text)


def test_an_mcp_client_logs_in_once_and_refreshes_its_token() -> None:
    config = Config(apps=(App(name="mcp", managed_oauth=True),))
    storage, browser = Storage(), Browser()
    with run_local_access(config=config) as local:
        access = CloudflareAccess(team_domain=local.team_domain, audience=local.audience)
        local.mount(make_server(access))
        ada = local.local_access.team.user_id("ada@example.com")
        assert asyncio.run(ask(local, storage, browser)) == f"{ada} True"
        assert storage.tokens.access_token.startswith("oauth:")
        assert storage.tokens.expires_in == 900
        first = storage.tokens
        assert asyncio.run(ask(local, storage, browser)) == f"{ada} True"
        assert browser.opened == 1
        refreshed = httpx.post(
            local.team_domain + "/cdn-cgi/access/oauth/token",
            data={
                "grant_type": "refresh_token",
                "refresh_token": first.refresh_token,
                "client_id": storage.client.client_id,
            },
            trust_env=False,
        )
        assert refreshed.json()["access_token"] != first.access_token
        local.control("revoke", email="ada@example.com")
        assert asyncio.run(ask(local, storage, browser)) == f"{ada} True"
        assert browser.opened == 2
