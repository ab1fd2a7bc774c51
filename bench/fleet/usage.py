"""Usage events: how many a coordinator stores in a second, none twice and none lost."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.figures import Figure
from bench.fleet.processes import Coordinator, Server
from bench.fleet.streams import Stream, open_channel
from bench.fleet.workload import POLICY
from bench.tally import BooksDiffer
from costd.daemon.fleet.outbox import BATCHES_AHEAD, EVENTS_COUNT_MAX
from costd.wire.pb import admission_pb2, control_pb2
from costd.wire.pb import fleet_pb2 as pb

STREAMS_COUNT: Final = 8
USERS_COUNT: Final = 100
COST_NUSD: Final = 3_141_593


class UsageEvents:
    """One round: so many streams send so many batches each, as far ahead as daemons do.

    Everything is written before the clock starts, so that what is measured is the coordinator's
    work and the client's sending. The books are compared after every round.
    """

    def __init__(
        self, directory: Path, stack: ExitStack, server: Server, *, batches_count: int
    ) -> None:
        self._coordinator = Coordinator(directory / "usage", stack, server, POLICY)
        self._batches = [_events(number) for number in range(batches_count)]
        self._sent_count = 0
        self.per_s: list[float] = []
        self.transactions_per_1k: list[float] = []
        self.coordinator_us: list[float] = []
        self.database_us: list[float] = []
        self.event_bytes = len(self._batches[0]) / EVENTS_COUNT_MAX

    def round(self) -> None:
        """Measure once.

        Errors:  BooksDiffer.
        """
        count = STREAMS_COUNT * len(self._batches) * EVENTS_COUNT_MAX
        before = self._coordinator.spent()
        took_s = asyncio.run(self._send_all(len(self.per_s)))
        spent = self._coordinator.spent().since(before)
        self._sent_count += count
        self.per_s.append(count / took_s)
        self.transactions_per_1k.append(1_000 * spent.transactions_count / count)
        self.coordinator_us.append(1_000_000 * spent.coordinator_s / count)
        self.database_us.append(1_000_000 * spent.database_s / count)
        self._check()

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            Figure(
                key="usage_events_per_s",
                what=f"usage events stored a second from {STREAMS_COUNT} streams; count and sum "
                "equal in the database",
                unit="/s",
                samples=tuple(self.per_s),
                target=10_000,
                more_is_better=True,
                decimals=0,
            ),
            Figure(
                key="usage_tx_per_1k",
                what="transactions for a thousand of them",
                unit="tx",
                samples=tuple(self.transactions_per_1k),
            ),
            Figure(
                key="usage_event_cpu_us",
                what="processor time for one of them, the coordinator's",
                unit="µs",
                samples=tuple(self.coordinator_us),
                decimals=0,
            ),
            Figure(
                key="usage_event_database_cpu_us",
                what="the database's",
                unit="µs",
                samples=tuple(self.database_us),
                decimals=0,
            ),
            Figure(
                key="usage_event_bytes",
                what=f"one usage event in a batch of {EVENTS_COUNT_MAX}",
                unit="B",
                samples=(self.event_bytes,),
                decimals=0,
            ),
        ]

    async def _send_all(self, number: int) -> float:
        channels = [open_channel(self._coordinator.address) for _ in range(STREAMS_COUNT)]
        streams = [Stream(channel, f"u{number}-{n}") for n, channel in enumerate(channels)]
        await asyncio.gather(*(stream.enrol() for stream in streams))
        started = time.perf_counter()
        await asyncio.gather(*(self._send(stream) for stream in streams))
        took_s = time.perf_counter() - started
        for stream in streams:
            stream.close()
        await asyncio.gather(*(channel.close() for channel in channels))
        return took_s

    async def _send(self, stream: Stream) -> None:
        waiting, last = 0, 0
        for raw in self._batches:
            if waiting == BATCHES_AHEAD:
                last = (await stream.read("stored")).sequence
                waiting -= 1
            await stream.usage(raw)
            waiting += 1
        while waiting:
            last = (await stream.read("stored")).sequence
            waiting -= 1
        if last != len(self._batches) * EVENTS_COUNT_MAX:
            raise BooksDiffer(f"{stream.name} was told that {last} events are stored")

    def _check(self) -> None:
        expected = (self._sent_count, self._sent_count * COST_NUSD)
        for table, count in (("usage_events", "count(*)"), ("usage_hourly", "sum(calls_count)")):
            found = self._coordinator.value(
                f"SELECT array[{count}, sum(cost_nusd)]::bigint[] FROM {table}"
            )
            if tuple(found) != expected:
                raise BooksDiffer(f"{table} has {found} (count, cost), {expected} were sent")


def _events(number: int) -> bytes:
    """Write one batch's events."""
    now_ns = time.time_ns()
    first = number * EVENTS_COUNT_MAX + 1
    batch = pb.UsageBatch(
        events=[
            control_pb2.UsageEvent(
                sequence=sequence,
                reservation_id=f"{sequence:032x}",
                ask_id=f"7d444840-9dc0-11d1-b245-{sequence:012x}",
                task_class="draft",
                labels={
                    "project": "api",
                    "team": f"team-{sequence % 10}",
                    "user": f"u{sequence % USERS_COUNT:05d}",
                    "agent_type": "coder",
                    "run": f"run-{sequence % 50}",
                },
                tier="premium",
                provider="openai",
                model="gpt-4o",
                cost_kind="priced",
                usage=admission_pb2.Usage(
                    prompt_tokens=1_150, cached_tokens=600, output_tokens=180
                ),
                cost_nusd=COST_NUSD,
                hold_nusd=7_000_000,
                admitted_ns=now_ns - 2_000_000_000,
                settled_ns=now_ns,
                duration_ns=1_900_000_000,
                outcome=admission_pb2.OUTCOME_OK,
                closed_as="settled",
                calls_count=1,
                verdict=admission_pb2.VERDICT_ALLOW,
                price=admission_pb2.PriceSource(source="catalogue"),
            )
            for sequence in range(first, first + EVENTS_COUNT_MAX)
        ]
    )
    return batch.SerializeToString()
