"""Metrics and traces, for OpenTelemetry and for Prometheus.

`opentelemetry.OpenTelemetryListener` and `prometheus.PrometheusListener` are listeners for
`CloudflareAccess(listeners=[…])`. Each module needs a package of its own, which the extra of its name installs.
`metrics` is the table of what both measure.
"""
