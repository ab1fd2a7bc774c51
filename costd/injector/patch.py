"""The rules: a pod in, a JSON patch out, or the reason why there is none.

Pure: the same pod under the same settings gives the same patch, and a pod that has been patched
gives none.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Final

from costd.injector import names
from costd.injector.annotations import asked, wished
from costd.injector.edit import Edit
from costd.injector.labels import fixed_labels
from costd.injector.ours import absolute, is_below, is_ours, is_volume_ours
from costd.injector.outcome import NOT_LET_IN, UNFIT, NotPatched, Outcome, Pod, Reason
from costd.injector.shape import check_shape
from costd.injector.sidecar import container, drain_s, mount, volumes
from costd.injector.wishes import Sidecar

CONTAINERS_COUNT_MAX: Final = 500
"""Of one pod; each is given three things, and the API server waits for all pods alike."""
ANNOTATIONS_BYTES_MAX: Final = 256 * 1024
"""Of one object, all keys and values together; the API refuses more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for every pod: an injector's settings, read."""

    sidecar: Sidecar
    version: str
    namespaces_excluded: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: tuple[str, ...] = ("*",)
    behind: tuple[str, ...] = ()
    host_network: bool = False
    refuse_unfit: bool = False


def inject(pod: Any, namespace: str, rules: Rules, *, only_asked: bool = False) -> Outcome:
    """Decide about one pod that is being created.

    Shape:   pure; `pod` is unchanged. `only_asked` leaves pods alone that do not ask by their own
             label or annotation; else whoever sent it has been asked for it by the namespace.
    Ensures: every field that the pod has stays as it is, but for lists that grow and a sidecar of
             ours that is replaced; a patched pod gives `already_injected`.
    """
    try:
        return _injected(check_shape(pod), namespace, rules, only_asked=only_asked)
    except NotPatched as why:
        let_in = why.reason not in NOT_LET_IN
        if why.reason in UNFIT:
            let_in = not rules.refuse_unfit
        warnings = (f"costd: {why}",) if let_in and why.reason in UNFIT else ()
        return Outcome(reason=why.reason, message=str(why), is_let_in=let_in, warnings=warnings)
    except RecursionError:
        deep = "the pod is not well formed: it is nested too deeply"
        return Outcome(reason=Reason.MALFORMED, message=deep, is_let_in=False)


def _injected(pod: Pod, namespace: str, rules: Rules, *, only_asked: bool) -> Outcome:
    metadata, spec = pod["metadata"], pod["spec"]
    annotations = metadata.get("annotations") or {}
    labels = metadata.get("labels") or {}
    _check_wanted(labels, annotations, namespace, rules, only_asked=only_asked)
    _check_count(spec)
    _check_fit(spec, rules)
    sidecar = _with_claim(wished(annotations, rules.sidecar, rules.annotations), spec, rules)
    if sidecar.mode == "container" and spec.get("restartPolicy") in {"Never", "OnFailure"}:
        raise NotPatched(
            Reason.NEVER_ENDS,
            f"restartPolicy is {spec['restartPolicy']}, and an ordinary container beside it never "
            f"ends, so this pod would not either; let {names.PREFIX}mode be native (Kubernetes "
            f"1.29 or later), or say {names.INJECT}: false",
        )
    fixed, warnings = fixed_labels(labels, rules.labels)
    metrics_port, more = _metrics_port(sidecar, spec)
    made = container(sidecar, pod, namespace, fixed, metrics_port)
    is_marked = names.INJECTED in annotations
    _check_room(spec, sidecar, is_marked=is_marked)

    # All checks passed but the size; only writes below.
    edit = Edit(pod)
    _put_container(edit, made, sidecar, rules.behind)
    _put_volumes(edit, sidecar)
    own = [*warnings, *more, *_warnings(sidecar, spec), *_connect(edit, sidecar)]
    _mark(edit, rules.version)
    if not edit.operations:
        raise NotPatched(Reason.ALREADY_INJECTED, "the pod has its sidecar already")
    return Outcome(
        reason=Reason.COMPLETED if is_marked else Reason.INJECTED,
        message="the pod has a sidecar now",
        patch=tuple(edit.operations),
        warnings=tuple(f"costd: {each}" for each in own),
        pod=edit.pod,
    )


