"""The engine and its commit in this process, beside the bare batch it cannot do without."""

import gc
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rocksdict import Rdict, WriteBatch

from bench.figures import Figure, p50_us, p99_us, ratios, timed
from bench.workload import Asks, open_ledger
from costd.daemon.books.ledger import Ledger
from costd.engine.changes import Family
from costd.model.usage import Usage
from costd.store.codec import encode
from costd.store.port import Put
from costd.store.rocks import RocksStore
from costd.store.rocks_options import rocks_options

Encoded = list[tuple[Family, bytes, bytes]]


class AdmitAndBatch:
    """One round: admit, write the same bytes bare, settle what was admitted."""

    def __init__(self, directory: Path, stack: ExitStack, *, asks_count: int) -> None:
        self._count = asks_count
        self._store = _Capturing(directory / "inproc")
        stack.callback(self._store.close)
        self._ledger = open_ledger(self._store)
        self._bare = _BareDatabase(directory / "bare")
        stack.callback(self._bare.close)
        self._asks = Asks(1)
        self.admit_p50: list[float] = []
        self.admit_p99: list[float] = []
        self.batch_p50: list[float] = []
        self.settle_p50: list[float] = []
        self._warm_up()

    def round(self) -> None:
        """Measure once."""
        asks = self._asks.model(self._count)
        self._store.captured = []
        admits = timed(self._ledger.admit, asks)
        written = [_encoded(puts) for puts in self._store.captured]
        batches = timed(self._bare.write, written)
        settles = timed(_settle(self._ledger), _held(self._ledger))
        self.admit_p50.append(p50_us(admits))
        self.admit_p99.append(p99_us(admits))
        self.batch_p50.append(p50_us(batches))
        self.settle_p50.append(p50_us(settles))

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            Figure(
                key="admit_inproc_us_p50",
                what="engine + RocksDB commit, 4 budgets and 2 rates, p50",
                unit="µs",
                samples=tuple(self.admit_p50),
                target=100,
                decimals=1,
            ),
            Figure(
                key="admit_over_batch",
                what="the same ÷ a bare RocksDB batch of the same keys and bytes",
                unit="×",
                samples=ratios(self.admit_p50, self.batch_p50),
                target=5,
            ),
            _told("admit_inproc_us_p99", "engine + commit, p99", self.admit_p99),
            _told("batch_us_p50", "bare RocksDB batch, p50", self.batch_p50),
            _told("settle_inproc_us_p50", "settle in the process, p50", self.settle_p50),
        ]

    def _warm_up(self) -> None:
        for ask in self._asks.model(self._count):
            self._ledger.admit(ask)
        self._store.captured = []
        _freeze()


class UnmatchedBudgets:
    """One round: the same asks under no further budgets, and under a thousand more."""

    def __init__(
        self, directory: Path, stack: ExitStack, *, asks_count: int, unmatched_count: int
    ) -> None:
        self._count = asks_count
        self._unmatched_count = unmatched_count
        self._ledgers = [
            open_ledger(RocksStore(directory / f"budgets-{count}"), unmatched_count=count)
            for count in (0, unmatched_count)
        ]
        self._asks = [Asks(2), Asks(2)]
        self.p50: tuple[list[float], list[float]] = ([], [])
        for ledger, asks in zip(self._ledgers, self._asks, strict=True):
            stack.callback(ledger.store.close)
            for ask in asks.model(asks_count):
                ledger.admit(ask)
        _freeze()

    def round(self) -> None:
        """Measure once, the order changing from round to round."""
        order = (0, 1) if len(self.p50[0]) % 2 else (1, 0)
        for which in order:
            asks = self._asks[which].model(self._count)
            self.p50[which].append(p50_us(timed(self._ledgers[which].admit, asks)))

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        none, many = self.p50
        return [
            Figure(
                key="budgets_1k_over_0",
                what=f"{self._unmatched_count:,} budgets that do not match ÷ none",
                unit="×",
                samples=ratios(many, none),
                target=1.5,
            )
        ]


class _Capturing(RocksStore):
    """The real store, which also keeps what was committed; the asks' cost of that is 0.1 µs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.captured: list[Sequence[Put]] = []

    def commit(self, puts: Sequence[Put]) -> None:
        self.captured.append(puts)
        super().commit(puts)


class _BareDatabase:
    """RocksDB, set up exactly as the store sets it up, and nothing around it."""

    def __init__(self, path: Path) -> None:
        options = rocks_options(create=True)
        families = dict.fromkeys(["default", *Family], options)
        self._database = Rdict(str(path), options, column_families=families)
        self._handles = {name: self._database.get_column_family_handle(name) for name in Family}

    def write(self, puts: Encoded) -> None:
        batch, handles = WriteBatch(raw_mode=True), self._handles
        for family, key, data in puts:
            batch.put(key, data, handles[family])
        self._database.write(batch)

    def close(self) -> None:
        self._handles = {}
        self._database.close()


def _encoded(puts: Sequence[Put]) -> Encoded:
    return [
        (family, key, encode(family, key, value))
        for family, key, value in puts
        if value is not None
    ]


def _held(ledger: Ledger) -> list[bytes]:
    """Find what is open."""
    return [key[8:] for key, _ in ledger.store.scan(Family.DUE)][: ledger.totals.open_count]


def _settle(ledger: Ledger) -> Callable[[bytes], object]:
    usage = Usage(prompt_tokens=1_150, cached_tokens=600, output_tokens=180)
    return lambda identity: ledger.settle(identity, usage=usage)


def _freeze() -> None:
    """Do what the daemon does once it serves, so that the collector costs the same here."""
    gc.collect()
    gc.freeze()


def _told(key: str, what: str, samples: list[float]) -> Figure:
    return Figure(key=key, what=what, unit="µs", samples=tuple(samples), decimals=1)
