"""OpenTelemetry metrics, read when somebody asks: served to Prometheus, sent to collectors.

Nothing is counted here: instruments observe plain numbers that the daemon keeps anyway, so that
an admit pays for a dictionary entry and no more.
"""

from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from costd.telemetry.exports import NO_EXPORTS, SCOPE, Exports, describe, explained
from costd.telemetry.scrapes import Scrapes

Readings = Iterable[tuple[int | float, dict[str, str]]]
Read = Callable[[], Readings]

LAST_PUSH_MS: Final = 1_000
"""How long the end of a host waits for a collector to take its figures once more."""

Durations = tuple[str, str, Callable[[], list[HistogramDataPoint]]]
"""Histograms that were counted elsewhere: name, description, and what reads them."""


class Metrics:
    """One host's instruments, the endpoint that serves them, and the collectors they are sent to.

    Instruments are read in the threads of both: a `Read` copies what it reads in one step
    (`list(mapping.items())`) and calls nothing that the event loop may be changing.
    """

    def __init__(self, *, version: str, name: str, exports: Exports = NO_EXPORTS) -> None:
        """Make them; nothing is served before `listen`.

        Errors: SettingsError for a variable that cannot be followed.
        """
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._durations: list[Durations] = []
        readers: list[MetricReader] = [_Served(self._durations, self._registry)]
        with explained():  # how often, a variable says
            readers += [_Pushed(self._durations, exporter) for exporter in exports.metrics]
        self._provider = MeterProvider(
            metric_readers=readers,
            resource=exports.resource or describe("costd", version=version, name=name),
            shutdown_on_exit=False,
        )
        self._meter = self._provider.get_meter(SCOPE, version)
        self._stop: Callable[[], None] | None = None

    def counter(self, name: str, description: str, read: Read) -> None:
        """Observe what only grows."""
        self._meter.create_observable_counter(
            _told(name), [_observing(read)], description=description
        )

    def gauge(self, name: str, description: str, read: Read) -> None:
        """Observe what rises and falls."""
        self._meter.create_observable_gauge(
            _told(name), [_observing(read)], description=description
        )

    def durations(
        self, name: str, description: str, read: Callable[[], list[HistogramDataPoint]]
    ) -> None:
        """Observe histograms that were counted elsewhere."""
        self._durations.append((_told(name), description, read))

    def listen(self, host: str, port: int) -> str:
        """Serve `/metrics`; returns the address, with the port that was given for port 0.

        Errors: OSError if the address is taken.
        """
        server = Scrapes(host, port, self._registry)
        thread = Thread(target=server.serve_forever, name="costd-metrics", daemon=True)
        thread.start()

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stop = stop
        return f"{host}:{server.server_port}"

    def close(self) -> None:
        """Stop serving, and send what is to be sent once more."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        self._provider.shutdown(LAST_PUSH_MS)


class _Served(PrometheusMetricReader):
    """Serves durations beside what the SDK collected; it has no observable histograms."""

    def __init__(self, durations: list[Durations], registry: CollectorRegistry) -> None:
        super().__init__(scope_info_enabled=False, registry=registry)
        self._durations = durations

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        _add_durations(metrics_data, self._durations)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


class _Pushed(PeriodicExportingMetricReader):
    """Sends the same; how often, OTEL_METRIC_EXPORT_INTERVAL says."""

    def __init__(self, durations: list[Durations], exporter: MetricExporter) -> None:
        self._durations = durations
        super().__init__(exporter)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        _add_durations(metrics_data, self._durations)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


def _add_durations(metrics_data: MetricsData, durations: list[Durations]) -> None:
    if metrics_data is None or not metrics_data.resource_metrics:
        return
    metrics = metrics_data.resource_metrics[0].scope_metrics[0].metrics
    assert isinstance(metrics, list)
    metrics.extend(
        Metric(
            name=name,
            description=description,
            unit="s",
            data=Histogram(read(), AggregationTemporality.CUMULATIVE),
        )
        for name, description, read in durations
    )


def _told(name: str) -> str:
    """Write a name as Prometheus would, so that a metric has one wherever it is read."""
    return name.replace(".", "_")


def _observing(read: Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, attributes) for value, attributes in read()]

    return observe
