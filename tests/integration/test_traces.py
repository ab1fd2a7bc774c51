"""What a collector is sent of a daemon alone: spans, metrics and logs, over the real OTLP."""

import grpc
import pytest
from costd_client import AsyncClient, Client, Source, trace_attributes
from desk import Desk, ask, new_id, poll
from opentelemetry.sdk.trace import TracerProvider

from costd import __version__
from costd.testing import DaemonProcess
from costd.testing.collector import Collector
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import ratelimit_pb2 as envoy_pb

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
ADMIT = "costd.v1.Admission/Admit"
SETTLE = "costd.v1.Admission/Settle"
SERVER = 2  # SpanKind of OTLP
POLICY = """\
version: 1
unmatched: deny
tiers:
  premium: {models: [openai/gpt-4o, google/gemini-2.5-pro]}
task_classes:
  draft: {tier: premium, max_output_tokens: 1000}
budgets:
  - {id: per-user, match: {user: "*"}, per: user, window: total, limit: $1000}
envoy:
  - id: ask
    domain: llm
    match: {step: ask}
    request_id: request
    labels: {user: user}
    task_class: {value: draft}
    model: {value: google/gemini-2.5-pro}
    prompt_tokens: {value: "1000"}
"""


@pytest.fixture(scope="module")
def collector():
    with Collector() as running:
        yield running


def policy_file(folder):
    path = folder / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture(scope="module")
def traced(collector, tmp_path_factory):
    """A daemon that exports to the collector, and who asks it."""
    policy = policy_file(tmp_path_factory.mktemp("traced"))
    daemon = DaemonProcess(policy, "--name", "traced", "--trace-labels", "team,absent")
    more = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,host.name=elsewhere"}
    daemon.environment = collector.environment | more
    with daemon:
        desk = Desk(daemon)
        yield desk
        desk.close()


def admit(desk, *headers, **fields):
    fields = {"model": "gpt-4o", "prompt_tokens": 100, "max_output_tokens": 50} | fields
    request = ask(labels={"user": "ann", "team": "search"}, **fields)
    return request, desk.agents.Admit(request, metadata=headers)


def of_budgets_apart(span):
    """What a span says, but for how far the budget is used: other tests use it too."""
    return [each for each in span.attributes.items() if each[0] != "costd.utilisation_bp"]


def test_a_span_of_admit_is_a_child_of_its_callers(collector, traced):
    request, _ = admit(traced, ("traceparent", SAMPLED), ("tracestate", "vendor=1"))
    span = collector.wait_for_span(ADMIT, costd__ask__id=request.ask_id)
    assert (span.trace_id, span.parent_id, span.kind) == (TRACE, CALLER, SERVER)
    assert span.end_ns > span.start_ns
    assert not span.is_error


def test_a_span_of_admit_names_the_call_as_the_conventions_do(collector, traced):
    request, decision = admit(traced)
    span = collector.wait_for_span(ADMIT, costd__ask__id=request.ask_id)
    assert span.parent_id == "", "nobody called it in a trace"
    assert dict(of_budgets_apart(span)) == {
        "rpc.system.name": "grpc",
        "rpc.method": ADMIT,
        "rpc.response.status_code": "OK",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.max_tokens": 50,
        "costd.verdict": "allow",
        "costd.reason": "ok",
        "costd.task_class": "draft",
        "costd.tier": "premium",
        "costd.tier.asked": "premium",
        "costd.provider": "openai",
        "costd.model": "gpt-4o",
        "costd.ask.id": request.ask_id,
        "costd.reservation.id": decision.reservation_id,
        "costd.hold_nusd": 750_000,
        "costd.budget": "per-user",
        "costd.policy.revision": decision.policy_revision,
        "costd.label.team": "search",
    }


def test_no_span_names_a_user_whom_nobody_wanted_named(collector, traced):
    request, _ = admit(traced)
    span = collector.wait_for_span(ADMIT, costd__ask__id=request.ask_id)
    assert "ann" not in str(span)
    refused, _ = admit(traced, estimated_cost_nusd=10**15)
    denied = collector.wait_for_span(ADMIT, costd__ask__id=refused.ask_id)
    assert denied.attributes["costd.verdict"] == "deny"
    assert denied.attributes["costd.binding.rule"] == "per-user"
    assert "ann" not in str(denied)
    assert not denied.is_error, "a refusal is an answer"


