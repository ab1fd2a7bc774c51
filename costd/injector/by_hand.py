"""Patch pods by hand: manifests in, the same with sidecars out."""

import copy
from collections.abc import Callable
from io import StringIO
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from costd.injector.outcome import Outcome
from costd.injector.patch import Rules, inject

TEMPLATES: Final[dict[str, tuple[str, ...]]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Where each kind keeps its pod."""


class NotReadable(Exception):
    """What was given is no manifest; says what and where."""


def patched(text: str, namespace: str, rules: Rules, tell: Callable[[str, Outcome], None]) -> str:
    """Patch every pod in a stream of YAML or JSON documents.

    Shape:   pure, but for `tell`, which hears of each pod.
    Errors:  NotReadable.
    """
    yaml = YAML()
    yaml.explicit_start = False
    try:
        documents = list(YAML(typ="safe", pure=True).load_all(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise NotReadable(f"{where}not YAML: {reason}") from error
    done = [_document(each, namespace, rules, tell) for each in documents if each is not None]
    written = StringIO()
    yaml.dump_all(done, written)
    return written.getvalue()


def _document(
    document: Any, namespace: str, rules: Rules, tell: Callable[[str, Outcome], None]
) -> Any:
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise NotReadable("a document has no kind; give manifests of Kubernetes")
    if document["kind"] == "List":
        items = [_document(each, namespace, rules, tell) for each in document.get("items") or ()]
        return {**document, "items": items}
    if document["kind"] not in TEMPLATES:
        return document
    whole = copy.deepcopy(document)
    owner: Any = None
    key, pod = "", whole
    for step in TEMPLATES[document["kind"]]:
        if not isinstance(pod, dict) or not isinstance(pod.get(step), dict):
            raise NotReadable(f"the {document['kind']} has no {step}")
        owner, key, pod = pod, step, pod[step]
    metadata = whole.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    pod.setdefault("metadata", {})
    outcome = inject(pod, metadata.get("namespace") or namespace, rules)
    tell(f"{document['kind']} {metadata.get('name') or '(no name)'}", outcome)
    if not outcome.patch:
        return document
    if owner is None:
        return dict(outcome.pod)
    owner[key] = outcome.pod
    return whole
