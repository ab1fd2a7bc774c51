"""`fleet`: every daemon of a fleet, and how far it may overspend at worst."""

from collections.abc import Iterable, Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.document import emit
from costd.cli.times import span
from costd.model.money import format_nusd
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2
from costd.wire.pb import fleet_control_pb2 as pb

COLUMNS: Final = (
    "daemon", "version", ">heard", ">policy", "kills", ">clock", ">outbox", ">clients", ">leased",
    ">presumed",
)  # fmt: skip
OUTBOX_LONG: Final = 1_000
"""More usage events than this wait longer than a report or two."""
CLOCK_OFF_NS: Final = NS_PER_S
"""A fifth of the skew at which a coordinator grants nothing more, unless it is told otherwise."""
REPLICA_LATE_NS: Final = 30 * NS_PER_S
"""Replicas say every fifteen seconds that they live."""
NUSD_PER_CENT: Final = 10_000_000
TROUBLE: Final = "bold red"


def fleet(
    *,
    limit: options.Limit = 1_000,
    control: options.Coordinator,
    as_json: options.Json = False,
    utc: options.Utc = False,  # noqa: ARG001  all times here are distances
) -> None:
    """Show every daemon of the fleet: who was heard when, what each may spend; trouble first."""
    with connection.coordinator(control) as coordinator:
        answer = coordinator.fleet.ListDaemons(pb.ListDaemonsRequest(limit_count=limit))
        if as_json:
            emit(answer)
            return
        status = coordinator.control.GetStatus(control_pb2.GetStatusRequest())
    render.console().print(fleet_view(answer, now_ns=status.now_ns))


def fleet_view(answer: pb.ListDaemonsResponse, *, now_ns: int) -> RenderableType:
    """Lay out the daemons, what is wrong with them, and the worst case on the last line.

    Units:   `now_ns` is the coordinator's wall clock.
    """
    return Group(
        daemons_table(answer, now_ns=now_ns),
        *_problems(answer.daemons),
        *_coordinators(answer.coordinators, now_ns),
        *_summary(answer),
    )


def daemons_table(
    answer: pb.ListDaemonsResponse, *, now_ns: int, count_max: int = 1_000_000
) -> RenderableType:
    """Make a table of daemons; figures that are zero are left out."""
    versions = {daemon.version for daemon in answer.daemons}
    return render.listing(
        COLUMNS,
        [_row(daemon, answer, now_ns) for daemon in answer.daemons[:count_max]],
        nothing="no daemon is known",
        truncated=answer.truncated,
        # Where all run one version, the summary says it.
        spare=("version",) if len(versions) == 1 else (),
    )


def worst_case(answer: pb.ListDaemonsResponse) -> Text:
    """Say how far the fleet may pass its budgets at worst."""
    bound_nusd = answer.overspend_bound_nusd
    style = "bold yellow" if bound_nusd else "bold green"
    return Text.assemble(
        "at worst the fleet overspends its budgets by ", (format_nusd(bound_nusd), style)
    )


def _row(
    daemon: pb.DaemonStatus, answer: pb.ListDaemonsResponse, now_ns: int
) -> tuple[render.Cell, ...]:
    lag_ns = max(0, now_ns - daemon.seen_ns)
    behind = daemon.policy_problem or daemon.policy_number != answer.policy_number
    offset_ns = daemon.clock_offset_ns
    return (
        render.plain(daemon.name, "" if daemon.attached else TROUBLE),
        daemon.version,
        Text(span(lag_ns), style="green" if daemon.attached else TROUBLE),
        Text(str(daemon.policy_number or "none"), style="yellow" if behind else ""),
        Text("current") if daemon.kills_current else Text("BEHIND", style=TROUBLE),
        Text(_offset(offset_ns), style="yellow" if abs(offset_ns) > CLOCK_OFF_NS else ""),
        Text(
            f"{daemon.outbox_count:,}" if daemon.outbox_count else "",
            style="yellow" if daemon.outbox_count > OUTBOX_LONG else "",
        ),
        f"{daemon.clients_count:,}" if daemon.clients_count else "",
        _cents(daemon.leased_nusd),
        Text(_cents(daemon.presumed_nusd), style=TROUBLE),
    )


def _cents(amount_nusd: int) -> str:
    """Write money to the next cent above, nothing for zero: `leases` has it to the nano-dollar."""
    cents = -(-amount_nusd // NUSD_PER_CENT)
    return f"${cents // 100:,}.{cents % 100:02d}" if cents else ""


def _offset(offset_ns: int) -> str:
    """Write how far a clock is off, to the millisecond: `+3 ms`."""
    whole_ms = abs(offset_ns) // 1_000_000
    if not whole_ms:
        return "0 ms"
    length = f"{whole_ms} ms" if whole_ms < 1_000 else span(abs(offset_ns))  # noqa: PLR2004  a second
    return f"{'+' if offset_ns > 0 else '-'}{length}"


def _problems(daemons: Iterable[pb.DaemonStatus]) -> Iterator[RenderableType]:
    """Yield what does not fit into a row, a line each."""
    for daemon in daemons:
        if daemon.policy_problem:
            head = f"{daemon.name} refuses the newest policy: "
            yield Text.assemble(render.plain(head, "yellow"), render.lines(daemon.policy_problem))
        if daemon.presumed_nusd:
            yield render.plain(
                f"{daemon.name} is not heard of, and what it holds is presumed spent; if it never "
                f"comes back: costctl lease reclaim {daemon.name} --reason …",
                "yellow",
            )


def _coordinators(
    replicas: Iterable[pb.CoordinatorStatus], now_ns: int
) -> Iterator[RenderableType]:
    """Yield the coordinators' replicas, a line each."""
    for replica in replicas:
        lag_ns = max(0, now_ns - replica.seen_ns)
        yield render.plain(
            f"coordinator {replica.instance_id} at {replica.address}; version {replica.version}; "
            f"heard {span(lag_ns)} ago",
            "yellow" if lag_ns > REPLICA_LATE_NS else "dim",
        )


def _summary(answer: pb.ListDaemonsResponse) -> Iterator[Text]:
    count = len(answer.daemons)
    attached = sum(daemon.attached for daemon in answer.daemons)
    versions = sorted({daemon.version for daemon in answer.daemons})
    parts = [f"{attached:,} of {count:,} daemons attached"]
    if len(versions) == 1:
        parts.append(f"version {versions[0]}")
    parts.append(f"policy {answer.policy_number}")
    yield Text("; ".join(parts), style="dim")
    yield worst_case(answer)
