"""What the sidecar is given: labels, name, resources, files, and what operators are warned of."""

import pytest
from patched_pods import DEFAULTS, apply, environment, pod_of, rules, sidecar_of
from pod_shapes import INJECTED

from costd.configuration import SettingsError
from costd.injector.patch import inject
from costd.injector.settings import load_settings


def sidecar(pod, of=DEFAULTS, namespace="research"):
    outcome = inject(pod, namespace, of)
    return sidecar_of(apply(pod, outcome.patch))


def variable(container, name):
    """A variable as the kubelet writes it into the container: expansion by those before it."""
    known = {"metadata.namespace": "research", "metadata.name": "agents-0"}
    known |= {"spec.serviceAccountName": "runner", "spec.nodeName": "n1"}
    values = {}
    for each in container["env"]:
        path = ((each.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
        value = each.get("value") if path is None else known.get(path, f"<{path}>")
        for other, found in values.items():
            value = value.replace(f"$({other})", found)
        values[each["name"]] = value
    return values.get(name)


def warned(pod, of=DEFAULTS):
    return "\n".join(inject(pod, "research", of).warnings)


# ---- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "sources", "fixed"),
    [
        (None, None, "namespace=research,service_account=runner,team=research"),
        (
            {"costd.dev/label-team": "red"},
            None,
            "namespace=research,service_account=runner,team=<metadata.labels['costd.dev/label-team']>",
        ),
        (
            {"costd.dev/label-agent_type": "coder"},
            "namespace=namespace",
            "namespace=research,agent_type=<metadata.labels['costd.dev/label-agent_type']>",
        ),
        ({"app": "x"}, "agent=costd.dev/agent|app", "agent=<metadata.labels['app']>"),
        ({"app": ""}, "agent=app|pod", "agent=agents-0"),
        (None, "agent=app|claimed,host=node", "host=n1"),
        (None, "agent=app|claimed", None),
    ],
)
def test_labels_are_fixed_to_what_the_pod_is(labels, sources, fixed):
    settings = rules(labels=sources) if sources else DEFAULTS
    assert variable(sidecar(pod_of(labels=labels), settings), "COSTD_LABELS_FIXED") == fixed


def test_a_pod_cannot_say_what_the_settings_say():
    strict = rules(labels="team=namespace")
    pod = pod_of(labels={"costd.dev/label-team": "other"})
    assert variable(sidecar(pod, strict), "COSTD_LABELS_FIXED") == "team=research"
    assert "costd.dev/label-team is not heeded" in warned(pod, strict)


@pytest.mark.parametrize("labels", [None, {"example.com/team": ""}, {"costd.dev/label-team": "a"}])
def test_a_pod_without_the_label_that_the_settings_read_is_kept_out(labels):
    """Else its agents could claim any team."""
    outcome = inject(pod_of(labels=labels), "a", rules(labels="team=example.com/team"))
    assert not outcome.is_let_in
    assert "read team from example.com/team, and this pod has none" in outcome.message


def test_settings_say_which_annotations_are_heeded():
    outcome = inject(pod_of(annotations={"costd.dev/claims": "*"}), "a", rules(annotations="cpu"))
    assert not outcome.is_let_in
    assert "do not let pods choose this" in outcome.message
    assert inject(
        pod_of(annotations={"costd.dev/cpu": "1"}), "a", rules(annotations="cpu")
    ).is_let_in


# ---- name, files, places ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (None, "$(POD_NAMESPACE).$(POD_NAME)"),
        ("a" * 119, "$(POD_NAMESPACE).$(POD_NAME)"),
        ("a" * 120, "$(POD_NAME)"),
        ("a" * 129, None),
    ],
)
def test_the_daemon_is_named_after_its_pod_as_far_as_names_may_be_long(name, says):
    pod = pod_of()
    pod["metadata"]["name"] = name
    assert environment(sidecar(pod)).get("COSTD_NAME") == says


def test_a_sidecar_has_a_policy_and_may_have_kill_switches():
    pod = apply(pod_of(), inject(pod_of(), "a", DEFAULTS).patch)
    says = environment(sidecar_of(pod))
    assert says["COSTD_POLICY"] == "/etc/costd/policy/policy.yaml"
    assert says["COSTD_KILL_FILE"] == "/etc/costd/kills/kills.yaml"
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    assert volumes["costd-policy"] == {
        "name": "costd-policy",
        "configMap": {"name": "costd-policy"},
    }
    assert volumes["costd-kills"]["configMap"] == {"name": "costd-kills", "optional": True}


