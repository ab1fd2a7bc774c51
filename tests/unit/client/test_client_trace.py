"""The client tells in which trace it asks; it needs no OpenTelemetry for it."""

import subprocess
import sys

from costd_client.trace import with_trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, use_span

OURS = (("costd-caller", "test"),)
TRACE_ID, SPAN_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
WRITTEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"


def current(flags=1, state=None):
    context = SpanContext(TRACE_ID, SPAN_ID, False, TraceFlags(flags), TraceState(state or []))
    return use_span(NonRecordingSpan(context))


def test_the_current_span_is_told():
    with current():
        assert with_trace(OURS) == (*OURS, ("traceparent", f"{WRITTEN}-01"))


def test_a_span_that_is_not_sampled_is_told_as_one():
    with current(flags=0):
        assert with_trace(OURS)[-1] == ("traceparent", f"{WRITTEN}-00")


def test_its_state_goes_along():
    with current(state=[("a", "1"), ("b", "2")]):
        assert with_trace(OURS)[-1] == ("tracestate", "a=1,b=2")


def test_outside_of_a_trace_nothing_is_added():
    assert with_trace(OURS) is OURS


def test_a_program_without_opentelemetry_loads_none():
    """In a process of its own: here it is loaded."""
    code = (
        "import sys, costd_client\n"
        "from costd_client.trace import with_trace\n"
        "assert with_trace((('a', 'b'),)) == (('a', 'b'),)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
