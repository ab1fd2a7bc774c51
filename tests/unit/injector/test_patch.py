"""Every shape of pod: valid before and after, patched once, and what each reason is told."""

import copy
import json

import pytest
from patched_pods import (
    DEFAULTS,
    NEWEST,
    apply,
    environment,
    pod_of,
    rule_faults,
    rules,
    schema_faults,
    sidecar_of,
)
from pod_shapes import INJECTED, KEPT_OUT, LEFT_ALONE, MALFORMED

from costd.injector.patch import inject

SOCKET = "/run/costd/agent/costd.sock"


def outcome_of(pod, namespace="research", of=DEFAULTS, **more):
    return inject(pod, namespace, of, **more)


def patched(pod, namespace="research", of=DEFAULTS):
    """The pod after its patch, applied by somebody else than who wrote it."""
    outcome = inject(pod, namespace, of)
    assert outcome.is_let_in, outcome.message
    return apply(pod, outcome.patch)


def kept(before, after):
    """Whether everything of a pod is still there: fields as they were, lists grown at most."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(kept(value, after.get(key)) for key, value in before.items())
    if isinstance(before, list) and isinstance(after, list):
        rest = iter(after)
        return all(any(kept(each, one) for one in rest) for each in before)
    return before == after or before is None


# ---- shapes -------------------------------------------------------------------------------------


def test_the_schemas_refuse_what_is_wrong():
    """They are what the tests below rest on."""
    assert len({*NEWEST}) == 3
    for bad in ({"restartPolicy": 1}, {"nonsense": True}, {"volumes": [{"emptyDir": {}}]}):
        faults = schema_faults(pod_of(**bad))
        assert len({fault.partition(":")[0] for fault in faults}) == 3, bad
    assert rule_faults(pod_of({"name": "a", "image": "b"}, {"name": "a", "image": "b"}))


@pytest.mark.parametrize("shape", INJECTED)
def test_a_pod_is_valid_before_and_after(shape):
    pod = INJECTED[shape]
    assert len(INJECTED) >= 30
    assert not schema_faults(pod)
    after = patched(pod)
    assert not schema_faults(after)
    assert not rule_faults(after)
    assert sidecar_of(after) is not None
    assert "costd.dev/injected" in after["metadata"]["annotations"]


@pytest.mark.parametrize("shape", INJECTED)
def test_what_a_pod_has_stays_as_it_is(shape):
    pod = copy.deepcopy(INJECTED[shape])
    outcome = outcome_of(pod)
    assert pod == INJECTED[shape]
    after = apply(pod, outcome.patch)
    assert after == outcome.pod
    evict = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
    (pod["metadata"].get("annotations") or {}).pop(evict, None)  # a list that grows
    assert kept(pod, after)


@pytest.mark.parametrize("shape", INJECTED)
def test_injecting_twice_changes_nothing(shape):
    again = outcome_of(patched(INJECTED[shape]))
    assert (again.reason, again.patch, again.is_let_in) == ("already_injected", (), True)


@pytest.mark.parametrize("shape", INJECTED)
def test_every_app_container_can_ask(shape):
    after = patched(INJECTED[shape])
    is_native = any(each["name"] == "costd" for each in after["spec"].get("initContainers") or ())
    askers = (
        after["spec"]["containers"] + (after["spec"].get("initContainers") or [])[: 99 * is_native]
    )
    for each in askers:
        assert "COSTD_SOCKET" in environment(each)
        assert {"name": "costd-run", "mountPath": "/run/costd"} in each["volumeMounts"]


@pytest.mark.parametrize("shape", LEFT_ALONE)
def test_a_pod_is_left_alone_with_a_reason(shape):
    reason, pod = LEFT_ALONE[shape]
    assert not schema_faults(pod)
    outcome = outcome_of(pod)
    assert (outcome.reason, outcome.is_let_in, outcome.patch) == (reason, True, ())
    assert outcome.message


@pytest.mark.parametrize("shape", KEPT_OUT)
def test_a_pod_is_kept_out_and_its_owner_told_why(shape):
    reason, pod, says = KEPT_OUT[shape]
    outcome = outcome_of(pod)
    assert (outcome.reason, outcome.is_let_in, outcome.patch) == (reason, False, ())
    assert says in outcome.message


def test_a_pod_that_is_nested_too_deeply_is_refused():
    """Shallow enough to be read, and too deep to be copied."""
    deep = []
    for _ in range(10_000):
        deep = [deep]
    pod = pod_of()
    pod["spec"]["containers"][0]["zz"] = deep
    outcome = inject(pod, "research", DEFAULTS)
    assert (outcome.reason, outcome.is_let_in) == ("malformed", False)


@pytest.mark.parametrize("pod", MALFORMED, ids=lambda pod: json.dumps(pod)[:60])
def test_what_is_no_pod_is_refused(pod):
    outcome = outcome_of(pod)
    assert (outcome.reason, outcome.is_let_in) == ("malformed", False)


# ---- who gets one -------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "costd-system"])
def test_some_namespaces_get_none(namespace):
    outcome = outcome_of(pod_of(labels={"costd.dev/inject": "true"}), namespace)
    assert (outcome.reason, outcome.is_let_in) == ("namespace_excluded", True)


@pytest.mark.parametrize(
    ("labels", "annotations", "reason"),
    [
        (None, None, "not_asked"),
        ({"app": "a"}, {"b": "c"}, "not_asked"),
        ({"costd.dev/inject": "true"}, None, "injected"),
        (None, {"costd.dev/inject": "enabled"}, "injected"),
        ({"costd.dev/inject": "true"}, {"costd.dev/inject": "TRUE"}, "injected"),
        ({"costd.dev/inject": "false"}, None, "opted_out"),
    ],
)
def test_where_only_pods_ask_those_that_do_get_one(labels, annotations, reason):
    pod = pod_of(labels=labels, annotations=annotations)
    assert outcome_of(pod, only_asked=True).reason == reason


def test_unfit_pods_are_kept_out_where_the_settings_say_so():
    strict = rules(unfit="deny")
    for shape in ("on its node's network", "for Windows"):
        outcome = outcome_of(LEFT_ALONE[shape][1], of=strict)
        assert not outcome.is_let_in
        assert not outcome.warnings
        assert outcome_of(LEFT_ALONE[shape][1]).warnings


def test_a_pod_on_its_nodes_network_gets_no_port_of_its_own():
    """Two of them on one node would both want it."""
    pod = pod_of(hostNetwork=True)
    after = patched(pod, of=rules(host_network=True))
    assert "ports" not in sidecar_of(after)
    assert environment(sidecar_of(after))["COSTD_METRICS_LISTEN"] == "off"


# ---- where it goes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ("bare", ["costd"]),
        ("with init containers", ["costd", "migrate", "warm"]),
        ("with a sidecar of its own", ["costd", "proxy", "migrate"]),
        ("behind a mesh", ["istio-validation", "istio-proxy", "costd", "migrate"]),
    ],
)
def test_the_sidecar_is_first_but_for_a_mesh(shape, order):
    after = patched(INJECTED[shape])
    assert [each["name"] for each in after["spec"]["initContainers"]] == order
    assert sidecar_of(after)["restartPolicy"] == "Always"


def test_an_ordinary_container_is_last_and_init_containers_are_not_told_of_it():
    """`kubectl logs` and `kubectl exec` mean the first one."""
    after = patched(INJECTED["with an ordinary container"])
    assert [each["name"] for each in after["spec"]["containers"]] == ["app", "costd"]
    assert "restartPolicy" not in sidecar_of(after)
    assert after["spec"]["initContainers"] == [{"name": "migrate", "image": "m"}]


def test_a_container_that_another_webhook_added_is_completed():
    before = patched(pod_of())
    before["spec"]["containers"].append({"name": "added", "image": "a"})
    outcome = outcome_of(before)
    assert outcome.reason == "completed"
    after = apply(before, outcome.patch)
    assert environment(after["spec"]["containers"][1]) == {"COSTD_SOCKET": SOCKET}
    assert not rule_faults(after)


def test_what_the_api_and_other_webhooks_add_to_the_sidecar_stays():
    before = patched(INJECTED["with every wish"])
    sidecar = sidecar_of(before)
    sidecar["image"] = "mirror.example/" + sidecar["image"]
    sidecar["env"].insert(0, {"name": "DD_ENV", "value": "x"})
    sidecar["terminationMessagePath"] = "/dev/termination-log"
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    sidecar["volumeMounts"].append({"name": "token", "mountPath": token})
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        sidecar[probe]["successThreshold"] = 1
    for each in sidecar["ports"]:
        each["protocol"] = "TCP"
    for each in sidecar["env"]:
        if "valueFrom" in each:
            each["valueFrom"]["fieldRef"]["apiVersion"] = "v1"
    for each in before["spec"]["volumes"]:
        if "configMap" in each:
            each["configMap"]["defaultMode"] = 420
    assert outcome_of(before).reason == "already_injected"


@pytest.mark.parametrize(
    "forge",
    [
        lambda c: c["env"].append({"name": "COSTD_CLAIMS", "value": "*"}),
        lambda c: c.update(envFrom=[{"configMapRef": {"name": "mine"}}]),
        lambda c: c.update(command=["sh", "-c", "true"]),
        lambda c: c.pop("restartPolicy"),
        lambda c: [
            e.update(value="team=other") for e in c["env"] if e["name"] == "COSTD_LABELS_FIXED"
        ],
        lambda c: [
            e["valueFrom"]["fieldRef"].update(fieldPath="metadata.labels['mine']")
            for e in c["env"]
            if e["name"] == "POD_LABEL_team"
        ],
        lambda c: c["env"].append({"name": "PYTHONPATH", "value": "/mine"}),
        lambda c: c["env"].append({"name": "LD_PRELOAD", "value": "/mine.so"}),
        lambda c: c["securityContext"].update(privileged=True),
        lambda c: c["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
        lambda c: c.pop("securityContext"),
        lambda c: c["volumeMounts"].append(
            {"name": "mine", "mountPath": "/etc/costd/policy/policy.yaml", "subPath": "p"}
        ),
        lambda c: c["volumeMounts"].append({"name": "mine", "mountPath": "var/lib/costd/data"}),
        # costd reads its settings whatever their case.
        lambda c: c["env"].append({"name": "costd_claims", "value": "*"}),
        lambda c: c["env"].append({"name": "PATH", "value": "/mine"}),
        lambda c: c["env"].append({"name": "OPENSSL_CONF", "value": "/mine"}),
        *(
            lambda c, path=path: c["volumeMounts"].append({"name": "mine", "mountPath": path})
            for path in ("/opt/costd/bin", "/x/../opt", "/", "/usr/local", "/etc/ld.so.preload")
        ),
        lambda c: c.update(lifecycle={"postStart": {"exec": {"command": ["costctl", "release"]}}}),
        lambda c: c.update(livenessProbe={"exec": {"command": ["costctl", "release"]}}),
        lambda c: c.pop("startupProbe"),
        lambda c: c.update(workingDir="/mine"),
        lambda c: c.update(volumeDevices=[{"name": "mine", "devicePath": "/opt/costd/bin/costd"}]),
        lambda c: c.update(terminationMessagePath="/etc/costd/kills/kills.yaml"),
        lambda c: c.pop("ports"),
    ],
)
def test_a_sidecar_that_is_not_as_we_write_it_is_replaced(forge):
    """The annotation alone proves nothing: a pod may bring it, and a container of our name."""
    honest = patched(pod_of())
    forged = copy.deepcopy(honest)
    forge(sidecar_of(forged))
    outcome = outcome_of(forged)
    assert outcome.reason == "completed"
    assert apply(forged, outcome.patch) == honest


@pytest.mark.parametrize(
    ("name", "forged"),
    [
        ("costd-kills", {"items": [{"key": "none", "path": "kills.yaml"}]}),
        ("costd-policy", {"items": [{"key": "mine", "path": "policy.yaml"}]}),
        ("costd-kills", {"defaultMode": 0}),
        ("costd-kills", {"name": "mine"}),
    ],
)
def test_a_volume_that_is_not_as_we_write_it_is_replaced(name, forged):
    """An optional map without the key that is asked for is an empty one, and stops nobody."""
    honest = patched(pod_of())
    bent = copy.deepcopy(honest)
    next(each for each in bent["spec"]["volumes"] if each["name"] == name)["configMap"] |= forged
    outcome = outcome_of(bent)
    assert outcome.reason == "completed"
    assert apply(bent, outcome.patch) == honest


def test_a_sidecar_of_another_image_is_replaced_where_ours_has_a_digest():
    """Registries and tags are rewritten on purpose; what a digest names stays what it is."""
    digest = "sha256:" + "a" * 64
    of = rules(sidecar_image=f"registry.example/costd@{digest}")
    honest = patched(pod_of(), of=of)
    for image, reason in (
        ("mine.example/costd:1", "completed"),
        (f"mirror.example/a/costd:1@{digest}", "already_injected"),
    ):
        other = copy.deepcopy(honest)
        sidecar_of(other)["image"] = image
        assert outcome_of(other, of=of).reason == reason


def test_a_pod_from_before_the_mode_changed_gets_the_sidecar_where_it_belongs():
    """Restored from a backup, for example."""
    old = patched(pod_of(), of=rules(sidecar_mode="container"))
    after = patched(old)
    assert [each["name"] for each in after["spec"]["containers"]] == ["app"]
    assert sidecar_of(after)["restartPolicy"] == "Always"
    assert not schema_faults(after)
    assert not rule_faults(after)


def test_an_annotation_without_a_sidecar_is_no_sidecar():
    after = patched(pod_of(annotations={"costd.dev/injected": "0.0.1"}))
    assert sidecar_of(after) is not None
    assert outcome_of(after).reason == "already_injected"


def test_every_operation_adds_or_replaces_what_is_ours():
    for shape, pod in INJECTED.items():
        operations = outcome_of(pod).patch
        assert {each["op"] for each in operations} == {"add"}, shape
