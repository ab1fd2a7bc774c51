"""What a coordinator adds to an Admit, and how many transactions admits cost it."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc

from bench.daemon import admission_stub, measured_daemon
from bench.figures import Figure, p50_us, p99_us, ratios, timed
from bench.fleet.processes import Coordinator, Server, Spent, fleet_daemons
from bench.rpc import settle_request
from bench.workload import Asks, unhurried_policy_text
from costd.wire.pb import admission_pb2 as pb

CALLERS_COUNT: Final = 4
OTHER_CALLERS_COUNTS: Final = (1, 8, 32)
WARM_COUNT: Final = 3
IDLE_S_MIN: Final = 1.5
"""An idle daemon says something once a second."""


class AdmitInFleet:
    """One round: Admit to a daemon with a coordinator and to one without, then both steadily busy.

    Shape:   4 budgets match, 3 of them with limits, and 2 rates: with a coordinator, those are the
             fleet's. 100 users ask, one after another at random, so 202 counters are in use.

    What a steady daemon costs is a matter of seconds, not of asks: about one transaction each
    second, in which it reports and asks for what runs low, and one for usage where calls are
    settled. So for a thousand admits it costs the less the more it admits a second.
    """

    def __init__(
        self,
        directory: Path,
        stack: ExitStack,
        server: Server,
        *,
        asks_count: int,
        for_s: float,
    ) -> None:
        directory = directory / "admits"
        policy = unhurried_policy_text()
        self._asks_count = asks_count
        self._for_s = for_s
        self._coordinator = Coordinator(directory / "coordinator", stack, server, policy)
        self.alone = self._idle()
        (daemon,) = fleet_daemons(directory, stack, self._coordinator, ["fleet"])
        single = measured_daemon(directory / "single", policy)
        stack.callback(single.close)
        single.start()
        self._address = daemon.address
        self._stubs = {
            name: admission_stub(stack.enter_context(grpc.insecure_channel(each.address)))
            for name, each in (("fleet", daemon), ("single", single))
        }
        self.joined = self._idle()
        self._asks = Asks(8)
        self._asked_count = 0
        self._late_count = 0
        self.p50: dict[str, list[float]] = {name: [] for name in self._stubs}
        self.p99: dict[str, list[float]] = {name: [] for name in self._stubs}
        self.admits_per_s: list[float] = []
        self.busy_per_s: list[float] = []
        self.transactions_per_1k: dict[str, list[float]] = {
            "admits": [],
            "calls": [],
            **{f"admits_{count}": [] for count in OTHER_CALLERS_COUNTS},
        }
        for stub in self._stubs.values():
            timed(stub.Admit, self._asks.wire(asks_count))
        # Leases grow to what is asked for in ten seconds; only then is the state a steady one.
        for _ in range(WARM_COUNT):
            asyncio.run(self._busy(settles=True))

    def round(self) -> None:
        """Measure once, beginning with another one each round."""
        names = sorted(self._stubs, reverse=bool(len(self.admits_per_s) % 2))
        for name in names:
            durations = timed(self._stubs[name].Admit, self._asks.wire(self._asks_count))
            self.p50[name].append(p50_us(durations))
            self.p99[name].append(p99_us(durations))
        spent, count = self._spend("admits", settles=False)
        self.admits_per_s.append(count / spent.seconds)
        self.busy_per_s.append(spent.transactions_count / spent.seconds)
        self._spend("calls", settles=True)
        for callers_count in OTHER_CALLERS_COUNTS:
            self._spend(f"admits_{callers_count}", settles=False, callers_count=callers_count)

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        numbering = "by PostgreSQL's numbering of transactions"
        return [
            Figure(
                key="fleet_over_single",
                what="Admit over the socket, daemon with a coordinator ÷ without, p50",
                unit="×",
                samples=ratios(self.p50["fleet"], self.p50["single"]),
                target=1.1,
            ),
            *(
                Figure(
                    key=f"{name}_admit_us_{which}",
                    what=f"Admit, daemon {what}, {which}",
                    unit="µs",
                    samples=tuple(samples[name]),
                    decimals=0,
                )
                for name, what in (("fleet", "with a coordinator"), ("single", "without"))
                for which, samples in (("p50", self.p50), ("p99", self.p99))
            ),
            Figure(
                key="tx_per_1k_admits",
                what="the coordinator's transactions for a thousand admits of one daemon, "
                f"{CALLERS_COUNT} callers without a pause, {numbering}; the faster, the fewer",
                unit="tx",
                samples=tuple(self.transactions_per_1k["admits"]),
                target=5,
            ),
            Figure(
                key="tx_per_1k_calls",
                what="the same for whole calls, with their usage",
                unit="tx",
                samples=tuple(self.transactions_per_1k["calls"]),
            ),
            *(
                Figure(
                    key=f"tx_per_1k_admits_{callers_count}",
                    what=f"the same for admits, {callers_count} callers",
                    unit="tx",
                    samples=tuple(self.transactions_per_1k[f"admits_{callers_count}"]),
                )
                for callers_count in OTHER_CALLERS_COUNTS
            ),
            Figure(
                key="daemon_busy_tx_per_s",
                what=f"transactions a second then, {CALLERS_COUNT} callers",
                unit="/s",
                samples=tuple(self.busy_per_s),
            ),
            Figure(
                key="fleet_admits_per_s",
                what=f"admits a second of that daemon, {CALLERS_COUNT} callers",
                unit="/s",
                samples=tuple(self.admits_per_s),
                decimals=0,
            ),
            Figure(
                key="fleet_no_lease_permille",
                what="of a thousand admits, those refused because no answer came in time",
                unit="‰",
                samples=(1_000 * self._late_count / self._asked_count,),
                decimals=3,
            ),
            _per_s("coordinator_idle_tx_per_s", "of a coordinator alone", self.alone),
            _per_s("daemon_idle_tx_per_s", "the same with one idle daemon", self.joined),
        ]

    def _idle(self) -> Spent:
        """See what happens while nobody asks."""
        before = self._coordinator.spent()
        time.sleep(max(2 * self._for_s, IDLE_S_MIN))
        return self._coordinator.spent().since(before)

    def _spend(
        self, kind: str, *, settles: bool, callers_count: int = CALLERS_COUNT
    ) -> tuple[Spent, int]:
        """See what a busy daemon costs the coordinator, and how many calls it admits."""
        before = self._coordinator.spent()
        count = asyncio.run(self._busy(settles=settles, callers_count=callers_count))
        spent = self._coordinator.spent().since(before)
        self._asked_count += count
        self.transactions_per_1k[kind].append(1_000 * spent.transactions_count / count)
        return spent, count

    async def _busy(self, *, settles: bool, callers_count: int = CALLERS_COUNT) -> int:
        """Ask for a while, a few at a time; returns how many were admitted."""
        admitted_count = 0
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub: Any = admission_stub(channel)
            ends = time.perf_counter() + self._for_s

            async def caller() -> None:
                nonlocal admitted_count
                while time.perf_counter() < ends:
                    decision: pb.Decision = await stub.Admit(self._asks.wire(1)[0])
                    if decision.reason == pb.REASON_NO_LEASE:
                        self._late_count += 1  # no word from the coordinator in time
                        continue
                    assert decision.reservation_id, f"every ask is admitted, not: {decision}"
                    admitted_count += 1
                    if settles:
                        await stub.Settle(settle_request(decision))

            await asyncio.gather(*(caller() for _ in range(callers_count)))
        return admitted_count


def _per_s(key: str, what: str, spent: Spent) -> Figure:
    per_s = spent.transactions_count / spent.seconds
    return Figure(key=key, what=f"transactions a second {what}", unit="/s", samples=(per_s,))
