"""One trace from a caller through its daemon to the coordinator and its database."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from desk import Desk, ask

from costd.testing.collector import Collector
from costd.testing.fleet import FleetProcesses

ADMIT = "costd.v1.Admission/Admit"
WAIT = "costd.lease.wait"
REQUEST = "costd.v1.Fleet/Join LeaseRequest"
TRANSACTION = "costd.lease.transaction"
CALLER = "00f067aa0ba902b7"
CLIENT, SERVER = 3, 2  # SpanKind of OTLP
POLICY = """\
version: 1
unmatched: deny
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes:
  draft: {tier: premium, max_output_tokens: 1000}
fleet: {lease_wait_ms: 5000}
budgets:
  - {id: per-user, match: {user: "*"}, per: user, window: total, limit: $1}
"""


@pytest.fixture(scope="module")
def collector():
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def running(collector, shared_database, tmp_path_factory):
    """A coordinator and two daemons that export to the collector."""
    policy = tmp_path_factory.mktemp("traced") / "policy.yaml"
    policy.write_text(POLICY)
    running = FleetProcesses(database_url=shared_database, policy=policy)
    running.environment = collector.environment
    try:
        yield running.start(daemons=2)
    finally:
        running.close()


@pytest.fixture(scope="module")
def desks(running):
    """Who asks the daemons."""
    opened = [Desk(daemon) for daemon in running.daemons]
    yield opened
    for desk in opened:
        desk.close()


@pytest.fixture
def traced(desks):
    return desks[0]


def admit(desk, user, trace_id, flags="01", cents=1):
    header = ("traceparent", f"00-{trace_id}-{CALLER}-{flags}")
    request = ask(cents / 100, labels={"user": user})
    return desk.agents.Admit(request, metadata=(header,))


def of_trace(collector, trace_id):
    """The spans of one trace by name, once its Admit was sent, and all those before it."""
    collector.wait(lambda: any(s.name == ADMIT for s in collector.spans if s.trace_id == trace_id))
    return {span.name: span for span in collector.spans if span.trace_id == trace_id}


def test_an_ask_that_waits_for_a_lease_is_one_trace_down_to_the_database(collector, traced):
    trace_id = "1" * 32
    assert admit(traced, "ann", trace_id).reservation_id
    collector.wait(lambda: len(of_trace(collector, trace_id)) == 4)
    spans = of_trace(collector, trace_id)
    lineage = [spans[name] for name in (ADMIT, WAIT, REQUEST, TRANSACTION)]
    assert [span.parent_id for span in lineage] == [
        CALLER,
        *(span.span_id for span in lineage[:-1]),
    ]
    assert [span.service for span in lineage] == ["costd"] * 2 + ["costd-coordinator"] * 2
    assert [span.kind for span in lineage] == [SERVER, CLIENT, SERVER, CLIENT]
    wait, request, transaction = lineage[1:]
    assert wait.attributes["costd.lease.waited"] == "decided"
    assert request.attributes["costd.lease.outcome"] == "granted"
    assert request.attributes["costd.daemon"] == "d1"
    assert request.attributes["costd.lease.counters_count"] == 1
    assert transaction.attributes["db.system.name"] == "postgresql"
    assert wait.end_ns - wait.start_ns >= transaction.end_ns - transaction.start_ns > 0
    assert "ann" not in str(lineage)


def test_an_ask_that_is_held_enough_for_does_not_wait(collector, traced):
    assert admit(traced, "ben", "2" * 32).reservation_id
    assert admit(traced, "ben", "3" * 32).reservation_id  # a lease lasts for some like the first
    assert {*of_trace(collector, "3" * 32)} == {ADMIT}


def test_a_trace_tells_that_another_daemon_holds_what_is_asked_for(collector, desks):
    first, second = desks
    trace_id = "4" * 32
    assert admit(first, "cid", "a" * 32, cents=60).reservation_id
    assert not admit(second, "cid", trace_id, cents=60).reservation_id
    collector.wait(lambda: len(of_trace(collector, trace_id)) == 4)
    spans = of_trace(collector, trace_id)
    assert spans[REQUEST].attributes["costd.daemon"] == "d2"
    assert spans[REQUEST].attributes["costd.lease.outcome"] in {"recalled", "exhausted"}
    assert spans[ADMIT].attributes["costd.verdict"] == "deny"
    assert not any(span.is_error for span in spans.values())


def test_whoever_does_not_sample_is_sampled_nowhere(collector, traced):
    assert admit(traced, "dan", "5" * 32, flags="00").reservation_id
    admit(traced, "eve", "6" * 32)
    collector.wait(lambda: len(of_trace(collector, "6" * 32)) == 4)
    assert [span for span in collector.spans if span.trace_id == "5" * 32] == []


def test_asks_that_share_a_request_link_to_the_one_whose_trace_it_is_in(collector, traced):
    trace_ids = [f"{number:032x}" for number in range(0xA00, 0xA10)]
    with ThreadPoolExecutor(len(trace_ids)) as pool:
        decisions = [*pool.map(lambda each: admit(traced, "fay", each), trace_ids)]
    assert all(decision.reservation_id for decision in decisions)
    waits = [of_trace(collector, each).get(WAIT) for each in trace_ids]
    linked = [span for span in waits if span is not None and span.links]
    assert linked, "nobody waited for another's request"
    assert all(span.span_id not in span.links for span in linked)
    links = {link for span in linked for link in span.links}
    collector.wait(lambda: links <= {s.parent_id for s in collector.spans if s.name == REQUEST})


def test_a_coordinator_sends_its_metrics_and_log_though_prometheus_reads_none(collector, traced):
    daemons = collector.wait_for_metric("costd-coordinator", "costd_fleet_daemons")
    assert daemons.gauge.data_points
    line = collector.wait_for_log("coordinating")
    assert (line.service, line.attributes["name"]) == ("costd-coordinator", "c1")


def test_calls_of_operators_have_spans_at_both(collector, desks, running):
    running.coordinators[0].daemons()
    desks[0].status()
    listed = collector.wait_for_span("costd.v1.FleetControl/ListDaemons")
    assert (listed.service, listed.kind) == ("costd-coordinator", SERVER)
    asked = collector.wait_for_span("costd.v1.Control/GetStatus")
    assert asked.service == "costd"
