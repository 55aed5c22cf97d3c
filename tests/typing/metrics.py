"""What type checkers see of the listeners that measure: never executed, read by mypy and pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import Literal, assert_type

from opentelemetry.metrics import get_meter_provider
from opentelemetry.trace import get_tracer_provider
from prometheus_client import CollectorRegistry

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.events import AccessEvent
from fastapi_cloudflare_access.instrumentation.opentelemetry import OpenTelemetryListener
from fastapi_cloudflare_access.instrumentation.prometheus import PrometheusListener
from fastapi_cloudflare_access.protocols import Listener, Telemetry


class Own:
    """A listener of an app."""

    def __call__(self, event: AccessEvent) -> None: ...

    def record_verification(
        self,
        seconds: float,
        caller: Literal["user", "service"] | None,
        reason: str | None,
        is_cached: bool,  # noqa: FBT001 - positional, since it is called for each request
    ) -> None: ...

    def watch(self, access: CloudflareAccess) -> None: ...


prometheus, traces = PrometheusListener(), OpenTelemetryListener()
telemetry: list[Telemetry] = [prometheus, traces, Own()]
listeners: list[Listener] = [prometheus, traces, Own(), print]
access = CloudflareAccess(team_domain="acme", audience="tag", listeners=[prometheus, traces, Own(), print])
CloudflareAccess(team_domain="acme", audience="tag", listeners=[*telemetry, *listeners])
PrometheusListener(registry=CollectorRegistry())
OpenTelemetryListener(meter_provider=get_meter_provider(), tracer_provider=get_tracer_provider())
assert_type(access.open_streams, int)

# what is wrong

PrometheusListener(CollectorRegistry())  # type: ignore[call-arg]
PrometheusListener(registry="default")  # type: ignore[arg-type]
OpenTelemetryListener(meter_provider=print)  # type: ignore[arg-type]
