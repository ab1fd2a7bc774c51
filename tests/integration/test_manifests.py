"""What `kubectl apply -k` would send: valid, and true to itself where schemas cannot see."""

import copy
import importlib
import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import cel
import kubernetes_validate
import pytest
from rendered import (
    CRDS,
    K8S,
    OVERLAYS,
    ROOT,
    VERSIONS,
    WORKLOADS,
    containers,
    each_object,
    named,
    one,
    pod_of,
    pods_of,
    ports_of,
    render,
    render_at,
    selects,
    validate,
    volumes_of,
    workloads,
)
from ruamel.yaml import YAML

import costd
from costd.daemon.kill_file import read_kill_file
from costd.policy.load import load_policy

USERS_OWN = {
    ("Secret", "costd-database"): "PostgreSQL is the user's",
    ("Secret", "costd-coordinator-tls"): "from `costctl ca issue`, or cert-manager",
    ("Secret", "costd-daemon-tls"): "likewise",
    ("Secret", "costd-injector-tls"): "from the injector itself, or cert-manager",
    ("ServiceAccount", "default"): "every namespace has one",
}
"""What manifests name and do not bring; the file that names it says so, or the page does."""
HOST_DIRECTORIES = {"/run/costd", "/var/lib/costd"}


# ---- schemas ------------------------------------------------------------------------------------


def test_the_three_newest_releases_are_those_that_are_meant():
    """Fails when newer schemas are at hand: then look at what they deprecate, and say so here."""
    assert [version.rpartition(".")[0] for version in VERSIONS] == ["1.35", "1.36", "1.37"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid_for_the_three_newest_releases(version):
    held = [each for each in each_object() if each["apiVersion"] not in CRDS]
    assert {each["kind"] for each in held} >= {*WORKLOADS, "NetworkPolicy", "Role"}
    for each in held:
        validate(each, version)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda spec: spec.update(replica=2),
        lambda spec: spec.update(replicas="two"),
        lambda spec: spec["template"]["spec"]["containers"][0].pop("name"),
        lambda spec: spec["template"]["spec"]["containers"][0]["startupProbe"].update(httpget={}),
    ],
)
def test_a_manifest_with_a_mistake_is_not_valid(break_it):
    broken = copy.deepcopy(one(render("coordinator"), "Deployment", "costd-coordinator"))
    break_it(broken["spec"])
    for version in VERSIONS:
        with pytest.raises(kubernetes_validate.ValidationError):
            validate(broken, version)


