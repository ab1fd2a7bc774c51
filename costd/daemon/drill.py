"""A drill of the kill switch: how long until everyone has heard, while nobody is stopped.

It goes the way of a kill switch: written down, then told by the page and by every stream. Clients
confirm in a report what their draws look at.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from costd.clock import Clock
from costd.daemon.covered import covered
from costd.daemon.ledger import Ledger
from costd.model.allowance import Allowance, AllowanceState
from costd.model.labels import Selector
from costd.model.time import NS_PER_S
from costd.wire.pb import admission_pb2 as apb
from costd.wire.pb import control_pb2 as pb

if TYPE_CHECKING:
    from costd.daemon.desk import Desk

TIMEOUT_NS: Final = 2 * NS_PER_S
TIMEOUT_NS_MAX: Final = 60 * NS_PER_S
NAMED_COUNT_MAX: Final = 20
"""So many processes that did not confirm are named in the audit record; the answer has all."""
NOTE: Final = (
    "callers that ask one by one hear at their next ask, and are not counted; "
    "a client of an earlier version does not confirm"
)

Push = Callable[[apb.DaemonMessage], None]
Flush = Callable[[], Awaitable[None]]


class Drill:
    """One drill under way: who has confirmed, and of whom that is yet to be heard."""

    def __init__(self, message: apb.DaemonMessage, session_ids: Iterable[str]) -> None:
        self.message = message
        """What each process is told."""
        self.awaited = set(session_ids)
        self._gone: set[str] = set()
        """Who left with nothing to draw from; who comes back is awaited again."""
        self.confirmed: dict[str, int] = {}
        """When, on the steady clock, by session."""
        self._nobody_awaited = asyncio.Event()

    def confirm(self, session_id: str, steady_ns: int) -> None:
        """Note that a process has confirmed; only the first time counts."""
        if session_id in self.awaited:
            self.confirmed[session_id] = steady_ns
            self._await_no_longer(session_id)

    def give_up(self, session_id: str) -> None:
        """Wait for a process no longer, unless it comes back."""
        if session_id in self.awaited:
            self._gone.add(session_id)
            self._await_no_longer(session_id)

    def asks(self, session_id: str) -> bool:
        """Tell whether a process that has come back is to confirm; it is awaited then."""
        if session_id in self._gone:
            self._gone.discard(session_id)
            self.awaited.add(session_id)
        return session_id in self.awaited

    def _await_no_longer(self, session_id: str) -> None:
        self.awaited.discard(session_id)
        if not self.awaited:
            self._nobody_awaited.set()

    async def wait(self, timeout_ns: int) -> None:
        """Return once nobody is awaited any more, at the latest after so long."""
        if not self.awaited:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_ns / NS_PER_S):
                while self.awaited:  # somebody may have come back since nobody was
                    self._nobody_awaited.clear()
                    await self._nobody_awaited.wait()


class Drills:
    """The drills under way; the desk tells them what it hears of client processes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: list[Drill] = []

    @contextlib.contextmanager
    def running(self, drill: Drill) -> Iterator[None]:
        """Have a drill hear of what happens."""
        self._running.append(drill)
        try:
            yield
        finally:
            self._running.remove(drill)

    def confirmed(self, session_id: str, generation: int) -> None:
        """Hear what a process's draws look at; 0 says nothing of it."""
        for drill in self._running:
            if generation >= drill.message.generation.generation:
                drill.confirm(session_id, self._clock.now().steady_ns)

    def ask_again(self, session_id: str, push: Push, welcome: apb.Welcome) -> None:
        """Ask a process that has come back on another stream, by what it was just told.

        Not by what the drill told the others: generations may have changed since, and a client
        that took an old one for new would draw what was revoked meanwhile.
        """
        asking = [drill for drill in self._running if drill.asks(session_id)]
        if asking:
            generation = apb.Generation(
                generation=welcome.generation, scope_labels=welcome.scope_labels, confirm=True
            )
            push(apb.DaemonMessage(generation=generation))

    def detached(self, session_id: str, *, holds: bool) -> None:
        """Hear that a stream has ended; who holds nothing has to ask, and so hears."""
        for drill in self._running:
            if not holds:
                drill.give_up(session_id)


class Order(NamedTuple):
    """What an operator wants drilled."""

    scope: Selector
    actor: str
    reason: str
    timeout_ns: int = TIMEOUT_NS


async def run(
    order: Order, ledger: Ledger, desk: "Desk", flush: Flush | None = None
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


def _message(desk: "Desk") -> apb.DaemonMessage:
    return apb.DaemonMessage(
        generation=apb.Generation(
            generation=desk.pages.generation,
            scope_labels=sorted(desk.scope_labels()),
            confirm=True,
        )
    )


def _processes(scope: Selector, ledger: Ledger, desk: "Desk") -> dict[str, pb.DrilledProcess]:
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
    desk: "Desk",
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


def _open(desk: "Desk") -> Iterator[Allowance]:
    return (each for each in desk.books.out.values() if each.state is AllowanceState.OPEN)


def _ms(took_ns: int) -> str:
    return f"{took_ns / 1_000_000:,.1f} ms"
