"""What each part around the verification adds to a request, over the ASGI interface, without a framework."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from aims import BASE, BRIDGE, NO_SDK, PROMETHEUS, REVOCATIONS, SDK, VERIFICATION_ALONE
from material import TEAM, TOKENS, bare
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from timing import added, awaited, figure, plain, table

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._revocations.record import Record
from fastapi_cloudflare_access._revocations.table import MAX_RECORDS
from fastapi_cloudflare_access.instrumentation.opentelemetry import OpenTelemetryListener
from fastapi_cloudflare_access.instrumentation.prometheus import PrometheusListener
from fastapi_cloudflare_access.mcp import bridge
from fastapi_cloudflare_access.stores.memory import MemoryStore
from fastapi_cloudflare_access.testing import MemoryFetch

AsyncTurn = Callable[[int], Awaitable[float]]
TIMES = 50
"""Number of requests in a turn."""
HEADERS = [
    (b"host", b"mcp.example.com"),
    (b"user-agent", b"python-httpx2/2.16"),
    (b"accept", b"application/json, text/event-stream"),
    (b"accept-encoding", b"gzip"),
    (b"content-type", b"application/json"),
    (b"content-length", b"88"),
    (b"cf-ray", b"8c5e2b1d4f6a7b8c-AMS"),
    (b"cf-connecting-ip", b"192.0.2.4"),
    (b"x-forwarded-for", b"192.0.2.4"),
    (b"x-forwarded-proto", b"https"),
]
"""The headers of an ordinary request of an MCP client, besides the token."""


def connection(token: str) -> Scope:
    """Return the scope of a request with this token in the header and in the cookie, as a server makes it."""
    sent = [*HEADERS, (b"cf-access-jwt-assertion", token.encode()), (b"cookie", b"CF_Authorization=" + token.encode())]
    place: Scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/mcp"}
    ends: Scope = {"server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 5), "raw_path": b"/mcp", "query_string": b""}
    return {
        **place,
        **ends,
        "root_path": "",
        "headers": sent,
        "state": {},
        "extensions": {},
        "asgi": {"version": "3.0"},
    }


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing: the app behind each part."""


def verifying(access: CloudflareAccess[Any]) -> ASGIApp:
    """Return an app that verifies the caller and does nothing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await access.authenticate(HTTPConnection(scope))
        await nothing(scope, receive, send)

    return app


def new_access(**options: Any) -> CloudflareAccess[Any]:
    """Return an object of the team in memory."""
    return CloudflareAccess(team_domain=TEAM.team_domain, audience=TEAM.audience, fetch=MemoryFetch(TEAM), **options)


def with_revocations() -> CloudflareAccess[Any]:
    """Return an object that knows as many revocations as there may be; none of them is of the caller."""
    store = MemoryStore(secret=b"0" * 32)
    access = new_access(revocation_store=store, revocations_unavailable="closed")
    source: Any = access._authenticator.verifier.revocations  # noqa: SLF001 - no store takes so many in an instant
    now = time.time()
    for number in range(MAX_RECORDS):
        source._table.add(Record("log_out", "sub", f"{number:032x}", int(now * 1e6) + number), now)  # noqa: SLF001
    return access


def measured_objects() -> dict[str, CloudflareAccess[Any]]:
    """Return the objects whose verification is compared with that of an ordinary one."""
    provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    return {
        VERIFICATION_ALONE: new_access(),
        REVOCATIONS: with_revocations(),
        NO_SDK: new_access(listeners=[OpenTelemetryListener()]),
        SDK: new_access(listeners=[OpenTelemetryListener(meter_provider=provider)]),
        PROMETHEUS: new_access(listeners=[PrometheusListener(registry=CollectorRegistry())]),
    }


async def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Measure each part beside the verification alone; `added` is in microseconds."""
    token = TOKENS["user, 0.9 kB"]
    objects = measured_objects()
    async with AsyncExitStack() as stack:
        for access in objects.values():
            await stack.enter_async_context(access)
        apps: dict[str, ASGIApp] = {name: verifying(access) for name, access in objects.items()}
        apps[BRIDGE] = bridge(nothing, objects[VERIFICATION_ALONE])
        seconds = await taking_turns({name: awaited(calling(app, token)) for name, app in apps.items()}, token, rounds)
    alone = seconds[VERIFICATION_ALONE]
    figures = {name: figure(values, alone) for name, values in seconds.items()}
    table("What the parts add", figures, "times the verification alone")
    return {name: one.json() | {"added": round(added(seconds[name], alone), 4)} for name, one in figures.items()}


async def taking_turns(turns: dict[str, AsyncTurn], token: str, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of one request in each turn, and of one bare RSA verification."""
    signature = plain(bare(token))
    seconds: dict[str, list[float]] = {name: [] for name in (BASE, *turns)}
    for turn in turns.values():
        await turn(TIMES)
    for _ in range(rounds):
        seconds[BASE].append(signature(TIMES) / TIMES)
        for name in random.sample(list(turns), len(turns)):
            seconds[name].append(await turns[name](TIMES) / TIMES)
    return seconds


def calling(app: ASGIApp, token: str) -> Callable[[], Any]:
    """Return a function that sends the app one request, with a scope of its own."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        """Send nothing: the app is silent."""

    async def request() -> None:
        await app(connection(token), receive, send)

    return request


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure this section, print it and return it."""
    return asyncio.run(measure(rounds=20 if quick else 400))


if __name__ == "__main__":
    run()