def test_a_span_of_settle_has_what_the_provider_measured(collector, traced):
    _, decision = admit(traced, ("traceparent", SAMPLED), provider="google", model="gemini-2.5-pro")
    usage = pb.Usage(prompt_tokens=90, cached_tokens=10, output_tokens=40, reasoning_tokens=5)
    request = pb.SettleRequest(
        reservation_id=decision.reservation_id,
        usage=usage,
        outcome=pb.OUTCOME_OK,
        model="gemini-2.5-pro-002",
    )
    closed = traced.agents.Settle(request, metadata=(("traceparent", SAMPLED),))
    span = collector.wait_for_span(SETTLE, costd__reservation__id=decision.reservation_id)
    assert (span.trace_id, span.parent_id) == (TRACE, CALLER)
    told = {key: value for key, value in span.attributes.items() if not key.startswith("rpc.")}
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.gen_ai",
        "gen_ai.response.model": "gemini-2.5-pro-002",
        "gen_ai.usage.input_tokens": 90,
        "gen_ai.usage.output_tokens": 40,
        "gen_ai.usage.cache_read.input_tokens": 10,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "costd.reservation.id": decision.reservation_id,
        "costd.state": "settled",
        "costd.outcome": "ok",
        "costd.cost_nusd": closed.cost_nusd,
        "costd.hold_nusd": decision.hold_nusd,
    }


def test_records_extensions_and_voids_have_spans_too(collector, traced):
    traced.record(0.5, cost_kind="embedding", provider="mistral", labels={"user": "ann"})
    recorded = collector.wait_for_span("costd.v1.Admission/Record")
    assert recorded.attributes["gen_ai.operation.name"] == "embeddings"
    assert recorded.attributes["gen_ai.provider.name"] == "mistral_ai"
    assert recorded.attributes["costd.cost_nusd"] == 500_000_000
    _, decision = admit(traced)
    traced.extend(decision.reservation_id, 0.01)
    extended = collector.wait_for_span("costd.v1.Admission/Extend")
    assert extended.attributes["costd.extended"] is True
    traced.void(decision.reservation_id)
    voided = collector.wait_for_span("costd.v1.Admission/Void")
    assert voided.attributes["costd.state"] == "voided"


def test_what_envoy_asks_for_is_in_the_trace_of_its_request(collector, traced):
    request = envoy_pb.RateLimitRequest(domain="llm")
    entries = request.descriptors.add().entries
    for key, value in {"step": "ask", "request": new_id(), "user": "ann"}.items():
        entries.add(key=key, value=value)
    method = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    ask_as_envoy = traced.channel.unary_unary(
        f"/{method}",
        request_serializer=envoy_pb.RateLimitRequest.SerializeToString,
        response_deserializer=envoy_pb.RateLimitResponse.FromString,
    )
    answer = ask_as_envoy(request, metadata=(("traceparent", SAMPLED),))
    span = collector.wait_for_span(method)
    assert (span.trace_id, span.parent_id) == (TRACE, CALLER)
    told = {key: value for key, value in of_budgets_apart(span) if not key.startswith("rpc.")}
    assert told == {
        "gen_ai.provider.name": "gcp.gen_ai",
        "gen_ai.request.model": "gemini-2.5-pro",
        "costd.verdict": "allow",
        "costd.reason": "ok",
        "costd.budget": "per-user",
        "costd.tier": "premium",
        "costd.provider": "google",
        "costd.model": "gemini-2.5-pro",
        "costd.reservation.id": answer.dynamic_metadata["reservation_id"],
        "costd.hold_nusd": int(answer.dynamic_metadata["hold_nusd"]),
    }


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "nonsense")],
        [("traceparent", f"00-{TRACE}-{CALLER}")],
        [("traceparent", f"00-{'0' * 32}-{CALLER}-01")],
        [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
        [("traceparent", f"ff-{TRACE}-{CALLER}-01")],
        [("traceparent", SAMPLED.upper())],
        [("traceparent", f"00-{TRACE}-{CALLER}-01-{'x' * 600}")],
        [("tracestate", "vendor=1")],
    ],
)
def test_what_is_no_trace_context_begins_a_trace_of_its_own(collector, traced, headers):
    request, decision = admit(traced, *headers)
    assert decision.reservation_id
    span = collector.wait_for_span(ADMIT, costd__ask__id=request.ask_id)
    assert span.trace_id != TRACE
    assert span.parent_id == ""


