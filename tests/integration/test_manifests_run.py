"""The manifests' containers, started for real: their flags and environment, paths moved elsewhere."""

import copy
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import grpc
import pytest
from costd_client import Client
from in_a_pod import SIDECAR_UID, as_container, lacking
from kubernetes_api import WEBHOOK, KubernetesApi
from rendered import (
    OVERLAYS,
    VERSIONS,
    containers,
    named,
    one,
    pod_of,
    render,
    validate,
    workloads,
)
from ruamel.yaml import YAML
from test_manifests import restricted_faults

from costd.coordinator import settings as coordinator_settings
from costd.daemon import settings as daemon_settings
from costd.daemon.servers import ENVOY_NAME
from costd.injector import settings as injector_settings
from costd.injector.patch import inject
from costd.testing.certifier import Certifier
from costd.testing.process import CostdProcess
from costd.trust import Kind, Peer, Role
from costd.trust.authority import issue
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.control_pb2_grpc import ControlStub
from costd.wire.pb.ratelimit_pb2 import RateLimitRequest, RateLimitResponse

SETTINGS = {
    "serve": daemon_settings,
    "coordinator": coordinator_settings,
    "injector": injector_settings,
}
READY = {"serve": "serving", "coordinator": "coordinating", "injector": "injecting"}
FOR_CLIENTS = {"COSTD_CONTROL_ADDRESS"}
"""Read by `costctl`, which operators run in the container."""
FIELDS = {
    "metadata.name": "agent-7d9f-x2x",
    "metadata.namespace": "agents",
    "spec.nodeName": "node-3",
    "spec.serviceAccountName": "default",
    "metadata.labels['costd.dev/label-team']": "research",
}
MOVED = ("/var/lib/costd", "/run/costd", "/etc/costd")


def command_of(container):
    """What the container runs, after the entry point `costd`."""
    return [*container.get("command", ["costd"]), *container.get("args", [])][1:]


def ours():
    """Every container that runs a host of costd, by its place, and what it runs."""
    for overlay in OVERLAYS:
        for workload in workloads(render(overlay)):
            for each in containers(workload):
                if each["image"].startswith("costd") and command_of(each)[0] in SETTINGS:
                    yield pytest.param(each, id=f"{overlay}:{named(workload)}")


def environment_of(container, root, **secrets):
    """What a kubelet would put there, with paths under `root` and ports chosen by the system."""
    found = {}
    fields = FIELDS
    if command_of(container)[0] == "injector":
        fields = FIELDS | {"metadata.namespace": "costd-system"}
    for each in container["env"]:
        source = each.get("valueFrom", {})
        if "fieldRef" in source:
            value = fields[source["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in source:
            value = secrets[source["secretKeyRef"]["name"]]
        else:
            value = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], each["value"])
            for path in MOVED:
                value = value.replace(path, f"{root}{path}")
            value = re.sub(r"^0\.0\.0\.0:\d+$", "127.0.0.1:0", value)
        found[each["name"]] = value
    return found


@cache
def lacks():
    """Why nothing can run as a container would here, once for all."""
    with tempfile.TemporaryDirectory(dir="/tmp") as pod:
        return lacking(pod)


