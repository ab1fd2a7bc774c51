"""`drill` and `kill drill`: how long a kill switch would take to reach everyone."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import grpc
import typer
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.document import emit
from costd.cli.exits import ExitCode, Failure
from costd.cli.histogram import histogram, percentile
from costd.cli.times import milliseconds
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as pb
from costd.wire.pb import fleet_control_pb2 as fpb

COLUMNS: Final = ("process", "caller", ">confirmed after", "stream", ">allowances")
FLEET_COLUMNS: Final = ("daemon", ">heard after", ">clients", ">unconfirmed", ">the last after")
TIMEOUT_NS: Final = 2 * NS_PER_S
DAEMONS_SHOWN: Final = 20
"""Those that did not confirm come first, then the slowest."""
HISTOGRAM_FROM: Final = 4
"""Fewer values are read more easily as they are."""
UNKNOWN: Final = (
    "whether there are more daemons is not known: the database did not say who was heard lately"
)
ELSEWHERE: Final = (
    "more were heard lately, and no coordinator that answered has them; `costctl fleet` lists them,"
    " and where coordinators poll, drill at each"
)
NOT_CONFIRMED: Final = Text("NOT CONFIRMED", style="bold white on red")


def drill(
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="As of `kill`: whose allowances a daemon counts."),
    ] = None,
    timeout: Annotated[
        int | None, options.duration(about="Wait no longer for anybody; 2s if not given")
    ] = None,
    reason: options.Reason = "",
    actor: options.Actor,
    control: options.Control,
    as_json: options.Json = False,
) -> None:
    """Measure how long a kill switch takes to reach everyone; nobody is stopped.

    At a daemon that is every client, at a coordinator every daemon and every
    client. Ends with exit code 7 if somebody did not confirm in time, or if
    nobody was found and it is not certain that nobody is there.
    """
    timeout_ns = TIMEOUT_NS if timeout is None else timeout
    request = pb.DrillRequest(scope=options.pairs(scope, "--scope"), reason=reason, actor=actor)
    request.timeout.FromNanoseconds(timeout_ns)
    fleet_request = fpb.DrillFleetRequest(reason=reason, actor=actor)
    fleet_request.timeout.FromNanoseconds(timeout_ns)
    report: pb.DrillReport | fpb.FleetDrillReport
    with connection.either(control, work_ns=timeout_ns) as asked:
        try:
            report = asked.control.Drill(request)
        except grpc.RpcError as error:
            if not connection.is_lacking(error):
                raise
            if scope:
                raise Failure(
                    "--scope: a coordinator drills the whole fleet; leave it out, or ask a daemon",
                    ExitCode.USAGE,
                ) from error
            report = asked.fleet.DrillFleet(fleet_request)
    silent_count = (
        _silent_in_fleet(report)
        if isinstance(report, fpb.FleetDrillReport)
        else sum(map(_is_silent, report.processes))
    )
    found_nobody = isinstance(report, fpb.FleetDrillReport) and _found_nobody(report)
    if as_json:
        emit(report)
    elif isinstance(report, fpb.FleetDrillReport):
        _show_fleet(report, silent_count)
    else:
        _show(report, silent_count)
    if silent_count or found_nobody:
        raise typer.Exit(ExitCode.UNREACHED)


def _show(report: pb.DrillReport, silent_count: int) -> None:
    screen = render.console()
    rows = [_row(process) for process in report.processes]
    nothing = "no client process is attached or holds an allowance"
    screen.print(render.listing(COLUMNS, rows, nothing=nothing))
    told = f"{report.drill_id}: written after {milliseconds(report.written_ns)}"
    screen.print(render.plain(f"{told}; {report.confirmed_count:,} confirmed"))
    _distribution(
        "client processes",
        [each.confirmed_ns for each in report.processes if each.HasField("confirmed_ns")],
    )
    _verdict(silent_count, report.confirmed_count)
    screen.print(render.plain(report.note, "dim"))


def _show_fleet(report: fpb.FleetDrillReport, silent_count: int) -> None:
    screen = render.console()
    rows = [_fleet_row(daemon) for daemon in report.daemons]
    screen.print(
        render.listing(FLEET_COLUMNS, rows[:DAEMONS_SHOWN], nothing="no daemon has a stream")
    )
    if len(rows) > DAEMONS_SHOWN:
        screen.print(Text(f"and {len(rows) - DAEMONS_SHOWN:,} faster", style="dim"))
    screen.print(
        render.plain(
            f"{report.drill_id}: {report.confirmed_count:,} of {report.daemons_count:,} daemons "
            f"heard, and {report.clients_count:,} clients confirmed"
        )
    )
    _distribution("daemons", [each.heard_ns for each in report.daemons if _heard(each)])
    _distribution(
        "the last client of each daemon",
        [each.clients_max_ns for each in report.daemons if each.HasField("clients_max_ns")],
    )
    if not report.HasField("elsewhere_count"):
        screen.print(render.plain(UNKNOWN, "yellow"))
    elif report.elsewhere_count:
        screen.print(render.plain(f"{report.elsewhere_count:,} {ELSEWHERE}", "yellow"))
    if _found_nobody(report):
        screen.print(render.plain("nobody confirmed", "bold red"))
        return
    _verdict(silent_count, report.confirmed_count, "" if _is_whole(report) else " who was asked")


def _distribution(of: str, values_ns: Iterable[int]) -> None:
    """Print percentiles, and bars where there are enough values for a shape."""
    in_order = sorted(values_ns)
    if not in_order:
        return
    screen = render.console()
    figures = (
        f"p50 {milliseconds(percentile(in_order, 50))}  "
        f"p99 {milliseconds(percentile(in_order, 99))}  max {milliseconds(in_order[-1])}"
    )
    screen.print(Text.assemble((f"{of}: ", "dim"), (figures, "bold")))
    if len(in_order) >= HISTOGRAM_FROM:
        screen.print(histogram(in_order))


def _verdict(silent_count: int, confirmed_count: int, which: str = "") -> None:
    if silent_count:
        text = render.plain(f"{silent_count:,} did not confirm in time", "bold red")
    elif confirmed_count:
        text = render.plain(f"everyone{which} confirmed", "green")
    else:
        return
    render.console().print(text)


def _row(process: pb.DrilledProcess) -> tuple[render.Cell, ...]:
    if process.HasField("confirmed_ns"):
        confirmed = Text(milliseconds(process.confirmed_ns), style="green")
    elif process.left:
        confirmed = Text("left", style="dim")
    else:
        confirmed = NOT_CONFIRMED
    return (
        process.session_id,
        process.caller,
        confirmed,
        "yes" if process.attached else "no",
        f"{process.allowances_count:,}",
    )


def _fleet_row(daemon: fpb.DrilledDaemon) -> tuple[render.Cell, ...]:
    heard = Text(milliseconds(daemon.heard_ns), style="green") if _heard(daemon) else NOT_CONFIRMED
    unconfirmed = daemon.unconfirmed_clients_count
    slowest = milliseconds(daemon.clients_max_ns) if daemon.HasField("clients_max_ns") else ""
    return (
        daemon.name or daemon.daemon_id,
        heard,
        f"{daemon.clients_count:,}",
        Text(f"{unconfirmed:,}" if unconfirmed else "", style="bold red"),
        slowest,
    )


def _heard(daemon: fpb.DrilledDaemon) -> bool:
    return daemon.HasField("heard_ns")


def _silent_in_fleet(report: fpb.FleetDrillReport) -> int:
    """Count daemons that did not hear, and clients that did not confirm."""
    deaf: Sequence[fpb.DrilledDaemon] = [each for each in report.daemons if not _heard(each)]
    return len(deaf) + report.unconfirmed_clients_count


def _is_whole(report: fpb.FleetDrillReport) -> bool:
    """Tell whether it is known that nobody else was heard lately."""
    return report.HasField("elsewhere_count") and not report.elsewhere_count


def _found_nobody(report: fpb.FleetDrillReport) -> bool:
    """Tell whether nobody was asked, though there may be somebody."""
    return not report.daemons_count and not _is_whole(report)


def _is_silent(process: pb.DrilledProcess) -> bool:
    return not process.left and not process.HasField("confirmed_ns")
