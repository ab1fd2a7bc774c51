"""What was refused, in the audit: counted by the hour, so that a storm of it cannot fill a disk."""

import contextlib
from typing import TYPE_CHECKING, Final

import msgspec

from costd.daemon.books.bookkeeping import Bookkeeping
from costd.engine import keys
from costd.engine.changes import Changes, Family
from costd.engine.question import Question
from costd.errors import StoreUnavailable
from costd.model.decision import Decision
from costd.model.events import AuditRecord
from costd.model.time import NS_PER_S

if TYPE_CHECKING:  # a ledger needs nothing that serves
    from costd.serving.guard import Refused

HOUR_NS: Final = 3600 * NS_PER_S
REFUSED: Final = "call_refused"
"""The action under which refused calls are audited."""


def audit_denial(books: Bookkeeping, question: Question, decision: Decision) -> None:
    """Count a denial of an ask by reason, rule and task class.

    A denial stands where that cannot be written: it holds nothing, and a client that got an error
    in its place would fail open, past a kill switch too.
    """
    rule = decision.binding.rule if decision.binding else ""
    record = AuditRecord(
        at_ns=question.now.wall_ns,
        actor="",
        action="denied",
        subject=rule,
        detail=f"{decision.reason.name} for {question.task_class.name}",
        task_class=question.task_class.name,
        reason=decision.reason,
    )
    try:
        _count(books, record, f"{decision.reason.name} {rule} {question.task_class.name}")
    except StoreUnavailable:
        books.tallies.happened("denials_uncounted")


def audit_refusal(books: Bookkeeping, refused: "Refused") -> None:
    """Count a refused call by caller, method and kind.

    The record tells of the last one. One that cannot be written is lost: nobody is let in for it.
    """
    error, service, method, actor, address = refused
    record = AuditRecord(
        at_ns=books.clock.now().wall_ns,
        actor=actor,
        action=REFUSED,
        subject=method,
        detail=f"{error} (from {address})",
    )
    with contextlib.suppress(StoreUnavailable):
        _count(books, record, f"{REFUSED} {service} {method} {actor} {type(error).__name__}")


def _count(books: Bookkeeping, record: AuditRecord, kind: str) -> None:
    """Write a record in the place of its hour's last one of this kind.

    Errors:  StoreUnavailable.
    """
    key = keys.sequence_key(record.at_ns - record.at_ns % HOUR_NS) + keys.digest(kind)
    before: AuditRecord | None = books.store.get(Family.AUDIT, key)
    count = before.count + 1 if before else 1
    changes = Changes()
    changes.put(Family.AUDIT, key, msgspec.structs.replace(record, count=count))
    books.commit(changes)
