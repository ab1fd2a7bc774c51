"""`leases`, `lease reclaim` and `budget top-up`: who holds how much of a fleet's budgets."""

from collections.abc import Iterable
from typing import Annotated, Final

import typer
from rich.console import RenderableType
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.document import emit
from costd.cli.exits import ExitCode, Failure
from costd.cli.identifiers import uuid7
from costd.cli.times import moment
from costd.model.money import format_nusd, usd_to_nusd
from costd.policy.amounts import read_count
from costd.wire.pb import control_pb2
from costd.wire.pb import fleet_control_pb2 as pb

COLUMNS: Final = (
    "budget", "key", "daemon", ">may use", ">used", ">unused", "window ends", "note"
)  # fmt: skip
MINUTES_LENGTH: Final = len("2026-03-01 10:00")
"""Windows end on whole minutes."""


def leases(
    *,
    budget: Annotated[str, typer.Option("--budget", "-b", help="Only of this budget.")] = "",
    daemon: Annotated[
        str, typer.Option("--daemon", "-d", help="Only of this daemon, by name or id.")
    ] = "",
    ended: Annotated[bool, typer.Option("--ended", help="Windows that have ended, too.")] = False,
    limit: options.Limit = 100,
    control: options.Coordinator,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show who holds how much of which budget, the largest unused first."""
    request = pb.ListLeasesRequest(
        budget=budget, daemon=daemon, include_ended=ended, limit_count=limit
    )
    with connection.coordinator(control) as coordinator:
        answer = coordinator.fleet.ListLeases(request)
    if as_json:
        emit(answer)
    else:
        render.console().print(leases_view(answer.leases, utc=utc, truncated=answer.truncated))


def reclaim(
    daemon: Annotated[str, typer.Argument(metavar="DAEMON", help="By name or id.")],
    *,
    reason: options.Reason,
    budget: Annotated[str, typer.Option("--budget", "-b", help="Only of this budget.")] = "",
    actor: options.Actor,
    control: options.Coordinator,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Take back what a daemon that will never come back may still have spent.

    Only for a host that is gone for good: should it come back, what it spent
    of this comes on top. Refused while the daemon may still be spending.
    """
    _check_reason(reason)
    request = pb.ReclaimLeasesRequest(daemon=daemon, budget=budget, actor=actor, reason=reason)
    with connection.coordinator(control) as coordinator:
        answer = coordinator.fleet.ReclaimLeases(request)
    if as_json:
        emit(answer)
        return
    screen = render.console()
    screen.print(leases_view(answer.leases, utc=utc, nothing=f"{daemon} holds nothing to reclaim"))
    if answer.leases:
        told = f"reclaimed {format_nusd(answer.reclaimed_nusd)} in money budgets"
        screen.print(render.plain(told, "green"))


def top_up(
    budget: Annotated[str, typer.Argument(metavar="BUDGET", help="A budget of the fleet.")],
    amount: Annotated[
        str,
        typer.Argument(metavar="AMOUNT", help="In the budget's unit: 5, '$0.50', or 10k calls."),
    ],
    *,
    reason: options.Reason,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Whose counter of a `per` budget. Repeatable."),
    ] = None,
    take_back: Annotated[
        bool, typer.Option("--take-back", help="Lower the limit by so much instead.")
    ] = False,
    top_up_id: Annotated[
        str, typer.Option("--id", help="The same id again changes nothing; made up if not given.")
    ] = "",
    actor: options.Actor,
    control: options.Coordinator,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Add to a budget's limit for the window in force."""
    _check_reason(reason)
    keys = options.pairs(key, "--key")
    with connection.coordinator(control) as coordinator:
        unit = _unit(coordinator, budget)
        added = _read_amount(amount, unit)
        answer = coordinator.fleet.TopUpBudget(
            pb.TopUpBudgetRequest(
                budget=budget,
                key=", ".join(f"{name}={value}" for name, value in keys.items()),
                amount=-added if take_back else added,
                top_up_id=top_up_id or uuid7(),
                actor=actor,
                reason=reason,
            )
        )
    if as_json:
        emit(answer)
        return
    limit, by_hand = (render.amount(each, unit) for each in (answer.limit, answer.topped_up))
    until = moment(answer.window_end_ns, utc=utc)[:MINUTES_LENGTH]
    render.console().print(
        render.plain(
            f"{budget} may spend {limit} now, {by_hand} of it added by hand"
            + (f", until {until}" if until else "")
        )
    )


def leases_view(
    shown: Iterable[pb.LeaseStatus],
    *,
    utc: bool,
    truncated: bool = False,
    nothing: str = "nobody holds a lease",
) -> RenderableType:
    """Make a table of leases."""
    return render.listing(
        COLUMNS, [_row(each, utc=utc) for each in shown], nothing=nothing, truncated=truncated
    )


def _row(lease: pb.LeaseStatus, *, utc: bool) -> tuple[render.Cell, ...]:
    def amount(value: int) -> str:
        return render.amount(value, lease.unit)

    notes = []
    if lease.presumed:
        notes.append("unused is presumed spent")
    if lease.reserve_amount:
        notes.append(f"{amount(lease.reserve_amount)} from the reserve")
    if lease.lost:
        notes.append(f"{amount(lease.lost)} lost")
    return (
        lease.budget,
        lease.key,
        render.plain(lease.daemon or lease.daemon_id),
        amount(lease.amount),
        amount(lease.settled + lease.reserved),
        Text(amount(lease.unused), style="bold red" if lease.presumed else ""),
        moment(lease.window_end_ns, utc=utc)[:MINUTES_LENGTH],
        Text(", ".join(notes), style="yellow"),
    )


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise typer.BadParameter("say why; it goes into the audit", param_hint="--reason")


def _unit(coordinator: connection.Coordinator, budget: str) -> str:
    """Ask in which unit a budget counts.

    Errors: Failure for one that is not the fleet's.
    """
    request = control_pb2.ListBudgetsRequest(budget=budget, limit_count=1)
    rows = coordinator.control.ListBudgets(request).budgets
    if not rows:
        raise Failure(
            f"budget {budget!r} is not shared (`share: host`, or without a limit): the coordinator "
            "lends nothing of it; raise its limit in the policy",
            ExitCode.CONFLICT,
        )
    return str(rows[0].unit)


def _read_amount(text: str, unit: str) -> int:
    try:
        amount = usd_to_nusd(text) if unit == "nusd" else read_count(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="AMOUNT") from error
    if amount <= 0:
        raise typer.BadParameter(
            f"{text!r} adds nothing; write more than 0, with --take-back to lower",
            param_hint="AMOUNT",
        )
    return amount
