"""A local Access without sockets, with a fake clock, and a browser with cookies."""

import asyncio
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit

from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from fastapi_cloudflare_access.local.config import App, Config
from fastapi_cloudflare_access.local.edge import Edge
from fastapi_cloudflare_access.local.edge_request import EdgeRequest
from fastapi_cloudflare_access.local.local_access import Addresses, LocalAccess, ShiftedClock
from fastapi_cloudflare_access.local.state import State, StoredKey, to_pem
from fastapi_cloudflare_access.testing import FakeClock
from fastapi_cloudflare_access.testing.team import shared_key

PORT = 8787
APP, TEAM = f"http://localhost:{PORT}", f"http://127.0.0.1:{PORT}"


@cache
def _keys() -> tuple[StoredKey, ...]:
    return tuple(StoredKey(to_pem(shared_key("local", number).private), 1_767_000_000.0) for number in (0, 1))


def make_state() -> State:
    """Return a state in memory, with keys that all tests share."""
    state = State()
    state.keys = list(_keys())
    return state


def make_local_access(
    *apps: App,
    clock: FakeClock | None = None,
    addresses: Addresses | None = None,
    state: State | None = None,
    **config: Any,
) -> LocalAccess:
    given = {**config, **({"apps": apps} if apps else {})}
    return LocalAccess(
        Config.model_validate(given),
        state or make_state(),
        ShiftedClock(clock or FakeClock()),
        addresses or Addresses(PORT),
    )


def make_request(
    path: str = "/",
    *,
    method: str = "GET",
    host: str = f"localhost:{PORT}",
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    kind: str = "http",
    scheme: str = "http",
) -> EdgeRequest:
    pairs = list(headers.items()) if isinstance(headers, Mapping) else headers or []
    target, _, query = path.partition("?")
    scope: Scope = {
        "type": kind,
        "method": method,
        "scheme": scheme,
        "path": target,
        "raw_path": target.encode("latin-1"),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in [("host", host), *pairs]],
        "client": ("127.0.0.1", 50_000),
    }
    return EdgeRequest(scope)


async def events_of(edge: Edge, request: EdgeRequest) -> list[Message]:
    """Return what the edge sends to a client that sends nothing more."""
    events: list[Message] = []

    async def send(event: Message) -> None:
        events.append(event)

    await edge(request.scope, asyncio.Queue[Message]().get, send)
    return events


class Recorder:
    """A backend that sends `hello` and records the scopes."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await PlainTextResponse("hello")(scope, receive, send)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def headers(self, number: int = -1) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.scopes[number]["headers"]}


class Browser:
    """A browser without a window; it stores cookies by host."""

    def __init__(self, local_access: LocalAccess) -> None:
        self.local_access = local_access
        self.app = Recorder()
        self.client = TestClient(Edge(local_access, self.app), follow_redirects=False)
        self.jar: dict[str, dict[str, str]] = {}
        self.at = APP + "/"

    def open(self, url: str, *, method: str = "GET", data: Mapping[str, str] | None = None, **headers: str) -> Any:
        self.at = urljoin(self.at, url)
        host = str(urlsplit(self.at).hostname)
        self.client.cookies.clear()
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.get(host, {}).items())
        sent = {name.replace("_", "-"): value for name, value in headers.items()} | (
            {"cookie": cookies} if cookies else {}
        )
        response = self.client.request(method, self.at, headers=sent, data=data)
        for line in response.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.jar.setdefault(host, {})[name] = value
        return response

    def follow(self, response: Any) -> Any:
        for _ in range(10):
            if "location" not in response.headers:
                break
            response = self.open(response.headers["location"])
        return response

    def submit(self, response: Any, **fields: str) -> Any:
        """Send the form of the open page."""
        csrf = re.search(r'name="csrf" value="(\w+)"', response.text)
        return self.open(self.at, method="POST", data={"csrf": csrf[1] if csrf else "", **fields})

    def log_in(self, email: str = "ada@example.com", url: str = APP + "/") -> Any:
        page = self.follow(self.open(url))
        return self.follow(self.submit(page, email=email))
