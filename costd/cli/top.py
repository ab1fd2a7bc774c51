"""`top`: a daemon or a fleet, live."""

import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import grpc
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.budgets import budgets_view, by_utilisation
from costd.cli.exits import ExitCode, Failure
from costd.cli.fleet import daemons_table, worst_case
from costd.cli.kill import kills_view
from costd.cli.status import VERDICT_STYLES, allowances_text, kills_text, split_decisions
from costd.cli.times import moment, span
from costd.model.money import format_nusd
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as pb
from costd.wire.pb import fleet_control_pb2 as fpb

BUDGETS_SHOWN = 12
ALERTS_SHOWN = 5
KILLS_SHOWN = 5
SIZES = ((BUDGETS_SHOWN, ALERTS_SHOWN), (8, 5), (6, 4), (5, 3), (4, 2), (3, 1), (2, 1), (1, 1))
"""How many budgets and alerts a frame shows: the first pair that fits the screen."""
QUIT_KEYS = frozenset({"q", "Q", "\x03", "\x04", ""})
"""Also Ctrl-C, Ctrl-D and the end of input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one frame shows."""

    status: pb.Status
    budgets: tuple[pb.BudgetStatus, ...]
    kills: tuple[pb.KillSwitch, ...]
    alerts: tuple[pb.Alert, ...]
    fleet: fpb.ListDaemonsResponse | None = None
    """The daemons, at a coordinator."""


def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between frames.")
    ] = 1.0,
    control: options.Control,
    utc: options.Utc = False,
) -> None:
    """Watch a daemon or a fleet: decisions or daemons, budgets, kill switches, alerts. q quits."""
    if once:
        render.console().print(frame(None, read(control), utc=utc))
        return
    try:
        _watch(control, interval, utc=utc)
    except KeyboardInterrupt as error:
        raise typer.Exit(ExitCode.OK) from error


