import pytest
from opentelemetry.trace import get_current_span

from costd.model.trace import NO_TRACE, Trace
from costd.telemetry.traces import parent_of, trace_of

SOUND = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def read(*headers):
    return trace_of(get_current_span(parent_of(headers)))


def test_what_was_read_is_written_again():
    assert read(("traceparent", SOUND), ("tracestate", "a=1,b=2")) == Trace(SOUND, "a=1,b=2")
    assert read(("traceparent", SOUND)) == Trace(SOUND)


def test_states_of_several_headers_are_one():
    assert read(("tracestate", "a=1"), ("traceparent", SOUND), ("tracestate", "b=2")) == Trace(
        SOUND, "a=1,b=2"
    )


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("tracestate", "a=1"),),
        (("traceparent", ""),),
        (("traceparent", SOUND[:-1]),),
        (("traceparent", SOUND), ("traceparent", SOUND)),
        (("traceparent", SOUND.encode()),),
        (("traceparent-bin", SOUND),),
        (("traceparent", f"01{SOUND[2:]}-{'x' * 600}"),),
    ],
)
def test_what_cannot_be_read_is_no_trace(headers):
    found = read(*headers)
    assert found == NO_TRACE
    assert not found


def test_a_version_to_come_is_read_as_far_as_it_is_known():
    assert read(("traceparent", f"01{SOUND[2:]}-more")) == Trace(SOUND)