@pytest.mark.parametrize("state", ["no state", "a=1,a=2", "x" * 600, "=,=,="])
def test_a_bad_tracestate_spoils_no_traceparent(collector, traced, state):
    request, _ = admit(traced, ("traceparent", SAMPLED), ("tracestate", state))
    span = collector.wait_for_span(ADMIT, costd__ask__id=request.ask_id)
    assert (span.trace_id, span.parent_id) == (TRACE, CALLER)


def test_a_caller_that_does_not_sample_has_no_span(collector, traced):
    unsampled, decision = admit(traced, ("traceparent", f"00-{TRACE}-{CALLER}-00"))
    assert decision.reservation_id
    later, _ = admit(traced)  # spans come in order
    collector.wait_for_span(ADMIT, costd__ask__id=later.ask_id)
    asked = {span.attributes.get("costd.ask.id") for span in collector.spans}
    assert unsampled.ask_id not in asked


def test_an_error_has_its_code_and_only_that(collector, traced):
    before = len(collector.spans)
    with pytest.raises(grpc.RpcError):
        traced.agents.Admit(pb.AdmitRequest(ask_id="ann"))
    collector.wait_for_span(ADMIT, rpc__response__status_code="INVALID_ARGUMENT")
    (span,) = (
        span
        for span in collector.spans[before:]
        if span.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    )
    assert span.attributes["error.type"] == "INVALID_ARGUMENT"
    assert not span.is_error, "the caller's fault is no error of the server's span"


def test_what_prometheus_reads_is_sent_too(collector, traced):
    admit(traced)
    metric = collector.wait_for_metric("costd", "costd_decisions")
    assert metric.sum.is_monotonic
    assert metric.sum.data_points[0].as_int > 0
    durations = collector.wait_for_metric("costd", "costd_rpc_duration").histogram
    admits = next(
        point
        for point in durations.data_points
        if any(pair.value.string_value == "Admit" for pair in point.attributes)
    )
    assert admits.count == sum(admits.bucket_counts) > 0
    assert not admits.HasField("max"), "nobody counted it"


def test_the_log_is_sent_too_and_stays_where_it_was(collector, traced):
    line = collector.wait_for_log("serving")
    written = traced.daemon.wait_for("serving")
    assert line.severity == "info"
    assert line.attributes["revision"] == written["revision"]
    assert line.attributes["pid"] == written["pid"]


def test_a_daemon_says_who_it_is(collector, traced):
    collector.wait_for_log("serving")
    told = collector.resources["costd"]
    assert told["service.instance.id"] == "traced"
    assert told["service.version"] == __version__
    assert told["deployment.environment.name"] == "test"
    assert told["host.name"] == "elsewhere", "the environment knows better"


# ---- what the environment says -------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path):
    """Make one daemon with variables, not yet running."""
    made = []

    def make(**environment):
        process = DaemonProcess(policy_file(tmp_path))
        process.environment = environment
        made.append(process)
        return process

    yield make
    for process in made:
        process.close()


def test_what_is_disabled_sends_nothing_and_serves(daemon):
    with Collector() as collector:
        process = daemon(**collector.environment, OTEL_SDK_DISABLED="true").start()
        desk = Desk(process)
        assert admit(desk)[1].reservation_id
        desk.close()
        assert process.stop() == 0
        assert (collector.spans, collector.logs, collector.metrics) == ([], [], {})


def test_a_signal_that_is_not_wanted_is_not_sent(daemon):
    with Collector() as collector:
        process = daemon(
            **collector.environment, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="prometheus"
        )
        desk = Desk(process.start())
        admit(desk)
        desk.close()
        process.stop()
        collector.wait_for_log("stopped")
        assert (collector.spans, collector.metrics) == ([], {})


def test_the_sampler_of_the_environment_is_used(daemon):
    with Collector() as collector:
        process = daemon(**collector.environment, OTEL_TRACES_SAMPLER="always_off").start()
        desk = Desk(process)
        admit(desk, ("traceparent", SAMPLED))
        desk.close()
        process.stop()
        collector.wait_for_log("stopped")
        assert collector.spans == []