def _watch(control: str, interval_s: float, *, utc: bool) -> None:
    """Redraw until somebody quits; a daemon that goes away may come back."""
    before, console = read(control), render.console()
    live = Live(
        fitted(console, None, before, utc=utc),
        console=console,
        screen=console.is_terminal,
        auto_refresh=False,
        # rich's stand-ins for the streams have no encoding, and bars would fall back to ASCII.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with _single_keys() as has_keys, live:
        while not _quit_pressed(interval_s, has_keys=has_keys):
            try:
                now = read(control)
            except Failure as failure:
                live.update(render.plain(str(failure), "red"), refresh=True)
                continue
            live.update(fitted(console, before, now, utc=utc), refresh=True)
            before = now


def read(control: str) -> Snapshot:
    """Ask the daemon for everything a frame shows.

    Errors: Failure if it does not answer.
    """
    with connection.either(control) as asked:
        daemon = asked.control
        return Snapshot(
            status=daemon.GetStatus(pb.GetStatusRequest()),
            budgets=tuple(daemon.ListBudgets(pb.ListBudgetsRequest()).budgets),
            kills=tuple(daemon.ListKills(pb.ListKillsRequest()).kills),
            alerts=tuple(daemon.ListAlerts(pb.ListAlertsRequest(limit_count=ALERTS_SHOWN)).alerts),
            fleet=_daemons(asked),
        )


def _daemons(asked: connection.Coordinator) -> fpb.ListDaemonsResponse | None:
    """List a fleet's daemons; None where a daemon was asked."""
    try:
        listed: fpb.ListDaemonsResponse = asked.fleet.ListDaemons(fpb.ListDaemonsRequest())
    except grpc.RpcError as error:
        if connection.is_lacking(error):
            return None
        raise
    return listed


def fitted(
    console: Console, before: Snapshot | None, now: Snapshot, *, utc: bool
) -> RenderableType:
    """Lay out a frame that is no longer than the screen, if one can be had."""
    for budgets_count, alerts_count in SIZES:
        made = frame(before, now, utc=utc, budgets_count=budgets_count, alerts_count=alerts_count)
        if len(console.render_lines(made, pad=False)) <= console.height:
            break
    return made


def frame(
    before: Snapshot | None,
    now: Snapshot,
    *,
    utc: bool,
    budgets_count: int = BUDGETS_SHOWN,
    alerts_count: int = ALERTS_SHOWN,
) -> RenderableType:
    """Lay out one frame; rates need an earlier one of the same run of the daemon."""
    fullest = sorted(now.budgets, key=by_utilisation)
    parts: list[RenderableType] = [
        _head(now.status, utc=utc) if now.fleet is None else _fleet_head(now.status, utc=utc)
    ]
    if now.status.policy_error:
        parts.append(render.lines(f"policy refused: {now.status.policy_error}", "bold red"))
    parts += [
        Text(),
        _decisions(before, now) if now.fleet is None else _fleet(now, now.fleet, budgets_count),
    ]
    shown_budgets = budgets_view(fullest[:budgets_count], utc=utc, with_notes=False)
    parts += [Text(), Text("budgets", style="bold"), shown_budgets]
    if len(fullest) > budgets_count:
        parts.append(Text(f"and {len(fullest) - budgets_count:,} less full", style="dim"))
    if now.kills:
        shown = now.kills[:KILLS_SHOWN]
        parts += [Text(), Text("kill switches", style="bold"), kills_view(shown, utc=utc)]
    parts += [Text(), Text("alerts", style="bold")]
    parts += [_alert(alert, utc=utc) for alert in now.alerts[:alerts_count]]
    if not now.alerts:
        parts.append(Text("no alerts", style="dim"))
    return Group(*parts)


def _alert(alert: pb.Alert, *, utc: bool) -> Text:
    """Write an alert on one line; its message names the rule."""
    line = render.plain(f"{moment(alert.raised_ns, utc=utc)}  {alert.message}")
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _head(status: pb.Status, *, utc: bool) -> Text:
    running = span(status.now_ns - status.started_ns)
    return Text.assemble(
        ("costd ", "bold"),
        render.plain(status.version),
        f"  {moment(status.now_ns, utc=utc)}  up {running}  ",
        f"reserved {format_nusd(status.reserved_nusd)} ",
        f"in {status.open_reservations_count:,} open  ",
        f"exposure {format_nusd(status.exposure_nusd)}  allowances {allowances_text(status)}  ",
        "kill switches ",
        kills_text(status.kills_engaged_count),
        "  policy ",
        render.plain(status.policy_revision),
    )


def _fleet_head(status: pb.Status, *, utc: bool) -> Text:
    return Text.assemble(
        ("costd coordinator ", "bold"),
        render.plain(status.version),
        f"  {moment(status.now_ns, utc=utc)}  up {span(status.now_ns - status.started_ns)}  ",
        "kill switches ",
        kills_text(status.kills_engaged_count),
        "  ",
        render.plain(f"{status.policy_path}, revision {status.policy_revision}"),
    )


def _fleet(now: Snapshot, listed: fpb.ListDaemonsResponse, daemons_count: int) -> RenderableType:
    """Show the daemons that need looking after, as many as budgets, and the worst case."""
    count = len(listed.daemons)
    attached = sum(daemon.attached for daemon in listed.daemons)
    more = f", {daemons_count} shown" if count > daemons_count else ""
    return Group(
        daemons_table(listed, now_ns=now.status.now_ns, count_max=daemons_count),
        Text(f"{attached:,} of {count:,} daemons attached{more}", style="dim"),
        worst_case(listed),
    )


def _decisions(before: Snapshot | None, now: Snapshot) -> RenderableType:
    """Make a table of decisions by class: in all, and per second since the last frame."""
    elapsed_ns = 0
    if before is not None and before.status.started_ns == now.status.started_ns:
        elapsed_ns = now.status.now_ns - before.status.now_ns
    earlier = split_decisions(before.status.decisions) if before and elapsed_ns > 0 else {}
    rows: list[tuple[render.Cell, ...]] = []
    for task_class, by_verdict in split_decisions(now.status.decisions).items():
        row: list[render.Cell] = [task_class or "(none)"]
        for verdict, style in VERDICT_STYLES.items():
            count = by_verdict.get(verdict, 0)
            row.append(Text(f"{count:,}", style=style if count else "dim"))
            more = count - earlier.get(task_class, {}).get(verdict, 0)
            row.append(Text(_per_second(more, elapsed_ns), style=style if more else "dim"))
        rows.append(tuple(row))
    columns = ["task class"]
    for verdict in VERDICT_STYLES:
        columns += [f">{verdict}", ">/s"]
    return render.listing(columns, rows, nothing="no decisions yet")


def _per_second(count: int, elapsed_ns: int) -> str:
    """Write a rate with one decimal, empty where nothing was measured."""
    if elapsed_ns <= 0:
        return ""
    tenths = count * 10 * NS_PER_S // elapsed_ns
    return f"{tenths // 10:,}.{tenths % 10}"


@contextmanager
def _single_keys() -> Iterator[bool]:
    """Let the terminal hand over keys as they are pressed; false where input is no terminal."""
    if not sys.stdin.isatty():
        yield False
        return
    import termios  # noqa: PLC0415  only where there is a terminal
    import tty  # noqa: PLC0415  likewise

    saved = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)


def _quit_pressed(wait_s: float, *, has_keys: bool) -> bool:
    """Wait for the next frame, or for somebody to quit."""
    watched = [sys.stdin] if has_keys else []
    ready, _, _ = select.select(watched, [], [], wait_s)
    return bool(ready) and sys.stdin.read(1) in QUIT_KEYS