MODELS = {
    "cert-manager.io/v1": "cloudcoil.models.cert_manager.v1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}


def held_against_model(manifest):
    """What a model made of the CRD's schema keeps of a manifest, unknown fields left out."""
    model = getattr(importlib.import_module(MODELS[manifest["apiVersion"]]), manifest["kind"])
    read = model.model_validate(manifest)
    return read.model_dump(mode="json", by_alias=True, exclude_unset=True)


def test_custom_resources_are_as_their_definitions_want_them():
    """Types and names of fields, from the CRDs of cert-manager and the Prometheus Operator."""
    custom = [each for each in each_object() if each["apiVersion"] in CRDS]
    kinds = {each["kind"] for each in custom}
    assert kinds >= {"Certificate", "Issuer", "ServiceMonitor", "PodMonitor", "PrometheusRule"}
    for each in custom:
        assert held_against_model(each) == each
    broken = copy.deepcopy(next(each for each in custom if each["kind"] == "Certificate"))
    broken["spec"]["dnsName"] = ["a"]
    assert held_against_model(broken) != broken


def test_no_file_is_forgotten():
    listed = set()
    for found in K8S.rglob("kustomization.yaml"):
        written = YAML(typ="safe").load(found)
        names = [*written.get("resources", []), *written.get("components", [])]
        names += [patch["path"] for patch in written.get("patches", [])]
        names += [f for g in written.get("configMapGenerator", []) for f in g["files"]]
        listed |= {(found.parent / name).resolve() for name in names}
    files = {path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert files <= listed
    parts = {path for kind in ("base", "components") for path in (K8S / kind).iterdir()}
    assert parts <= listed


# ---- what names what ----------------------------------------------------------------------------


def in_namespace(manifests, kind, namespace):
    return {
        each["metadata"]["name"]
        for each in manifests
        if each["kind"] == kind and each["metadata"].get("namespace") == namespace
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_selector_finds_the_pods_that_it_is_for(overlay):
    manifests = render(overlay)
    pods = [pod_of(each)["metadata"]["labels"] for each in workloads(manifests)]
    for each in manifests:
        spec = each.get("spec", {})
        if each["kind"] in WORKLOADS:
            assert selects(spec["selector"], pod_of(each)["metadata"]["labels"]), named(each)
            for spread in pod_of(each)["spec"].get("topologySpreadConstraints", []):
                assert selects(spread["labelSelector"], pod_of(each)["metadata"]["labels"])
        elif each["kind"] == "PodDisruptionBudget":
            assert sum(selects(spec["selector"], labels) for labels in pods) == 1, named(each)
        elif each["kind"] == "NetworkPolicy" and spec["podSelector"]:
            assert sum(selects(spec["podSelector"], labels) for labels in pods) == 1, named(each)
        elif each["kind"] == "Service" and "selector" in spec:
            chosen = [
                workload
                for workload in workloads(manifests)
                for labels in pods_of(workload)
                if selects({"matchLabels": spec["selector"]}, labels)
            ]
            assert len(chosen) == 1, named(each)
            for port in spec["ports"]:
                assert port["targetPort"] in ports_of(chosen[0]), named(each)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_a_pod_names_is_there_or_is_the_users(overlay):
    manifests = render(overlay)
    for workload in workloads(manifests):
        spec, namespace = pod_of(workload)["spec"], workload["metadata"]["namespace"]
        named_here = {("ServiceAccount", spec.get("serviceAccountName", "default"))}
        if "serviceName" in workload["spec"]:
            named_here.add(("Service", workload["spec"]["serviceName"]))
        for volume in spec.get("volumes", []):
            if "secret" in volume:
                named_here.add(("Secret", volume["secret"]["secretName"]))
            if "configMap" in volume:
                named_here.add(("ConfigMap", volume["configMap"]["name"]))
        for each in containers(workload):
            for variable in each.get("env", []):
                key = variable.get("valueFrom", {}).get("secretKeyRef")
                if key:
                    named_here.add(("Secret", key["name"]))
            assert {mount["name"] for mount in each.get("volumeMounts", [])} <= volumes_of(workload)
        lacking = {
            (kind, name)
            for kind, name in named_here
            if name not in in_namespace(manifests, kind, namespace)
        }
        assert lacking <= set(USERS_OWN), lacking - set(USERS_OWN)


def test_no_two_parts_have_an_object_of_the_same_name():
    parts = {}
    for each in each_object():
        key = (named(each), each["metadata"].get("namespace"))
        label = each["metadata"].get("labels", {}).get("app.kubernetes.io/component")
        parts.setdefault(key, set()).add(label)
    assert [key for key, labels in parts.items() if len(labels) > 1] == []


def test_secrets_that_cert_manager_makes_are_those_that_pods_mount():
    made = {each["spec"]["secretName"] for each in render("fleet") if each["kind"] == "Certificate"}
    assert {"costd-coordinator-tls", "costd-daemon-tls", "costd-injector-tls"} <= made
    issuers = in_namespace(render("fleet"), "Issuer", "costd-system")
    for each in render("fleet"):
        if each["kind"] == "Certificate":
            assert each["spec"]["issuerRef"]["name"] in issuers


def test_monitors_find_ports_that_are_there():
    fleet = render("fleet")
    services = [each for each in fleet if each["kind"] == "Service"]
    monitor = one(fleet, "ServiceMonitor", "costd")
    chosen = [s for s in services if selects(monitor["spec"]["selector"], s["metadata"]["labels"])]
    assert {s["metadata"]["name"] for s in chosen} == {"costd-coordinator", "costd-injector"}
    for service in chosen:
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports
    [endpoint] = one(fleet, "PodMonitor", "costd-daemons")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in ports_of(one(render("node-local"), "DaemonSet", "costd-node"))
    assert endpoint["port"] in ports_of(one(render("gateway"), "StatefulSet", "costd-gateway"))


def test_the_rules_for_the_operator_are_those_of_prometheus():
    """Kept as a copy; `make manifests` writes it."""
    groups = []
    for name in ("recording.yaml", "alerts.yaml"):
        groups += YAML(typ="safe").load(K8S.parent / "prometheus" / name)["groups"]
    assert one(render("monitoring"), "PrometheusRule", "costd")["spec"]["groups"] == groups


# ---- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_policy_opens_ports_that_its_pods_have_and_misses_none(overlay):
    manifests = render(overlay)
    for workload in workloads(manifests):
        labels, ports = pod_of(workload)["metadata"]["labels"], ports_of(workload)
        opened = set()
        for each in manifests:
            if each["kind"] != "NetworkPolicy" or not each["spec"]["podSelector"]:
                continue
            if selects(each["spec"]["podSelector"], labels):
                for rule in each["spec"].get("ingress", []):
                    opened |= {port["port"] for port in rule["ports"]}
        assert opened == set(ports), named(workload)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_namespace_of_costd_is_closed_by_default(overlay):
    manifests = render(overlay)
    if "costd-system" in {each["metadata"]["name"] for each in manifests}:
        closed = one(manifests, "NetworkPolicy", "costd-default-deny")["spec"]
        assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_nodes_reach_the_coordinator_and_nothing_else():
    coordinator = one(render("coordinator"), "Deployment", "costd-coordinator")
    rules = one(render("node-local"), "NetworkPolicy", "costd-node")["spec"]["egress"]
    [peer] = rules[1]["to"]
    assert selects(peer["podSelector"], pod_of(coordinator)["metadata"]["labels"])
    assert rules[1]["ports"][0]["port"] in ports_of(coordinator)
    assert {port["port"] for port in rules[0]["ports"]} == {53}
    assert len(rules) == 2


def test_a_policy_for_metrics_leaves_all_other_ports_of_an_agent_open():
    """By `endPort`, since what is selected by any policy is closed to all that none allows."""
    others, scrapes = one(render("sidecar"), "NetworkPolicy", "costd-metrics")["spec"]["ingress"]
    opened = {
        number
        for port in others["ports"]
        if port["protocol"] == "TCP"
        for number in range(port["port"], port["endPort"] + 1)
    }
    assert opened == set(range(1, 65536)) - {9464}
    assert [port["port"] for port in scrapes["ports"]] == [9464]
    assert scrapes["from"]


# ---- security -----------------------------------------------------------------------------------


def restricted_faults(workload):
    """What Pod Security's profile `restricted` refuses of a pod; fields that we do not use are few."""
    spec = pod_of(workload)["spec"]
    pod = spec.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", []):
        if not volume.keys() & {"configMap", "secret", "emptyDir", "projected"}:
            yield f"volume {volume['name']}"
    for each in containers(workload):
        own = each.get("securityContext", {})
        effective = pod | own
        wrong = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
            "capabilities": own.get("capabilities") != {"drop": ["ALL"]},
            "runAsNonRoot": effective.get("runAsNonRoot") is not True,
            "runAsUser": effective.get("runAsUser", 1) == 0,
            "seccompProfile": effective.get("seccompProfile") != {"type": "RuntimeDefault"},
            "privileged": bool(own.get("privileged")),
            "hostPort": any("hostPort" in port for port in each.get("ports", [])),
        }
        yield from (f"{each['name']}: {name}" for name, is_wrong in wrong.items() if is_wrong)


def test_every_workload_but_the_one_of_nodes_meets_the_restricted_profile():
    found = {}
    for each in workloads(each_object()):
        found.setdefault(named(each), set()).update(restricted_faults(each))
    of_nodes = found.pop("DaemonSet/costd-node")
    assert len(found) == 4
    assert not any(found.values()), found
    # Directories of the host, and one step that gives them to the daemon.
    assert of_nodes == {
        *("volume costd-run", "volume costd-data"),
        *("directories: capabilities", "directories: runAsNonRoot", "directories: runAsUser"),
    }


def test_namespaces_enforce_what_their_pods_meet():
    enforced = {
        each["metadata"]["name"]: each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for each in each_object()
        if each["kind"] == "Namespace"
    }
    assert enforced == {
        "agents": "restricted",
        "costd-system": "restricted",
        "costd-node": "privileged",
    }


def test_no_container_can_write_to_its_root():
    for workload in workloads(each_object()):
        for each in containers(workload):
            assert each["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_daemon_of_a_node_gets_two_directories_of_the_host_and_no_more():
    spec = pod_of(one(render("node-local"), "DaemonSet", "costd-node"))["spec"]
    paths = {volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}
    assert paths == HOST_DIRECTORIES
    [directories] = spec["initContainers"]
    assert directories["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert set(directories["command"][2:]) == HOST_DIRECTORIES


def test_images_are_of_this_release_and_never_the_latest():
    for workload in workloads(each_object()):
        for each in containers(workload):
            name, _, tag = each["image"].partition(":")
            expected = "1.0.0" if name == "registry.example/agent" else costd.__version__
            assert tag == expected
    environment = containers(one(render("injector"), "Deployment", "costd-injector"))[0]["env"]
    [image] = [each["value"] for each in environment if each["name"] == "COSTD_SIDECAR_IMAGE"]
    assert image == f"costd:{costd.__version__}"


def test_resources_are_asked_for_and_memory_is_bounded():
    for workload in workloads(each_object()):
        for each in containers(workload):
            assert each["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in each["resources"]["limits"]


def test_what_is_replicated_is_probed_spread_and_kept_through_drains():
    for name in ("coordinator", "injector"):
        manifests = render(name)
        workload = one(manifests, "Deployment", f"costd-{name}")
        budget = one(manifests, "PodDisruptionBudget", f"costd-{name}")["spec"]
        spec = workload["spec"]
        assert spec["replicas"] == 2 > budget["minAvailable"]
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        keys = {
            each["topologyKey"] for each in pod_of(workload)["spec"]["topologySpreadConstraints"]
        }
        assert keys == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    for workload in workloads(each_object()):
        if named(workload) == "Deployment/agent":
            continue
        main = pod_of(workload)["spec"]["containers"][0]
        assert main.keys() >= {"startupProbe", "readinessProbe", "livenessProbe"}


def test_roles_are_for_named_objects_and_no_verb_is_a_wildcard():
    roles = [each for each in each_object() if each["kind"] in {"Role", "ClusterRole"}]
    rules = [(each["kind"], rule) for each in roles for rule in each["rules"]]
    for _, rule in rules:
        assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
        # Only what is made has no name yet.
        assert rule.get("resourceNames") or rule["verbs"] == ["create"]
    assert [rule["resources"] for kind, rule in rules if kind == "ClusterRole"] == [
        ["mutatingwebhookconfigurations"]
    ]
    assert {resource for _, rule in rules for resource in rule["resources"]} == {
        "secrets",
        "mutatingwebhookconfigurations",
    }


def test_only_the_injector_that_bootstraps_has_a_token_and_a_role():
    for overlay in OVERLAYS:
        for workload in workloads(render(overlay)):
            has_token = pod_of(workload)["spec"]["automountServiceAccountToken"]
            assert has_token == (overlay == "injector")
        kinds = {each["kind"] for each in render(overlay)}
        assert ("ClusterRole" in kinds) == (overlay == "injector")
    manifests = render("injector")
    for binding in [each for each in manifests if each["kind"].endswith("Binding")]:
        [subject] = binding["subjects"]
        assert subject["name"] in in_namespace(manifests, subject["kind"], subject["namespace"])
        assert f"{binding['roleRef']['kind']}/{binding['roleRef']['name']}" in map(named, manifests)


# ---- the webhook --------------------------------------------------------------------------------


def asked_about(webhook, namespace, pod):
    """Tell whether an API server would call this webhook for a pod that is made."""
    return (
        selects(webhook["namespaceSelector"], namespace)
        and selects(webhook["objectSelector"], pod.get("labels", {}))
        and all(
            cel.evaluate(condition["expression"], {"object": {"metadata": pod}})
            for condition in webhook.get("matchConditions", [])
        )
    )


def webhooks(overlay="injector"):
    return one(render(overlay), "MutatingWebhookConfiguration", "costd-injector")["webhooks"]


WORDS = (None, "true", "false", "enabled", "yes")


@pytest.mark.parametrize(("of_namespace", "label", "annotation"), [*product(WORDS, WORDS, WORDS)])
def test_a_label_of_the_namespace_or_the_pods_own_word_is_all_it_takes(
    of_namespace, label, annotation
):
    def said(word, **others):
        return others | ({} if word is None else {"costd.dev/inject": word})

    namespace = said(of_namespace, **{"kubernetes.io/metadata.name": "agents"})
    pod = {}
    if label is not None:
        pod["labels"] = said(label, app="a")
    if annotation is not None:
        pod["annotations"] = said(annotation)
    called = [w["name"] for w in webhooks() if asked_about(w, namespace, pod)]
    expected = []
    if of_namespace in {"true", "enabled"}:
        expected = ["namespace.inject.costd.dev"] * (label != "false")
    elif {label, annotation} - {None, "false"}:
        expected = ["pod.inject.costd.dev"]  # which says of other words that they are none
    assert called == expected


@pytest.mark.parametrize("namespace", ["kube-system", "costd-system", "costd-node"])
def test_neither_the_cluster_nor_costd_waits_for_the_webhook(namespace):
    for said in ({}, {"costd.dev/inject": "true"}):
        labels = said | {"kubernetes.io/metadata.name": namespace}
        pod = {"labels": {"costd.dev/inject": "true"}}
        assert not [w for w in webhooks() if asked_about(w, labels, pod)]


def test_the_webhook_leads_to_the_injector_and_waits_longer_than_it():
    manifests = render("injector")
    service = one(manifests, "Service", "costd-injector")
    [main] = containers(one(manifests, "Deployment", "costd-injector"))
    environment = {each["name"]: each.get("value") for each in main["env"]}
    for webhook in webhooks():
        where = webhook["clientConfig"]["service"]
        assert (where["namespace"], where["name"]) == ("costd-system", "costd-injector")
        assert where["port"] in {port["port"] for port in service["spec"]["ports"]}
        assert webhook["timeoutSeconds"] > float(environment["COSTD_DEADLINE_S"])
        assert webhook["failurePolicy"] == "Fail"
        assert webhook["reinvocationPolicy"] == "IfNeeded"
        assert webhook["sideEffects"] == "None"
        assert webhook["admissionReviewVersions"] == ["v1"]


def test_the_manifest_explains_what_happens_without_an_answer():
    text = (K8S / "base/injector/webhook.yaml").read_text()
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for webhook in webhooks():
        for field in ("failurePolicy", "timeoutSeconds", "reinvocationPolicy", "matchPolicy"):
            assert f"# {field}: {webhook[field]}." in comments


# ---- what daemons read --------------------------------------------------------------------------


def test_the_policy_of_the_example_is_one_that_daemons_take(tmp_path):
    [name] = in_namespace(render("sidecar"), "ConfigMap", "agents") - {"costd-kills"}
    data = one(render("sidecar"), "ConfigMap", name)["data"]
    (tmp_path / "policy.yaml").write_text(data["policy.yaml"])
    assert load_policy(tmp_path / "policy.yaml")


@pytest.mark.parametrize(
    ("overlay", "part", "name"),
    [
        ("sidecar", "agents", "costd-kills"),
        ("node-local", "node-local", "costd-kills"),
        ("gateway", "gateway", "costd-gateway-kills"),
    ],
)
def test_the_kill_switches_are_none_and_their_example_is_one(overlay, part, name, tmp_path):
    data = one(render(overlay), "ConfigMap", name)["data"]
    path = tmp_path / "kills.yaml"
    path.write_text(data["kills.yaml"])
    assert read_kill_file(path) == ((), ())
    text = (K8S / "base" / part / "kills.yaml").read_text()
    path.write_text(re.search(r"^#   (- \{.*\})$", text, re.MULTILINE)[1])
    [request], problems = read_kill_file(path)
    assert (request.kill_id, problems) == ("file:stop-research", ())


# ---- what the page says -------------------------------------------------------------------------


PAGE = (K8S.parents[1] / "docs/operating/kubernetes.md").read_text()


def shown_overlay(overlay, folder):
    """The overlay that the page shows of this one of ours, in a folder."""
    [shown] = re.findall(rf"```yaml\n(resources: \S+/{overlay}\].*?)```", PAGE, re.DOTALL)
    where = Path(os.path.relpath(K8S, folder.resolve()))
    (folder / "kustomization.yaml").write_text(shown.replace("../deploy/k8s", str(where)))
    return folder


def test_the_overlay_that_the_page_shows_takes_images_from_a_registry(tmp_path):
    manifests = render_at(shown_overlay("injector", tmp_path))
    [main] = containers(one(manifests, "Deployment", "costd-injector"))
    assert main["image"].startswith("registry.example/costd-injector@sha256:1111")
    images = [each["value"] for each in main["env"] if each["name"] == "COSTD_SIDECAR_IMAGE"]
    assert [image.partition("@")[0] for image in images] == ["registry.example/costd"]


def test_the_overlay_that_the_page_shows_for_gateways_has_a_policy_of_ones_own(tmp_path):
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    manifests = render_at(shown_overlay("gateway", tmp_path))
    workload = one(manifests, "StatefulSet", "costd-gateway")
    assert containers(workload)[0]["image"].startswith("registry.example/costd@sha256:2222")
    [name] = [
        volume["configMap"]["name"]
        for volume in pod_of(workload)["spec"]["volumes"]
        if volume["name"] == "costd-policy"
    ]
    assert one(manifests, "ConfigMap", name)["data"] == {"policy.yaml": "version: 1\n"}
    # By the same name whatever is in it: the daemon follows the file, and its pod stays.
    assert name == "costd-gateway-policy"


def test_the_api_server_trusts_a_ca_that_outlives_the_injectors_certificates():
    """It and the injector hear of a new certificate at different moments."""
    manifests = render("injector-cert-manager")
    [webhook] = [each for each in manifests if each["kind"] == "MutatingWebhookConfiguration"]
    trusted = webhook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    leaf = one(manifests, "Certificate", trusted.partition("/")[2])["spec"]
    issuer = one(manifests, "Issuer", leaf["issuerRef"]["name"])["spec"]
    [ca] = [
        each["spec"]
        for each in manifests
        if each["kind"] == "Certificate"
        and each["spec"]["secretName"] == issuer["ca"]["secretName"]
    ]
    assert ca["isCA"]
    assert ca["privateKey"]["rotationPolicy"] == "Never"
    hours = [int(each["duration"].removesuffix("h")) for each in (leaf, ca)]
    assert hours[0] * 4 < hours[1] - int(ca["renewBefore"].removesuffix("h"))


def test_what_a_namespace_needs_can_be_applied_to_any_and_opens_no_port_of_its_pods():
    for each in render_at(K8S / "base/agents"):
        assert each["kind"] == "ConfigMap"
        assert "namespace" not in each["metadata"]


def test_the_pod_that_the_page_shows_gets_at_the_socket_of_its_node():
    shown = re.search(r"```yaml\n(spec:\n  securityContext: .*?)```", PAGE, re.DOTALL)[1]
    spec = YAML(typ="safe").load(shown)["spec"]
    spec["containers"][0]["image"] = "registry.example/agent:1.0.0"
    for version in VERSIONS:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent"}, "spec": spec}
        validate(pod, version)
    daemon = pod_of(one(render("node-local"), "DaemonSet", "costd-node"))["spec"]
    [main] = daemon["containers"]
    [socket] = [each["value"] for each in main["env"] if each["name"] == "COSTD_SOCKET"]
    [variable] = spec["containers"][0]["env"]
    assert variable == {"name": "COSTD_SOCKET", "value": socket}
    assert spec["volumes"][0]["hostPath"]["path"] == str(Path(socket).parent)
    assert spec["securityContext"]["supplementalGroups"] == [
        daemon["securityContext"]["runAsGroup"]
    ]


def test_the_page_lists_every_overlay():
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)
    assert [name for name in OVERLAYS if name not in rows] == []


APPLIED_BYTES_MAX = 262_144
"""The most that all annotations of an object hold; `kubectl apply` keeps what was applied in one."""


def test_the_dashboard_becomes_a_config_map_that_grafanas_sidecar_finds():
    """The page's command up to what asks a cluster."""
    page = (ROOT / "docs/operating/metrics.md").read_text()
    [command] = re.findall(
        r"^(kubectl create configmap .*) \| kubectl \S+ \S+ apply", page, re.MULTILINE
    )
    done = subprocess.run(
        ["sh", "-c", command],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = YAML(typ="safe").load(done.stdout)
    assert made["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert made["data"] == {"costd.json": (ROOT / "deploy/grafana/costd.json").read_text()}
    assert len(json.dumps(made)) < APPLIED_BYTES_MAX