def test_a_collector_that_is_away_costs_no_answer_and_not_the_end(daemon):
    collector = Collector().start()
    environment = collector.environment
    collector.stop()
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32"}
    process = daemon(**environment, **small).start()
    desk = Desk(process)
    for _ in range(300):
        assert desk.agents.Explain(ask(0.01, labels={"user": "ann"}, ask_id=new_id())).decision
    desk.close()
    assert process.stop() == 0
    assert process.lines[-1]["event"] == "stopped", process.log_text()
    complaints = [line for line in process.lines if "opentelemetry" in line.get("logger", "")]
    assert complaints, "nobody is told that telemetry is lost"
    assert len(complaints) < 20, process.log_text()


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "schedule_delay_millis must be positive"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "could not convert string to float: 'soon'"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "interval value 0.0 is invalid"),
    ],
)
def test_a_variable_that_cannot_be_followed_ends_the_start_with_a_line(
    daemon, variable, value, says
):
    process = daemon(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", **{variable: value})
    process.launch()
    assert process.ended() == 2
    assert (
        f"costd: OTEL_*: OpenTelemetry cannot be set up as they say: {says}" in process.log_text()
    )
    assert "Traceback" not in process.log_text()


def test_an_exporter_that_is_not_installed_is_named_with_its_remedy(daemon, tmp_path):
    """Entry points are found by the packages on the path; one that hides them is put before."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "found = m.entry_points\n"
        "m.entry_points = lambda **by: [\n"
        "    each for each in found(**by) if not each.name.startswith('otlp')\n"
        "]\n"
    )
    process = daemon(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", PYTHONPATH=str(hidden))
    process.launch()
    assert process.ended() == 2
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in process.log_text()
    assert "pip install costd[otlp]" in process.log_text()
    assert "Traceback" not in process.log_text()


# ---- clients ------------------------------------------------------------------------------------


@pytest.fixture
def tracer():
    """What the caller's own spans are made by; they are sent nowhere."""
    return TracerProvider(shutdown_on_exit=False).get_tracer("test")


def asking(desk, make):
    said = {"task_class": "draft", "labels": {"user": "ann"}}
    return make(desk.daemon.address, caller="test", allowances=False, **said)


def test_the_client_asks_in_the_trace_of_its_caller(collector, traced, tracer):
    with asking(traced, Client) as client, tracer.start_as_current_span("agent") as parent:
        decision = client.admit(estimated_cost_nusd=1_000_000)
        client.settle(decision, cost_nusd=900_000)
    check_children(collector, decision, parent.get_span_context())


async def test_the_client_of_asyncio_does_too(collector, traced, tracer):
    async with asking(traced, AsyncClient) as client:
        with tracer.start_as_current_span("agent") as parent:
            decision = await client.admit(estimated_cost_nusd=1_000_000)
            await client.settle(decision, cost_nusd=900_000)
    check_children(collector, decision, parent.get_span_context())


def test_the_client_says_of_a_decision_what_the_daemons_span_says(collector, traced):
    with asking(traced, Client) as client:
        decision = client.admit(model="gpt-4o", prompt_tokens=100, max_output_tokens=50)
    span = collector.wait_for_span(ADMIT, costd__reservation__id=decision.reservation_id)
    told = {key: value for key, value in span.attributes.items() if key.startswith("costd.")}
    assert trace_attributes(decision) == told | {"costd.source": "daemon"}


def test_a_drawn_call_can_be_told_in_a_trace_of_the_program(traced):
    said = {"task_class": "draft", "labels": {"user": "ann"}}
    with Client(traced.daemon.address, caller="test", **said) as client:
        poll(lambda: client.admit(estimated_cost_nusd=1_000).source == Source.ALLOWANCE)
        decision = client.admit(estimated_cost_nusd=1_000)
    told = trace_attributes(decision)
    assert (told["costd.source"], told["costd.verdict"]) == ("allowance", "allow")
    assert (told["costd.hold_nusd"], told["costd.model"]) == (1_000, "gpt-4o")
    assert told["costd.ask.id"] == decision.ask_id
    assert "ann" not in str(told)


def check_children(collector, decision, parent):
    for name in (ADMIT, SETTLE):
        span = collector.wait_for_span(name, costd__reservation__id=decision.reservation_id)
        assert span.trace_id == f"{parent.trace_id:032x}"
        assert span.parent_id == f"{parent.span_id:016x}"
