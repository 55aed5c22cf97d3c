"""A local Access without sockets, on a clock driven by hand, and a browser's cookies."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit

from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from fastapi_cloudflare_access.local.config import App, Config
from fastapi_cloudflare_access.local.edge import Edge
from fastapi_cloudflare_access.local.edge_request import Call
from fastapi_cloudflare_access.local.local_access import Addresses, Realm, ShiftedClock
from fastapi_cloudflare_access.local.state import State, StoredKey, pem_of
from fastapi_cloudflare_access.testing import FakeClock
from fastapi_cloudflare_access.testing.team import shared_key

PORT = 8787
APP, TEAM = f"http://localhost:{PORT}", f"http://127.0.0.1:{PORT}"


@cache
def _keys() -> tuple[StoredKey, ...]:
    return tuple(StoredKey(pem_of(shared_key("local", number).private), 1_767_000_000.0) for number in (0, 1))


def a_state() -> State:
    """A state in memory, with keys that are made once for all tests."""
    state = State()
    state.keys = list(_keys())
    return state


def a_realm(
    *apps: App,
    clock: FakeClock | None = None,
    addresses: Addresses | None = None,
    state: State | None = None,
    **config: Any,
) -> Realm:
    given = {**config, **({"apps": apps} if apps else {})}
    return Realm(
        Config.model_validate(given),
        state or a_state(),
        ShiftedClock(clock or FakeClock()),
        addresses or Addresses(PORT),
    )


def a_call(
    path: str = "/",
    *,
    method: str = "GET",
    host: str = f"localhost:{PORT}",
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    kind: str = "http",
    scheme: str = "http",
) -> Call:
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
    return Call(scope)


class Recorder:
    """A backend that greets, and keeps what it was asked."""

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
    """A browser without a window: cookies for each host, one request at a time."""

    def __init__(self, realm: Realm) -> None:
        self.realm = realm
        self.app = Recorder()
        self.client = TestClient(Edge(realm, self.app), follow_redirects=False)
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
        answer = self.client.request(method, self.at, headers=sent, data=data)
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.jar.setdefault(host, {})[name] = value
        return answer

    def follow(self, answer: Any) -> Any:
        for _ in range(10):
            if "location" not in answer.headers:
                break
            answer = self.open(answer.headers["location"])
        return answer

    def submit(self, answer: Any, **fields: str) -> Any:
        """Send the form of the page that is open."""
        csrf = re.search(r'name="csrf" value="(\w+)"', answer.text)
        return self.open(self.at, method="POST", data={"csrf": csrf[1] if csrf else "", **fields})

    def log_in(self, email: str = "ada@example.com", url: str = APP + "/") -> Any:
        page = self.follow(self.open(url))
        return self.follow(self.submit(page, email=email))
