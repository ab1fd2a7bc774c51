"""The container, its volumes and its environment, as Kubernetes wants them written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from costd.injector import names
from costd.injector.labels import Fixed
from costd.injector.outcome import Pod
from costd.injector.quantity import is_same
from costd.injector.wishes import HOST_IP, Sidecar

Json = dict[str, Any]

NAME_LENGTH_MAX = 128
"""Of a daemon."""
GUARANTEED_CPU = "250m"
"""What a sidecar without a limit gets where every container of the pod has one."""

RESOURCE = "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)"
"""What a collector is told of the pod, as OpenTelemetry's conventions name it."""


def volumes(sidecar: Sidecar) -> list[Json]:
    """Write the pod's volumes: the socket's, the books', and where files come from."""
    books: Json = {"emptyDir": {"sizeLimit": sidecar.data_size} if sidecar.data_size else {}}
    if sidecar.data_claim:
        books = {"persistentVolumeClaim": {"claimName": sidecar.data_claim}}
    made = [{"name": names.RUN, "emptyDir": {}}, {"name": names.DATA, **books}]
    if sidecar.policy is not None:
        made.append({"name": names.POLICY, "configMap": {"name": sidecar.policy.name}})
    if sidecar.kill_switches is not None:
        # It may be made later, in an emergency: the kubelet then writes it into the directory.
        kills = {"name": sidecar.kill_switches.name, "optional": True}
        made.append({"name": names.KILLS, "configMap": kills})
    if sidecar.coordinator_tls:
        # Owner and group may read it, nobody else: the daemon refuses a key that others can read.
        secret = {"secretName": sidecar.coordinator_tls, "defaultMode": 0o440}
        made.append({"name": names.TLS, "secret": secret})
    return made


def mount() -> Json:
    """Write how a container gets at the socket."""
    return {"name": names.RUN, "mountPath": names.RUN_PATH}


