"""Spans of requests for leases, kept in memory."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from costd.coordinator.lease_spans import LeaseSpans
from costd.wire.pb import fleet_pb2 as pb

SOUND = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def kept():
    return InMemorySpanExporter()


@pytest.fixture
def spans(kept):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return LeaseSpans(provider.get_tracer("test"))


def request(traceparent, **fields):
    return pb.ToCoordinator(
        request=pb.LeaseRequest(request_id="1-1", traceparent=traceparent, **fields)
    )


@pytest.mark.parametrize(
    "message",
    [
        request(""),
        request("nonsense"),
        request(SOUND[:-1]),
        request(SOUND[:-2] + "00"),
        request("x" * 100_000),
        request("", tracestate="a=1"),
        pb.ToCoordinator(report=pb.LeaseReport()),
        pb.ToCoordinator(),
    ],
)
def test_what_nobody_traces_has_no_span(spans, kept, message):
    assert spans.of(message, "d1") is None
    assert kept.get_finished_spans() == ()


def test_a_request_and_its_transaction_end_together(spans, kept):
    span = spans.of(request(SOUND), "d1")
    span.begun(7)
    reply = pb.LeaseReply(
        grants=[
            pb.Grant(outcome=pb.LEASE_OUTCOME_GRANTED),
            pb.Grant(outcome=pb.LEASE_OUTCOME_EXHAUSTED),
        ]
    )
    span.answered(reply)
    span.over(failed=False)
    transaction, lease = kept.get_finished_spans()
    assert transaction.parent.span_id == lease.context.span_id
    assert transaction.attributes["costd.transaction.messages_count"] == 7
    assert lease.attributes["costd.lease.outcome"] == "exhausted"
    assert lease.status.status_code is StatusCode.UNSET


def test_what_the_database_did_not_do_is_an_error(spans, kept):
    span = spans.of(request(SOUND), "d1")
    span.begun(1)
    span.over(failed=True)
    assert {each.status.status_code for each in kept.get_finished_spans()} == {StatusCode.ERROR}


def test_a_name_that_a_daemon_makes_up_is_cut(spans, kept):
    message = request(SOUND)
    message.request.request_id = "x" * 10_000
    spans.of(message, "d1").over(failed=False)
    (lease,) = kept.get_finished_spans()
    assert len(lease.attributes["costd.lease.request_id"]) == 64
