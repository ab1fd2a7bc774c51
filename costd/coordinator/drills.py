"""Drills of the fleet's kill switch: how long until every daemon and client has heard."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from costd.clock import Clock
from costd.coordinator.reception import Connection
from costd.model.time import NS_PER_S
from costd.wire import fleet as wire
from costd.wire.pb import fleet_control_pb2 as cpb
from costd.wire.pb import fleet_pb2 as pb

TIMEOUT_NS: Final = 5 * NS_PER_S
TIMEOUT_NS_MAX: Final = 60 * NS_PER_S


class Drills:
    """The drills under way at this replica."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[str, _Drill] = {}

    async def run(
        self, listening: Mapping[str, Connection], timeout_ns: int
    ) -> cpb.FleetDrillReport:
        """Tell every daemon, and report who heard when; nobody is stopped.

        Units:   times are nanoseconds since this call, on the steady clock.
        """
        drill = _Drill(f"drill-{uuid.uuid4().hex[:12]}", listening, self._now_ns)
        self._running[drill.drill_id] = drill
        message = pb.ToDaemon(
            drill=pb.FleetDrill(drill_id=drill.drill_id, timeout=wire.duration(timeout_ns))
        )
        try:
            for connection in list(listening.values()):
                connection.push(message)
            # Daemons wait so long for their clients; then they tell.
            await drill.wait((timeout_ns + NS_PER_S) / NS_PER_S)
        finally:
            del self._running[drill.drill_id]
        return drill.report()

    def confirmed(self, connection: Connection, message: pb.DrillConfirmation) -> None:
        """Hear from a daemon."""
        drill = self._running.get(message.drill_id)
        if drill is not None:
            drill.confirm(connection.daemon_id or connection.claimed_id, message)

    def _now_ns(self) -> int:
        return self._clock.now().steady_ns


class _Drill:
    def __init__(
        self, drill_id: str, listening: Mapping[str, Connection], now_ns: Callable[[], int]
    ) -> None:
        self.drill_id = drill_id
        self._now_ns = now_ns
        self._started_ns = now_ns()
        self._rows = {
            daemon_id: cpb.DrilledDaemon(name=connection.name, daemon_id=daemon_id)
            for daemon_id, connection in listening.items()
        }
        self._awaited = set(self._rows)
        self._nobody_awaited = asyncio.Event()

    def confirm(self, daemon_id: str, message: pb.DrillConfirmation) -> None:
        row = self._rows.get(daemon_id)
        if row is None:
            return
        if not row.HasField("heard_ns"):
            row.heard_ns = self._now_ns() - self._started_ns
        if message.finished:
            row.clients_count = message.clients_count
            row.unconfirmed_clients_count = message.unconfirmed_count
            if message.clients_count:
                # By the daemon's own clock, behind what its word took to get here: both are bounds.
                row.clients_max_ns = row.heard_ns + message.slowest.ToNanoseconds()
            self._awaited.discard(daemon_id)
            if not self._awaited:
                self._nobody_awaited.set()

    async def wait(self, timeout_s: float) -> None:
        if self._awaited:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._nobody_awaited.wait()

    def report(self) -> cpb.FleetDrillReport:
        rows = sorted(
            self._rows.values(), key=lambda row: (row.HasField("heard_ns"), -row.heard_ns)
        )
        heard = sorted(row.heard_ns for row in rows if row.HasField("heard_ns"))
        report = cpb.FleetDrillReport(
            drill_id=self.drill_id,
            daemons_count=len(rows),
            confirmed_count=len(heard),
            clients_count=sum(row.clients_count for row in rows),
            unconfirmed_clients_count=sum(row.unconfirmed_clients_count for row in rows),
            daemons=rows,
        )
        if heard:
            report.p50_ns = heard[-(-len(heard) * 50 // 100) - 1]
            report.p99_ns = heard[-(-len(heard) * 99 // 100) - 1]
            report.max_ns = heard[-1]
        slowest = [row.clients_max_ns for row in rows if row.HasField("clients_max_ns")]
        if slowest:
            report.clients_max_ns = max(slowest)
        return report