def test_a_sidecar_in_a_fleet_has_a_certificate_and_no_policy():
    says = environment(sidecar(INJECTED["in a fleet"]))
    assert says["COSTD_COORDINATOR"] == "coordinator.costd-system.svc:9466"
    assert says["COSTD_TLS_CA"] == "/etc/costd/tls/ca.crt"
    assert not says.keys() & {"COSTD_POLICY", "COSTD_COORDINATOR_INSECURE"}


@pytest.mark.parametrize(
    ("shape", "group"), [("in a fleet", 0), ("in a fleet, with a group", 65532)]
)
def test_the_key_can_be_read_by_the_sidecar(shape, group):
    """A Secret's files are root's; an fsGroup makes them its own, and every container is in it."""
    pod = INJECTED[shape]
    after = apply(pod, inject(pod, "a", DEFAULTS).patch)
    assert sidecar_of(after)["securityContext"]["runAsGroup"] == group
    (tls,) = [each for each in after["spec"]["volumes"] if each["name"] == "costd-tls"]
    assert tls["secret"]["defaultMode"] == 0o440


def test_a_pod_may_leave_the_fleet_if_it_says_so():
    fleet = rules(sidecar_coordinator="c:9466", sidecar_coordinator_tls="cert")
    assert "COSTD_POLICY" not in environment(sidecar(pod_of(), fleet))
    alone = pod_of(annotations={"costd.dev/coordinator": "none"})
    says = environment(sidecar(alone, fleet))
    assert says["COSTD_POLICY"] == "/etc/costd/policy/policy.yaml"
    assert not says.keys() & {"COSTD_COORDINATOR", "COSTD_TLS_CERT"}


def test_books_in_a_claim_are_in_a_folder_of_the_pods_own():
    pod = pod_of(annotations={"costd.dev/data-claim": "books"})
    mounts = {each["name"]: each for each in sidecar(pod)["volumeMounts"]}
    assert mounts["costd-data"]["subPathExpr"] == "$(POD_NAME)"
    assert "books must be writable by user 65532" in warned(pod)
    assert not warned(
        pod_of(annotations={"costd.dev/data-claim": "b"}, securityContext={"fsGroup": 1})
    )


def test_a_stateful_set_may_bring_a_claim_for_the_books_of_each_pod():
    """By `volumeClaimTemplates`: a claim that is ReadWriteOnce cannot be for all of them."""
    pod = INJECTED["of a StatefulSet with a claim for its books"]
    after = apply(pod, inject(pod, "research", DEFAULTS).patch)
    assert after["spec"]["volumes"][0] == pod["spec"]["volumes"][0]
    books = {each["mountPath"]: each for each in sidecar_of(after)["volumeMounts"]}
    assert books["/var/lib/costd"]["name"] == "costd-data"
    assert books["/var/lib/costd"]["subPathExpr"] == "$(POD_NAME)"
    assert inject(pod, "research", rules(annotations="cpu")).reason == "name_taken"


@pytest.mark.parametrize("shape", INJECTED)
def test_pod_security_restricted_lets_the_sidecar_in(shape):
    """And its root file system is read-only, which that standard does not ask for."""
    may = sidecar(INJECTED[shape])["securityContext"]
    assert may["runAsNonRoot"] is True
    assert may["runAsUser"] == 65532
    assert may["readOnlyRootFilesystem"] is True
    assert may["allowPrivilegeEscalation"] is False
    assert may["privileged"] is False
    assert may["capabilities"] == {"drop": ["ALL"]}
    assert may["seccompProfile"] == {"type": "RuntimeDefault"}


def test_a_pod_may_say_what_its_sidecar_is_like():
    made = sidecar(INJECTED["with every wish"])
    assert made["image"] == "registry.example:5000/costd@sha256:" + "a" * 64
    assert made["imagePullPolicy"] == "Always"
    assert made["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "1Gi"},
    }
    assert made["ports"] == [{"name": "costd-metrics", "containerPort": 9000}]
    says = environment(made)
    assert {name: says[name] for name in says if name not in environment(sidecar(pod_of()))} == {
        "POD_LABEL_agent": None,
        "COSTD_CLAIMS": "security_review,deploy",
    }
    assert says["COSTD_POLICY"] == "/etc/costd/policy/agents.yaml"
    assert says["COSTD_KILL_FILE"] == "/etc/costd/kills/kills.yaml"
    assert (says["COSTD_DRAIN_S"], says["COSTD_LOG_LEVEL"]) == ("2.5", "debug")