class Container(CostdProcess):
    """One container of a manifest as a process of this machine.

    Where the machine lets us, its root is read-only and its user that of the manifest; as another
    user it could not reach the tests' PostgreSQL, so that a test may say who it is.
    """

    def __init__(self, container, *, user=SIDECAR_UID, **secrets):
        super().__init__()
        if not lacks():
            self.prefix = as_container(self.directory, user)
        # What mounts an emptyDir makes a directory that everybody may write to.
        for path in MOVED:
            (self.directory / path[1:]).mkdir(parents=True)
            (self.directory / path[1:]).chmod(0o777)
        self.directory.chmod(0o711)
        self.container = container
        self.READY = READY[command_of(container)[0]]
        self.environment = environment_of(container, self.directory, **secrets)

    def command(self):
        return command_of(self.container)

    def mount(self, name, **files):
        """Put files where a Secret or ConfigMap of this volume's name is mounted."""
        [path] = [m["mountPath"] for m in self.container["volumeMounts"] if m["name"] == name]
        for file, content in files.items():
            target = self.directory / path[1:] / file.replace("_", ".")
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
            target.chmod(0o440)
            if not lacks():
                # As the kubelet does for a pod with an fsGroup.
                os.chown(target, 0, SIDECAR_UID)

    def run(self, *command):
        """Run a program in the container, as `kubectl exec` would."""
        program = Path(sys.executable).with_name(command[0])
        words = [word.replace("/var/lib", f"{self.directory}/var/lib") for word in command[1:]]
        return subprocess.run(
            [program, *words],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def metrics(self):
        """Scrape it."""
        url = f"http://{self.wait_for('metrics_listening')['address']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()


def probes_of(container):
    names = ("startupProbe", "readinessProbe", "livenessProbe")
    return [container[name] for name in names if name in container]


def assert_healthy(process):
    """Ask what the probes ask."""
    assert probes_of(process.container)
    for probe in probes_of(process.container):
        if "exec" in probe:
            done = process.run(*probe["exec"]["command"])
            assert done.returncode == 0, done.stderr
        if "httpGet" in probe:
            address, path = process.wait_for("injecting")["address"], probe["httpGet"]["path"]
            context = ssl._create_unverified_context()  # as the kubelet does
            with urllib.request.urlopen(f"https://{address}{path}", context=context) as answer:
                assert answer.status == 200


def ask_as_envoy(process, *, hits_addend=0, **entries):
    """Ask over TCP, without TLS; return the headers of the answer."""
    request = RateLimitRequest(domain="llm", hits_addend=hits_addend)
    descriptor = request.descriptors.add()
    for key, value in entries.items():
        descriptor.entries.add(key=key, value=value)
    with grpc.insecure_channel(process.wait_for("serving")["listen"]) as channel:
        call = channel.unary_unary(f"/{ENVOY_NAME}/ShouldRateLimit")
        answer = RateLimitResponse.FromString(call(request.SerializeToString(), timeout=20))
    return {each.key: each.value for each in answer.response_headers_to_add}


@contextmanager
def operating(process):
    """What operators ask, at the socket that is theirs."""
    with grpc.insecure_channel(f"unix:{process.environment['COSTD_CONTROL_SOCKET']}") as channel:
        yield ControlStub(channel)


# ---- what is said exists ------------------------------------------------------------------------


@pytest.mark.parametrize("container", [*ours()])
def test_every_variable_and_flag_of_a_manifest_is_one_that_its_program_knows(
    container, monkeypatch
):
    program, *flags = command_of(container)
    known = SETTINGS[program].Settings.model_fields
    environment = environment_of(container, "/nowhere", **{"costd-database": "postgresql://h/d"})
    ours = {name for name in environment if name.startswith("COSTD_")} - FOR_CLIENTS
    assert {name.removeprefix("COSTD_").lower() for name in ours} <= known.keys()
    assert {flag.removeprefix("--").replace("-", "_") for flag in flags} <= known.keys()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert SETTINGS[program].load_settings({})


def test_what_operators_run_in_a_container_finds_its_socket():
    for param in ours():
        variables = {each["name"]: each.get("value") for each in param.values[0]["env"]}
        if "COSTD_CONTROL_SOCKET" in variables:
            expected = f"unix:{variables['COSTD_CONTROL_SOCKET']}"
            assert variables["COSTD_CONTROL_ADDRESS"] == expected


# ---- coordinator and nodes ----------------------------------------------------------------------


POLICY = """\
version: 1
tiers: {premium: {models: [openai/gpt-4o]}}
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - {id: all, window: total, limit: $100, share: fleet}
envoy:
  - {id: ask, domain: llm, match: {step: ask}, request_id: request, estimated_cost: $1, model: model}
  - {id: end, domain: llm, match: {step: end}, request_id: request, does: settle,
     hits_addend: cost_microusd, model: model}
"""
DOLLAR_NUSD = 10**9
ASK = {"estimated_cost_nusd": DOLLAR_NUSD, "model": "gpt-4o"}


@pytest.fixture(scope="module")
def certifier(tmp_path_factory):
    return Certifier(tmp_path_factory.mktemp("ca"))


def mount_certificate(process, certifier, name):
    """Make what the Certificate of this name asks cert-manager for, and mount its Secret."""
    spec = one(render("coordinator-cert-manager"), "Certificate", name)["spec"]
    [uri] = spec["uris"]
    kind, _, holder = uri.removeprefix("costd://").partition("/")
    internal = f"{kind}.costd.internal"
    assert internal in spec["dnsNames"]
    others = [each for each in spec["dnsNames"] if each != internal]
    issued = issue(
        certifier.authority, Peer(kind=Kind(kind), name=holder), certifier.now_ns, dns=others
    )
    process.mount(
        "costd-tls",
        tls_crt=issued.certificate_pem,
        tls_key=issued.key_pem,
        ca_crt=certifier.ca.read_bytes(),
    )


@pytest.fixture(scope="module")
def coordinator(certifier, shared_database):
    """The coordinator's container, on a PostgreSQL that it is given, with certificates."""
    [found] = containers(one(render("coordinator"), "Deployment", "costd-coordinator"))
    process = Container(found, user=0, **{"costd-database": shared_database})
    mount_certificate(process, certifier, "costd-coordinator")
    with process:
        yield process


def publish(coordinator, certifier, policy):
    """Have an admin publish a policy from elsewhere, as the page says."""
    policy.write_text(POLICY)
    ann = certifier.pair(Kind.OPERATOR, "ann", Role.ADMIN)
    port = coordinator.wait_for("coordinating")["listen"].rpartition(":")[2]
    tls = ["--tls-ca", ann.ca, "--tls-cert", ann.certificate, "--tls-key", ann.key]
    costctl = Path(sys.executable).with_name("costctl")
    done = subprocess.run(
        [costctl, "policy", "apply", policy, "--control", f"localhost:{port}", *tls],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def node(certifier, coordinator, tmp_path_factory):
    """The daemon of a node, joined to that coordinator."""
    daemonset = one(render("node-local"), "DaemonSet", "costd-node")
    data = one(render("node-local"), "ConfigMap", "costd-kills")["data"]
    process = Container(pod_of(daemonset)["spec"]["containers"][0])
    mount_certificate(process, certifier, "costd-daemon")
    process.mount("costd-kills", kills_yaml=data["kills.yaml"])
    service = one(render("coordinator"), "Service", "costd-coordinator")["metadata"]
    host, _, port = process.environment["COSTD_COORDINATOR"].rpartition(":")
    assert host == f"{service['name']}.{service['namespace']}.svc"
    assert port == "9466"
    process.environment["COSTD_COORDINATOR"] = coordinator.wait_for("coordinating")["listen"]
    publish(coordinator, certifier, tmp_path_factory.mktemp("policy") / "policy.yaml")
    with process:
        yield process


def test_the_containers_run_as_the_manifests_say(coordinator, node):
    if lacks():
        pytest.skip(lacks())
    daemonset = one(render("node-local"), "DaemonSet", "costd-node")
    assert pod_of(daemonset)["spec"]["securityContext"]["runAsUser"] == SIDECAR_UID
    assert Path(f"/proc/{node.pid}").stat().st_uid == SIDECAR_UID
    for process in (coordinator, node):
        mounts = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
        [options] = [line.split()[5] for line in mounts if line.split()[4] == "/"]
        assert "ro" in options.split(",")


def test_the_coordinators_container_serves(coordinator):
    assert_healthy(coordinator)
    assert "costd_fleet" in coordinator.metrics()
    assert (coordinator.directory / "var/lib/costd/run/control.sock").is_socket()


def test_the_daemon_of_a_node_joins_the_coordinator_and_decides(coordinator, node):
    node.wait_for("coordinator_joined")
    assert_healthy(node)
    path = node.environment["COSTD_SOCKET"]
    assert Path(path).stat().st_mode & 0o777 == 0o660
    with Client(f"unix:{path}") as client:
        decision = client.admit(**ASK, labels={"node": "node-3"})
        assert decision.allowed
        with pytest.raises(Exception, match="node"):
            client.admit(**ASK, labels={"node": "another"})
    assert "costd_" in node.metrics()


@pytest.fixture
def gateways(coordinator, node, certifier):
    """Both daemons of the overlay for gateways with a coordinator, joined to it."""
    node.wait_for("coordinator_joined")  # by then there is a policy
    manifests = render("gateway-coordinator")
    workload = one(manifests, "StatefulSet", "costd-gateway")
    kills = one(manifests, "ConfigMap", "costd-gateway-kills")["data"]["kills.yaml"]
    made = [Container(containers(workload)[0]) for _ in range(workload["spec"]["replicas"])]
    for ordinal, process in enumerate(made):
        mount_certificate(process, certifier, "costd-daemon")
        process.mount("costd-kills", kills_yaml=kills)
        process.environment |= {
            "COSTD_NAME": f"costd-gateway-{ordinal}",
            "COSTD_COORDINATOR": coordinator.wait_for("coordinating")["listen"],
        }
    first, second = made
    with first, second:
        yield made


def test_daemons_for_gateways_spend_what_the_coordinator_lends_and_are_asked_without_tls(gateways):
    for process in gateways:
        process.wait_for("coordinator_joined")
        assert_healthy(process)
        said = ask_as_envoy(process, step="ask", model="openai/gpt-4o")
        assert (said["x-costd-reason"], said["x-costd-budget"]) == ("OK", "all")
    # Why each has a Service: an end that comes to the other one is charged there, beside the hold.
    first, second = gateways
    call = {"model": "openai/gpt-4o", "request": "a-request-of-envoys-own"}
    ask_as_envoy(first, step="ask", **call)
    ask_as_envoy(second, step="end", **call, hits_addend=250_000)
    with operating(second) as control:
        events = control.ListUsage(cpb.ListUsageRequest()).events
    assert {event.closed_as for event in events} == {"settled", "recorded"}
    with operating(first) as control:
        [held] = control.ListReservations(cpb.ListReservationsRequest()).reservations
    assert held.hold_nusd == DOLLAR_NUSD


AGENT = """\
import sys
from costd_client import Client
with Client(f"unix:{sys.argv[1]}") as client:
    print(client.admit(estimated_cost_nusd=10**9, model="gpt-4o").allowed)
"""


@pytest.mark.parametrize(("groups", "said"), [("65532", "True"), ("10001", "Permission denied")])
def test_who_may_ask_at_a_node_is_who_is_in_the_group(node, groups, said):
    """As an agent's pod that mounts the directory, with and without `supplementalGroups`."""
    if lacks():
        pytest.skip(lacks())
    node.wait_for("coordinator_joined")
    somebody = ["setpriv", "--reuid=10001", "--regid=10001", f"--groups={groups}"]
    done = subprocess.run(
        [
            *as_container(node.directory, 0),
            *somebody,
            *(sys.executable, "-c", AGENT, node.environment["COSTD_SOCKET"]),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert said in done.stdout + done.stderr, done.stderr
    assert (done.returncode == 0) == (said == "True")


def test_operators_find_the_coordinator_from_inside_its_container(coordinator, node):
    done = coordinator.run("costctl", "fleet", "--json")
    assert done.returncode == 0, done.stderr
    assert "kubernetes" in done.stdout


def test_a_switch_that_is_added_to_the_config_map_stops_calls_of_the_node(node):
    node.wait_for("coordinator_joined")
    [path] = [m["mountPath"] for m in node.container["volumeMounts"] if m["name"] == "costd-kills"]
    kills = node.directory / path[1:] / "kills.yaml"
    switch = "- {id: all, mode: deny_all, reason: drill}\n"
    fresh = kills.with_suffix(".new")
    fresh.write_text(switch)
    fresh.replace(kills)
    node.wait_for("kill_engaged")
    with Client(f"unix:{node.environment['COSTD_SOCKET']}") as client:
        assert not client.admit(**ASK, labels={"node": "node-3"}).allowed
    fresh.write_text("[]\n")
    fresh.replace(kills)
    node.wait_for("kill_released")


# ---- the injector, and what it makes ------------------------------------------------------------


@pytest.fixture(scope="module")
def injector(certifier):
    """The injector's container, with a certificate as cert-manager writes it."""
    manifests = render("injector-cert-manager")
    [found] = containers(one(manifests, "Deployment", "costd-injector"))
    process = Container(found)
    spec = one(manifests, "Certificate", "costd-injector")["spec"]
    # The kind is of no matter to the API server, which looks at names only.
    peer = Peer(kind=Kind.COORDINATOR, name="costd-injector")
    issued = issue(certifier.authority, peer, certifier.now_ns, dns=spec["dnsNames"])
    process.mount("costd-tls", tls_crt=issued.certificate_pem, tls_key=issued.key_pem)
    with process:
        yield process


def example_pod():
    """The pod of the example, as its ReplicaSet makes it."""
    template = pod_of(one(render("sidecar"), "Deployment", "agent"))
    metadata = template["metadata"] | {"generateName": "agent-7d9f-", "namespace": "agents"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def rules_of(container, monkeypatch):
    for name, value in environment_of(container, "/nowhere").items():
        monkeypatch.setenv(name, value)
    return injector_settings.load_settings({}).rules


def forget_settings(monkeypatch):
    """Take the injector's variables out of this process, whose children would have them."""
    for name in [name for name in os.environ if name.startswith("COSTD_")]:
        monkeypatch.delenv(name)


def test_the_injectors_container_answers_the_api_server_by_the_webhooks_name(injector, certifier):
    assert_healthy(injector)
    assert "costd_inject" in injector.metrics()
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "agents",
            "operation": "CREATE",
            "object": example_pod(),
        },
    }
    [webhook, *_] = one(render("injector"), "MutatingWebhookConfiguration", "costd-injector")[
        "webhooks"
    ]
    service = webhook["clientConfig"]["service"]
    address = injector.wait_for("injecting")["address"]
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=certifier.ca)
    plain = socket.create_connection((host, int(port)), timeout=10)
    name = f"{service['name']}.{service['namespace']}.svc"
    connection = http.client.HTTPSConnection(name)
    connection.sock = context.wrap_socket(plain, server_hostname=name)
    connection.request(
        "POST",
        f"{service['path']}?timeout={webhook['timeoutSeconds']}s",
        json.dumps(review),
        {"Content-Type": "application/json"},
    )
    answer = json.loads(connection.getresponse().read())["response"]
    connection.close()
    assert answer["allowed"] is True
    assert answer["patch"]


def test_the_example_agent_gets_a_sidecar_and_stays_valid_and_restricted(monkeypatch):
    [injectors] = containers(one(render("injector"), "Deployment", "costd-injector"))
    outcome = inject(example_pod(), "agents", rules_of(injectors, monkeypatch))
    assert outcome.patch, outcome
    pod = json.loads(json.dumps(outcome.pod))
    for version in VERSIONS:
        validate(pod, version)
    workload = {"spec": {"template": pod}}
    assert list(restricted_faults(workload)) == []
    maps = {v["configMap"]["name"] for v in pod["spec"]["volumes"] if "configMap" in v}
    brought = {e["metadata"]["name"] for e in render("sidecar") if e["kind"] == "ConfigMap"}
    assert maps == brought


def test_the_sidecar_of_the_example_serves_under_its_config_maps(monkeypatch):
    [injectors] = containers(one(render("injector"), "Deployment", "costd-injector"))
    pod = inject(example_pod(), "agents", rules_of(injectors, monkeypatch)).pod
    [sidecar] = [each for each in pod["spec"]["initContainers"] if each["name"] == "costd"]
    forget_settings(monkeypatch)
    process = Container(sidecar)
    for name in ("costd-policy", "costd-kills"):
        data = one(render("sidecar"), "ConfigMap", name)["data"]
        process.mount(name, **{key.replace(".", "_"): text for key, text in data.items()})
    ask = {"estimated_cost_nusd": DOLLAR_NUSD, "model": "gpt-5-mini"}
    with process:
        assert_healthy(process)
        with Client(f"unix:{process.environment['COSTD_SOCKET']}") as client:
            decision = client.admit(**ask)
            assert decision.allowed
            with pytest.raises(Exception, match="team"):
                client.admit(**ask, labels={"team": "other"})


def test_a_sidecar_of_the_fleet_joins_the_coordinator(coordinator, node, certifier, monkeypatch):
    node.wait_for("coordinator_joined")  # by then there is a policy
    manifests = render("fleet")
    [injectors] = containers(one(manifests, "Deployment", "costd-injector"))
    pod = inject(example_pod(), "agents", rules_of(injectors, monkeypatch)).pod
    [sidecar] = [each for each in pod["spec"]["initContainers"] if each["name"] == "costd"]
    secrets = {v["secret"]["secretName"] for v in pod["spec"]["volumes"] if "secret" in v}
    assert secrets == {one(manifests, "Certificate", "costd-daemon")["spec"]["secretName"]}
    forget_settings(monkeypatch)
    process = Container(sidecar)
    mount_certificate(process, certifier, "costd-daemon")
    process.environment["COSTD_COORDINATOR"] = coordinator.wait_for("coordinating")["listen"]
    with process:
        process.wait_for("coordinator_joined")
        with Client(f"unix:{process.environment['COSTD_SOCKET']}") as client:
            assert client.admit(**ASK).allowed


def allowed(manifests, namespace):
    """What the manifest's roles let the injector do at the API: verb and path."""
    for role in [each for each in manifests if each["kind"] in {"Role", "ClusterRole"}]:
        for rule in role["rules"]:
            group = rule["apiGroups"][0]
            base = f"/apis/{group}/v1" if group else "/api/v1"
            if role["kind"] == "Role":
                assert role["metadata"]["namespace"] == namespace
                base += f"/namespaces/{namespace}"
            for resource in rule["resources"]:
                for name in rule.get("resourceNames", [""]):
                    path = f"{base}/{resource}/{name}".rstrip("/")
                    yield from ((verb, path) for verb in rule["verbs"])


def test_the_injector_that_bootstraps_asks_the_api_for_what_its_roles_let_it_and_no_more(tmp_path):
    manifests = render("injector")
    [found] = containers(one(manifests, "Deployment", "costd-injector"))
    webhook = one(manifests, "MutatingWebhookConfiguration", "costd-injector")
    api = KubernetesApi(tmp_path)
    api.apply(WEBHOOK, webhooks=copy.deepcopy(webhook["webhooks"]))
    process = Container(found)
    mounted = process.directory / "serviceaccount"
    shutil.copytree(api.account, mounted)
    process.environment |= api.environment | {"COSTD_SERVICE_ACCOUNT": str(mounted)}
    try:
        with process:
            process.wait_for("webhook_filled")
            assert len(set(api.bundles())) == 1
            assert None not in api.bundles()
            assert_healthy(process)
    finally:
        api.close()
    assert set(api.asked) <= set(allowed(manifests, "costd-system"))
    verbs = {verb for verb, _ in api.asked}
    # What is left is for the day when the certificate is made anew.
    assert {verb for verb, _ in allowed(manifests, "costd-system")} - verbs == {"update"}


# ---- who the host's directories belong to -------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away: run as root")
def test_one_capability_is_enough_to_give_the_hosts_directories_to_the_daemon(tmp_path):
    """The init container's command, twice: on a new node, and after a restart."""
    [directories] = pod_of(one(render("node-local"), "DaemonSet", "costd-node"))["spec"][
        "initContainers"
    ]
    command = [word.replace("/run/", f"{tmp_path}/run/") for word in directories["command"]]
    command = [word.replace("/var/", f"{tmp_path}/var/") for word in command]
    for path in ("run/costd", "var/lib/costd"):
        (tmp_path / path).mkdir(parents=True)
    capabilities = directories["securityContext"]["capabilities"]
    kept = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities["add"])])
    limited = ["setpriv", f"--bounding-set={kept}", f"--inh-caps={kept}", "--no-new-privs"]
    for _ in range(2):
        done = subprocess.run([*limited, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for path in ("run/costd", "var/lib/costd"):
            assert (tmp_path / path).stat().st_uid == 65532


def test_the_yaml_of_the_manifests_is_read_alike_by_everyone():
    """YAML 1.1 and 1.2 differ in `0o440`, `on` and `1e3`; kubectl must read what we mean."""
    for workload in workloads(render("fleet")):
        for volume in pod_of(workload)["spec"].get("volumes", []):
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440
    assert YAML(typ="safe").load("mode: 0o440")["mode"] == 0o440
