"""One drill under way: whom it is for, who has heard and when, and of whom that is yet to come."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping

from costd.coordinator.drill_words import DrillRoll
from costd.wire.pb import fleet_control_pb2 as cpb
from costd.wire.pb import fleet_pb2 as pb


class Drilling:
    """What a drill has found so far.

    Shape:   nothing here is asked of anybody; `Drills` tells it what comes.
    Units:   times are nanoseconds since it was made, on the clock that it is given.
    """

    def __init__(self, drill_id: str, names: Mapping[str, str], now_ns: Callable[[], int]) -> None:
        """Begin with the daemons that are told at once, by their ids."""
        self.drill_id = drill_id
        self._now_ns = now_ns
        self._started_ns = now_ns()
        self._rows: dict[str, cpb.DrilledDaemon] = {}
        self._awaited: set[str] = set()
        self._silent: set[str] | None = None
        """Replicas whose roll is not complete; None until it is known which there are."""
        self._slices: dict[str, set[int]] = {}
        self._called: set[str] = set()
        """Replicas whose roll is complete."""
        self._changed = asyncio.Event()
        self._add(names)

    def expect(self, instance_ids: Iterable[str]) -> None:
        """Wait for a roll of each of these replicas, and of no other."""
        self._silent = {*instance_ids} - self._called
        self._changed.set()

    def roll(self, word: DrillRoll) -> None:
        """Learn whom another replica has told; each of them is waited for."""
        slices = self._slices.setdefault(word.from_id, set())
        slices.add(word.slice_number)
        self._add(word.names)
        if len(slices) >= word.slices_count:
            self._called.add(word.from_id)
            if self._silent is not None:
                self._silent.discard(word.from_id)
        self._changed.set()

    def confirm(self, daemon_id: str, message: pb.DrillConfirmation) -> None:
        """Learn that a daemon has heard, or that its clients have.

        Ensures: one that no roll has named, since the word was lost, is in the report all the same.
        """
        if daemon_id not in self._rows:
            self._add({daemon_id: ""})
        row = self._rows[daemon_id]
        if not row.HasField("heard_ns"):
            row.heard_ns = self._now_ns() - self._started_ns
        if message.finished:
            row.clients_count = message.clients_count
            row.unconfirmed_clients_count = message.unconfirmed_count
            if message.clients_count:
                # By the daemon's own clock, behind what its word took to get here: both are bounds.
                row.clients_max_ns = row.heard_ns + message.slowest.ToNanoseconds()
            self._awaited.discard(daemon_id)
            self._changed.set()

    async def wait(self, timeout_s: float) -> None:
        """Return once nobody is waited for any more, at the latest after so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._awaited or self._silent is None or self._silent:
                    self._changed.clear()
                    await self._changed.wait()

    def report(self) -> cpb.FleetDrillReport:
        """Sum up what is known by now."""
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

    def _add(self, names: Mapping[str, str]) -> None:
        for daemon_id, name in names.items():
            row = self._rows.get(daemon_id)
            if row is None:
                self._rows[daemon_id] = cpb.DrilledDaemon(name=name, daemon_id=daemon_id)
                self._awaited.add(daemon_id)
            elif not row.name:
                row.name = name
