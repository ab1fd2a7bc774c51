"""The dashboard for Grafana: every query of it, asked of a Prometheus that scraped real hosts.

Grafana itself is not started: what it would ask is asked, with its variables filled in.
"""

import itertools
import json
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from math import isnan
from pathlib import Path

import grpc
import pytest
from costd_client import Client
from prometheus_client.parser import text_string_to_metric_families
from scraping import DEPLOY, PrometheusServer, program

from costd.testing import DaemonProcess
from costd.testing.certifier import Certifier
from costd.testing.fleet import FleetProcesses
from costd.testing.process import CostdProcess, wait_until
from costd.trust import Kind
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.admission_pb2_grpc import AdmissionStub
from costd.wire.pb.control_pb2_grpc import ControlStub

METRICS = (Path(__file__).parents[2] / "docs" / "operating" / "metrics.md").read_text()
DASHBOARD = json.loads((DEPLOY / "grafana" / "costd.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    (f"{panel['title']} {target['refId']}", panel["type"], target["expr"])
    for panel in PANELS
    for target in panel["targets"]
]
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
  # So short that one is always past the beginning of its window, of which nothing is foretold.
  - {id: hour, window: hour, limit: $1000}
  - {id: minute, window: minute, limit: $1000}
  - {id: dry, match: {team: dry}, window: day, limit: $0.001}
  - {id: tight, match: {team: tight}, window: day, limit: $1, steps: [{at: 1%, do: [alert, tier_down]}]}
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
    program("prometheus")  # nothing else is started where there is none
    folder = tmp_path_factory.mktemp("watched")
    policies = {name: folder / f"{name}.yaml" for name in ("alone", "fleet")}
    policies["alone"].write_text(POLICY)
    policies["fleet"].write_text(FLEET_POLICY)
    metrics = ("--metrics-listen", "127.0.0.1:0")
    fleet = FleetProcesses(*metrics, database_url=shared_database, policy=policies["fleet"])
    try:
        pair = Certifier(folder / "ca").pair(Kind.DAEMON, "alone")
        tls = ("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key))
        flags = ("--name", "alone", "--listen", "127.0.0.1:0", *tls)
        with DaemonProcess(policies["alone"], *flags) as alone, Injector(pair) as injector:
            fleet.start(daemons=1)
            (coordinator,), (member,) = fleet.coordinators, fleet.daemons
            jobs = {
                "costd": [each.metrics_url.split("/")[2] for each in (alone, member)],
                **{
                    f"costd-{name}": [host.wait_for("metrics_listening")["address"]]
                    for name, host in (("coordinator", coordinator), ("injector", injector))
                },
            }
            with PrometheusServer(folder, jobs) as prometheus:
                wait_until(lambda: count_of_scrapes(prometheus), "all are scraped before the work")
                for _ in range(2):
                    scraped = count_of_scrapes(prometheus)
                    work(alone)
                    work(member)
                    reviewed(injector)
                    wait_until(lambda: count_of_scrapes(prometheus) > scraped + 2, "two scrapes")  # noqa: B023
                drawn(alone)
                ControlStub(grpc.insecure_channel(alone.control_address)).EngageKill(
                    cpb.EngageKillRequest(
                        scope={"team": "stopped"}, reason="test", actor="test", kill_id="k"
                    )
                )
                expired = 'costd_closings_total{how="expired"} >= 2'
                wait_until(lambda: prometheus.samples(expired), "expiries were scraped")
                crossed = 'costd_fleet_alerts_total{kind="threshold"} > 0'
                wait_until(lambda: prometheus.samples(crossed), "an alert of the fleet's")
                engaged = "costd_kills_engaged == 1"
                wait_until(lambda: prometheus.samples(engaged), "a kill switch was scraped")
                prometheus.alone, prometheus.pair = alone, pair
                yield prometheus
    finally:
        fleet.close()


class Injector(CostdProcess):
    """The smallest one that can be asked."""

    READY = "injecting"

    def __init__(self, pair):
        super().__init__()
        self._pair = pair

    def command(self):
        files = ("--tls-cert", str(self._pair.certificate), "--tls-key", str(self._pair.key))
        return ["injector", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *files]

    def ask(self, body):
        port = self.wait_for("injecting")["address"].rpartition(":")[2]
        request = urllib.request.Request(
            f"https://localhost:{port}/inject", body, {"Content-Type": "application/json"}
        )
        trusted = ssl.create_default_context(cafile=self._pair.ca)
        with urllib.request.urlopen(request, timeout=30, context=trusted) as reply:
            return json.load(reply)["response"]


def reviewed(injector):
    """Have a pod injected, one left alone, one denied, and something that is none refused."""
    allowed = []
    for asked in ("true", "false", "perhaps"):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "app", "labels": {"costd.dev/inject": asked}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        }
        request = {"uid": "1", "operation": "CREATE", "namespace": "shop", "object": pod} | {
            name: {"group": "", "version": "v1", word: value}
            for name, word, value in (("kind", "kind", "Pod"), ("resource", "resource", "pods"))
        }
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        allowed.append(injector.ask(json.dumps(review | {"request": request}).encode())["allowed"])
    assert allowed == [True, True, False]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        injector.ask(b"no JSON")


def count_of_scrapes(prometheus):
    counts = [count for _, count in prometheus.samples("sum_over_time(up[10m])")]
    return min(counts) if len(counts) == prometheus.targets_count else 0


def test_every_query_of_every_panel_returns_data(watched):
    """One test, so that several workers do not start all of this several times."""
    now, empty = time.time(), []
    for name, kind, written in QUERIES:
        query = filled_in(written)
        if kind == "timeseries":
            span = {"start": now - 60, "end": now, "step": 1}
            found = watched.ask("query_range", query=query, **span)["result"]
            values = [float(value) for each in found for _, value in each["values"]]
        else:
            values = [value for _, value in watched.samples(query)]
        if all(map(isnan, values)):
            empty.append(name)
    assert not empty


def test_variables_offer_what_was_scraped(watched):
    instances = {labels["instance"] for labels, _ in watched.samples('up{job="costd"}')}
    wanted = {"job": {"costd"}, "instance": instances, "coordinator": {"costd-coordinator"}}
    wanted["injector"] = {"costd-injector"}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["name"] in wanted:
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            series = watched.ask("series", **{"match[]": filled_in(found[1])})
            assert {each[found[2]] for each in series} == wanted.pop(variable["name"])
    assert not wanted


def test_what_is_outside_kubernetes_has_no_namespace_and_is_shown_all_the_same(watched):
    assert not watched.ask("label/namespace/values")
    shown = filled_in('up{job=~"$job",namespace=~"$namespace",pod=~"$pod"}')
    assert len(watched.samples(shown)) == 4


def test_queries_of_annotations_can_be_asked(watched):
    for annotation in DASHBOARD["annotations"]["list"]:
        watched.samples(filled_in(annotation["expr"]))


def test_a_certificate_that_is_broken_is_told_of_and_the_one_before_stays(watched):
    expiry = 'costd_tls_certificate_expiry_timestamp_seconds{job="costd"}'
    (before,) = watched.samples(expiry)
    assert 4 * 86_400 < before[1] - time.time() < 5 * 86_400
    good = watched.pair.certificate.read_bytes()
    watched.pair.certificate.write_text("half of a certifi")
    wait_until(
        lambda: watched.samples('costd_tls_files_refused{job="costd"} == 1'), "a refusal is scraped"
    )
    assert watched.samples(expiry) == [before]
    watched.pair.certificate.write_bytes(good)
    wait_until(
        lambda: watched.samples('costd_tls_files_refused{job="costd"} == 0'), "it is good again"
    )


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


def served_by(watched):
    """What each host serves at this moment."""
    for target in watched.ask("targets")["activeTargets"]:
        with urllib.request.urlopen(target["scrapeUrl"], timeout=30) as reply:
            yield reply.read()


def test_types_labels_and_bounds_are_those_of_the_table(watched):
    table = {}
    for row in re.findall(r"^\| `(costd_\w+)` \| (.*) \|$", METRICS, re.MULTILINE):
        kind, labels, _unit, bound, _meaning = re.split(r" *\| *", row[1], maxsplit=4)
        named = set(re.findall("`(\\w+)`", labels))
        table[row[0].removesuffix("_total")] = (kind, named, bound)
    seen = set()
    for served in served_by(watched):
        for family in text_string_to_metric_families(served.decode()):
            if not family.name.startswith("costd_") or not family.samples:
                continue
            if family.name == "costd_injector_review_duration_seconds":
                continue  # is told of beside the table
            kind, named, bound = table[family.name]
            seen.add(family.name)
            assert family.type == kind, family.name
            assert {label for each in family.samples for label in each.labels} - {"le"} == named
            if bound.isdigit():
                assert len(family.samples) <= int(bound)
    assert seen >= set(table)


def test_promtool_finds_nothing_wrong_with_what_hosts_serve(watched):
    for served in served_by(watched):
        checked = subprocess.run(
            [program("promtool"), "check", "metrics"],
            input=served,
            capture_output=True,
            check=False,
        )
        assert (checked.returncode, checked.stderr) == (0, b"")


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
    early = {name for name in recorded if "burn" in name}  # nothing is used by a tenth
    for name in recorded - early:
        wait_until(lambda: watched.samples(name), f"{name} has a value")  # noqa: B023
    firing = {labels["alertname"] for labels, _ in watched.samples('ALERTS{alertstate="firing"}')}
    assert firing >= {"CostdKillEngaged"}
    assert not firing & {"CostdDown", "CostdFleetLeft", "CostdDatabaseUnavailable"}


# ---- what needs no Prometheus -------------------------------------------------------------------


def test_the_dashboard_reads_metrics_that_are_documented():
    documented = set(re.findall(r"`(costd_\w+)`", METRICS))
    asked = set(re.findall(r"\bcostd_\w+", " ".join(query for _, _, query in QUERIES)))
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
                    (
                        'job=~"$job",namespace=~"$namespace"',
                        'job=~"$coordinator"',
                        'job=~"$injector"',
                    )
                )
            assert not re.findall(r"\bcostd_\w+(?!\{|\w)", target["expr"])
