"""Five hundred attached daemons: what they cost, and how soon all of them hear of a kill."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.daemon import rss_mib
from bench.figures import Figure, p99
from bench.fleet.processes import Coordinator, Server
from bench.fleet.workload import POLICY
from costd.wire.pb import control_pb2 as pb

PROCESSES_COUNT: Final = 4
REPORT_S: Final = 1.0
"""As often as a daemon reports: ten times in a tenure of ten seconds."""
WARM_S: Final = 0.3
NS_PER_MS: Final = 1_000_000
KIB_PER_MIB: Final = 1_024
STOP_S: Final = 20.0


class Attached:
    """One round: everything is killed, the last stream hears of it, it is released."""

    def __init__(
        self,
        directory: Path,
        stack: ExitStack,
        server: Server,
        *,
        streams_count: int,
        watched_s: float,
    ) -> None:
        self._coordinator = Coordinator(directory / "attached", stack, server, POLICY)
        self._watched_s = watched_s
        self._streams_count = streams_count
        pid = self._coordinator.process.pid
        before_mib = rss_mib(pid)
        self._processes = [self._listeners(stack, name) for name in "abcd"[:PROCESSES_COUNT]]
        for process in self._processes:
            assert self._line(process) == "ready", "listeners are ready"
        time.sleep(WARM_S)
        self.kib_per_stream = (rss_mib(pid) - before_mib) * KIB_PER_MIB / streams_count
        self._control = stack.enter_context(self._coordinator.operating())
        self.last_ms: list[float] = []
        self.first_ms: list[float] = []
        self.reports_per_tx: list[float] = []
        self.coordinator_ms: list[float] = []
        self.database_ms: list[float] = []

    def round(self) -> None:
        """Measure once: first what reports alone cost, then a kill."""
        self._watch()
        kill_id = f"bench-{len(self.last_ms)}"
        called_ns = time.monotonic_ns()
        self._control.EngageKill(pb.EngageKillRequest(kill_id=kill_id, reason="measured"))
        heard = [json.loads(self._line(process)) for process in self._processes]
        self.last_ms.append((max(each["last_ns"] for each in heard) - called_ns) / NS_PER_MS)
        self.first_ms.append((min(each["first_ns"] for each in heard) - called_ns) / NS_PER_MS)
        self._control.ReleaseKill(pb.ReleaseKillRequest(kill_id=kill_id, reason="measured"))
        for process in self._processes:
            self._line(process)

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        count = self._streams_count
        return [
            Figure(
                key="fleet_kill_ms_p99",
                what=f"kill switch engaged at the coordinator to the last of {count} streams, "
                "which report once a second, having heard; p99 over rounds",
                unit="ms",
                samples=(p99(self.last_ms),),
                target=150,
                decimals=0,
            ),
            Figure(
                key="fleet_kill_ms_last",
                what="the same by round",
                unit="ms",
                samples=tuple(self.last_ms),
                decimals=0,
            ),
            Figure(
                key="fleet_kill_ms_first",
                what="to the first having heard",
                unit="ms",
                samples=tuple(self.first_ms),
                decimals=0,
            ),
            Figure(
                key="coordinator_kib_per_daemon",
                what=f"memory (VmRSS) of the coordinator for each of {count} attached streams",
                unit="KiB",
                samples=(self.kib_per_stream,),
                decimals=0,
            ),
            Figure(
                key="reports_per_tx",
                what=f"reports of {count} daemons in one transaction",
                unit="reports",
                samples=tuple(self.reports_per_tx),
                decimals=1,
            ),
            Figure(
                key="report_cpu_ms",
                what="the coordinator's processor time for one report that names no counter",
                unit="ms",
                samples=tuple(self.coordinator_ms),
            ),
            Figure(
                key="report_database_cpu_ms",
                what="the database's",
                unit="ms",
                samples=tuple(self.database_ms),
            ),
        ]

    def _watch(self) -> None:
        """See what reports cost while nothing else happens."""
        before = self._coordinator.spent()
        time.sleep(self._watched_s)
        spent = self._coordinator.spent().since(before)
        reports_count = max(1, spent.messages_count)
        self.reports_per_tx.append(reports_count / max(1, spent.transactions_count))
        self.coordinator_ms.append(1_000 * spent.coordinator_s / reports_count)
        self.database_ms.append(1_000 * spent.database_s / reports_count)

    def _listeners(self, stack: ExitStack, name: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "bench.fleet.listeners"),
                *("--address", self._coordinator.address, "--name", name),
                *("--count", str(self._streams_count // PROCESSES_COUNT)),
                *("--report-s", str(REPORT_S)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(_end, process)
        return process

    def _line(self, process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("a process of listeners ended; what it said is above")
        return line.strip()


def _end(process: Any) -> None:
    try:
        process.communicate(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
