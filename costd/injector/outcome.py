"""What became of one pod: patched, left alone or not let in, and the one reason for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypedDict

Pod = Mapping[str, Any]
"""A pod as JSON has it; whoever patches it works on a copy."""


class Operation(TypedDict, total=False):
    """One operation of a JSON patch (RFC 6902)."""

    op: str
    path: str
    value: Any


class Reason(StrEnum):
    """Why; docs/operating/kubernetes.md has a row for each."""

    INJECTED = "injected"
    COMPLETED = "completed"

    ALREADY_INJECTED = "already_injected"
    OPTED_OUT = "opted_out"
    NOT_ASKED = "not_asked"
    NAMESPACE_EXCLUDED = "namespace_excluded"
    MIRROR_POD = "mirror_pod"
    NOT_CREATED = "not_created"
    NOT_A_POD = "not_a_pod"
    HOST_NETWORK = "host_network"
    WINDOWS = "windows"

    MALFORMED = "malformed"
    BAD_ANNOTATION = "bad_annotation"
    NAME_TAKEN = "name_taken"
    PATH_TAKEN = "path_taken"
    NEVER_ENDS = "never_ends"
    TOO_LARGE = "too_large"


PATCHED: Final = frozenset({Reason.INJECTED, Reason.COMPLETED})
UNFIT: Final = frozenset({Reason.HOST_NETWORK, Reason.WINDOWS})
"""Pods that no sidecar can be put into; a setting says whether they are let in without."""
NOT_LET_IN: Final = frozenset(
    {
        Reason.MALFORMED,
        Reason.BAD_ANNOTATION,
        Reason.NAME_TAKEN,
        Reason.PATH_TAKEN,
        Reason.NEVER_ENDS,
        Reason.TOO_LARGE,
    }
)
"""Pods whose owners asked for costd in a way that cannot be had; they say what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one pod."""

    reason: Reason
    message: str = ""
    is_let_in: bool = True
    patch: tuple[Operation, ...] = ()
    warnings: tuple[str, ...] = ()
    pod: Pod = field(default_factory=dict)
    """The pod after the patch."""


class NotPatched(Exception):
    """Ends the way of a pod through the rules; carries why."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
