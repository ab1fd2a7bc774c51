"""What PostgreSQL forgets: in slices, each of them short, however much there is."""

import asyncio
import io

import pytest

from costd.coordinator.forgetting import Forgetting
from costd.coordinator.old_rows import OldRows
from costd.coordinator.postgres import PostgresStore
from costd.coordinator.rows import Daemon, Rows, Share
from costd.coordinator.settings import Settings
from costd.coordinator.store import TopUp
from costd.coordinator.usage_rows import DAY_NS
from costd.engine.rules import Rules
from costd.model.events import Alert, AuditRecord
from costd.model.lease import Pool, Stand
from costd.model.time import NEVER_NS
from costd.policy import parse_policy
from costd.pricing import PriceBook
from costd.telemetry.logs import make_log
from costd.testing import FakeClock

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


# ---- while others write -------------------------------------------------------------------------

OLD = Daemon(daemon_id="d1", epoch=1, seen_ns=50, tenure_ends_ns=60)
RUN = key_of(NEVER_NS, "run=one")


async def waited_for(store, *, count: int = 1) -> None:
    """Return once so many transactions wait for another's lock."""
    while True:
        async with store._database.connection() as connection:
            told = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            if (await told.fetchone() or (0,))[0] >= count:
                return


@pytest.fixture
async def faded(store):
    """A daemon that was not heard for long, and a run that is idle."""

    def work(rows: Rows) -> None:
        rows.put_daemon(OLD)
        rows.put(RUN, "d1", Pool(settled=5, taken=5, changed_ns=50), Share(stand=Stand(5, 0, 5)))

    await store.transact(work, daemon_ids=["d1"], keys=[RUN])


async def test_a_daemon_that_is_heard_just_then_is_not_forgotten(store, old, faded):
    async with store._database.connection() as connection, connection.transaction():
        await connection.execute("UPDATE daemons SET seen_ns = 500")
        forgetting = asyncio.create_task(old.daemons(heard_before_ns=100, at_ns=NOW_NS))
        await waited_for(store)
    assert await forgetting == ("", [])
    assert [each.seen_ns for each in await store.list_daemons()] == [500]


async def test_a_run_that_goes_on_just_then_is_not_forgotten(store, old, faded):
    async with store._database.connection() as connection, connection.transaction():
        await connection.execute("UPDATE pools SET changed_ns = 500, taken = 9")
        forgetting = asyncio.create_task(old.counters([RUN], changed_before_ns=100))
        await waited_for(store)
    assert await forgetting == 0
    assert len(await store.list_shares()) == 1


async def test_what_is_forgotten_just_then_is_begun_anew(store, faded):
    """A transaction that waits for rows which are deleted finds them gone, and adds them."""

    def work(rows: Rows) -> None:
        seen.append((rows.daemons["d1"].sequence, dict(rows.pools)))
        rows.put_daemon(rows.daemons["d1"])
        rows.put(RUN, "d1", Pool(settled=1, taken=1), Share(stand=Stand(1, 0, 1)))

    seen: list[tuple[int, dict[bytes, Pool]]] = []
    async with store._database.connection() as connection, connection.transaction():
        await connection.execute("DELETE FROM pools")
        await connection.execute("DELETE FROM shares")
        await connection.execute("INSERT INTO forgotten_daemons VALUES ('d1', 'n', 2, 1, -1, 0, 1)")
        await connection.execute("DELETE FROM daemons")
        writing = asyncio.create_task(
            store.transact(work, daemon_ids=["d1"], keys=[RUN], outboxes_of=["d1"])
        )
        await waited_for(store)
    await writing
    assert seen == [(-1, {})]
    assert [pool.settled for _, pool in await store.list_pools()] == [1]


async def test_what_is_forgotten_just_as_other_rows_are_added_is_begun_anew(store, faded):
    other = key_of(NEVER_NS, "run=two")

    def work(rows: Rows) -> None:
        rows.put_daemon(rows.daemons["d1"])
        rows.put(RUN, "d1", Pool(settled=1, taken=1), Share(stand=Stand(1, 0, 1)))

    async with store._database.connection() as connection, connection.transaction():
        await connection.execute("INSERT INTO pools (counter_key) VALUES (%s)", (other,))
        writing = asyncio.create_task(
            store.transact(work, daemon_ids=["d1"], keys=[RUN, other], outboxes_of=["d1"])
        )
        await waited_for(store)  # it has found the run, and adds the other one
        await connection.execute("DELETE FROM shares")
        await connection.execute("DELETE FROM pools WHERE counter_key = %s", (RUN,))
    await writing
    assert [pool.settled for _, pool in await store.list_pools()] == [1, 0]
    assert [key for key, _, _ in await store.list_shares()] == [RUN]


