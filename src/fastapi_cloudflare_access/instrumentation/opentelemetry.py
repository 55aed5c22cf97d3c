"""Metrics and traces for OpenTelemetry, by its API alone: the app chooses the SDK and the exporter."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from weakref import WeakKeyDictionary

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.events import (
    AccessEvent,
    IdentityFetched,
    KeysRefreshed,
    KeysRefreshFailed,
    RequestRejected,
)
from fastapi_cloudflare_access.instrumentation import metrics
from fastapi_cloudflare_access.instrumentation._measuring import (
    MEASUREMENTS,
    Measurement,
    MetricsListener,
    MissingPackage,
    State,
    outcome_and_reason,
)

try:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_current_span, get_tracer
except ImportError:
    raise MissingPackage(
        "opentelemetry-api is not installed: pip install 'fastapi-cloudflare-access[opentelemetry]'"
    ) from None

SCOPE = "fastapi_cloudflare_access"
"""Name of the instrumentation scope."""
REFUSAL_REASON, REFUSAL_UNVERIFIED = "cloudflare_access.refusal.reason", "cloudflare_access.refusal.unverified"
"""Attributes of the current span at a refusal: the reason code, and whether it comes from unverified claims."""
FETCH_KEYS, GET_IDENTITY = "cloudflare_access.fetch_keys", "cloudflare_access.get_identity"
"""Names of the spans."""

_states: WeakKeyDictionary[MeterProvider, State] = WeakKeyDictionary()
_state_of_global = State()
# An SDK calls the callbacks of the first listener only, so all listeners of a provider share what those read.


class OpenTelemetryListener(MetricsListener):
    """A listener that records metrics and traces by the API of OpenTelemetry.

    It adds no span for a request. At a refusal it adds the reason code to the current span. Each fetch of the keys and
    each question to get-identity is a span. Nothing that it records is personal.

    Examples:
        ```python
        from fastapi_cloudflare_access import CloudflareAccess
        from fastapi_cloudflare_access.instrumentation.opentelemetry import (
            OpenTelemetryListener,
        )

        access = CloudflareAccess(listeners=[OpenTelemetryListener()])
        ```
    """

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        """Create the instruments.

        Args:
            meter_provider: The provider of metrics; by default the global one, which may be set later.
            tracer_provider: The provider of traces; by default the global one, which may be set later.

        Raises:
            ConfigurationError: A provider is of another type.
        """
        _check_provider("meter_provider", meter_provider, MeterProvider)
        _check_provider("tracer_provider", tracer_provider, TracerProvider)
        super().__init__(_state_of_global if meter_provider is None else _states.setdefault(meter_provider, State()))
        meter = get_meter(SCOPE, meter_provider=meter_provider)
        self._tracer = get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._recorders = {metric: _recorder(meter, metric) for metric in metrics.RECORDED}
        for metric in metrics.OBSERVED:
            callbacks = [partial(self._observations, metric)]
            if metric.kind == "observed_counter":
                meter.create_observable_counter(metric.name, callbacks, metric.unit, metric.description)
            else:
                meter.create_observable_gauge(metric.name, callbacks, metric.unit, metric.description)

    def __call__(self, event: AccessEvent, /) -> None:
        """Record the measurement and the trace of an event."""
        super().__call__(event)
        if isinstance(event, RequestRejected):
            span = get_current_span()
            if span.is_recording():
                span.set_attribute(REFUSAL_REASON, outcome_and_reason(event.reason)[1])
                span.set_attribute(REFUSAL_UNVERIFIED, event.unverified)
        elif isinstance(event, KeysRefreshed | KeysRefreshFailed):
            # Many requests share a fetch, so it is no part of the trace of the request that started it.
            self._add_span(FETCH_KEYS, event, Context())
        elif isinstance(event, IdentityFetched) and event.outcome != "limited":
            self._add_span(GET_IDENTITY, event)

    def _record(self, measurement: Measurement) -> None:
        metric, value, attributes = measurement
        self._recorders[metric](value, _named(metric, attributes))

    def _timer(self, attributes: tuple[str, ...]) -> Callable[[float], object]:
        record, named = self._recorders[metrics.VERIFICATION], _named(metrics.VERIFICATION, attributes)
        return lambda seconds: record(seconds, named)

    def _observations(self, metric: metrics.Metric, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(value, _named(metric, attributes))
            for observed, value, attributes in self.observe()
            if observed is metric
        ]

    def _add_span(
        self, name: str, event: KeysRefreshed | KeysRefreshFailed | IdentityFetched, context: Context | None = None
    ) -> None:
        """Add the span of a fetch that has ended with this event; by default below the current span."""
        metric, seconds, values = MEASUREMENTS[type(event)](event)
        attributes = _named(metric, values)
        span = self._tracer.start_span(
            name,
            context=context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=_nanoseconds(event.timestamp - seconds),
        )
        if attributes[metrics.OUTCOME] == "failed":
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(event.timestamp))


def _recorder(meter: Meter, metric: metrics.Metric) -> Callable[[float, Mapping[str, str]], None]:
    """Return the function that records a value of a metric with its attributes."""
    if metric.kind == "histogram":
        return meter.create_histogram(
            metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
        ).record
    return meter.create_counter(metric.name, metric.unit, metric.description).add


def _named(metric: metrics.Metric, values: tuple[str, ...]) -> dict[str, str]:
    """Return the attributes that are present, by name."""
    return {name: value for name, value in zip(metric.attributes, values, strict=True) if value}


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _check_provider(name: str, given: object, kind: type) -> None:
    if given is not None and not isinstance(given, kind):
        raise ConfigurationError(
            f"{name} must be a {kind.__name__} of OpenTelemetry, not {type(given).__name__}: leave it out for the "
            "global one"
        )
