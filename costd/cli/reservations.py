"""`reservations`: who holds money."""

from typing import Annotated

import typer
from rich.console import RenderableType

from costd.cli import connection, options, render
from costd.cli.decisions import model_name, state_word
from costd.cli.document import emit
from costd.cli.times import moment
from costd.model.money import format_nusd
from costd.wire.pb import control_pb2 as pb

COLUMNS = (
    "reservation", "state", "class", "model", ">holds", ">at most", ">cost", "expires", "labels",
    "budgets",
)  # fmt: skip


def reservations(
    reservation: Annotated[str, typer.Argument(help="Only this one.")] = "",
    *,
    closed: Annotated[bool, typer.Option("--closed", help="Closed ones, too.")] = False,
    limit: options.Limit = 100,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show reservations: money held until it is settled, voided or expired."""
    request = pb.ListReservationsRequest(
        reservation_id=reservation,
        include_closed=closed or bool(reservation),
        limit_count=limit,
    )
    with connection.control(control) as daemon:
        answer = daemon.ListReservations(request)
    if as_json:
        emit(answer)
    else:
        render.console().print(_view(answer, utc=utc))


def _view(answer: pb.ListReservationsResponse, *, utc: bool) -> RenderableType:
    rows = [_row(held, utc=utc) for held in answer.reservations]
    nothing = "no reservation is open"
    return render.listing(COLUMNS, rows, nothing=nothing, truncated=answer.truncated)


def _row(held: pb.ReservationStatus, *, utc: bool) -> tuple[render.Cell, ...]:
    return (
        held.reservation_id,
        state_word(held.state),
        held.task_class,
        model_name(held.provider, held.model, held.tier),
        format_nusd(held.hold_nusd),
        format_nusd(held.ceiling_nusd) if held.HasField("ceiling_nusd") else "unknown",
        format_nusd(held.cost_nusd) if held.cost_nusd else "",
        moment(held.expires_ns, utc=utc),
        render.mapping(held.labels.items()),
        ", ".join(held.budgets),
    )