async def test_two_replicas_that_count_the_same_daemons_count_them_once(store, old):
    names = ["d1", "d2", "d3"]

    def work(rows: Rows) -> None:
        for name in names:
            rows.put_daemon(Daemon(daemon_id=name, seen_ns=500))
            rows.put(RUN, name, Pool(daemons_count=9), Share())

    await store.transact(work, daemon_ids=names, keys=[RUN])
    async with store._database.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM pools FOR UPDATE")
        counting = [asyncio.create_task(old.recount([RUN], heard_after_ns=100)) for _ in "ab"]
        await waited_for(store, count=2)
    assert sorted([await each for each in counting]) == [0, 1]
    assert [pool.daemons_count for _, pool in await store.list_pools()] == [3]


# ---- a replica's passes -------------------------------------------------------------------------


async def test_a_pass_forgets_all_that_is_old_but_daemons_that_older_replicas_would_not_know(
    store, faded
):
    policy = parse_policy("version: 1\nbudgets: [{id: run, window: run, limit: $1}]", "policy.yaml")
    rules = Rules(policy, PriceBook(policy), in_fleet=True)
    [rule] = rules.budgets.values()
    run = rule.counter_key({"run": "two"}, NOW_NS)

    def work(rows: Rows) -> None:
        rows.put_pool(run, Pool(settled=5, taken=5, changed_ns=50))
        rows.put_pool(key_of(5), Pool())
        rows.alerts.append(Alert(raised_ns=5, kind="k", rule="r", message="m"))
        rows.audit.append(AuditRecord(at_ns=5, actor="a", action="b", subject="c"))

    await store.transact(work, keys=[run, key_of(5)])
    log = make_log(level="error", style="json", stream=io.StringIO())
    clock = FakeClock(wall_ns=NOW_NS)
    forgetting = Forgetting(store, lambda: rules, {}, clock=clock, log=log, settings=Settings())
    async with store._database.connection() as connection:
        await connection.execute("INSERT INTO coordinators VALUES ('older', '0.1', 2)")
    forgetting.passes.begin()
    assert not await forgetting.passes.slice()
    assert forgetting.passes.problems == {}
    assert [key for key, _ in await store.list_pools()] == [RUN]
    assert (await store.list_alerts(), await store.list_audit()) == ([], [])
    assert len(await store.list_daemons()) == 1
    await store.leave("older")
    forgetting.passes.begin()
    assert not await forgetting.passes.slice()
    assert await store.list_daemons() == []


@pytest.mark.parametrize(
    ("retention_days", "left"), [(400, ["d1"]), (1_000, ["d0", "d1"])], ids=["sums", "events"]
)
async def test_who_was_forgotten_is_known_as_long_as_sums_and_events_are_kept(
    store, retention_days, left
):
    async with store._database.connection() as connection:
        for name, days in (("d0", 801), ("d1", 799)):
            await connection.execute(
                "INSERT INTO forgotten_daemons VALUES (%s, 'n', 2, 1, -1, 0, %s)",
                (name, NOW_NS - days * DAY_NS),
            )
    log = make_log(level="error", style="json", stream=io.StringIO())
    settings = Settings(usage_retention_s=retention_days * 86_400)
    policy = parse_policy("version: 1\n", "policy.yaml")
    rules = Rules(policy, PriceBook(policy), in_fleet=True)
    clock = FakeClock(wall_ns=NOW_NS)
    forgetting = Forgetting(store, lambda: rules, {}, clock=clock, log=log, settings=settings)
    forgetting.passes.begin()
    assert not await forgetting.passes.slice()
    async with store._database.connection() as connection:
        told = await connection.execute("SELECT daemon_id FROM forgotten_daemons ORDER BY 1")
        assert [name for (name,) in await told.fetchall()] == left