def test_containers_of_any_user_may_ask_and_only_the_sidecar_reaches_its_books():
    after = apply(pod_of(), inject(pod_of(), "a", DEFAULTS).patch)
    says = environment(sidecar_of(after))
    assert says["COSTD_SOCKET_MODE"] == "0666"
    assert says["COSTD_CONTROL_SOCKET"].startswith("/var/lib/costd/")
    (app,) = after["spec"]["containers"]
    assert [each["name"] for each in app["volumeMounts"]] == ["costd-run"]


# ---- resources ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "resources"),
    [
        ("bare", {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}),
        (
            "Burstable",
            {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        ),
        (
            "Guaranteed",
            {
                "requests": {"cpu": "250m", "memory": "256Mi"},
                "limits": {"cpu": "250m", "memory": "256Mi"},
            },
        ),
        ("with resources of the pod", {}),
        ("without kill switches, metrics and limits", {}),
    ],
)
def test_a_pod_keeps_its_class_of_service(shape, resources):
    assert sidecar(INJECTED[shape])["resources"] == resources


# ---- warnings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (
            "with a short time to end",
            "terminationGracePeriodSeconds is 3, so a stopping sidecar waits 1.5 s",
        ),
        ("with one process namespace", "shareProcessNamespace"),
        ("among its node's processes", "hostPID"),
        ("with the metrics' port", "container app has port 9464"),
        ("with COSTD_SOCKET of its own", "container app sets COSTD_SOCKET itself"),
        ("with COSTD_ADDRESS of its own", "container app sets COSTD_ADDRESS itself"),
        ("bare", ""),
        ("of a Job", ""),
        ("huge", ""),
    ],
)
def test_operators_are_warned_of_what_may_surprise_them(shape, says):
    told = warned(INJECTED[shape])
    assert says in told
    assert bool(told) == bool(says)


@pytest.mark.parametrize(
    ("grace_s", "drain_s"), [(None, "10"), (60, "10"), (20, "10"), (3, "1.5"), (0, "0")]
)
def test_a_sidecar_waits_no_longer_than_its_pod(grace_s, drain_s):
    spec = {} if grace_s is None else {"terminationGracePeriodSeconds": grace_s}
    made = environment(sidecar(pod_of(**spec)))
    assert made["COSTD_DRAIN_S"] == made["COSTD_LEAVE_S"] == drain_s


def test_only_a_container_that_is_stopped_together_with_the_others_waits_for_them_first():
    assert "lifecycle" not in sidecar(pod_of())
    ordinary = sidecar(pod_of(annotations={"costd.dev/mode": "container"}))
    waits = ordinary["lifecycle"]["preStop"]["exec"]["command"]
    assert waits == ["costd", "drain", "--timeout-s", "10"]
    short = pod_of(annotations={"costd.dev/mode": "container"}, terminationGracePeriodSeconds=12)
    made = sidecar(short)
    assert made["lifecycle"]["preStop"]["exec"]["command"][-1] == "4"
    assert environment(made)["COSTD_DRAIN_S"] == environment(made)["COSTD_LEAVE_S"] == "4"


# ---- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"sidecar_image": "a b"}, "--sidecar-image: 'a b' is no image"),
        ({"sidecar_memory": "1Gi"}, "sidecar_memory_limit: 256Mi is less"),
        ({"sidecar_mode": "sidecar"}, "none of native, container"),
        ({"sidecar_policy": "none"}, "a sidecar without a coordinator needs one"),
        ({"sidecar_coordinator": "c:1"}, "name the Secret of a daemon's certificate"),
        ({"labels": "model=namespace"}, "--labels: 'model' cannot be a label's key"),
        ({"labels": "team=a b"}, "is neither namespace, pod, service_account, node"),
        ({"annotations": "cpu,nonsense"}, "--annotations: there is no 'nonsense'"),
        ({"listen": "off"}, "the API server needs an address"),
        ({"listen": "8443"}, "is not host:port"),
        ({"metrics_listen": "0.0.0.0:1"}, "say listen_insecure: true"),
        ({"tls_cert": "a"}, "tls_key: a certificate and its key go together"),
        ({"tls_cert": "a", "tls_key": "b", "bootstrap": True}, "there is a certificate"),
        ({"deadline_s": "0"}, "--deadline-s"),
    ],
)
def test_bad_settings_are_told_by_name(flags, says):
    with pytest.raises(SettingsError) as refused:
        load_settings(flags)
    assert says in str(refused.value).replace(" (default)", "")
