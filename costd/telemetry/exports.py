"""Where traces, metrics and logs go beside Prometheus and standard error, as `OTEL_*` says.

The variables mean what the OpenTelemetry SDK says they mean; docs/operating/opentelemetry.md lists
those that are read here. Of the SDK nothing is imported that nobody asked for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import chain
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from costd.clock import ticks_ns
from costd.configuration import SettingsError
from costd.model.time import NS_PER_S

if TYPE_CHECKING:
    from opentelemetry._logs import Logger
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.trace import Tracer

SCOPE: Final = "costd"
FLUSH_S: Final = 2.0
"""How long the end of a program waits for a collector to take what is left."""

NOT_PUSHED: Final = {"none", "prometheus"}
"""Exporters that need nothing more: `metrics_listen` serves Prometheus anyway."""
BY_PROTOCOL: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """What a host hands its telemetry to; the default is nobody."""

    resource: Resource | None = None
    """What the host is, as a collector and Prometheus read it."""
    tracer: Tracer | None = None
    logger: Logger | None = None
    metrics: tuple[MetricExporter, ...] = ()


NO_EXPORTS: Final = Exports()


def describe(program: str, *, version: str, name: str) -> Resource:
    """Say what a host is; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES know better."""
    own = {
        "service.name": program,
        "service.version": version,
        "service.instance.id": name,
        "host.name": name,
    }
    return Resource(own).merge(OTELResourceDetector().detect())


@contextmanager
def exporting(program: str, *, version: str, name: str) -> Iterator[Exports]:
    """Export what the environment says while the block runs; write out the rest at its end.

    Ensures: the end takes FLUSH_S at most, whether a collector is there or not.
    Errors:  SettingsError for a variable that asks for what cannot be had.
    """
    resource = describe(program, version=version, name=name)
    exporters = {signal: _exporters(signal, os.environ) for signal in ("traces", "metrics", "logs")}
    provided: list[tuple[Callable[[], None], list[Any]]] = []
    tracer, logger = None, None
    with explained():
        if exporters["traces"]:
            tracer, shutdown = _tracer(resource, exporters["traces"], version)
            provided.append((shutdown, exporters["traces"]))
        if exporters["logs"]:
            logger, shutdown = _logger(resource, exporters["logs"], version)
            provided.append((shutdown, exporters["logs"]))
    try:
        yield Exports(
            resource=resource,
            tracer=tracer,
            logger=logger,
            metrics=tuple(exporters["metrics"]),
        )
    finally:
        _shut_down(provided)


def _tracer(
    resource: Resource, exporters: list[Any], version: str
) -> tuple[Tracer, Callable[[], None]]:
    """Sampling, limits and batches are read from the environment by the SDK."""
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  nobody else needs it
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  likewise

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer(SCOPE, version), provider.shutdown


def _logger(
    resource: Resource, exporters: list[Any], version: str
) -> tuple[Logger, Callable[[], None]]:
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415  nobody else needs it
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415  likewise

    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    return provider.get_logger(SCOPE, version), provider.shutdown


def _exporters(signal: str, environment: Mapping[str, str]) -> list[Any]:
    """Make what one kind of telemetry is to be exported by.

    Errors:  SettingsError.
    """
    variable, names = _asked_for(signal, environment)
    return [_exporter(signal, name, variable, environment) for name in names]


def _asked_for(signal: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """Say which exporters are asked for, and by which variable."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "", []
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    named = [name.strip() for name in environment.get(variable, "").split(",") if name.strip()]
    if named:
        return variable, [name for name in named if name not in NOT_PUSHED]
    for endpoint in (
        f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ):
        if environment.get(endpoint, "").strip():
            return endpoint, ["otlp"]
    return "", []


def _exporter(signal: str, name: str, variable: str, environment: Mapping[str, str]) -> Any:
    if name == "otlp":
        name = _by_protocol(signal, environment)
    group = f"opentelemetry_{signal}_exporter"
    with explained():
        try:
            return next(iter(entry_points(group=group, name=name))).load()()
        except (StopIteration, ImportError) as error:
            raise SettingsError(f"{variable}: {_remedy(signal, name, group)}") from error


def _by_protocol(signal: str, environment: Mapping[str, str]) -> str:
    for variable in (
        f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ):
        protocol = environment.get(variable, "").strip()
        if protocol and protocol not in BY_PROTOCOL:
            raise SettingsError(f"{variable}: {protocol!r} is not one of {', '.join(BY_PROTOCOL)}")
        if protocol:
            return BY_PROTOCOL[protocol]
    return BY_PROTOCOL["grpc"]


def _remedy(signal: str, name: str, group: str) -> str:
    """Say what to do where an exporter is not installed."""
    if name == BY_PROTOCOL["grpc"]:
        return f"what exports {signal} by OTLP is not installed; pip install costd[otlp]"
    if name == BY_PROTOCOL["http/protobuf"]:
        return (
            f"what exports {signal} by OTLP over HTTP is not installed; pip install "
            "opentelemetry-exporter-otlp-proto-http, or set OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
        )
    known = sorted({"otlp", *NOT_PUSHED, *(each.name for each in entry_points(group=group))})
    return f"no exporter {name!r} of {signal} is installed; there are {', '.join(known)}"


@contextmanager
def explained() -> Iterator[None]:
    """Turn whatever the SDK raises over a variable into one line for whoever set it.

    Errors:  SettingsError.
    """
    try:
        yield
    except SettingsError:
        raise
    except Exception as error:
        raise SettingsError(
            f"OTEL_*: OpenTelemetry cannot be set up as they say: {error or type(error).__name__}"
        ) from error


def _shut_down(provided: list[tuple[Callable[[], None], list[Any]]]) -> None:
    """Write out what is left, for a while; then give up, so that nothing waits for a collector."""
    threads = [Thread(target=shutdown, daemon=True) for shutdown, _ in provided]
    for thread in threads:
        thread.start()
    ends_ns = ticks_ns() + round(FLUSH_S * NS_PER_S)
    for thread in threads:
        thread.join(max(0, ends_ns - ticks_ns()) / NS_PER_S)
    late = [
        exporters
        for thread, (_, exporters) in zip(threads, provided, strict=True)
        if thread.is_alive()
    ]
    if late:
        # That a collector is away was told; that the SDK now shuts down twice says nothing more.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    for exporter in chain.from_iterable(late):
        exporter.shutdown()
