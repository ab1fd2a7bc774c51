"""A drill of the kill switch: how long until everyone has heard, while nobody is stopped.

It goes the way of a kill switch: written down, then told by the page and by every stream. Clients
confirm in a report what their draws look at.
"""

import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NamedTuple

from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.covered import covered
from costd.daemon.clients.desk import Desk
from costd.daemon.clients.drilling import Drill
from costd.model.allowance import Allowance, AllowanceState
from costd.model.labels import Selector
from costd.model.time import NS_PER_S
from costd.wire.pb import admission_pb2 as apb
from costd.wire.pb import control_pb2 as pb

TIMEOUT_NS: Final = 2 * NS_PER_S
TIMEOUT_NS_MAX: Final = 60 * NS_PER_S
NAMED_COUNT_MAX: Final = 20
"""So many processes that did not confirm are named in the audit record; the answer has all."""
NOTE: Final = (
    "callers that ask one by one hear at their next ask, and are not counted; "
    "a client of an earlier version does not confirm"
)

Flush = Callable[[], Awaitable[None]]


class Order(NamedTuple):
    """What an operator wants drilled."""

    scope: Selector
    actor: str
    reason: str
    timeout_ns: int = TIMEOUT_NS


async def run(
    order: Order, ledger: Ledger, desk: Desk, flush: Flush | None = None
) -> pb.DrillReport:
    """Drill, and report; nothing is revoked, and no call is refused for it.

    Units:   times of the report are nanoseconds since this call, on the steady clock.
    Ensures: what it found is in the audit, also if the operator hangs up.
    Errors:  StoreUnavailable; if it could not be written down at first, nobody was told anything.
    """
    started_ns = ledger.clock.now().steady_ns
    report = pb.DrillReport(drill_id=f"drill-{uuid.uuid4().hex[:12]}", note=NOTE)
    what = f"{order.scope}: {order.reason}" if order.reason else str(order.scope)
    ledger.audit(order.actor, "kill_drill_begun", report.drill_id, what)
    report.written_ns = ledger.clock.now().steady_ns - started_ns
    rows = _processes(order.scope, ledger, desk)
    report.attached_count = len(desk.attached)
    report.generation = desk.pages.bump()
    drill = Drill(_message(desk), rows)
    with desk.drills.running(drill):
        for connection in desk.attached.values():
            connection.push(drill.message)
        try:
            if flush is not None:
                await flush()
                report.written_ns = ledger.clock.now().steady_ns - started_ns
            await drill.wait(order.timeout_ns)
        finally:
            _fill(report, rows, drill, desk, started_ns)
            ledger.audit(order.actor, "kill_drilled", report.drill_id, f"{what}; {summary(report)}")
    return report


def summary(report: pb.DrillReport) -> str:
    """Say in one line what a drill found."""
    awaited = [row for row in report.processes if not row.left]
    told = f"{report.confirmed_count} of {len(awaited)} processes confirmed"
    if report.confirmed_count:
        told += f", half within {_ms(report.p50_ns)}, the last after {_ms(report.max_ns)}"
    told += f"; written after {_ms(report.written_ns)}"
    silent = [row for row in awaited if not row.HasField("confirmed_ns")]
    names = [f"{row.caller or 'a client'} ({row.session_id})" for row in silent[:NAMED_COUNT_MAX]]
    if len(silent) > NAMED_COUNT_MAX:
        names.append(f"{len(silent) - NAMED_COUNT_MAX} more")
    return f"{told}; not confirmed: {', '.join(names)}" if names else told


def _message(desk: Desk) -> apb.DaemonMessage:
    return apb.DaemonMessage(
        generation=apb.Generation(
            generation=desk.pages.generation,
            scope_labels=sorted(desk.scope_labels()),
            confirm=True,
        )
    )


def _processes(scope: Selector, ledger: Ledger, desk: Desk) -> dict[str, pb.DrilledProcess]:
    """Find everybody who can draw, by session, and count what a kill switch would revoke."""
    rows = {
        session_id: pb.DrilledProcess(session_id=session_id, caller=connection.caller)
        for session_id, connection in desk.attached.items()
    }
    open_ones = list(_open(desk))
    for each in open_ones:
        row = pb.DrilledProcess(session_id=each.session_id, caller=each.caller)
        rows.setdefault(each.session_id, row)
    for allowance_id in covered(scope, ledger, open_ones):
        rows[desk.books.out[allowance_id].session_id].allowances_count += 1
    return rows


def _fill(
    report: pb.DrillReport,
    rows: dict[str, pb.DrilledProcess],
    drill: Drill,
    desk: Desk,
    started_ns: int,
) -> None:
    """Write who confirmed, and when."""
    holders = {each.session_id for each in _open(desk)}
    for session_id, row in rows.items():
        row.attached = session_id in desk.attached
        if session_id in drill.confirmed:
            row.confirmed_ns = drill.confirmed[session_id] - started_ns
        else:
            row.left = not row.attached and session_id not in holders
    took_ns = sorted(row.confirmed_ns for row in rows.values() if row.HasField("confirmed_ns"))
    report.confirmed_count = len(took_ns)
    if took_ns:
        report.p50_ns, report.max_ns = took_ns[(len(took_ns) - 1) // 2], took_ns[-1]
    report.processes.extend(sorted(rows.values(), key=_order))


def _order(row: pb.DrilledProcess) -> tuple[bool, bool, int, str, str]:
    """Sort whoever is to be looked after to the top, and those that left to the end."""
    return row.left, row.HasField("confirmed_ns"), -row.confirmed_ns, row.caller, row.session_id


def _open(desk: Desk) -> Iterator[Allowance]:
    return (each for each in desk.books.out.values() if each.state is AllowanceState.OPEN)


def _ms(took_ns: int) -> str:
    return f"{took_ns / 1_000_000:,.1f} ms"
