"""A million counters: what asks, memory and a start cost then."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final

import grpc

from bench.daemon import admission_stub, asking, measured_daemon, rss_mib
from bench.figures import Figure, mean_us, p50_us, ratios, timed
from bench.workload import Asks, open_ledger, user_name
from costd.engine.changes import Family
from costd.model.counter import Counter
from costd.store.port import Put
from costd.store.rocks import STORE_FOLDER, RocksStore

KEYED_BUDGET: Final = "user-month"
FEW_COUNT: Final = 100
_FILL_BATCH_COUNT: Final = 5_000
_CALLERS_COUNT: Final = 8
_RSS_EVERY: Final = 3


def fill(path: Path, users_count: int, *, advance: Callable[[int], None]) -> None:
    """Make a store in which each of so many users has a counter with something settled."""
    store = RocksStore(path)
    ledger = open_ledger(store)
    wall_ns = ledger.clock.now().wall_ns
    rule = next(r for r in ledger.rules.budgets.values() if r.budget.budget_id == KEYED_BUDGET)
    start_ns, _ = rule.window(wall_ns)

    def puts() -> Iterator[Put]:
        for index in range(users_count):
            key = rule.counter_key({"user": user_name(index)}, wall_ns)
            spent = Counter(
                settled=1_000_000 + index,
                limit=rule.budget.limit or -1,
                start_ns=start_ns,
                changed_ns=wall_ns,
            )
            yield Family.COUNTERS, key, spent

    waiting = puts()
    while batch := list(islice(waiting, _FILL_BATCH_COUNT)):
        store.commit(batch)
        advance(len(batch))
    store.close()


class ManyKeys:
    """One round: a store of a hundred counters and one of a million, both opened anew.

    Every key's first touch is in the figures: nothing of the store is cached in the process when
    the asks begin. The files are in the operating system's cache, because they were just copied.
    """

    def __init__(self, directory: Path, filled: Path, *, users_count: int, asks_count: int) -> None:
        self._directory = directory
        self._asks_count = asks_count
        few = directory / "few"
        fill(few, FEW_COUNT, advance=lambda _count: None)
        self._filled = {FEW_COUNT: few, users_count: filled}
        self.p50: dict[int, list[float]] = {count: [] for count in self._filled}
        self.mean: dict[int, list[float]] = {count: [] for count in self._filled}

    def round(self) -> None:
        """Measure once, the order changing from round to round."""
        number = len(self.p50[FEW_COUNT])
        for users_count in sorted(self._filled, reverse=bool(number % 2)):
            copy = self._directory / "copy"
            shutil.copytree(self._filled[users_count], copy)
            ledger = open_ledger(RocksStore(copy))
            asks = Asks(1_000 + number, users_count=users_count).model(self._asks_count)
            durations = timed(ledger.admit, asks)
            self.p50[users_count].append(p50_us(durations))
            self.mean[users_count].append(mean_us(durations))
            ledger.store.close()
            shutil.rmtree(copy)

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        few, many = self._filled
        return [
            Figure(
                key="keys_1m_over_100",
                what=f"keys drawn uniformly from {many:,} counters, first touch included ÷ "
                f"from {few}, p50",
                unit="×",
                samples=ratios(self.p50[many], self.p50[few]),
                target=1.5,
            ),
            Figure(
                key="keys_1m_over_100_mean",
                what="the same by the mean, so that every stall counts",
                unit="×",
                samples=ratios(self.mean[many], self.mean[few]),
            ),
        ]


class BigDaemon:
    """One round: start the daemon on the big store, ask, read its memory, kill it with -9.

    From the second round on the store is as a killed daemon left it, its log unread; so the
    start is the slow kind.
    """

    def __init__(
        self, directory: Path, stack: ExitStack, filled: Path, *, users_count: int, asks_count: int
    ) -> None:
        self._asks_count = asks_count
        self._daemon = measured_daemon(directory / "big")
        stack.callback(self._daemon.close)
        shutil.copytree(filled, self._daemon.data / STORE_FOLDER)
        self._asks = Asks(5, users_count=users_count)
        self.start_s: list[float] = []
        self.rss_mib: list[float] = []

    def round(self) -> None:
        """Measure a start; in every third round also memory, which takes many asks."""
        (request,) = self._asks.wire(1)
        started = time.perf_counter()
        self._daemon.start()
        with asking(self._daemon) as stub:
            stub.Admit(request)
            self.start_s.append(time.perf_counter() - started)
        if len(self.start_s) % _RSS_EVERY == 1:
            asyncio.run(self._ask_many(self._asks_count))
            self.rss_mib.append(rss_mib(self._daemon.pid))
        else:
            asyncio.run(self._ask_many(self._asks_count // 10))
        self._daemon.kill()

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            Figure(
                key="rss_mib_1m",
                what=f"daemon memory (VmRSS) after {self._asks_count:,} asks over the counters",
                unit="MiB",
                samples=tuple(self.rss_mib),
                target=250,
                decimals=0,
            ),
            Figure(
                key="start_s_1m",
                what="start to first answer, after kill -9",
                unit="s",
                samples=tuple(self.start_s),
                target=3,
            ),
        ]

    async def _ask_many(self, count: int) -> None:
        waiting = iter(self._asks.wire(count))
        async with grpc.aio.insecure_channel(self._daemon.address) as channel:
            stub = admission_stub(channel)

            async def caller() -> None:
                for request in waiting:
                    await stub.Admit(request)

            await asyncio.gather(*(caller() for _ in range(_CALLERS_COUNT)))
