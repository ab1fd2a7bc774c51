"""OpenTelemetry metrics, read when somebody asks and served to Prometheus.

Nothing is counted here: instruments observe plain numbers that the daemon keeps anyway, so that
an admit pays for a dictionary entry and no more.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
)
from opentelemetry.sdk.resources import Resource
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

Readings = Iterable[tuple[int | float, dict[str, str]]]
Read = Callable[[], Readings]

SCOPE: Final = "costd"


class Metrics:
    """One daemon's instruments and the endpoint that serves them.

    Instruments are read in the endpoint's thread: a `Read` copies what it reads in one step
    (`list(mapping.items())`) and calls nothing that the event loop may be changing.
    """

    def __init__(self, *, version: str, name: str) -> None:
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._reader = _Reader(registry=self._registry)
        resource = Resource(
            {"service.name": "costd", "service.version": version, "host.name": name}
        )
        self._provider = MeterProvider(
            metric_readers=[self._reader], resource=resource, shutdown_on_exit=False
        )
        self._meter = self._provider.get_meter(SCOPE, version)
        self._stop: Callable[[], None] | None = None

    def counter(self, name: str, description: str, read: Read) -> None:
        """Observe what only grows."""
        self._meter.create_observable_counter(name, [_observing(read)], description=description)

    def gauge(self, name: str, description: str, read: Read) -> None:
        """Observe what rises and falls."""
        self._meter.create_observable_gauge(name, [_observing(read)], description=description)

    def durations(
        self, name: str, description: str, read: Callable[[], list[HistogramDataPoint]]
    ) -> None:
        """Observe histograms that were counted elsewhere."""
        self._reader.histograms.append((name, description, read))

    def listen(self, host: str, port: int) -> str:
        """Serve `/metrics`; returns the address, with the port that was given for port 0.

        Errors: OSError if the address is taken.
        """
        server, thread = start_http_server(port, host, registry=self._registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stop = stop
        return f"{host}:{server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        self._provider.shutdown()


class _Reader(PrometheusMetricReader):
    """Adds histograms counted elsewhere to what the SDK collected; it has no observable ones."""

    def __init__(self, *, registry: CollectorRegistry) -> None:
        super().__init__(scope_info_enabled=False, registry=registry)
        self.histograms: list[tuple[str, str, Callable[[], list[HistogramDataPoint]]]] = []

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        if metrics_data is not None and metrics_data.resource_metrics:
            metrics = metrics_data.resource_metrics[0].scope_metrics[0].metrics
            assert isinstance(metrics, list)
            metrics.extend(
                Metric(
                    name=name,
                    description=description,
                    unit="s",
                    data=Histogram(read(), AggregationTemporality.CUMULATIVE),
                )
                for name, description, read in self.histograms
            )
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


def _observing(read: Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, attributes) for value, attributes in read()]

    return observe
