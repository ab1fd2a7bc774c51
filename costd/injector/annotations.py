"""A pod's own words about its sidecar: annotations over the injector's settings."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from costd.injector.names import INJECT, INJECTED, PREFIX
from costd.injector.outcome import NotPatched, Reason
from costd.injector.wishes import READERS, Sidecar

VALUE_LENGTH_MAX: Final = 4_096
"""Of one annotation: none needs more, and all pods wait while one is read."""
NAME_LENGTH_MAX: Final = 63
"""Kubernetes', of a name behind its prefix."""
_TRUE: Final = frozenset({"true", "enabled"})
_FALSE: Final = frozenset({"false", "disabled"})


def asked(labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool | None:
    """Tell whether a pod asks for a sidecar (True), wants none (False) or says nothing (None).

    Errors: NotPatched where it is neither true nor false, or label and annotation disagree.
    """
    said = {_asked(words[INJECT]) for words in (labels, annotations) if INJECT in words}
    if len(said) > 1:
        raise NotPatched(
            Reason.BAD_ANNOTATION,
            f"label and annotation {INJECT} disagree; take one of them away",
        )
    return said.pop() if said else None


def wished(annotations: Mapping[str, str], defaults: Sidecar, allowed: Collection[str]) -> Sidecar:
    """Lay a pod's annotations over what every sidecar is like.

    Shape:   pure; `allowed` are the annotations that the injector heeds, `*` all of them.
    Errors:  NotPatched naming the annotation, what is wrong with it, and what to write.
    """
    fields = {}
    for name, value in annotations.items():
        if not name.startswith(PREFIX) or name in {INJECT, INJECTED}:
            continue
        field = name.removeprefix(PREFIX).replace("-", "_")
        word = name.removeprefix(PREFIX)
        if field not in READERS or "_" in word:
            raise NotPatched(Reason.BAD_ANNOTATION, f"{name}: no such annotation{_meant(word)}")
        if "*" not in allowed and word not in allowed:
            raise NotPatched(
                Reason.BAD_ANNOTATION,
                f"{name}: the injector's settings do not let pods choose this (annotations)",
            )
        if len(value) > VALUE_LENGTH_MAX:
            raise NotPatched(
                Reason.BAD_ANNOTATION,
                f"{name}: {len(value)} characters, and at most {VALUE_LENGTH_MAX} are read",
            )
        try:
            fields[field] = READERS[field](value.strip())
        except ValueError as error:
            raise NotPatched(Reason.BAD_ANNOTATION, f"{name}: {error}") from error
    if fields.get("coordinator") == ():
        fields.setdefault("coordinator_tls", "")
    if fields.get("data_claim"):
        fields.setdefault("data_size", "")
    sidecar = replace(defaults, **fields)
    for field, problem in sidecar.problems():
        raise NotPatched(Reason.BAD_ANNOTATION, f"{PREFIX}{field.replace('_', '-')}: {problem}")
    if sidecar.coordinator and fields.get("policy"):
        raise NotPatched(
            Reason.BAD_ANNOTATION,
            f"{PREFIX}policy: the coordinator publishes the policy; take this away, or say "
            f"{PREFIX}coordinator: none",
        )
    return replace(sidecar, policy=None) if sidecar.coordinator else sidecar


def _asked(value: str) -> bool:
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise NotPatched(Reason.BAD_ANNOTATION, f"{INJECT}: {value[:40]!r} is neither true nor false")


def _meant(word: str) -> str:
    names = [field.replace("_", "-") for field in READERS]
    near = difflib.get_close_matches(word[:NAME_LENGTH_MAX], names, n=1)
    return f"; did you mean {PREFIX}{near[0]}?" if near else f"; there are {', '.join(names)}"
