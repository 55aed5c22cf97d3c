"""Metrics for Prometheus, by its Python client."""

from collections.abc import Callable, Iterable, Iterator

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.instrumentation import metrics
from fastapi_cloudflare_access.instrumentation._measuring import Measurement, MetricsListener, MissingPackage, State

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError:
    raise MissingPackage(
        "prometheus-client is not installed: pip install 'fastapi-cloudflare-access[prometheus]'"
    ) from None


class PrometheusListener(MetricsListener):
    """A listener that records metrics in a registry of the Prometheus client.

    The app serves the registry, for example by `prometheus_client.start_http_server`.

    Examples:
        ```python
        from fastapi_cloudflare_access import CloudflareAccess
        from fastapi_cloudflare_access.instrumentation.prometheus import (
            PrometheusListener,
        )

        access = CloudflareAccess(listeners=[PrometheusListener()])
        ```
    """

    def __init__(self, *, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics.

        Args:
            registry: The registry; by default the one that the client serves by default.

        Raises:
            ConfigurationError: The registry is of another type, or has these metrics already.
        """
        super().__init__(State())
        _check_registry(registry)
        self._histograms = {
            metric: Histogram(
                metric.prometheus_name, metric.description, metric.labels, registry=None, buckets=metric.buckets
            )
            for metric in metrics.RECORDED
            if metric.kind == "histogram"
        }
        self._counters = {
            metric: Counter(metric.prometheus_name, metric.description, metric.labels, registry=None)
            for metric in metrics.RECORDED
            if metric.kind == "counter"
        }
        try:
            registry.register(_AllMetrics(self, [*self._histograms.values(), *self._counters.values()]))
        except ValueError:
            raise ConfigurationError(
                "the registry already has the metrics of a PrometheusListener: create one, and pass it to each "
                "CloudflareAccess"
            ) from None

    def _timer(self, attributes: tuple[str, ...]) -> Callable[[float], object]:
        return self._histograms[metrics.VERIFICATION].labels(*attributes).observe

    def _record(self, measurement: Measurement) -> None:
        metric, value, attributes = measurement
        if metric.kind == "histogram":
            histogram = self._histograms[metric]
            (histogram.labels(*attributes) if attributes else histogram).observe(value)
        else:
            counter = self._counters[metric]
            (counter.labels(*attributes) if attributes else counter).inc(value)


class _AllMetrics(Collector):
    """All metrics of a listener as one collector, so that a registry gets all of them or none."""

    def __init__(self, listener: MetricsListener, recorded: list[Histogram | Counter]) -> None:
        self._listener, self._recorded = listener, recorded

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without samples, by which a registry finds duplicates."""
        yield from (family for each in self._recorded for family in each.describe())
        yield from _families().values()

    def collect(self) -> Iterator[Metric]:
        """Return the metrics, with the state of the watched objects as it is now."""
        yield from (family for each in self._recorded for family in each.collect())
        families = _families()
        for metric, value, attributes in self._listener.observe():
            families[metric].add_metric(attributes, value)
        yield from families.values()


def _families() -> dict[metrics.Metric, CounterMetricFamily | GaugeMetricFamily]:
    return {
        metric: (CounterMetricFamily if metric.kind == "observed_counter" else GaugeMetricFamily)(
            metric.prometheus_name, metric.description, labels=metric.labels
        )
        for metric in metrics.OBSERVED
    }


def _check_registry(registry: object) -> None:
    if not isinstance(registry, CollectorRegistry):
        raise ConfigurationError(
            f"registry must be a CollectorRegistry of prometheus_client, not {type(registry).__name__}: leave it out "
            "for the default one"
        )
