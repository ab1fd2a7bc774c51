"""Handlers with and without spans, driven without a socket; spans are kept in memory."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from costd.errors import InvalidAsk, StoreUnavailable
from costd.serving.calls import CallFigures, Calls
from costd.serving.spans import spans_to
from costd.telemetry.logs import make_log
from costd.wire.pb import admission_pb2 as pb

ADMISSION = pb.DESCRIPTOR.services_by_name["Admission"]
ASK = pb.AdmitRequest(ask_id="a" * 16, model="gpt-4o", labels={"user": "ann", "team": "x" * 300})


class Context:
    """One call, as a handler sees it."""

    def __init__(self):
        self._code = None

    def invocation_metadata(self):
        return ()

    def set_code(self, code):
        self._code = code

    def set_details(self, details):
        pass

    def code(self):
        return self._code


class Service:
    """Answers every method with what it was given, or fails with it."""

    def __init__(self, answer):
        self._answer = answer

    def __getattr__(self, method):
        return self._respond

    def _respond(self, _request, _caller):
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def later(answer):
    return answer


@pytest.fixture
def kept():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(kept):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return provider.get_tracer("test")


def handler(method, answer, tracer, labels=(), log=None):
    log = log or structlog.get_logger()
    calls = Calls(figures=CallFigures(), log=log, spans=spans_to(tracer, log, labels=labels))
    details = SimpleNamespace(method=f"/{ADMISSION.full_name}/{method}")
    return calls.handlers(ADMISSION, Service(answer)).service(details).unary_unary


async def span_of(kept, tracer, answer, method="Admit", request=ASK, labels=()):
    await handler(method, answer, tracer, labels)(request.SerializeToString(), Context())
    (span,) = kept.get_finished_spans()
    return span


def test_without_a_tracer_the_handler_is_the_one_that_there_always_was(tracer):
    assert spans_to(None, structlog.get_logger()) is None
    plain, traced = handler("Admit", pb.Decision(), None), handler("Admit", pb.Decision(), tracer)
    assert plain.__qualname__ == "Calls._handle.<locals>.handle"
    assert traced.__qualname__ == "Spans.around.<locals>.traced"


def test_a_daemon_that_exports_nothing_loads_nothing_to_export_with():
    """In a process of its own: here it is loaded."""
    code = (
        "import sys, costd.daemon.serve\n"
        "exports = ('opentelemetry.sdk.trace', 'opentelemetry.sdk._logs', "
        "'opentelemetry.exporter.otlp')\n"
        "assert not [name for name in sys.modules if name.startswith(exports)]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_an_answer_that_is_waited_for_is_told_as_well(kept, tracer):
    decision = pb.Decision(verdict=pb.VERDICT_DEGRADE, reason=pb.REASON_STEP, model="gpt-4o-mini")
    span = await span_of(kept, tracer, later(decision))
    assert span.attributes["costd.verdict"] == "degrade"
    assert span.attributes["gen_ai.request.model"] == "gpt-4o", "what was asked for"
    assert span.attributes["costd.model"] == "gpt-4o-mini", "what may be called"


async def test_only_labels_that_were_named_are_told_and_cut(kept, tracer):
    span = await span_of(kept, tracer, pb.Decision(), labels=("team", "absent"))
    assert span.attributes["costd.label.team"] == "x" * 256
    assert [name for name in span.attributes if "label" in name] == ["costd.label.team"]


@pytest.mark.parametrize(
    ("cost_kind", "operation"),
    [
        ("", "chat"),
        ("llm_call", "chat"),
        ("embedding", "embeddings"),
        ("image", "generate_content"),
        ("tool", "execute_tool"),
        ("speech", "speech"),
    ],
)
async def test_cost_kinds_are_told_as_operations(kept, tracer, cost_kind, operation):
    request = pb.AdmitRequest(cost_kind=cost_kind)
    span = await span_of(kept, tracer, pb.Decision(), request=request)
    assert span.attributes["gen_ai.operation.name"] == operation


async def test_explain_is_told_as_admit_is(kept, tracer):
    explanation = pb.Explanation(decision=pb.Decision(verdict=pb.VERDICT_DENY))
    span = await span_of(kept, tracer, explanation, method="Explain")
    assert span.attributes["costd.verdict"] == "deny"


@pytest.mark.parametrize(
    ("problem", "code", "is_ours"),
    [
        (InvalidAsk("labels[user] is 'ann'"), "INVALID_ARGUMENT", False),
        (StoreUnavailable("the disk of ann is full"), "UNAVAILABLE", True),
        (ZeroDivisionError("ann"), "INTERNAL", True),
    ],
)
async def test_errors_have_a_code_and_no_words(kept, tracer, problem, code, is_ours):
    span = await span_of(kept, tracer, problem)
    assert span.attributes["error.type"] == span.attributes["rpc.response.status_code"] == code
    assert (span.status.status_code is StatusCode.ERROR) == is_ours
    assert "ann" not in span.to_json()


async def test_a_call_that_its_caller_cancels_ends_its_span(kept, tracer):
    call = handler("Admit", hang(), tracer)(ASK.SerializeToString(), Context())
    call.send(None)
    call.close()
    assert len(kept.get_finished_spans()) == 1


@pytest.mark.parametrize("answered", [pb.Explanation, lambda: later(pb.Explanation())])
async def test_a_call_is_answered_though_its_span_cannot_be_described(kept, tracer, answered):
    """An explanation has no verdict of its own, so what describes a decision breaks on it."""
    context, stream = Context(), io.StringIO()
    log = make_log(level="info", style="json", stream=stream)
    call = handler("Admit", answered(), tracer, log=log)
    assert await call(ASK.SerializeToString(), context) == b""
    assert context.code() is None
    (span,) = kept.get_finished_spans()
    assert span.attributes["rpc.response.status_code"] == "OK"
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["level"], line["event"]) == ("error", "span_failed")
    assert line["method"] == "costd.v1.Admission/Admit"
    assert "AttributeError" in line["exception"]


async def test_spans_that_cannot_be_described_are_logged_once_a_while(tracer):
    stream = io.StringIO()
    log = make_log(level="info", style="json", stream=stream)
    call = handler("Admit", pb.Explanation(), tracer, log=log)
    for _ in range(3):
        await call(ASK.SerializeToString(), Context())
    assert len(stream.getvalue().splitlines()) == 1


class Forever:
    def __await__(self):
        yield


async def hang():
    await Forever()
