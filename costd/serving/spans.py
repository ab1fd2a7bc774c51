"""Spans of calls: around a method's handler where traces are exported, and nowhere else."""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import CoroutineType
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    use_span,
)

from costd.model.time import NS_PER_S
from costd.model.trace import Trace
from costd.serving.attributes import attributes_of
from costd.serving.waits import Wait
from costd.telemetry.logs import Log, Seldom
from costd.telemetry.traces import parent_of, trace_of

OURS: Final = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
"""Codes that are an error of the server's span; the others are the caller's affair.

Source:  semantic conventions for gRPC spans, v1.41.
"""

LOG_EVERY_NS: Final = 60 * NS_PER_S
"""What cannot be told of one call cannot be told of the next either."""

Call = Callable[[bytes, Any], Awaitable[bytes]]
Respond = Callable[[Any, str], Any]


class Spans:
    """Makes a span of each call, as a child of its caller's."""

    def __init__(self, tracer: Tracer, log: Log, *, labels: tuple[str, ...] = ()) -> None:
        """Copy `labels` of asks to their spans; no other label leaves costd this way."""
        self._tracer = tracer
        self._log = log
        self._labels = labels
        self._undescribed = Seldom(LOG_EVERY_NS)

    def around(self, method: str, handle: Call) -> Call:
        """Wrap what handles a method, named `costd.v1.Admission/Admit`."""
        start = self._tracer.start_span
        fixed = {"rpc.system.name": "grpc", "rpc.method": method}

        async def traced(raw: bytes, context: Any) -> bytes:
            span = start(
                method,
                parent_of(context.invocation_metadata() or ()),
                kind=SpanKind.SERVER,
                attributes=fixed,
            )
            with use_span(span, end_on_exit=True, record_exception=False):
                reply = await handle(raw, context)
                if span.is_recording():
                    code = context.code() or grpc.StatusCode.OK
                    span.set_attribute("rpc.response.status_code", code.name)
                    if code is not grpc.StatusCode.OK:
                        # Without the details: they may name users.
                        span.set_attribute("error.type", code.name)
                    if code in OURS:
                        span.set_status(Status(StatusCode.ERROR))
            return reply

        return traced

    @contextmanager
    def waiting(self, counters_count: int) -> Iterator[Wait]:
        """Make a span of a wait for leases, which the coordinator's spans follow."""
        span = self._tracer.start_span(
            "costd.lease.wait",
            kind=SpanKind.CLIENT,
            attributes={"costd.lease.counters_count": counters_count},
        )
        with use_span(span, end_on_exit=True, record_exception=False):
            yield _TracedWait(span)

    def noting(self, method: str, respond: Respond) -> Respond:
        """Wrap what answers a method: its span tells what was asked and answered."""
        describe = attributes_of(method, self._labels)
        if describe is None:
            return respond

        def note(request: Message, answer: Message) -> None:
            span = get_current_span()
            if not span.is_recording():
                return
            try:
                span.set_attributes(describe(request, answer))
            except Exception as error:  # noqa: BLE001  what was decided stands, whatever this was
                if self._undescribed.passes(method):
                    self._log.error("span_failed", method=method, exc_info=error)

        async def note_later(request: Message, answer: Coroutine[Any, Any, Message]) -> Message:
            answered = await answer
            note(request, answered)
            return answered

        def noted(request: Message, caller: str) -> Any:
            answer = respond(request, caller)
            if answer.__class__ is CoroutineType:
                return note_later(request, answer)
            note(request, answer)
            return answer

        return noted


def spans_to(tracer: Tracer | None, log: Log, *, labels: tuple[str, ...] = ()) -> Spans | None:
    """Make spans where they are exported, and nothing elsewhere."""
    return None if tracer is None else Spans(tracer, log, labels=labels)


class _TracedWait:
    """One wait for leases, told of to its span."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.trace = trace_of(span)

    def asked_with(self, trace: Trace) -> None:
        """Note whose request it waits for: a counter is asked for once at a time."""
        if not trace or trace == self.trace:
            return
        other = get_current_span(parent_of(trace._asdict().items())).get_span_context()
        self._span.add_link(other, {"costd.lease.shared": True})

    def ended(self, how: str) -> None:
        """Note what it came to."""
        self._span.set_attribute("costd.lease.waited", how)
