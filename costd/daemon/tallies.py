"""What a daemon counts of its own work: for metrics, and denials for the audit log."""

from typing import Final

from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.question import Question
from costd.model.decision import Decision
from costd.model.events import AuditRecord
from costd.model.time import NS_PER_S
from costd.store.port import Put, Store

HOUR_NS: Final = 3600 * NS_PER_S


class Tallies:
    """Counts since the start."""

    def __init__(self) -> None:
        self.decisions: dict[tuple[int, str, int], int] = {}
        """By (verdict, task class, reason)."""
        self.events: dict[str, int] = {}
        """Other things that happened, by name."""

    def decided(self, task_class: str, decision: Decision) -> None:
        """Count a decision."""
        key = (decision.verdict, task_class, decision.reason)
        self.decisions[key] = self.decisions.get(key, 0) + 1

    def happened(self, name: str) -> None:
        """Count something else."""
        self.events[name] = self.events.get(name, 0) + 1


def denial(store: Store, question: Question, decision: Decision) -> Put:
    """Audit a denial as a count of its hour; a storm of them cannot fill a disk."""
    at_ns = question.now.wall_ns
    hour_ns = at_ns - at_ns % HOUR_NS
    rule = decision.binding.rule if decision.binding else ""
    subject = f"{decision.reason.name} {rule} {question.task_class.name}"
    key = keys.sequence_key(hour_ns) + keys.digest(subject)
    before: AuditRecord | None = store.get(Family.AUDIT, key)
    audited = AuditRecord(
        at_ns=at_ns,
        actor="",
        action="denied",
        subject=rule,
        detail=f"{decision.reason.name} for {question.task_class.name}",
        count=before.count + 1 if before else 1,
        task_class=question.task_class.name,
        reason=decision.reason,
    )
    return Family.AUDIT, key, audited
