"""Sums that hold quality gates against everything else: usage by class, denials by reason."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from costd.cli.decisions import reason_word
from costd.cli.render import BP_PER_ONE, percent
from costd.wire.pb import control_pb2 as pb

GROUPED_BY = ("task_class", "tier", "verdict", "reason", "outcome")
_OUTCOMES = {"UNSPECIFIED": "not said"}


@dataclass(slots=True)
class Row:
    """What calls of one task class, or of several, took and what became of them.

    Shape:   counts by tier and outcome are of calls; a key whose count is zero is left out when
             read. Calls without a verdict were recorded, nobody admitted them.
    """

    task_class: str
    critical: bool
    calls_count: int = 0
    cost_nusd: int = 0
    retries_count: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    degraded_by: Counter[str] = field(default_factory=Counter)
    """Reasons."""
    denied_by: Counter[str] = field(default_factory=Counter)
    """Reasons."""

    @property
    def per_call_nusd(self) -> int | None:
        """What a call cost on average, rounded down; None without calls."""
        return self.cost_nusd // self.calls_count if self.calls_count > 0 else None

    @property
    def admitted_count(self) -> int:
        """Calls that costd let go, as asked or degraded."""
        return self.verdicts["allow"] + self.verdicts["degrade"]

    def add_usage(self, group: pb.UsageGroup) -> None:
        """Count one sum of usage in."""
        by, calls = group.by, group.calls_count
        self.calls_count += calls
        self.cost_nusd += group.cost_nusd
        self.retries_count += group.retry_count
        self.tiers[by["tier"]] += calls
        self.outcomes[_OUTCOMES.get(by["outcome"], by["outcome"])] += calls
        if by["verdict"] in {"allow", "degrade"}:
            self.verdicts[by["verdict"]] += calls
        if by["verdict"] == "degrade":
            self.degraded_by[by["reason"]] += calls

    def add_denials(self, record: pb.AuditRecord) -> None:
        """Count an hour's denials of one reason in."""
        self.verdicts["deny"] += record.count
        self.denied_by[reason_word(record.reason)] += record.count

    def document(self, spent_nusd: int) -> dict[str, Any]:
        """Write it for programs."""
        return {
            "task_class": self.task_class,
            "critical": self.critical,
            "calls_count": self.calls_count,
            "cost_nusd": self.cost_nusd,
            "share_bp": share_bp(self.cost_nusd, spent_nusd),
            "cost_per_call_nusd": self.per_call_nusd,
            "allowed_count": self.verdicts["allow"],
            "degraded_count": self.verdicts["degrade"],
            "denied_count": self.verdicts["deny"],
            "degraded_by": counted(self.degraded_by),
            "denied_by": counted(self.denied_by),
            "tiers": counted(self.tiers),
            "outcomes": counted(self.outcomes),
            "retries_count": self.retries_count,
        }


@dataclass(frozen=True, slots=True)
class Balance:
    """A row per task class, gates first and then the dearest, and their sums."""

    classes: tuple[Row, ...]
    gates: Row
    others: Row
    total: Row

    def verdict(self) -> str:
        """Say in one sentence how the gates fared."""
        gates = self.gates
        if not any(row.critical for row in self.classes):
            return "No call of a quality gate was closed or denied, so there is nothing to weigh."
        share = share_bp(gates.cost_nusd, self.total.cost_nusd)
        said = "Nothing was spent"
        if share is not None:
            said = f"Quality gates took {percent(share)} of the spend"
        return f"{said}; {_degraded(gates)}; {_denied(gates)}."


def weigh(
    groups: Iterable[pb.UsageGroup],
    records: Iterable[pb.AuditRecord],
    critical_classes: Collection[str],
) -> Balance:
    """Sum usage and denials up by class, and gates against the rest.

    Shape:   `groups` are grouped by `GROUPED_BY`; records of other things than denials are skipped.
    """
    gates, others = Row("quality gates", critical=True), Row("everything else", critical=False)
    total = Row("all", critical=False)
    rows: dict[str, Row] = {}

    def rows_of(task_class: str) -> tuple[Row, Row, Row]:
        critical = task_class in critical_classes
        row = rows.setdefault(task_class, Row(task_class, critical))
        return row, gates if critical else others, total

    for group in groups:
        for row in rows_of(group.by["task_class"]):
            row.add_usage(group)
    for record in records:
        if record.action == "denied":
            for row in rows_of(record.task_class):
                row.add_denials(record)
    ranked = sorted(rows.values(), key=lambda row: (not row.critical, -row.cost_nusd))
    return Balance(tuple(ranked), gates, others, total)


def share_bp(part: int, whole: int) -> int | None:
    """State a share in basis points; None of nothing, or where corrections outweigh a range."""
    return part * BP_PER_ONE // whole if whole > 0 else None


def counted(counts: Counter[str]) -> dict[str, int]:
    """List what was counted, the most first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {name: count for name, count in ranked if count}


def counts_text(counts: Counter[str]) -> str:
    """Write what was counted: `OK 480, ERROR 2`."""
    return ", ".join(f"{name} {count:,}" for name, count in counted(counts).items())


def _degraded(gates: Row) -> str:
    degraded, admitted = gates.verdicts["degrade"], gates.admitted_count
    if not degraded:
        return f"none of {admitted:,} was degraded" if admitted else "none was admitted"
    were = "was" if degraded == 1 else "were"
    return f"{degraded:,} of {admitted:,} {were} degraded: {counts_text(gates.degraded_by)}"


def _denied(gates: Row) -> str:
    denied = gates.verdicts["deny"]
    if not denied:
        return "none was denied"
    were = "was" if denied == 1 else "were"
    return f"{denied:,} {were} denied: {counts_text(gates.denied_by)}"
