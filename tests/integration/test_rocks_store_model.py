"""RocksStore against a dict, through any sequence of writes, sweeps, scans and restarts."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from costd.engine.changes import Family
from costd.model.counter import Counter
from costd.store.rocks import RocksStore

FAMILIES = st.sampled_from([Family.COUNTERS, Family.RATES, Family.DUE])
KEYS = st.one_of(st.binary(max_size=2), st.integers(0, 400).map(lambda n: n.to_bytes(2, "big")))


def value_of(family: Family, number: int | None) -> Any:
    if number is None:
        return None
    return {Family.COUNTERS: Counter(settled=number), Family.RATES: number, Family.DUE: b""}[family]


class StoreModel(RuleBasedStateMachine):
    """What a dict says, the store says."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="costd-model-"))
        self.store = RocksStore(self.folder / "store")
        self.expected: dict[Family, dict[bytes, Any]] = {family: {} for family in Family}

    @rule(
        puts=st.lists(st.tuples(FAMILIES, KEYS, st.none() | st.integers(0, 2**63 - 1)), max_size=9)
    )
    def commit(self, puts: list[tuple[Family, bytes, int | None]]) -> None:
        batch = [(family, key, value_of(family, number)) for family, key, number in puts]
        self.store.commit(batch)
        for family, key, value in batch:
            if value is None:
                self.expected[family].pop(key, None)
            else:
                self.expected[family][key] = value

    @rule(family=FAMILIES, first=st.integers(0, 100), count=st.integers(1, 300))
    def commit_many(self, family: Family, first: int, count: int) -> None:
        self.commit([(family, n.to_bytes(2, "big"), n) for n in range(first, first + count)])

    @rule(family=FAMILIES, start=KEYS | st.just(b""), end=KEYS)
    def delete_range(self, family: Family, start: bytes, end: bytes) -> None:
        self.store.delete_range(family, start, end)
        kept = self.expected[family].items()
        self.expected[family] = {k: v for k, v in kept if not start <= k < end}

    @rule(family=FAMILIES, key=KEYS)
    def get(self, family: Family, key: bytes) -> None:
        assert self.store.get(family, key) == self.expected[family].get(key)

    @rule(family=FAMILIES, start=KEYS | st.just(b""), end=st.none() | KEYS, reverse=st.booleans())
    def scan(self, family: Family, start: bytes, end: bytes | None, *, reverse: bool) -> None:
        found = list(self.store.scan(family, start, end, reverse=reverse))
        inside = sorted(self.expected[family].items(), reverse=reverse)
        assert found == [(k, v) for k, v in inside if start <= k and (end is None or k < end)]

    @rule()
    def close_and_reopen(self) -> None:
        self.store.close()
        self.store = RocksStore(self.folder / "store")

    @invariant()
    def counts_agree(self) -> None:
        for family in (Family.COUNTERS, Family.RATES, Family.DUE):
            assert sum(1 for _ in self.store.scan(family)) == len(self.expected[family])

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


TestStoreModel = StoreModel.TestCase
TestStoreModel.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,  # opening takes what the disk takes
    suppress_health_check=[HealthCheck.too_slow],
)
