"""The cost of a listener that measures, for each request with a token that is in the cache, and with a new one.

    python benchmarks/telemetry.py

Each figure is the fastest of many turns of the same work, in turn with all others, so that a busy machine adds little.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.instrumentation.opentelemetry import OpenTelemetryListener
from fastapi_cloudflare_access.instrumentation.prometheus import PrometheusListener
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch, SystemClock

TURNS, TIMES = 3000, 50
CACHES = {"a known token": 1024, "a new token": 0}
"""The size of the token cache, by what it makes of each request."""
WITHOUT = "without a listener"
LISTENERS: dict[str, Callable[[], list[Any]]] = {
    WITHOUT: list,
    "OpenTelemetry without an SDK": lambda: [OpenTelemetryListener()],
    "OpenTelemetry with an SDK": lambda: [
        OpenTelemetryListener(meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()]))
    ],
    "Prometheus": lambda: [PrometheusListener(registry=CollectorRegistry())],
    "a function as listener": lambda: [lambda _: None],
}


async def fastest(token_cache_size: int) -> dict[str, float]:
    """Return the seconds of one authentication, by listener."""
    team = FakeTeam("acme", clock=SystemClock())
    token = team.user_token("ada@example.com").encode()
    objects = {
        name: CloudflareAccess(  # noqa: SLF001 - what a dependency calls
            team_domain="acme",
            audience=team.audience,
            fetch=MemoryFetch(team),
            token_cache_size=token_cache_size,
            listeners=make(),
        )._authenticator
        for name, make in LISTENERS.items()
    }
    headers = [(b"host", b"app.example.com"), (b"accept", b"*/*"), (b"cf-access-jwt-assertion", token)]
    for each in objects.values():
        await each.verify(token)
    found = dict.fromkeys(objects, float("inf"))
    for _ in range(TURNS if token_cache_size else TURNS // 5):
        for name, each in objects.items():
            scopes: list[dict[str, Any]] = [{"type": "http", "headers": headers} for _ in range(TIMES)]
            begun = perf_counter()
            for scope in scopes:
                await each.outcome(scope)
            found[name] = min(found[name], (perf_counter() - begun) / TIMES)
    return found


if __name__ == "__main__":
    for what, size in CACHES.items():
        print(f"{what}:")
        figures = asyncio.run(fastest(size))
        for name, seconds in figures.items():
            more = (seconds - figures[WITHOUT]) * 1e6
            print(f"  {name}: {seconds * 1e6:.2f} µs, {more:+.2f} µs, {seconds / figures[WITHOUT]:.2f} times")
