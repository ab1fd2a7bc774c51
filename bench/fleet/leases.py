"""Leases: how long one takes, and how many a coordinator grants in a second."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.figures import Figure, p99
from bench.fleet.processes import Coordinator, Server
from bench.fleet.streams import Held, Stream, open_channel
from bench.fleet.workload import HOT, POLICY, SPREAD, counter_keys
from costd.wire.pb import fleet_pb2 as pb

STEP_NUSD: Final = 7_000_000
STREAMS_COUNT: Final = 16
WANTS_COUNT: Final = 10
"""Of one request where budgets are many."""
REPORTED_COUNT: Final = 10
NS_PER_MS: Final = 1_000_000


class Leases:
    """One round: requests one at a time; then one hot budget, then many, on several streams."""

    def __init__(
        self,
        directory: Path,
        stack: ExitStack,
        server: Server,
        *,
        requests_count: int,
        for_s: float,
        budgets_count: int,
    ) -> None:
        self._coordinator = Coordinator(directory / "leases", stack, server, POLICY)
        self._requests_count = requests_count
        self._for_s = for_s
        self._hot = counter_keys(HOT)
        self._spread = counter_keys(SPREAD, budgets_count)
        self._rounds_count = 0
        self.p50: list[float] = []
        self.p99: list[float] = []
        self.leases_per_s: dict[str, list[float]] = {HOT: [], SPREAD: []}
        self.requests_per_s: dict[str, list[float]] = {HOT: [], SPREAD: []}
        self.transactions_per_s: dict[str, list[float]] = {HOT: [], SPREAD: []}
        self.coordinator_ms: dict[str, list[float]] = {HOT: [], SPREAD: []}
        self.database_ms: dict[str, list[float]] = {HOT: [], SPREAD: []}
        self.stand_ms: list[float] = []
        self.stand_database_ms: list[float] = []
        self.report_bytes = 0.0
        self.receipt_bytes = 0.0
        self.request_bytes = 0.0
        self.reply_bytes = 0.0

    def round(self) -> None:
        """Measure once."""
        self._rounds_count += 1
        asyncio.run(self._one_at_a_time())
        for name, keys in ((HOT, self._hot), (SPREAD, self._spread)):
            before = self._coordinator.spent()
            leases, requests = asyncio.run(self._many(keys))
            spent = self._coordinator.spent().since(before)
            self.leases_per_s[name].append(leases)
            self.requests_per_s[name].append(requests)
            self.transactions_per_s[name].append(spent.transactions_count / self._for_s)
            leases_count = leases * self._for_s
            self.coordinator_ms[name].append(1_000 * spent.coordinator_s / leases_count)
            self.database_ms[name].append(1_000 * spent.database_s / leases_count)
        before = self._coordinator.spent()
        stands_count, _ = asyncio.run(self._many(self._spread, reports=True))
        spent = self._coordinator.spent().since(before)
        stands_count *= self._for_s
        self.stand_ms.append(1_000 * spent.coordinator_s / stands_count)
        self.stand_database_ms.append(1_000 * spent.database_s / stands_count)

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        hot, spread = f"{STREAMS_COUNT} streams, one budget", f"{len(self._spread):,} budgets"
        return [
            Figure(
                key="lease_ms_p50",
                what="lease asked for to lease granted, written down in PostgreSQL, p50",
                unit="ms",
                samples=tuple(self.p50),
                target=5,
            ),
            Figure(key="lease_ms_p99", what="the same, p99", unit="ms", samples=tuple(self.p99)),
            self._rate("lease_ops_hot", f"leases granted a second, {hot}", HOT, target=500),
            self._rate(
                "lease_ops_spread",
                f"the same, {spread}, {WANTS_COUNT} in a request",
                SPREAD,
                target=1_000,
            ),
            _per_s("lease_requests_hot", f"requests, {hot}", self.requests_per_s[HOT]),
            _per_s("lease_requests_spread", f"requests, {spread}", self.requests_per_s[SPREAD]),
            _per_s("lease_tx_hot", f"transactions, {hot}", self.transactions_per_s[HOT]),
            _per_s("lease_tx_spread", f"transactions, {spread}", self.transactions_per_s[SPREAD]),
            _cpu("lease_hot_cpu_ms", f"the coordinator's, {hot}", self.coordinator_ms[HOT]),
            _cpu("lease_hot_database_cpu_ms", f"the database's, {hot}", self.database_ms[HOT]),
            _cpu(
                "lease_spread_cpu_ms", f"the coordinator's, {spread}", self.coordinator_ms[SPREAD]
            ),
            _cpu(
                "lease_spread_database_cpu_ms",
                f"the database's, {spread}",
                self.database_ms[SPREAD],
            ),
            Figure(
                key="stand_cpu_ms",
                what="processor time for one counter in a report, the coordinator's",
                unit="ms",
                samples=tuple(self.stand_ms),
            ),
            Figure(
                key="stand_database_cpu_ms",
                what="the database's",
                unit="ms",
                samples=tuple(self.stand_database_ms),
            ),
            _bytes("lease_request_bytes", "one request for one lease", self.request_bytes),
            _bytes("lease_reply_bytes", "its reply", self.reply_bytes),
            _bytes("report_bytes", f"a report of {REPORTED_COUNT} counters", self.report_bytes),
            _bytes("receipt_bytes", "its receipt", self.receipt_bytes),
        ]

    async def _one_at_a_time(self) -> None:
        async with open_channel(self._coordinator.address) as channel:
            stream = await Stream(channel, f"latency-{self._rounds_count}").enrol()
            held, durations = [Held(self._hot[0])], []
            sent_bytes, heard_bytes = stream.sent_bytes, stream.heard_bytes
            for _ in range(self._requests_count):
                started_ns = time.perf_counter_ns()
                assert await stream.lease(held, STEP_NUSD) == 1
                durations.append((time.perf_counter_ns() - started_ns) / NS_PER_MS)
            self.request_bytes = (stream.sent_bytes - sent_bytes) / self._requests_count
            self.reply_bytes = (stream.heard_bytes - heard_bytes) / self._requests_count
            await self._weigh_report(stream)
            self.p50.append(sorted(durations)[len(durations) // 2])
            self.p99.append(p99(durations))
            stream.close()

    async def _weigh_report(self, stream: Stream) -> None:
        """See how large a report is that names some counters, and its receipt."""
        sent_bytes, heard_bytes = stream.sent_bytes, stream.heard_bytes
        stands = [
            pb.Stand(
                counter_key=key,
                amount=64 * STEP_NUSD,
                settled=16 * STEP_NUSD,
                reserved=STEP_NUSD,
                version=3,
            )
            for key in self._spread[:REPORTED_COUNT]
        ]
        await stream.report(stands)
        await stream.read("receipt")
        self.report_bytes = stream.sent_bytes - sent_bytes
        self.receipt_bytes = stream.heard_bytes - heard_bytes

    async def _many(self, keys: list[bytes], *, reports: bool = False) -> tuple[float, float]:
        """Have every stream go on as soon as it is answered; leases and requests a second.

        Shape:   with `reports`, counters are not asked for but reported, as used a little more.
        """
        channels = [open_channel(self._coordinator.address) for _ in range(STREAMS_COUNT)]
        name = f"many-{self._rounds_count}-{len(keys)}-{reports}"
        streams = [Stream(channel, f"{name}-{n}") for n, channel in enumerate(channels)]
        await asyncio.gather(*(stream.enrol() for stream in streams))
        leases_count = requests_count = 0
        started = time.perf_counter()
        ends = started + self._for_s

        async def ask(number: int, stream: Stream) -> None:
            nonlocal leases_count, requests_count
            # Each begins elsewhere, so that they do not wait for one another's rows in step.
            first = number * len(keys) // STREAMS_COUNT
            held = [Held(key) for key in keys[first:] + keys[:first]]
            at = 0
            while time.perf_counter() < ends:
                chosen = [held[(at + n) % len(held)] for n in range(min(WANTS_COUNT, len(held)))]
                at += WANTS_COUNT
                chosen.sort(key=lambda each: each.key)
                act = _report if reports else _lease
                granted_count = await act(stream, chosen)
                leases_count += granted_count
                requests_count += 1

        await asyncio.gather(*(ask(number, stream) for number, stream in enumerate(streams)))
        took_s = time.perf_counter() - started
        for stream in streams:
            stream.close()
        await asyncio.gather(*(channel.close() for channel in channels))
        return leases_count / took_s, requests_count / took_s

    def _rate(self, key: str, what: str, name: str, *, target: float) -> Figure:
        return Figure(
            key=key,
            what=what,
            unit="/s",
            samples=tuple(self.leases_per_s[name]),
            target=target,
            more_is_better=True,
            decimals=0,
        )


async def _lease(stream: Stream, chosen: list[Held]) -> int:
    return await stream.lease(chosen, STEP_NUSD)


async def _report(stream: Stream, chosen: list[Held]) -> int:
    for each in chosen:
        each.amount += STEP_NUSD
    await stream.report([each.stand() for each in chosen])
    await stream.read("receipt")
    return len(chosen)


def _per_s(key: str, what: str, samples: list[float]) -> Figure:
    return Figure(key=key, what=what, unit="/s", samples=tuple(samples), decimals=0)


def _bytes(key: str, what: str, size: float) -> Figure:
    return Figure(key=key, what=what, unit="B", samples=(size,), decimals=0)


def _cpu(key: str, what: str, samples: list[float]) -> Figure:
    whole = f"processor time for one lease, {what}"
    return Figure(key=key, what=whole, unit="ms", samples=tuple(samples))
