"""Trace context as W3C Trace Context writes it, between processes.

Source:  https://www.w3.org/TR/trace-context/
"""

from collections.abc import Iterable
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from costd.model.trace import NO_TRACE, Trace

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
TRACEPARENT_LENGTH_MAX: Final = 512
"""Of a version to come; today's has 55. The propagator would log each that is longer."""

_W3C: Final = TraceContextTextMapPropagator()


def parent_of(carried: Iterable[tuple[str, str | bytes]]) -> Context:
    """Read the context of whoever calls; empty where there is none, or it cannot be read."""
    found: dict[str, list[str]] = {}
    for key, value in carried:
        if key in (TRACEPARENT, TRACESTATE) and isinstance(value, str):
            found.setdefault(key, []).append(value)
    parents = found.get(TRACEPARENT, ())
    if len(parents) != 1 or len(parents[0]) > TRACEPARENT_LENGTH_MAX:
        return Context()
    return _W3C.extract(found, Context())


def trace_of(span: Span) -> Trace:
    """Write a span's context, for whoever is to follow it."""
    if not span.get_span_context().is_valid:
        return NO_TRACE
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span, Context()))
    return Trace(carrier.get(TRACEPARENT, ""), carrier.get(TRACESTATE, ""))
