"""What tests of the injector share: patches applied, and pods held against Kubernetes' rules."""

import copy
from functools import cache

import jsonschema
from kubernetes_validate.utils import all_versions, schema_contents
from referencing import Registry, Resource

from costd.injector.patch import Rules
from costd.injector.settings import Settings

NEWEST = list(dict.fromkeys(all_versions()))[-3:]


def rules(**settings):
    """What the injector's settings make of this."""
    return Settings(**settings).rules


DEFAULTS: Rules = rules()


@cache
def _validator(version):
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    schema = schema_contents(f"{folder}/pod-v1.json", version)
    definitions = schema_contents(f"{folder}/_definitions.json", version)
    registry = Resource.from_contents(definitions) @ (Resource.from_contents(schema) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def schema_faults(pod):
    """What the strict schemas of the three newest versions of Kubernetes say against a pod."""
    whole = {"apiVersion": "v1", "kind": "Pod", **pod}
    return [
        f"{version}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
        for version in NEWEST
        for error in _validator(version).iter_errors(whole)
    ]


def rule_faults(pod):
    """What the API server would say that schemas do not: names, mounts, ports, probes."""
    spec, faults = pod["spec"], []
    inits, apps = spec.get("initContainers") or [], spec["containers"]
    everybody = [*inits, *apps]
    volumes = [each["name"] for each in spec.get("volumes") or ()]
    names = [each["name"] for each in everybody]
    faults += [f"{n} twice" for n in {*names} if names.count(n) > 1]
    faults += [f"volume {n} twice" for n in {*volumes} if volumes.count(n) > 1]
    for each in everybody:
        mounts = each.get("volumeMounts") or ()
        paths = [one["mountPath"] for one in mounts]
        faults += [f"{each['name']}: {p} twice" for p in {*paths} if paths.count(p) > 1]
        faults += [f"no volume {one['name']}" for one in mounts if one["name"] not in volumes]
        variables = [one["name"] for one in each.get("env") or ()]
        faults += [f"{each['name']}: {v} twice" for v in {*variables} if variables.count(v) > 1]
        ports = [one.get("name") for one in each.get("ports") or () if one.get("name")]
        faults += [f"port {p} is too long" for p in ports if len(p) > 15]
    for each in inits:
        if each.get("restartPolicy") != "Always" and each.keys() & {"lifecycle", "livenessProbe"}:
            faults.append(f"{each['name']} has probes and is no sidecar")
    faults += [f"{each['name']}: restartPolicy" for each in apps if "restartPolicy" in each]
    return faults


def apply(pod, operations):
    """Apply a JSON patch (RFC 6902), as an API server does: what is not there cannot be changed."""
    pod = copy.deepcopy(pod)
    for operation in operations:
        steps = [
            step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]
        ]
        owner = pod
        for step in steps[:-1]:
            owner = owner[int(step)] if isinstance(owner, list) else owner[step]
        last = steps[-1]
        if isinstance(owner, list):
            position = len(owner) if last == "-" else int(last)
            assert 0 <= position <= len(owner) - (operation["op"] != "add")
        else:
            position = last
            assert operation["op"] == "add" or last in owner
        match operation["op"]:
            case "add" if isinstance(owner, list):
                owner.insert(position, copy.deepcopy(operation["value"]))
            case "add" | "replace":
                owner[position] = copy.deepcopy(operation["value"])
            case "remove":
                del owner[position]
            case other:
                raise AssertionError(other)
    return pod


def sidecar_of(pod):
    """The sidecar of a pod, None if it has none."""
    spec = pod["spec"]
    everybody = [*(spec.get("initContainers") or ()), *spec["containers"]]
    return next((each for each in everybody if each["name"] == "costd"), None)


def environment(container):
    """What a container's environment says in plain values."""
    return {each["name"]: each.get("value") for each in container.get("env") or ()}


def pod_of(*containers, labels=None, annotations=None, **spec):
    """A pod with one app container unless others are given."""
    metadata = {"generateName": "agents-7d9c5b-"}
    metadata |= {"labels": labels} if labels else {}
    metadata |= {"annotations": annotations} if annotations else {}
    listed = list(containers) or [{"name": "app", "image": "registry.example/app:1"}]
    return {"metadata": metadata, "spec": {"containers": listed, **spec}}