def container(
    sidecar: Sidecar, pod: Pod, namespace: str, fixed: Sequence[Fixed], metrics_port: int
) -> Json:
    """Write the container that runs the daemon."""
    is_native = sidecar.mode == "native"
    made: Json = {
        "name": names.CONTAINER,
        "image": sidecar.image,
        "command": ["costd", "serve"],
        "env": _environment(sidecar, pod, namespace, fixed, metrics_port),
        "resources": _resources(sidecar, pod),
        "securityContext": _security(sidecar, pod),
        # An hour: while its coordinator is away it waits for its first policy, and to be started
        # again would not bring that sooner.
        "startupProbe": _probe(periodSeconds=1, failureThreshold=3600),
        "livenessProbe": _probe(periodSeconds=20, failureThreshold=3),
        "readinessProbe": _probe(periodSeconds=10, failureThreshold=3),
        "volumeMounts": list(_mounts(sidecar)),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if sidecar.image_pull_policy:
        made["imagePullPolicy"] = sidecar.image_pull_policy
    if is_native:
        made["restartPolicy"] = "Always"
    else:
        # It is stopped together with the others, which may have calls to settle.
        waits = ["costd", "drain", "--timeout-s", f"{drain_s(sidecar, pod['spec']):g}"]
        made["lifecycle"] = {"preStop": {"exec": {"command": waits}}}
    if metrics_port:
        made["ports"] = [{"name": names.METRICS_PORT_NAME, "containerPort": metrics_port}]
    return made


def _environment(
    sidecar: Sidecar, pod: Pod, namespace: str, fixed: Sequence[Fixed], metrics_port: int
) -> list[Json]:
    """Write the variables; those that others name come before them, as expansion wants it."""
    made: list[Json] = [
        _field("POD_NAMESPACE", "metadata.namespace"),
        _field("POD_NAME", "metadata.name"),
        *(_field(each.variable, each.field) for each in fixed),
        *([_field("HOST_IP", "status.hostIP")] if HOST_IP in sidecar.otlp_endpoint else ()),
    ]
    values = {
        "COSTD_NAME": _daemon_name(pod, namespace),
        "COSTD_LABELS_FIXED": ",".join(f"{each.key}=$({each.variable})" for each in fixed),
        "COSTD_DATA": f"{names.DATA_PATH}/data",
        "COSTD_SOCKET": names.SOCKET_PATH,
        "COSTD_SOCKET_MODE": names.SOCKET_MODE,
        "COSTD_CONTROL_SOCKET": names.CONTROL_PATH,
        "COSTD_CONTROL_ADDRESS": f"unix:{names.CONTROL_PATH}",
        "COSTD_METRICS_LISTEN": f"0.0.0.0:{metrics_port}" if metrics_port else "off",
        "COSTD_LISTEN_INSECURE": "true" if metrics_port else "",
        "COSTD_CLAIMS": ",".join(sidecar.claims),
        "COSTD_DRAIN_S": f"{drain_s(sidecar, pod['spec']):g}",
        # Its books end with the pod: what its coordinator has not heard by then is lost.
        "COSTD_LEAVE_S": f"{drain_s(sidecar, pod['spec']):g}",
        "COSTD_LOG_LEVEL": sidecar.log_level,
        "OTEL_EXPORTER_OTLP_ENDPOINT": sidecar.otlp_endpoint,
        "OTEL_RESOURCE_ATTRIBUTES": RESOURCE if sidecar.otlp_endpoint else "",
        **dict(_sources(sidecar)),
    }
    return made + [{"name": name, "value": value} for name, value in values.items() if value]


def _sources(sidecar: Sidecar) -> Iterable[tuple[str, str]]:
    """Say where rules come from."""
    if sidecar.policy is not None:
        yield "COSTD_POLICY", f"{names.POLICY_PATH}/{sidecar.policy.key}"
    if sidecar.kill_switches is not None:
        yield "COSTD_KILL_FILE", f"{names.KILLS_PATH}/{sidecar.kill_switches.key}"
    if sidecar.coordinator:
        yield "COSTD_COORDINATOR", ",".join(sidecar.coordinator)
        if not sidecar.coordinator_tls:
            yield "COSTD_COORDINATOR_INSECURE", "true"
    if sidecar.coordinator_tls:
        yield "COSTD_TLS_CERT", f"{names.TLS_PATH}/tls.crt"
        yield "COSTD_TLS_KEY", f"{names.TLS_PATH}/tls.key"
        yield "COSTD_TLS_CA", f"{names.TLS_PATH}/ca.crt"


def _daemon_name(pod: Pod, namespace: str) -> str:
    """Name the daemon after its pod, as far as names may be long; else it is the host's name.

    Names that the API makes up have at most 63 characters, so that only those that somebody chose
    are too long.
    """
    name = pod["metadata"].get("name") or ""
    if len(namespace) + 1 + len(name) <= NAME_LENGTH_MAX:
        return "$(POD_NAMESPACE).$(POD_NAME)"
    return "$(POD_NAME)" if len(name) <= NAME_LENGTH_MAX else ""


def drain_s(sidecar: Sidecar, spec: Mapping[str, Any]) -> float:
    """How long each wait of a daemon that stops may take: together what the pod is given to end.

    It waits for open calls and then for its coordinator; before both, in an ordinary container,
    for the others to finish (preStop).
    """
    given_s: int | None = spec.get("terminationGracePeriodSeconds")
    if given_s is None:
        return sidecar.drain_s
    waits_count = 2 if sidecar.mode == "native" else 3
    return min(sidecar.drain_s, max(given_s, 0) / waits_count)


def _mounts(sidecar: Sidecar) -> Iterable[Json]:
    yield mount()
    books = {"name": names.DATA, "mountPath": names.DATA_PATH}
    # Pods that share a claim have books of their own in it; a pod that comes back finds its own.
    yield books | ({"subPathExpr": "$(POD_NAME)"} if sidecar.data_claim else {})
    for name, path, is_there in (
        (names.POLICY, names.POLICY_PATH, sidecar.policy is not None),
        (names.KILLS, names.KILLS_PATH, sidecar.kill_switches is not None),
        (names.TLS, names.TLS_PATH, bool(sidecar.coordinator_tls)),
    ):
        if is_there:
            yield {"name": name, "mountPath": path, "readOnly": True}


def _security(sidecar: Sidecar, pod: Pod) -> Json:
    """Write what the daemon may do, which is nothing; Pod Security `restricted` lets it in.

    A Secret's files are root's. With an `fsGroup` they are that group's, which every container is
    in; without one only root's group may read the key.
    """
    has_group = (pod["spec"].get("securityContext") or {}).get("fsGroup") is not None
    return {
        "runAsNonRoot": True,
        "runAsUser": names.USER,
        "runAsGroup": 0 if sidecar.coordinator_tls and not has_group else names.GROUP,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _resources(sidecar: Sidecar, pod: Pod) -> Json:
    """Write requests and limits so that the pod keeps its class of service.

    Shape:   where the pod as a whole has resources, the sidecar lives on them; where every
             container of a pod has limits and requests alike, so has the sidecar.
    """
    if pod["spec"].get("resources"):
        return {}
    limits = {"cpu": sidecar.cpu_limit, "memory": sidecar.memory_limit}
    requests = {"cpu": sidecar.cpu, "memory": sidecar.memory}
    if _is_guaranteed(pod):
        limits = {
            "cpu": sidecar.cpu_limit or GUARANTEED_CPU,
            "memory": sidecar.memory_limit or sidecar.memory or "256Mi",
        }
        requests = limits
    said = {"requests": _said(requests), "limits": _said(limits)}
    return {name: amounts for name, amounts in said.items() if amounts}


def _said(amounts: Mapping[str, str]) -> dict[str, str]:
    return {name: amount for name, amount in amounts.items() if amount}


def _is_guaranteed(pod: Pod) -> bool:
    """Tell whether the pod is of the class that is evicted last, and may have cores of its own."""
    spec = pod["spec"]
    for each in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        if each["name"] == names.CONTAINER:
            continue
        resources = each.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            if name not in limits or not is_same(requests.get(name, limits[name]), limits[name]):
                return False
    return True


def _probe(**timing: int) -> Json:
    return {"exec": {"command": ["costd", "health"]}, "timeoutSeconds": 5, **timing}


def _field(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
