"""Hold what one client process counted against what the daemon's ledger says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from costd.wire.pb import control_pb2 as pb


class BooksDiffer(Exception):
    """The daemon's books are not what the client counted; the figures mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Calls admitted, by who decided, and what they hold together."""

    drawn_count: int = 0
    asked_count: int = 0
    amount_nusd: int = 0
    tokens_count: int = 0

    def plus(self, other: "Tally") -> Self:
        """Add another's."""
        return replace(
            self,
            drawn_count=self.drawn_count + other.drawn_count,
            asked_count=self.asked_count + other.asked_count,
            amount_nusd=self.amount_nusd + other.amount_nusd,
            tokens_count=self.tokens_count + other.tokens_count,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Calls that ended, and what they cost together."""

    calls_count: int = 0
    cost_nusd: int = 0


def held_in_books(control: Any, *, money: str, tokens: str) -> Tally:
    """Read what is held, after every client has returned its allowances.

    Shape:   `money` and `tokens` are budgets of one counter that match every call.
    Errors:  BooksDiffer if there are more allowances than can be listed, or one is still open.
    """
    listed = control.ListAllowances(pb.ListAllowancesRequest())
    if listed.truncated:
        raise BooksDiffer(f"more than {len(listed.allowances)} allowances are out; run for shorter")
    undrained = [one for one in listed.allowances if one.state == pb.ALLOWANCE_STATE_OPEN]
    if undrained:
        raise BooksDiffer(f"{len(undrained)} allowances are open, though all were returned")
    status = control.GetStatus(pb.GetStatusRequest())
    return Tally(
        drawn_count=sum(one.drawn.calls_count for one in listed.allowances),
        asked_count=status.open_reservations_count - len(listed.allowances),
        amount_nusd=_reserved(control, money),
        tokens_count=_reserved(control, tokens),
    )


def spent_in_books(control: Any, *, where: Mapping[str, str]) -> Spent:
    """Read which usage events are stored, by count and cost."""
    request = pb.ListUsageRequest(group_by=["task_class"], where=where)
    groups = control.ListUsage(request).groups
    return Spent(
        calls_count=sum(group.calls_count for group in groups),
        cost_nusd=sum(group.cost_nusd for group in groups),
    )


def compare(what: str, counted: Tally | Spent, booked: Tally | Spent) -> None:
    """See that both are equal, to the call and to the nano-dollar.

    Errors:  BooksDiffer.
    """
    if counted != booked:
        raise BooksDiffer(f"{what}: the client counted {counted}, the daemon's books say {booked}")


def _reserved(control: Any, budget: str) -> int:
    rows = control.ListBudgets(pb.ListBudgetsRequest(budget=budget)).budgets
    return sum(row.reserved for row in rows)
