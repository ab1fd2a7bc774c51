"""The Prometheus endpoint of a host, from its start to its stop, and what all hosts tell there."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from opentelemetry.sdk.metrics.export import HistogramDataPoint

from costd import __version__
from costd.endpoint import Endpoint
from costd.model.time import NS_PER_S
from costd.serving.calls import CallFigures
from costd.serving.sockets import CannotListen
from costd.telemetry.exports import NO_EXPORTS, Exports
from costd.telemetry.logs import Log
from costd.telemetry.metrics import Metrics, Readings
from costd.trust import TlsFiles


@asynccontextmanager
async def metered(
    name: str, endpoint: Endpoint | None, log: Log, exports: Exports = NO_EXPORTS
) -> AsyncIterator[Metrics]:
    """Serve a host's metrics while the block runs, at its endpoint and wherever they are exported.

    Errors: CannotListen if the address cannot be had; SettingsError for a variable of `OTEL_*`.
    """
    metrics = Metrics(version=__version__, name=name, exports=exports)
    try:
        if endpoint is not None:
            try:
                address = metrics.listen(endpoint.host, endpoint.port)
            except OSError as error:
                raise CannotListen(
                    f"metrics_listen: {endpoint} cannot be bound ({error.strerror}); name "
                    "another address, or `off`"
                ) from error
            log.info("metrics_listening", address=address)
            if not endpoint.is_loopback:
                log.warning("listening_insecure", metrics_listen=address)
        yield metrics
    finally:
        metrics.close()


def meter_certificate(metrics: Metrics, files: TlsFiles | None) -> None:
    """Observe what a host serves TLS with, if it does; each reading looks at the files."""
    if files is None:
        return

    def refused() -> Readings:
        files.current()
        return [(int(bool(files.problem)), {})]

    def expiry() -> Readings:
        expires_ns = files.current().expires_ns
        return [] if expires_ns is None else [(expires_ns / NS_PER_S, {})]

    metrics.gauge(
        "costd_tls_files_refused",
        "1 while certificate, key or CA on disk are not those in force, because they are bad.",
        refused,
    )
    metrics.gauge(
        "costd_tls_certificate_expiry_timestamp_seconds",
        "When the certificate in force expires.",
        expiry,
    )


def meter_calls(metrics: Metrics, figures: CallFigures, *, now_ns: Callable[[], int]) -> None:
    """Observe calls: how long they took inside the host, and how they failed."""
    started_ns = now_ns()

    def durations() -> list[HistogramDataPoint]:
        at_ns = now_ns()
        return [
            counted.point({"rpc": rpc}, started_ns=started_ns, now_ns=at_ns)
            for rpc, counted in list(figures.durations.items())
            if counted.is_used
        ]

    def errors() -> Readings:
        return [
            (count, {"rpc": rpc, "code": code})
            for (rpc, code), count in list(figures.errors.items())
        ]

    metrics.durations(
        "costd.rpc.duration",
        "Time from a call's bytes to its answer's, in the host.",
        durations,
    )
    metrics.counter("costd.rpc.errors", "Calls that ended without a decision.", errors)
    metrics.gauge("costd.rpc.open", "Calls open now.", lambda: [(figures.open_count, {})])
