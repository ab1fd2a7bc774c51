"""The manifests of deploy/k8s as `kubectl kustomize` renders them, and how objects find each other."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
from kubernetes_validate.utils import all_versions
from packaging.version import Version
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
VERSIONS = sorted(set(all_versions()), key=Version)[-3:]
CRDS = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}
WORKLOADS = {"Deployment", "DaemonSet", "StatefulSet"}

Manifest = dict[str, Any]


@cache
def render(overlay: str) -> list[Manifest]:
    """Render one overlay."""
    return render_at(K8S / "overlays" / overlay)


def render_at(folder: Path) -> list[Manifest]:
    """Render what is in a folder."""
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return [each for each in YAML(typ="safe").load_all(done.stdout) if each]


def each_object() -> list[Manifest]:
    """Every object of every overlay, once."""
    found: list[Manifest] = []
    for overlay in OVERLAYS:
        found += [each for each in render(overlay) if each not in found]
    return found


def named(each: Manifest) -> str:
    return f"{each['kind']}/{each['metadata']['name']}"


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the object of this kind and name, of which there must be one."""
    [found] = [each for each in manifests if named(each) == f"{kind}/{name}"]
    return found


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    return [each for each in manifests if each["kind"] in WORKLOADS]


def pod_of(workload: Manifest) -> Manifest:
    return workload["spec"]["template"]


def pods_of(workload: Manifest) -> list[dict[str, str]]:
    """The labels of its pods: of each replica where those differ, else once for all."""
    labels = pod_of(workload)["metadata"]["labels"]
    if workload["kind"] != "StatefulSet":
        return [labels]
    name = workload["metadata"]["name"]
    return [
        labels | {"statefulset.kubernetes.io/pod-name": f"{name}-{ordinal}"}
        for ordinal in range(workload["spec"]["replicas"])
    ]


def volumes_of(workload: Manifest) -> set[str]:
    """The names of what its containers may mount."""
    claims = [each["metadata"] for each in workload["spec"].get("volumeClaimTemplates", [])]
    return {each["name"] for each in [*pod_of(workload)["spec"].get("volumes", []), *claims]}


def containers(workload: Manifest) -> list[Manifest]:
    spec = pod_of(workload)["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def ports_of(workload: Manifest) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"]
        for each in containers(workload)
        for port in each.get("ports", [])
    }


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Tell whether a LabelSelector matches, by the rules of the API."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        has, values = rule["key"] in labels, rule.get("values", [])
        matches = {
            "In": has and labels.get(rule["key"]) in values,
            "NotIn": not has or labels[rule["key"]] not in values,
            "Exists": has,
            "DoesNotExist": not has,
        }[rule["operator"]]
        if not matches:
            return False
    return True


def validate(manifest: Manifest, version: str) -> None:
    """Hold an object against the strict schema of one release of Kubernetes.

    Errors: kubernetes_validate.ValidationError.
    """
    kubernetes_validate.validate(manifest, version, strict=True)
