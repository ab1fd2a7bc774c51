"""`drill`: how long a kill switch would take to reach everyone."""

from typing import Annotated

import typer
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.document import emit
from costd.cli.exits import ExitCode
from costd.cli.times import milliseconds
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as pb

COLUMNS = ("process", "caller", ">confirmed after", "stream", ">allowances")
TIMEOUT_NS = 2 * NS_PER_S


def drill(
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="As of `kill`: whose allowances are counted."),
    ] = None,
    timeout: Annotated[
        int | None, options.duration(about="Wait no longer for anybody; 2s if not given")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; goes into the audit.")] = "",
    actor: options.Actor,
    control: options.Control,
    as_json: options.Json = False,
) -> None:
    """Measure how long a kill switch takes to reach every client; nobody is stopped.

    Ends with exit code 7 if a client did not confirm in time.
    """
    request = pb.DrillRequest(scope=options.pairs(scope, "--scope"), reason=reason, actor=actor)
    timeout_ns = TIMEOUT_NS if timeout is None else timeout
    request.timeout.FromNanoseconds(timeout_ns)
    with connection.control(control, work_ns=timeout_ns) as daemon:
        report = daemon.Drill(request)
    silent_count = sum(map(_is_silent, report.processes))
    if as_json:
        emit(report)
    else:
        _show(report, silent_count)
    if silent_count:
        raise typer.Exit(ExitCode.UNREACHED)


def _show(report: pb.DrillReport, silent_count: int) -> None:
    screen = render.console()
    rows = [_row(process) for process in report.processes]
    nothing = "no client process is attached or holds an allowance"
    screen.print(render.listing(COLUMNS, rows, nothing=nothing))
    told = f"{report.drill_id}: written after {milliseconds(report.written_ns)}"
    if report.confirmed_count:
        told += (
            f"; {report.confirmed_count} confirmed, half of them within "
            f"{milliseconds(report.p50_ns)}, the last after {milliseconds(report.max_ns)}"
        )
    screen.print(render.plain(told))
    if silent_count:
        screen.print(render.plain(f"{silent_count} did not confirm in time", "bold red"))
    elif report.confirmed_count:
        screen.print(render.plain("everyone confirmed", "green"))
    screen.print(render.plain(report.note, "dim"))


def _row(process: pb.DrilledProcess) -> tuple[render.Cell, ...]:
    if process.HasField("confirmed_ns"):
        confirmed = Text(milliseconds(process.confirmed_ns), style="green")
    elif process.left:
        confirmed = Text("left", style="dim")
    else:
        confirmed = Text("NOT CONFIRMED", style="bold white on red")
    return (
        process.session_id,
        process.caller,
        confirmed,
        "yes" if process.attached else "no",
        f"{process.allowances_count:,}",
    )


def _is_silent(process: pb.DrilledProcess) -> bool:
    return not process.left and not process.HasField("confirmed_ns")
