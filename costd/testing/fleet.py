"""A real fleet on loopback: coordinators and daemons as processes, and what their books say."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import grpc
import psycopg

from costd.testing.daemon import DaemonProcess
from costd.testing.postgres import end_postgres
from costd.testing.process import ANSWER_S, CostdProcess, DaemonFailed, wait_until
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb import fleet_control_pb2 as fpb
from costd.wire.pb.control_pb2_grpc import ControlStub
from costd.wire.pb.fleet_control_pb2_grpc import FleetControlStub

COLUMNS: Final = (
    *("settled", "reserved", "overrun", "granted", "lowered", "late", "unadmitted", "shadow"),
    "reserve_used",
)
"""What a coordinator must have as the sum over its daemons, to the last unit."""


class CoordinatorProcess(CostdProcess):
    """Starts, stops, kills and restarts one coordinator; see `CostdProcess`.

    Once it was started it keeps its port, so that daemons find it again.
    """

    READY = "coordinating"

    def __init__(
        self,
        *flags: str,
        database_url: str = "",
        policy: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        """Say what to run; without a database, one of its own in its directory."""
        super().__init__(directory)
        # The embedded server's user must get through.
        self.directory.chmod(self.directory.stat().st_mode | 0o111)
        self.flags = flags
        self.database_url = database_url
        self.policy = policy
        self.data = self.directory / "c"
        self.control_socket = self.directory / "s" / "coordinator.sock"
        self.listen = "127.0.0.1:0"
        self._channel: grpc.Channel | None = None

    def command(self) -> list[str]:
        """What to run."""
        return [
            "coordinator",
            *("--data", str(self.data), "--listen", self.listen),
            *("--control-socket", str(self.control_socket), "--metrics-listen", "off"),
            *(("--database-url", self.database_url) if self.database_url else ()),
            *(("--policy", str(self.policy)) if self.policy else ()),
            *self.flags,
        ]

    def start(self) -> Self:
        """Start and wait until it serves.

        Errors: DaemonFailed.
        """
        super().start()
        return self.served()

    def served(self) -> Self:
        """Wait until it serves, after `launch`.

        Errors: DaemonFailed.
        """
        self.listen = self.address
        return self

    def close(self) -> None:
        """End it and the database of its own, and remove its directory."""
        if self._channel is not None:
            self._channel.close()
        if self.runs:
            self.kill()
        end_postgres(self.data / "postgres")
        super().close()

    @property
    def address(self) -> str:
        """Where daemons join."""
        return str(self.wait_for(self.READY)["listen"])

    @property
    def control(self) -> Any:
        """Operators' calls; the channel finds the coordinator again after a restart."""
        return ControlStub(self._operators())  # type: ignore[no-untyped-call]

    @property
    def fleet(self) -> Any:
        """Operators' calls of fleets."""
        return FleetControlStub(self._operators())  # type: ignore[no-untyped-call]

    def daemons(self) -> dict[str, fpb.DaemonStatus]:
        """Every daemon by its name."""
        found = self.fleet.ListDaemons(fpb.ListDaemonsRequest(), wait_for_ready=True)
        return {row.name: row for row in found.daemons}

    def publish(self, yaml: str) -> fpb.PolicyVersion:
        """Put a policy in force."""
        request = fpb.PublishPolicyRequest(yaml=yaml, actor="test")
        published: fpb.PolicyVersion = self.fleet.PublishPolicy(request, wait_for_ready=True)
        return published

    def _operators(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = operators_channel(f"unix:{self.control_socket}")
        return self._channel


class FleetProcesses:
    """Coordinators on one database, and daemons that know all of them."""

    def __init__(self, *coordinator_flags: str, database_url: str, policy: Path | None) -> None:
        """Say what is common to all."""
        self._flags = coordinator_flags
        self._database_url = database_url
        self._policy = policy
        self.environment: dict[str, str] = {}
        """Variables that all are started with."""
        self.coordinators: list[CoordinatorProcess] = []
        self.daemons: list[DaemonProcess] = []

    def start(self, *, coordinators: int = 1, daemons: int = 2) -> Self:
        """Start so many, and wait until all daemons serve and are joined."""
        for number in range(1, coordinators + 1):
            made = CoordinatorProcess(
                *("--name", f"c{number}", *self._flags),
                database_url=self._database_url,
                policy=self._policy,
            )
            made.environment = self.environment
            self.coordinators.append(made)
            made.launch()
        for made in self.coordinators:
            made.served()
        for _ in range(daemons):
            self.add_daemon()
        for daemon in self.daemons:
            daemon.wait_for("serving")
        return self

    @property
    def database_url(self) -> str:
        """Where all of it ends up."""
        return self._database_url

    def problems(self, at_most_s: float = ANSWER_S) -> list[str]:
        """Wait until all books agree; in what they still differ then."""
        first = self.coordinators[0]
        found = settled_problems(first, self.daemons, self._database_url, at_most_s)
        return found + overrun_problems(first)

    def add_daemon(
        self, *flags: str, coordinators: Sequence[str] = (), prefix: tuple[str, ...] = ()
    ) -> DaemonProcess:
        """Launch one more; it is not waited for."""
        known = coordinators or [each.listen for each in self.coordinators]
        daemon = DaemonProcess(
            None,
            *("--name", f"d{len(self.daemons) + 1}"),
            *("--coordinator", ",".join(known), "--coordinator-insecure"),
            *flags,
        )
        daemon.prefix = prefix
        daemon.environment = self.environment
        self.daemons.append(daemon)
        daemon.launch()
        return daemon

    def close(self) -> None:
        """End everything."""
        for each in (*self.daemons, *self.coordinators):
            each.close()


def operators_channel(address: str) -> grpc.Channel:
    """Open a channel that finds a server again soon after it is back."""
    return grpc.insecure_channel(
        address,
        options=(
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.use_local_subchannel_pool", 1),
        ),
    )


# ---- books --------------------------------------------------------------------------------------

Sums = dict[tuple[str, str, int], tuple[int, ...]]
"""(budget, per key, window end) → COLUMNS."""


def fleet_problems(
    coordinator: CoordinatorProcess, daemons: Iterable[DaemonProcess], database_url: str
) -> list[str]:
    """List in what the coordinator differs from the sum of its daemons; nothing may be in flight.

    Ensures: empty means that every counter of a fleet budget is the sum of the daemons', and every
             usage event of every daemon is stored exactly once, and nothing else is.
    """
    summed: Sums = {}
    events: set[tuple[str, int]] = set()
    for daemon in daemons:
        with operators_channel(daemon.control_address) as channel:
            stub: Any = ControlStub(channel)  # type: ignore[no-untyped-call]
            for key, figures in _sums(stub).items():
                before = summed.get(key, (0,) * len(COLUMNS))
                summed[key] = tuple(map(sum, zip(before, figures, strict=True)))
            told = stub.ListUsage(cpb.ListUsageRequest(limit_count=1_000_000)).events
        events |= {(event.reservation_id, event.cost_nusd) for event in told}
        if len({event.sequence for event in told}) != len(told):
            return [f"{daemon.directory}: two usage events with one sequence"]
    problems = []
    known = _sums(coordinator.control)
    for key in sorted({*known, *summed}):
        theirs, ours = summed.get(key), known.get(key)
        if key in known and theirs != ours and (any(theirs or ()) or any(ours or ())):
            problems.append(f"{key}: daemons {theirs}, coordinator {ours} of {COLUMNS}")
    return problems + _usage_problems(events, database_url)


def settled_problems(
    coordinator: CoordinatorProcess,
    daemons: Sequence[DaemonProcess],
    database_url: str,
    at_most_s: float = ANSWER_S,
) -> list[str]:
    """Wait until all agree; what still differs at the end."""
    problems: list[str] = []

    def agree() -> bool:
        problems[:] = fleet_problems(coordinator, daemons, database_url)
        return not problems

    with suppress(DaemonFailed):
        wait_until(agree, "the books agree", at_most_s)
    return problems


def overrun_problems(coordinator: CoordinatorProcess) -> list[str]:
    """List the budgets that were passed by more than their causes explain (F1)."""
    rows = coordinator.control.ListBudgets(cpb.ListBudgetsRequest(include_ended=True)).budgets
    excused = ("overrun", "granted", "lowered", "late", "unadmitted", "shadow")
    return [
        f"{row.budget} {row.key}: {row.settled + row.reserved} of {row.limit}"
        for row in rows
        if row.HasField("limit")
        and row.settled + row.reserved > row.limit + sum(getattr(row, each) for each in excused)
    ]


def _sums(control: Any) -> Sums:
    rows = control.ListBudgets(
        cpb.ListBudgetsRequest(include_ended=True, limit_count=100_000), wait_for_ready=True
    ).budgets
    return {
        (row.budget, row.key, row.window_end_ns): tuple(getattr(row, each) for each in COLUMNS)
        for row in rows
    }


def _usage_problems(events: set[tuple[str, int]], database_url: str) -> list[str]:
    with psycopg.connect(database_url) as connection:
        stored = connection.execute("SELECT reservation_id, cost_nusd FROM usage_events").fetchall()
        twice = connection.execute(
            "SELECT daemon_id, sequence FROM usage_events GROUP BY 1, 2 HAVING count(*) > 1"
        ).fetchall()
        hourly = connection.execute(
            "SELECT coalesce(sum(calls_count), 0), coalesce(sum(cost_nusd), 0) FROM usage_hourly"
        ).fetchone()
    problems = [f"usage event {row} is stored twice" for row in twice]
    missing, foreign = events - {*stored}, {*stored} - events
    if missing or foreign or len(stored) != len(events):
        problems.append(
            f"usage: {len(missing)} events are not stored, {len(foreign)} are nobody's, "
            f"{len(stored)} rows for {len(events)} events"
        )
    cost_nusd = sum(cost for _, cost in stored)
    if hourly is not None and (len(stored), cost_nusd) != tuple(map(int, hourly)):
        problems.append(f"hours sum up to {hourly}, events to {(len(stored), cost_nusd)}")
    return problems
