"""What PostgreSQL forgets: in slices, each of them short, however much there is."""

import pytest

from costd.coordinator.old_rows import OldRows
from costd.coordinator.postgres import PostgresStore
from costd.coordinator.rows import Rows, Share
from costd.coordinator.store import TopUp
from costd.coordinator.usage_rows import DAY_NS
from costd.model.events import Alert, AuditRecord
from costd.model.lease import Pool, Stand

NOW_NS = 20_000 * DAY_NS


def key_of(end_ns: int, name: str = "") -> bytes:
    return end_ns.to_bytes(8, "big") + b"b" * 8 + name.encode()


@pytest.fixture
def store(database):
    return PostgresStore(database, wall_ns=lambda: NOW_NS)


@pytest.fixture
def old(database):
    return OldRows(database, slice_count=3)


async def slices(forget, **before) -> list[int]:
    """Forget until nothing more went; how many rows each slice took."""
    counts = [await forget(**before)]
    while counts[-1]:
        counts.append(await forget(**before))
    return counts


async def test_ended_windows_go_a_few_rows_at_a_time_and_shares_before_counters(store, old):
    gone = [key_of(NOW_NS - 1, f"user={number}") for number in range(4)]
    kept = key_of(NOW_NS)

    def work(rows: Rows) -> None:
        for key in (*gone, kept):
            rows.put(key, "d1", Pool(settled=1), Share(stand=Stand(settled=1)))

    await store.transact(work, daemon_ids=["d1"], keys=[*gone, kept])
    await store.top_up(
        TopUp(top_up_id="t", counter_key=gone[0], amount=1, actor="a", reason="", at_ns=1)
    )
    assert await old.windows(ended_before_ns=NOW_NS) == 3
    assert len(await store.list_shares()) == 2
    assert len(await store.list_pools()) == 5
    assert await slices(old.windows, ended_before_ns=NOW_NS) == [4, 2, 0]
    assert [key for key, _ in await store.list_pools()] == [kept]
    assert [key for key, _, _ in await store.list_shares()] == [kept]
    assert await store.list_top_ups(gone[0]) == []


async def test_logs_go_a_few_rows_at_a_time(store, old):
    def work(rows: Rows) -> None:
        for at in range(8):
            rows.alerts.append(Alert(raised_ns=at, kind="k", rule="r", message="m"))
            rows.audit.append(AuditRecord(at_ns=at, actor="a", action="b", subject="c"))

    await store.transact(work)
    assert await slices(old.alerts, before_ns=7) == [3, 3, 1, 0]
    assert await slices(old.audit, before_ns=4) == [3, 1, 0]
    assert [each.raised_ns for _, each in await store.list_alerts()] == [7]
    assert [each.at_ns for _, each in await store.list_audit()] == [7, 6, 5, 4]