def _check_wanted(
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    namespace: str,
    rules: Rules,
    *,
    only_asked: bool,
) -> None:
    """Pass by pods that nobody wants a sidecar in."""
    if namespace in rules.namespaces_excluded:
        raise NotPatched(
            Reason.NAMESPACE_EXCLUDED, f"no pod of the namespace {namespace} gets a sidecar"
        )
    if names.MIRROR in annotations:
        raise NotPatched(
            Reason.MIRROR_POD, "this is the image of a static pod, which the kubelet owns"
        )
    wants = asked(labels, annotations)
    if wants is False:
        raise NotPatched(Reason.OPTED_OUT, f"the pod says {names.INJECT}: false")
    if wants is None and only_asked:
        raise NotPatched(Reason.NOT_ASKED, f"the pod does not say {names.INJECT}: true")


def _check_count(spec: Mapping[str, Any]) -> None:
    """See that a pod is looked at quickly, before looking at each of its containers."""
    count = len(_containers(spec))
    if count > CONTAINERS_COUNT_MAX:
        raise NotPatched(
            Reason.TOO_LARGE,
            f"the pod has {count} containers, and at most {CONTAINERS_COUNT_MAX} are given a "
            f"socket; say {names.INJECT}: false",
        )


def _check_fit(spec: Mapping[str, Any], rules: Rules) -> None:
    """Pass by pods that no sidecar can be put into."""
    securities = [each.get("securityContext") or {} for each in (spec, *_containers(spec))]
    system = (spec.get("os") or {}).get("name")
    chosen = (spec.get("nodeSelector") or {}).get("kubernetes.io/os", system)
    if "windows" in {system, chosen} or any(s.get("windowsOptions") for s in securities):
        raise NotPatched(
            Reason.WINDOWS, "costd runs on Linux only; no sidecar in a pod for Windows"
        )
    if spec.get("hostNetwork") and not rules.host_network:
        raise NotPatched(
            Reason.HOST_NETWORK,
            "no sidecar in a pod on its node's network (hostNetwork); the injector's "
            "host_network: true allows it",
        )


def _metrics_port(sidecar: Sidecar, spec: Mapping[str, Any]) -> tuple[int, Sequence[str]]:
    """Choose where metrics are served: nowhere if that port is somebody else's in the pod."""
    port = sidecar.metrics_port
    if not port:
        return 0, ()
    if spec.get("hostNetwork"):
        return 0, ("hostNetwork: no metrics are served, since all such pods have the same ports",)
    for each in _containers(spec):
        if each["name"] == names.CONTAINER:
            continue
        if any(one.get("containerPort") == port for one in each.get("ports") or ()):
            warning = (
                f"container {each['name']} has port {port}, so the sidecar serves no metrics; "
                f"give it another by {names.PREFIX}metrics-port"
            )
            return 0, (warning,)
    return port, ()


def _check_room(spec: Mapping[str, Any], sidecar: Sidecar, *, is_marked: bool) -> None:
    """See that names and paths are free, or are what we put there before."""
    if all(each["name"] == names.CONTAINER for each in spec["containers"]):
        raise NotPatched(
            Reason.NAME_TAKEN, f"the pod has no container but {names.CONTAINER}, which is ours"
        )
    if not is_marked and any(each["name"] == names.CONTAINER for each in _containers(spec)):
        raise NotPatched(
            Reason.NAME_TAKEN,
            f"the pod has a container {names.CONTAINER} of its own; give it another name, or say "
            f"{names.INJECT}: false",
        )
    ours = {each["name"]: each for each in volumes(sidecar)}
    for each in spec.get("volumes") or ():
        if each["name"] in ours and not is_marked and each != ours[each["name"]]:
            raise NotPatched(
                Reason.NAME_TAKEN,
                f"the pod has a volume {each['name']} of its own; give it another name, or say "
                f"{names.INJECT}: false",
            )
    _check_claim(spec, sidecar.data_claim)
    _check_mounts(spec, ours.keys() - {names.RUN})


