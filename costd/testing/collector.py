"""An OpenTelemetry collector that keeps what it is sent; it speaks the real OTLP over gRPC."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from typing import Any, Final, NamedTuple, Self, TypeVar

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from costd.testing.process import ANSWER_S, DaemonFailed

Attributes = Mapping[str, Any]
Found = TypeVar("Found")

QUICK: Final = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
}
"""What lets tests see soon what a host sends, in milliseconds."""


class CollectedSpan(NamedTuple):
    """One span that was sent, and by whom."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    attributes: Attributes
    links: tuple[str, ...]
    is_error: bool
    start_ns: int
    end_ns: int


class CollectedLog(NamedTuple):
    """One line of a log."""

    service: str
    severity: str
    body: str
    attributes: Attributes


class Collector:
    """Serves TraceService, MetricsService and LogsService on loopback; use it as a context."""

    def __init__(self) -> None:
        """Say where; nothing is served before `start`."""
        self._server: grpc.Server | None = None
        self._port = 0
        self._said = Condition()
        self.spans: list[CollectedSpan] = []
        self.logs: list[CollectedLog] = []
        self.metrics: dict[str, dict[str, Any]] = {}
        """The newest metric of each name, by service."""
        self.resources: dict[str, Attributes] = {}
        """What each service says of itself."""

    def start(self) -> Self:
        """Serve, on the same port as before."""
        server = grpc.server(ThreadPoolExecutor(4))
        adds: tuple[Callable[[Any, Any], None], ...] = (
            trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
            metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
            logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
        )
        for add, export in zip(adds, (self._traces, self._metrics, self._logs), strict=True):
            add(_Servicer(export), server)
        self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        """Be away."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    @property
    def endpoint(self) -> str:
        """Where it is, as OTEL_EXPORTER_OTLP_ENDPOINT says it."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a host is to be told, to send its telemetry here soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, **QUICK}

    def wait_for_span(self, name: str, **attributes: Any) -> CollectedSpan:
        """Return the first span of this name with these attributes (`a__b` is `a.b`), once sent.

        Errors: DaemonFailed.
        """
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}

        def found() -> CollectedSpan | None:
            named = (span for span in self.spans if span.name == name)
            return next((s for s in named if wanted.items() <= s.attributes.items()), None)

        names = f"span {name} {wanted} among {sorted({span.name for span in self.spans})}"
        return self._wait(found, names)

    def wait_for_log(self, body: str) -> CollectedLog:
        """Return the first line of a log with this event, once it was sent.

        Errors: DaemonFailed.
        """
        return self._wait(lambda: next((one for one in self.logs if one.body == body), None), body)

    def wait_for_metric(self, service: str, name: str) -> Any:
        """Return a metric of a service, once it was sent.

        Errors: DaemonFailed.
        """
        return self._wait(lambda: self.metrics.get(service, {}).get(name), name)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Return once what was sent makes a condition true.

        Errors: DaemonFailed.
        """
        self._wait(lambda: condition() or None, "enough; its `spans` tell what it was sent")

    def _wait(self, found: Callable[[], Found | None], what: str) -> Found:
        with self._said:
            self._said.wait_for(found, ANSWER_S)
            answer = found()
        if answer is None:
            raise DaemonFailed(f"the collector was not sent: {what}")
        return answer

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    # ---- what hosts send ---------------------------------------------------------------------

    def _traces(self, request: Any) -> Any:
        with self._said:
            for sent in request.resource_spans:
                service = self._service(sent.resource)
                for scope in sent.scope_spans:
                    self.spans += [_span(service, span) for span in scope.spans]
            self._said.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def _metrics(self, request: Any) -> Any:
        with self._said:
            for sent in request.resource_metrics:
                known = self.metrics.setdefault(self._service(sent.resource), {})
                known |= {metric.name: metric for s in sent.scope_metrics for metric in s.metrics}
            self._said.notify_all()
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def _logs(self, request: Any) -> Any:
        with self._said:
            for sent in request.resource_logs:
                service = self._service(sent.resource)
                for scope in sent.scope_logs:
                    self.logs += [
                        CollectedLog(
                            service,
                            record.severity_text,
                            record.body.string_value,
                            _attributes(record.attributes),
                        )
                        for record in scope.log_records
                    ]
            self._said.notify_all()
        return logs_service_pb2.ExportLogsServiceResponse()

    def _service(self, resource: Any) -> str:
        attributes = _attributes(resource.attributes)
        service = str(attributes.get("service.name", ""))
        self.resources[service] = attributes
        return service


class _Servicer:
    """One of the services: all three have the one method."""

    def __init__(self, export: Callable[[Any], Any]) -> None:
        self._export = export

    def Export(self, request: Any, _context: Any) -> Any:  # noqa: N802  the RPC's name
        """Keep what is sent."""
        return self._export(request)


def _span(service: str, span: Any) -> CollectedSpan:
    return CollectedSpan(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        attributes=_attributes(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        is_error=span.status.code == span.status.STATUS_CODE_ERROR,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
    )


def _attributes(pairs: Iterable[Any]) -> Attributes:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
