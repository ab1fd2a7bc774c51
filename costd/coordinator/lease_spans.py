"""Spans of requests for leases, as children of the asks that wait for them."""

from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)

from costd.telemetry.traces import parent_of
from costd.wire.pb import fleet_pb2 as pb

METHOD = "costd.v1.Fleet/Join"
OUTCOME_PREFIX = "LEASE_OUTCOME_"


class LeaseSpan:
    """One request, from its bytes to its answer's; in it, what the database took."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._transaction: Span | None = None

    def begun(self, messages_count: int) -> None:
        """Note that its transaction begins, which it shares with other messages."""
        self._transaction = self._tracer.start_span(
            "costd.lease.transaction",
            set_span_in_context(self._span, Context()),
            kind=SpanKind.CLIENT,
            attributes={
                "db.system.name": "postgresql",
                "costd.transaction.messages_count": messages_count,
            },
        )

    def answered(self, reply: pb.LeaseReply) -> None:
        """Note what was granted."""
        outcomes = {grant.outcome for grant in reply.grants}
        told = next(iter(outcomes - {pb.LEASE_OUTCOME_GRANTED}), pb.LEASE_OUTCOME_GRANTED)
        name = pb.LeaseOutcome.Name(told).removeprefix(OUTCOME_PREFIX).lower()
        self._span.set_attribute("costd.lease.outcome", name)

    def over(self, *, failed: bool) -> None:
        """End both."""
        for span in (self._transaction, self._span):
            if span is not None:
                if failed:
                    span.set_status(Status(StatusCode.ERROR))
                span.end()


class LeaseSpans:
    """Begins a span for each request that is traced."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def of(self, message: pb.ToCoordinator, daemon: str) -> LeaseSpan | None:
        """Begin one, unless nobody traces this message."""
        request = message.request
        if not request.traceparent:
            return None
        parent = parent_of(
            (("traceparent", request.traceparent), ("tracestate", request.tracestate))
        )
        if not get_current_span(parent).get_span_context().is_valid:
            return None
        span = self._tracer.start_span(
            f"{METHOD} LeaseRequest",
            parent,
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system.name": "grpc",
                "rpc.method": METHOD,
                "costd.daemon": daemon,
                "costd.lease.request_id": request.request_id[:64],
                "costd.lease.counters_count": len(request.wants),
            },
        )
        return LeaseSpan(self._tracer, span) if span.is_recording() else None