def _with_claim(sidecar: Sidecar, spec: Mapping[str, Any], rules: Rules) -> Sidecar:
    """Keep the books on the claim that a pod brings for them.

    A StatefulSet whose `volumeClaimTemplates` are called like our volume has one for each pod.
    """
    may_choose = {"*", "data-claim"} & {*rules.annotations}
    for each in spec.get("volumes") or ():
        claim = (each.get("persistentVolumeClaim") or {}).get("claimName")
        if each["name"] == names.DATA and claim and may_choose and not sidecar.data_claim:
            return replace(sidecar, data_claim=claim, data_size="")
    return sidecar


def _check_claim(spec: Mapping[str, Any], claim: str) -> None:
    """See that the claim of the books is in no other volume.

    Source: https://github.com/kubernetes/kubernetes/issues/132921, whose pod waits for ever.
    """
    for each in spec.get("volumes") or ():
        theirs = (each.get("persistentVolumeClaim") or {}).get("claimName")
        if claim and theirs == claim and each["name"] != names.DATA:
            raise NotPatched(
                Reason.NAME_TAKEN,
                f"the pod's volume {each['name']} has the claim {claim}, and a pod that has one "
                f"twice never starts; let {names.PREFIX}data-claim be another",
            )


def _check_mounts(spec: Mapping[str, Any], private: AbstractSet[str]) -> None:
    """See that the socket's path is free, and that nobody else is given the sidecar's volumes."""
    for each in _containers(spec):
        if each["name"] == names.CONTAINER:
            continue  # what it should mount is compared
        for one in each.get("volumeMounts") or ():
            if one.get("name") in private:
                raise NotPatched(
                    Reason.NAME_TAKEN,
                    f"container {each['name']} mounts {one['name']}, which is the sidecar's alone; "
                    f"give your volume another name, or say {names.INJECT}: false",
                )
            written = one.get("mountPath") or ""
            # Quick for who has thousands.
            path = absolute(one) if names.CONTAINER in written else written
            if is_below(path, names.RUN_PATH) and (one.get("name"), path) != (
                names.RUN,
                names.RUN_PATH,
            ):
                raise NotPatched(
                    Reason.PATH_TAKEN,
                    f"container {each['name']} mounts {one.get('name')} at {path}, where the "
                    f"socket is to be; mount it elsewhere, or say {names.INJECT}: false",
                )


def _put_container(
    edit: Edit, made: dict[str, Any], sidecar: Sidecar, behind: Sequence[str]
) -> None:
    """Put the sidecar where it belongs, unless it is there."""
    is_native = sidecar.mode == "native"
    home, other = ("initContainers", "containers")[:: 1 if is_native else -1]
    spec = edit.pod["spec"]
    for position, each in enumerate(spec.get(other) or ()):
        if each["name"] == names.CONTAINER:
            edit.remove("spec", other, position)
            break
    for position, each in enumerate(edit.need([], "spec", home)):
        if each["name"] == names.CONTAINER:
            if not is_ours(each, made):
                edit.replace(made, "spec", home, position)
            return
    if not is_native:
        # The first container is the one that `kubectl logs` and `kubectl exec` mean.
        edit.append(made, "spec", home)
        return
    position = 0
    for each in spec[home]:
        if each["name"] not in behind:
            break
        position += 1
    edit.add(made, "spec", home, position)


