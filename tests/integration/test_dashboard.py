"""The dashboard for Grafana: every query of it, asked of a Prometheus that scraped real hosts.

Grafana itself is not started: what it would ask is asked, with its variables filled in.
"""

import itertools
import json
import re
import time
import uuid
from pathlib import Path

import grpc
import pytest
from costd_client import Client
from scraping import DEPLOY, PrometheusServer

from costd.testing import DaemonProcess
from costd.testing.fleet import FleetProcesses
from costd.testing.process import wait_until
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.admission_pb2_grpc import AdmissionStub
from costd.wire.pb.control_pb2_grpc import ControlStub

METRICS = (Path(__file__).parents[2] / "docs" / "operating" / "metrics.md").read_text()
DASHBOARD = json.loads((DEPLOY / "grafana" / "costd.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(target["expr"], panel["type"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
MAY_BE_EMPTY = "costd_tls_"
"""No host of this test has a certificate."""
POLICY = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes: {draft: {}, chat: {}}
default_task_class: draft
budgets:
  - {id: everything, window: month, limit: $1000}
  - {id: user-day, per: user, window: day, limit: $50}
  - {id: calls, window: hour, limit: 100000 calls}
  - {id: tracked, window: total}
  - {id: dry, match: {team: dry}, window: day, limit: $0.001}
  - {id: tight, match: {team: tight}, window: day, limit: $1, steps: [{at: 1%, do: [tier_down]}]}
expiry: {ttl: 1s}
allowance: {for: 1s}
"""
FLEET_POLICY = POLICY.replace("expiry: {ttl: 1s}\n", "")


def filled_in(query):
    """Fill in Grafana's variables as it does where everything is chosen."""
    for name, value in (("$__rate_interval", "1m"), ("$__range", "5m"), ("$__interval", "1s")):
        query = query.replace(name, value)
    for variable in DASHBOARD["templating"]["list"]:
        query = query.replace(f"${variable['name']}", variable.get("allValue", ""))
    assert "$" not in query
    return query


def admitted(stub, **fields):
    fields = {"task_class": "draft", "model": "gpt-4o", "provider": "openai"} | fields
    return stub.Admit(
        pb.AdmitRequest(
            ask_id=f"ask-{uuid.uuid4()}", prompt_tokens=100, max_output_tokens=100, **fields
        )
    )


def work(daemon):
    """Have everything happen once that a panel shows."""
    stub = AdmissionStub(grpc.insecure_channel(daemon.address))
    usage = pb.Usage(prompt_tokens=100, cached_tokens=40, output_tokens=80)
    for number, task_class in itertools.product(range(5), ("draft", "chat")):
        labels = {"user": f"u{number}", "team": "tight"}
        held = admitted(stub, task_class=task_class, labels=labels)
        stub.Settle(pb.SettleRequest(reservation_id=held.reservation_id, usage=usage))
    stub.Void(pb.VoidRequest(reservation_id=admitted(stub).reservation_id))
    assert admitted(stub, labels={"team": "dry"}).verdict == pb.VERDICT_DENY
    held = admitted(stub)
    stub.Settle(pb.SettleRequest(reservation_id=held.reservation_id, cost_nusd=2 * held.hold_nusd))
    admitted(stub)  # nobody closes it
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        stub.Admit(pb.AdmitRequest())


def drawn(daemon):
    with Client(daemon.address, caller="dashboard", allowances=True, timeout_s=10) as client:
        for _ in range(20):
            decision = client.admit(model="gpt-4o", estimated_cost_nusd=1_000_000)
            client.settle(decision, cost_nusd=900_000)


@pytest.fixture(scope="module")
def watched(tmp_path_factory, shared_database):
    """A Prometheus that saw a daemon by itself, a coordinator, and a daemon of its fleet, at work."""
    folder = tmp_path_factory.mktemp("watched")
    policies = {name: folder / f"{name}.yaml" for name in ("alone", "fleet")}
    policies["alone"].write_text(POLICY)
    policies["fleet"].write_text(FLEET_POLICY)
    metrics = ("--metrics-listen", "127.0.0.1:0")
    fleet = FleetProcesses(*metrics, database_url=shared_database, policy=policies["fleet"])
    try:
        with DaemonProcess(policies["alone"], "--name", "alone") as alone:
            fleet.start(daemons=1)
            (coordinator,), (member,) = fleet.coordinators, fleet.daemons
            jobs = {
                "costd": [each.metrics_url.split("/")[2] for each in (alone, member)],
                "costd-coordinator": [coordinator.wait_for("metrics_listening")["address"]],
            }
            with PrometheusServer(folder, jobs) as prometheus:
                for _ in range(2):
                    scraped = count_of_scrapes(prometheus)
                    work(alone)
                    work(member)
                    wait_until(lambda: count_of_scrapes(prometheus) > scraped + 2, "two scrapes")  # noqa: B023
                drawn(alone)
                ControlStub(grpc.insecure_channel(alone.control_address)).EngageKill(
                    cpb.EngageKillRequest(
                        scope={"team": "stopped"}, reason="test", actor="test", kill_id="k"
                    )
                )
                expired = 'costd_closings_total{how="expired"} >= 2'
                wait_until(lambda: prometheus.samples(expired), "expiries were scraped")
                engaged = "costd_kills_engaged == 1"
                wait_until(lambda: prometheus.samples(engaged), "a kill switch was scraped")
                prometheus.alone = alone
                yield prometheus
    finally:
        fleet.close()


def count_of_scrapes(prometheus):
    counts = [count for _, count in prometheus.samples("count_over_time(up[10m])")]
    return min(counts) if len(counts) == 3 else 0


@pytest.mark.parametrize(("query", "kind"), QUERIES)
def test_a_query_of_a_panel_returns_data(watched, query, kind):
    query = filled_in(query)
    now = time.time()
    if kind == "timeseries":
        found = watched.ask("query_range", query=query, start=now - 60, end=now, step=1)["result"]
        values = [float(value) for each in found for _, value in each["values"]]
    else:
        values = [value for _, value in watched.samples(query)]
    assert any(value == value for value in values) or MAY_BE_EMPTY in query  # noqa: PLR0124  not NaN


@pytest.mark.parametrize("name", ["job", "instance", "coordinator"])
def test_a_variable_offers_what_was_scraped(watched, name):
    (variable,) = (each for each in DASHBOARD["templating"]["list"] if each["name"] == name)
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
    series = watched.ask("series", **{"match[]": filled_in(found[1])})
    offered = {each[found[2]] for each in series}
    assert (
        offered
        == {
            "job": {"costd"},
            "instance": {labels["instance"] for labels, _ in watched.samples('up{job="costd"}')},
            "coordinator": {"costd-coordinator"},
        }[name]
    )


def test_what_is_outside_kubernetes_has_no_namespace_and_is_shown_all_the_same(watched):
    assert not watched.ask("label/namespace/values")
    shown = filled_in('up{job=~"$job",namespace=~"$namespace",pod=~"$pod"}')
    assert len(watched.samples(shown)) == 3


@pytest.mark.parametrize(
    "annotation", DASHBOARD["annotations"]["list"], ids=lambda each: each["name"]
)
def test_an_annotations_query_can_be_asked(watched, annotation):
    watched.samples(filled_in(annotation["expr"]))


def test_prometheus_has_the_books_to_the_last_nano_dollar(watched):
    alone = watched.alone.metrics_url.split("/")[2]
    of_it = f'{{instance="{alone}"}}'
    stub = ControlStub(grpc.insecure_channel(watched.alone.control_address))

    def agrees():
        groups = stub.ListUsage(cpb.ListUsageRequest(group_by=["task_class"])).groups
        settled = sum(group.cost_nusd for group in groups)
        query = f"sum(costd_charged_nusd_total{of_it}) - sum(costd_reversed_nusd_total{of_it})"
        return [(settled,)] == [(value,) for _, value in watched.samples(query)] and settled > 0

    wait_until(agrees, "what was scraped is what usage events add up to")


def test_every_rule_could_be_evaluated(watched):
    groups = watched.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    wait_until(
        lambda: all(
            rule["health"] == "ok"
            for group in watched.ask("rules")["groups"]
            for rule in group["rules"]
        ),
        "all rules are evaluated",
    )
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    early = {name for name in recorded if "burn" in name}  # not in the first 5 % of a window
    for name in recorded - early:
        wait_until(lambda: watched.samples(name), f"{name} has a value")  # noqa: B023
    firing = {labels["alertname"] for labels, _ in watched.samples('ALERTS{alertstate="firing"}')}
    assert firing >= {"CostdKillEngaged"}
    assert not firing & {"CostdDown", "CostdFleetLeft", "CostdDatabaseUnavailable"}


# ---- what needs no Prometheus -------------------------------------------------------------------


def test_the_dashboard_reads_metrics_that_are_documented():
    documented = set(re.findall(r"^\| `(costd_\w+)`", METRICS, re.MULTILINE))
    asked = set(re.findall(r"\bcostd_\w+", " ".join(param.values[0] for param in QUERIES)))
    assert {re.sub("_bucket$", "", name) for name in asked} <= documented


def test_panels_have_names_numbers_and_places_of_their_own():
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)
    taken = set()
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_panel_asks_the_prometheus_that_was_chosen_of_the_jobs_that_were_chosen():
    for panel in PANELS:
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            for selector in re.findall(r"\b(?:costd|process)_\w+\{([^}]*)\}", target["expr"]):
                assert selector.startswith(
                    ('job=~"$job",namespace=~"$namespace"', 'job=~"$coordinator"')
                )
            assert not re.findall(r"\bcostd_\w+(?!\{|\w)", target["expr"])
