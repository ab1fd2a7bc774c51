"""`budgets`: what is left where."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.document import emit
from costd.cli.times import moment
from costd.wire.pb import control_pb2 as pb

COLUMNS = ("budget", "key", "", ">used", ">reserved", ">limit", ">", "window ends", "note")
CAUSES = ("overrun", "granted", "lowered", "late", "unadmitted", "shadow")
BUDGET_COUNT = 1_000
MINUTES_LENGTH = len("2026-03-01 10:00")
"""Windows end on whole minutes."""


def budgets(
    budget: Annotated[str, typer.Argument(help="Only this budget.")] = "",
    *,
    ended: Annotated[bool, typer.Option("--ended", help="Windows that have ended, too.")] = False,
    limit: options.Limit = BUDGET_COUNT,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show every budget's counters: settled, reserved, limit, and what explains any excess."""
    request = pb.ListBudgetsRequest(budget=budget, include_ended=ended, limit_count=limit)
    with connection.control(control) as daemon:
        answer = daemon.ListBudgets(request)
    if as_json:
        emit(answer)
    else:
        view = budgets_view(answer.budgets, utc=utc, truncated=answer.truncated)
        render.console().print(view)


def budgets_view(
    budgets: Iterable[pb.BudgetStatus],
    *,
    utc: bool,
    truncated: bool = False,
    with_notes: bool = True,
) -> RenderableType:
    """Make a table of budgets with bars: solid is settled, shaded is reserved.

    Shape:   notes stand everywhere, or only where there is room for them.
    """
    rows = [_row(budget, utc=utc) for budget in budgets]
    return render.listing(
        COLUMNS,
        rows,
        nothing="no budget has counted anything yet",
        truncated=truncated,
        spare=() if with_notes else ("note",),
    )


def by_utilisation(budget: pb.BudgetStatus) -> tuple[int, str, str]:
    """Sort the fullest first."""
    return (-budget.utilisation_bp, budget.budget, budget.key)


def _row(budget: pb.BudgetStatus, *, utc: bool) -> tuple[render.Cell, ...]:
    used = render.amount(budget.settled + budget.reserved, budget.unit)
    limited = budget.HasField("limit")
    share = render.percent(budget.utilisation_bp)
    return (
        budget.budget,
        budget.key,
        render.bar(budget.settled, budget.reserved, budget.limit, render.bar_width())
        if limited
        else "",
        used,
        render.amount(budget.reserved, budget.unit) if budget.reserved else "",
        render.amount(budget.limit, budget.unit) if limited else "tracks only",
        Text(share, style=render.fill_style(budget.utilisation_bp)) if limited else "",
        moment(budget.window_end_ns, utc=utc)[:MINUTES_LENGTH] or budget.window,
        _note(budget),
    )


def _note(budget: pb.BudgetStatus) -> str:
    """Say what a row's figures do not: excess by cause, reserve, suspended, gone from policy."""
    notes = [
        f"{cause} {render.amount(getattr(budget, cause), budget.unit)}"
        for cause in CAUSES
        if getattr(budget, cause)
    ]
    if budget.reserve:
        drawn = render.amount(budget.reserve_used, budget.unit)
        notes.append(f"reserve {drawn} of {render.amount(budget.reserve, budget.unit)}")
    if not budget.active:
        notes.append("suspended")
    if not budget.in_policy:
        notes.append("not in the policy")
    return ", ".join(notes)