def _put_volumes(edit: Edit, sidecar: Sidecar) -> None:
    present = edit.need([], "spec", "volumes")
    positions = {each["name"]: position for position, each in enumerate(present)}
    for each in volumes(sidecar):
        if each["name"] not in positions:
            edit.append(each, "spec", "volumes")
        elif not is_volume_ours(present[positions[each["name"]]], each):
            edit.replace(each, "spec", "volumes", positions[each["name"]])


def _connect(edit: Edit, sidecar: Sidecar) -> Sequence[str]:
    """Let every container reach the socket; returns what to warn of."""
    warnings = []
    lists = ["containers", "initContainers"][: 2 if sidecar.mode == "native" else 1]
    for home in lists:
        for position, each in enumerate(edit.pod["spec"].get(home) or ()):
            if each["name"] == names.CONTAINER:
                continue
            at = ("spec", home, position)
            paths = [one.get("mountPath") or "" for one in each.get("volumeMounts") or ()]
            # What is there is ours: another mount would have kept the pod out.
            if not any(path.rstrip("/") == names.RUN_PATH for path in paths):
                edit.need([], *at, "volumeMounts")
                edit.append(mount(), *at, "volumeMounts")
            said = {one["name"]: one.get("value") for one in edit.need([], *at, "env")}
            if names.SOCKET_VARIABLE not in said:
                socket = {"name": names.SOCKET_VARIABLE, "value": names.SOCKET_PATH}
                edit.add(socket, *at, "env", 0)
            elif said[names.SOCKET_VARIABLE] != names.SOCKET_PATH:
                warnings.append(_stays(each["name"], names.SOCKET_VARIABLE))
            if names.ADDRESS_VARIABLE in said:
                warnings.append(_stays(each["name"], names.ADDRESS_VARIABLE))
    return warnings


def _stays(name: str, variable: str) -> str:
    return f"container {name} sets {variable} itself, and may not ask the sidecar"


def _warnings(sidecar: Sidecar, spec: Mapping[str, Any]) -> Sequence[str]:
    """Say what an operator may be surprised by."""
    found = []
    given_s = spec.get("terminationGracePeriodSeconds")
    cut_s = drain_s(sidecar, spec)
    if cut_s < sidecar.drain_s:
        found.append(
            f"terminationGracePeriodSeconds is {given_s}, so a stopping sidecar waits {cut_s:g} s "
            f"and not {sidecar.drain_s:g} s for open calls, and as long for its coordinator"
        )
    shared = [key for key in ("shareProcessNamespace", "hostPID") if spec.get(key)]
    if shared:
        found.append(
            f"{shared[0]}: a container that runs as root or as user "
            f"{names.USER} can change what the sidecar fixes"
        )
    group = (spec.get("securityContext") or {}).get("fsGroup")
    if sidecar.data_claim and group is None:
        found.append(
            f"the claim {sidecar.data_claim} must be writable by user {names.USER}; a "
            "securityContext.fsGroup makes it so"
        )
    return found


def _mark(edit: Edit, version: str) -> None:
    """Note in the pod's annotations that it has a sidecar; the last of the checks is here."""
    annotations = edit.need({}, "metadata", "annotations")
    if names.INJECTED not in annotations:
        edit.add(version, "metadata", "annotations", names.INJECTED)
        listed = [each for each in annotations.get(names.SAFE_TO_EVICT, "").split(",") if each]
        more = [each for each in (names.RUN, names.DATA) if each not in listed]
        edit.add(",".join([*listed, *more]), "metadata", "annotations", names.SAFE_TO_EVICT)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > ANNOTATIONS_BYTES_MAX:
        raise NotPatched(
            Reason.TOO_LARGE,
            f"the pod's annotations would have {size} bytes with ours, and the API takes "
            f"{ANNOTATIONS_BYTES_MAX}; shorten them, or say {names.INJECT}: false",
        )


def _containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(spec.get("initContainers") or ()), *spec["containers"]]
