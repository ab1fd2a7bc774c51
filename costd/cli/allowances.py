"""`allowances` and `allowance revoke`: what clients may draw by themselves."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.decisions import model_name
from costd.cli.document import emit
from costd.cli.times import moment
from costd.model.money import format_nusd
from costd.wire.pb import control_pb2 as pb

COLUMNS = (
    "allowance", "state", "caller", "class", "model", ">granted", ">drawn", ">reserved", ">calls",
    "ends", "hears by", "labels",
)  # fmt: skip
STATE_STYLES = {"OPEN": "green", "REVOKED": "red", "DRAINING": "yellow"}


def allowances(
    *,
    limit: options.Limit = 100,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show allowances: money set aside for clients that admit calls by themselves."""
    with connection.control(control) as daemon:
        answer = daemon.ListAllowances(pb.ListAllowancesRequest(limit_count=limit))
    if as_json:
        emit(answer)
    else:
        view = allowances_view(answer.allowances, utc=utc, truncated=answer.truncated)
        render.console().print(view)


def revoke(
    allowance_id: Annotated[
        str, typer.Argument(metavar="ALLOWANCE", help="Its id, from `allowances`.")
    ],
    *,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why.")] = "",
    actor: options.Actor,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Revoke an allowance: its client asks call by call, and may be granted another."""
    request = pb.RevokeAllowanceRequest(allowance_id=allowance_id, actor=actor, reason=reason)
    with connection.control(control) as daemon:
        answer = daemon.RevokeAllowance(request)
    if as_json:
        emit(answer)
        return
    screen = render.console()
    screen.print(allowances_view([answer.allowance], utc=utc))
    if answer.allowance.state == pb.ALLOWANCE_STATE_REVOKED and not _hears_by(answer.allowance):
        until = moment(answer.allowance.expires_ns, utc=utc)
        unheard = f"its client hears of nothing now and may draw until {until}"
        screen.print(Text(unheard, style="yellow"))


def allowances_view(
    shown: Iterable[pb.AllowanceStatus], *, utc: bool, truncated: bool = False
) -> RenderableType:
    """Make a table of allowances."""
    rows = [_row(each, utc=utc) for each in shown]
    return render.listing(COLUMNS, rows, nothing="no allowance is out", truncated=truncated)


def _row(shown: pb.AllowanceStatus, *, utc: bool) -> tuple[render.Cell, ...]:
    return (
        shown.allowance_id,
        _state(shown),
        shown.caller,
        shown.task_class,
        model_name(shown.provider, shown.model, shown.tier),
        format_nusd(shown.granted.amount_nusd),
        "unknown" if shown.presumed else format_nusd(shown.drawn.amount_nusd),
        format_nusd(shown.reserved_nusd),
        f"{shown.drawn.calls_count:,} of {shown.granted.calls_count:,}",
        moment(shown.expires_ns, utc=utc),
        _hears_by(shown) or "nothing",
        render.mapping(shown.labels.items()),
    )


def _state(shown: pb.AllowanceStatus) -> Text:
    known = pb.AllowanceState.DESCRIPTOR.values_by_number.get(shown.state)
    word = known.name.removeprefix("ALLOWANCE_STATE_") if known else str(shown.state)
    return render.plain(word, STATE_STYLES.get(word, ""))


def _hears_by(shown: pb.AllowanceStatus) -> str:
    """Say how its client hears that it may draw no more."""
    ways = (("page", shown.maps_pages), ("stream", shown.attached))
    return ", ".join(way for way, is_there in ways if is_there)
