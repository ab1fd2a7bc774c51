"""AdmissionReview in, AdmissionReview out: bytes to bytes.

Source: the types of `admission.k8s.io/v1` in Kubernetes' API.
"""

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec

from costd.injector.outcome import NOT_LET_IN, PATCHED, Outcome, Reason
from costd.injector.patch import Rules, inject

VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
WARNING_LENGTH_MAX: Final = 256
"""Longer ones may be cut by whoever shows them."""
WARNINGS_COUNT_MAX: Final = 8
MESSAGE_LENGTH_MAX: Final = 1_024
NAME_LENGTH_MAX: Final = 253
UID_LENGTH_MAX: Final = 128
VALUES_COUNT_MAX: Final = 250_000
"""In one body, counted by what stands between them: read, each takes a hundred bytes, twice. The
largest pod that is stored, of a megabyte and a half, would have to be all of short variables."""


class NotReviewed(Exception):
    """What came is no review that can be answered; says what it is, and what is expected."""


class Reviewed(NamedTuple):
    """An answer, and what it says, for metrics and log."""

    body: bytes
    outcome: Outcome
    namespace: str
    name: str


class _Kind(msgspec.Struct):
    group: str = ""
    version: str = ""
    kind: str = ""


class _Request(msgspec.Struct):
    uid: str
    kind: _Kind
    operation: str
    resource: dict[str, Any] = {}
    subResource: str = ""  # noqa: N815  as Kubernetes spells it
    namespace: str = ""
    name: str = ""
    object: Any = None


class _Review(msgspec.Struct):
    apiVersion: str = ""  # noqa: N815  as Kubernetes spells it
    kind: str = ""
    request: _Request | None = None


class _Typed(msgspec.Struct):
    apiVersion: str = ""  # noqa: N815  as Kubernetes spells it
    kind: str = ""


def review(body: bytes, rules: Rules, *, only_asked: bool = False) -> Reviewed:
    """Answer one review.

    Shape:   pure.
    Ensures: the answer has the request's uid; it lets the pod in, or says why not. What is returned
             of the pod's own words is as short as Kubernetes' own.
    Errors:  NotReviewed where the body is no AdmissionReview of v1 with a request.
    """
    request = _read(body)
    outcome = _short(_outcome(request, rules, only_asked=only_asked))
    metadata = request.object.get("metadata") if isinstance(request.object, dict) else None
    made_up = (metadata or {}).get("generateName") if isinstance(metadata, dict) else None
    answer = {"apiVersion": VERSION, "kind": KIND, "response": _response(request.uid, outcome)}
    named = request.name or f"{made_up or ''}"
    return Reviewed(
        msgspec.json.encode(answer),
        outcome,
        request.namespace[:NAME_LENGTH_MAX],
        named[:NAME_LENGTH_MAX],
    )


def _short(outcome: Outcome) -> Outcome:
    """Cut what is said to what may be shown, and logged."""
    warnings = tuple(each[:WARNING_LENGTH_MAX] for each in outcome.warnings[:WARNINGS_COUNT_MAX])
    return replace(outcome, message=outcome.message[:MESSAGE_LENGTH_MAX], warnings=warnings)


def _read(body: bytes) -> _Request:
    count = sum(map(body.count, (b",", b"[", b"{")))
    if count > VALUES_COUNT_MAX:
        raise NotReviewed(f"the body has {count} values, and at most {VALUES_COUNT_MAX} are read")
    try:
        typed = msgspec.json.decode(body, type=_Typed)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise NotReviewed(f"the body is no {KIND} in JSON: {error}") from error
    if (typed.apiVersion, typed.kind) != (VERSION, KIND):
        raise NotReviewed(
            f"the body is {typed.kind[:80] or 'of no kind'} of "
            f"{typed.apiVersion[:80] or 'no version'}, and this webhook takes {KIND} of {VERSION}; "
            'list only "v1" in admissionReviewVersions'
        )
    try:
        request = msgspec.json.decode(body, type=_Review).request
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise NotReviewed(f"the {KIND} is not well formed: {error}") from error
    if request is None:
        raise NotReviewed(f"the {KIND} has no request; this webhook takes no answers")
    if not 0 < len(request.uid) <= UID_LENGTH_MAX:
        raise NotReviewed(f"the {KIND}'s uid has {len(request.uid)} characters")
    return request


def _outcome(request: _Request, rules: Rules, *, only_asked: bool) -> Outcome:
    kind = request.kind
    if (kind.group, kind.version, kind.kind) != ("", "v1", "Pod"):
        named = "/".join(part[:80] for part in (kind.group, kind.version, kind.kind) if part)
        return Outcome(reason=Reason.NOT_A_POD, message=f"{named} is no pod; only pods are patched")
    if request.operation != "CREATE" or request.subResource:
        done = f"{request.operation} {request.subResource}".strip()[:80]
        return Outcome(
            reason=Reason.NOT_CREATED,
            message=f"{done}: the containers of a pod that exists cannot be changed",
        )
    if not request.namespace:
        return Outcome(
            reason=Reason.MALFORMED, message="the request has no namespace", is_let_in=False
        )
    return inject(request.object, request.namespace, rules, only_asked=only_asked)


def _response(uid: str, outcome: Outcome) -> Mapping[str, Any]:
    """Write what the API server does, and what it writes into its audit log."""
    message = outcome.message
    response: dict[str, Any] = {
        "uid": uid,
        "allowed": outcome.is_let_in,
        "auditAnnotations": {"outcome": outcome.reason.value, "message": message},
        "status": {"message": message},
    }
    if not outcome.is_let_in:
        code, reason = (400, "BadRequest") if outcome.reason in NOT_LET_IN else (403, "Forbidden")
        response["status"] = {
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": f"costd: {message}",
        }
    if outcome.warnings:
        response["warnings"] = list(outcome.warnings)
    if outcome.reason in PATCHED:
        patch = base64.b64encode(msgspec.json.encode(outcome.patch))
        response |= {"patchType": "JSONPatch", "patch": patch.decode()}
    return response
