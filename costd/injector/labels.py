"""Which labels every ask in a pod has, read from the pod itself.

The agent cannot claim others: the daemon refuses an ask that does. The values reach the daemon by
the downward API, so that what is fixed is what the pod is, not what this webhook once read.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from costd.injector.names import LABEL
from costd.injector.outcome import NotPatched, Reason
from costd.model.labels import LABEL_COUNT_MAX, LABEL_KEY_LENGTH_MAX, RESERVED_KEYS

FIELDS: Final = {
    "namespace": "metadata.namespace",
    "pod": "metadata.name",
    "service_account": "spec.serviceAccountName",
    "node": "spec.nodeName",
}
"""What a label can be read from, besides the pod's own labels."""
CLAIMED: Final = "claimed"
"""The last source of a label that pods need not have: what the agent claims."""

_KEY: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{LABEL_KEY_LENGTH_MAX - 1}}}", re.ASCII)
_POD_LABEL: Final = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
    re.ASCII,
)


class Fixed(NamedTuple):
    """A label, and the field of the pod that it is read from."""

    key: str
    field: str

    @property
    def variable(self) -> str:
        """Name the environment variable that carries the value."""
        return f"POD_LABEL_{self.key}"


def source_problem(key: str, sources: str) -> str | None:
    """Say what is wrong with one entry of the setting, None for nothing."""
    if not _KEY.fullmatch(key) or key in RESERVED_KEYS:
        return f"{key[:80]!r} cannot be a label's key"
    *others, last = sources.split("|")
    if CLAIMED in others:
        return f"{CLAIMED} is what agents say; write it last"
    for source in (*others, last):
        if source not in FIELDS and not _POD_LABEL.fullmatch(source):
            return (
                f"{source[:80]!r} is neither {', '.join(FIELDS)} nor the key of a pod's label; "
                "write alternatives as one|another"
            )
    return None


def fixed_labels(
    pod_labels: Mapping[str, str], sources: Mapping[str, str]
) -> tuple[Sequence[Fixed], Sequence[str]]:
    """Choose where each label comes from: the first of its sources that this pod has.

    Shape:   pure; also returns what to warn of. A label of the pod that says `costd.dev/label-KEY`
             is added unless the settings say where KEY comes from: those were written by somebody
             who trusts pods less.
    Errors:  NotPatched for a label that cannot be one of costd's, and for a pod that has no source
             of a label: who leaves it out would let its agents claim any value.
    """
    found = {}
    for key, written in sources.items():
        for source in written.split("|"):
            if source in FIELDS:
                found[key] = Fixed(key, FIELDS[source])
            elif pod_labels.get(source):
                found[key] = Fixed(key, f"metadata.labels['{source}']")
            if key in found or source == CLAIMED:
                break
        else:
            raise NotPatched(
                Reason.BAD_ANNOTATION,
                f"the injector's settings read {key} from {written}, and this pod has none of "
                "these labels; give it one",
            )
    warnings = []
    for name in sorted(name for name in pod_labels if name.startswith(LABEL)):
        key = name.removeprefix(LABEL)
        if not _KEY.fullmatch(key) or key in RESERVED_KEYS:
            raise NotPatched(
                Reason.BAD_ANNOTATION, f"{name}: {key!r} cannot be the key of a label in costd"
            )
        if not pod_labels[name]:
            raise NotPatched(Reason.BAD_ANNOTATION, f"{name}: give it a value, or take it away")
        if key not in sources:
            found[key] = Fixed(key, f"metadata.labels['{name}']")
            _check_count(len(found))
        elif name not in sources[key].split("|"):
            warnings.append(f"{name} is not heeded: the injector's settings say what {key} is")
    return list(found.values()), warnings


def _check_count(count: int) -> None:
    if count > LABEL_COUNT_MAX:
        raise NotPatched(
            Reason.BAD_ANNOTATION,
            f"{LABEL}…: an ask has at most {LABEL_COUNT_MAX} labels, and this pod fixes more",
        )
