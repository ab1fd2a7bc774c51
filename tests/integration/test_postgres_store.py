"""What only the real store has: many at once, partitions, connections that break."""

import asyncio
from datetime import date

import psycopg
import pytest
from msgspec.structs import replace

from costd.coordinator import listen, postgres
from costd.coordinator.database import Database
from costd.coordinator.listen import read_notice
from costd.coordinator.postgres import PostgresStore
from costd.coordinator.rows import Daemon, Rows, Share
from costd.coordinator.store import Notice, Topic
from costd.coordinator.transact import NOTICE_BYTES_MAX, recall_notices
from costd.coordinator.usage_days import UsageDays
from costd.coordinator.usage_rows import DAY_NS, day_of
from costd.model.events import Alert, AuditRecord
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import Selector
from costd.model.lease import Pool, Stand
from costd.wire.pb import control_pb2

NOW_NS = 20_000 * DAY_NS + 7
KEYS = [number.to_bytes(8, "big") + b"budget-x" + b"team=a" for number in range(12)]


@pytest.fixture
async def stores(make_database, open_database):
    """Two coordinators on one database."""
    url = make_database()
    async with open_database(url) as one, open_database(url) as two:
        yield [PostgresStore(each, wall_ns=lambda: NOW_NS) for each in (one, two)]


async def ask(store: PostgresStore, text: str):
    async with store._database.connection() as connection:
        cursor = await connection.execute(text)
        return await cursor.fetchall() if cursor.description else []


def spend(daemon_id: str, keys):
    """Read, add one, write: what loses updates where locks do not hold."""

    def work(rows: Rows) -> None:
        daemon = rows.daemons.get(daemon_id) or Daemon(daemon_id=daemon_id)
        rows.put_daemon(replace(daemon, epoch=daemon.epoch + 1))
        for key in keys:
            pool = rows.pool(key)
            before = rows.share(key, daemon_id)
            stand = before.stand if before else Stand()
            rows.put(
                key,
                daemon_id,
                replace(
                    pool, settled=pool.settled + 1, daemons_count=pool.daemons_count + (not before)
                ),
                Share(stand=replace(stand, settled=stand.settled + 1)),
            )

    return work


async def test_no_update_of_a_hot_counter_is_lost_between_two_coordinators(stores):
    async def run(store: PostgresStore, daemon_id: str) -> None:
        for _ in range(20):
            await store.transact(spend(daemon_id, KEYS[:1]), daemon_ids=[daemon_id], keys=KEYS[:1])

    await asyncio.gather(*[run(stores[n % 2], f"d{n}") for n in range(8)])
    [(_, pool)] = await stores[0].list_pools()
    assert pool.settled == 160
    assert pool.daemons_count == 8
    shares = await stores[1].list_shares()
    assert [share.stand.settled for _, _, share in shares] == [20] * 8


async def test_one_daemon_that_enrols_at_two_coordinators_for_the_first_time_gets_two_epochs(
    stores,
):
    async def enrol(store: PostgresStore) -> int:
        def work(rows: Rows) -> int:
            known = rows.daemons.get("d") or Daemon(daemon_id="d")
            rows.put_daemon(replace(known, epoch=known.epoch + 1))
            return known.epoch + 1

        return await store.transact(work, daemon_ids=["d"])

    epochs = await asyncio.gather(*[enrol(stores[n % 2]) for n in range(12)])
    assert sorted(epochs) == list(range(1, 13))


async def test_sets_in_any_order_of_new_and_old_counters_never_wait_in_a_circle(stores):
    async def run(store: PostgresStore, number: int) -> None:
        for turn in range(10):
            keys = [KEYS[(number * 5 + turn * 7 + step * (1 + number)) % 12] for step in range(4)]
            daemons = [f"d{(number + turn) % 6}", f"d{(number * turn) % 6}"]
            await store.transact(spend(daemons[0], set(keys)), daemon_ids=daemons, keys=keys)

    # Rows begin missing, so that inserting them is part of the race.
    await asyncio.gather(*[run(stores[n % 2], n) for n in range(12)])
    await ask(stores[0], "SELECT pg_stat_force_next_flush()")
    [(deadlocks,)] = await ask(
        stores[0], "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == 0
    pools = dict(await stores[0].list_pools())
    held = dict.fromkeys(pools, 0)
    for key, _, share in await stores[0].list_shares():
        held[key] += share.stand.settled
    assert held == {key: pool.settled for key, pool in pools.items()}


async def test_the_versions_of_kill_switches_rise_in_the_order_of_commits(stores):
    kill = KillSwitch(
        kill_id="k", scope=Selector(), mode=KillMode.DENY_ALL, reason="r", actor="a", engaged_ns=1
    )
    puts = [stores[n % 2].put_kill(replace(kill, kill_id=f"k{n}")) for n in range(20)]
    assert sorted(await asyncio.gather(*puts)) == list(range(1, 21))
    version, kills = await stores[0].list_kills()
    assert (version, len(kills)) == (20, 20)


# ---- days ---------------------------------------------------------------------------------------


def keep(*settled_ns: int):
    def work(rows: Rows) -> None:
        rows.usage += [
            ("d", control_pb2.UsageEvent(sequence=n, settled_ns=at, calls_count=1, cost_nusd=5))
            for n, at in enumerate(settled_ns, start=1)
        ]

    return work


async def test_every_day_has_a_partition_made_ahead_or_when_it_is_needed(stores):
    store = stores[0]
    await store.days.add_ahead()
    today = day_of(NOW_NS)
    assert (await store.days.present())[0] == today
    assert len(await store.days.present()) == 4
    await store.transact(keep(NOW_NS, NOW_NS - 9 * DAY_NS, 0))
    assert (await store.days.present())[:2] == [
        day_of(NOW_NS - 400 * DAY_NS),
        day_of(NOW_NS - 9 * DAY_NS),
    ]
    [(rows,)] = await ask(store, f"SELECT count(*) FROM usage_events_{today:%Y%m%d}")
    assert rows == 1


async def test_two_coordinators_may_make_one_day_at_once(stores):
    days = [UsageDays(each._database, wall_ns=lambda: NOW_NS) for each in stores * 3]
    wanted = [date(2024, 1, day) for day in range(1, 5)]
    await asyncio.gather(*[each.add(wanted) for each in days])
    assert await days[0].present() == wanted


async def test_old_days_are_dropped_and_their_hourly_sums_stay(stores):
    store = stores[0]
    await store.transact(keep(NOW_NS, NOW_NS - 40 * DAY_NS))
    await store.days.drop_before(day_of(NOW_NS - 35 * DAY_NS))
    assert await store.days.present() == [day_of(NOW_NS)]
    [found] = await store.sum_usage(since_ns=0, until_ns=2 * NOW_NS)
    assert found.calls_count == 2
    assert await store.old.hours(before_ns=NOW_NS - DAY_NS) == 1
    [found] = await store.sum_usage(since_ns=0, until_ns=2 * NOW_NS)
    assert found.calls_count == 1


async def test_a_day_that_another_replica_dropped_is_made_anew_for_late_events(stores):
    late_ns = NOW_NS - 40 * DAY_NS
    await stores[0].transact(keep(late_ns))
    await stores[1].days.drop_before(day_of(NOW_NS))
    await stores[0].transact(keep(late_ns))
    assert await stores[0].days.present() == [day_of(late_ns)]
    [found] = await stores[0].sum_usage(since_ns=0, until_ns=NOW_NS)
    assert found.calls_count == 2


async def test_a_day_that_is_being_read_is_dropped_later(stores):
    await stores[0].transact(keep(NOW_NS))
    async with stores[1]._database.connection() as connection, connection.transaction():
        await connection.execute("SELECT count(*) FROM usage_events")
        assert await stores[0].days.drop_before(date.max, wait_ms=50) == []
    assert await stores[0].days.drop_before(date.max) == [day_of(NOW_NS)]


async def test_events_of_a_transaction_that_fails_are_in_no_sum(stores):
    def work(rows: Rows) -> None:
        keep(NOW_NS)(rows)
        rows.usage.append(("d", control_pb2.UsageEvent(sequence=1, settled_ns=NOW_NS)))

    # The same event twice in one batch is one too many, and all of it is refused.
    with pytest.raises(Exception, match="duplicate key"):
        await stores[0].transact(work)
    assert await stores[0].sum_usage(since_ns=0, until_ns=2 * NOW_NS) == []


async def test_logs_are_forgotten_when_they_are_old(stores):
    def work(rows: Rows) -> None:
        for at in (1, 5):
            rows.alerts.append(Alert(raised_ns=at, kind="k", rule="r", message="m"))
            rows.audit.append(AuditRecord(at_ns=at, actor="a", action="b", subject="c"))

    await stores[0].transact(work)
    assert await stores[0].old.alerts(before_ns=5) == 1
    assert await stores[0].old.audit(before_ns=3) == 1
    assert await stores[0].old.recalls() == 0
    assert [each.raised_ns for _, each in await stores[0].list_alerts()] == [5]
    assert [each.at_ns for _, each in await stores[0].list_audit()] == [5]


async def test_a_change_of_amounts_touches_no_index_unless_all_is_used_by_it(stores):
    [key] = [(NOW_NS + 1).to_bytes(8, "big") + b"b" * 8]

    def work(rows: Rows) -> None:
        rows.put(key, "d1", Pool(), Share(stand=Stand(amount=9, settled=3)))

    await stores[0].transact(work, daemon_ids=["d1"], keys=[key])
    async with stores[0]._database.connection() as connection, connection.transaction():
        for settled, in_place in ((5, 1), (9, 1), (8, 1), (7, 2)):
            await connection.execute("UPDATE shares SET settled = %s", (settled,))
            told = await connection.execute(
                "SELECT n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'shares'"
            )
            assert await told.fetchone() == (in_place,)


# ---- notices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("slice_count", [1, 2, 3, 8, 9, 100])
async def test_what_may_still_be_used_is_summed_a_slice_at_a_time(stores, monkeypatch, slice_count):
    def work(rows: Rows) -> None:
        for number, key in enumerate(KEYS[:6]):
            for daemon_id in ("d1", "d2"):
                held = Share(stand=Stand(amount=10, settled=number % 3 * 5))
                rows.put(key, daemon_id, Pool(), held)

    await stores[0].transact(work, daemon_ids=["d1", "d2"], keys=KEYS[:6])
    monkeypatch.setattr(postgres, "UNUSED_COUNT", slice_count)
    summed = await stores[0].sum_unused([KEYS[0][8:16]], after_ns=0)
    assert summed == {"d1": 5 + 10 + 5, "d2": 5 + 10 + 5}


async def test_one_coordinator_hears_another_and_hears_all_after_a_broken_connection(stores):
    heard = stores[1].notices()
    try:
        async with asyncio.timeout(20):
            assert await anext(heard) == Notice(topic=Topic.ALL)
            await stores[0].publish_policy(revision="r", yaml="", actor="a", at_ns=1)
            assert await anext(heard) == Notice(topic=Topic.POLICY, version=1)
            with psycopg.connect(stores[0]._database.url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            assert await anext(heard) == Notice(topic=Topic.ALL)
            await stores[0].publish_policy(revision="r", yaml="", actor="a", at_ns=1)
            assert await anext(heard) == Notice(topic=Topic.POLICY, version=2)
    finally:
        await heard.aclose()


async def test_who_listens_hears_later_what_a_replica_that_polls_tells_nobody(stores, monkeypatch):
    monkeypatch.setattr(listen, "PROBE_S", 0.05)
    polling = PostgresStore(stores[0]._database, wall_ns=lambda: NOW_NS, polls=True)
    heard = stores[1].notices()
    try:
        async with asyncio.timeout(20):
            assert await anext(heard) == Notice(topic=Topic.ALL)
            await ask(polling, "INSERT INTO versions VALUES ('of a newer release', 1)")
            await polling.publish_policy(revision="r", yaml="", actor="a", at_ns=1)
            assert await anext(heard) == Notice(topic=Topic.POLICY, version=1)
            await stores[0].publish_policy(revision="r", yaml="", actor="a", at_ns=1)
            assert await anext(heard) == Notice(topic=Topic.POLICY, version=2)
            await polling.transact(lambda rows: setattr(rows, "lends_from_ns", 7))
            assert await anext(heard) == Notice(topic=Topic.RESTORED, version=7), "none twice"
    finally:
        await heard.aclose()


def test_recalls_are_told_in_as_few_notices_as_they_fit_in():
    keys = [bytes([number]) * 900 for number in range(20)]
    notices = recall_notices([*keys, b"x" * 5_000])
    assert all(len(each) <= NOTICE_BYTES_MAX for each in notices)
    told = [key for each in notices for key in read_notice(each).keys]
    assert told == keys
    assert len(notices) == 5
    assert recall_notices([]) == []
    assert recall_notices([b"x" * 5_000]) == []


@pytest.mark.parametrize("payload", ["", "kills", "kills x", "recall zz", "odd 1", "policy  2"])
def test_a_notice_that_is_not_ours_is_passed_over(payload):
    assert read_notice(payload) is None


async def test_a_pool_of_connections_outlives_more_work_than_it_has_connections(make_database):
    database = Database(make_database(), connections_max=2)
    await database.open()
    store = PostgresStore(database, wall_ns=lambda: NOW_NS)
    await asyncio.gather(
        *[
            store.transact(
                spend(f"d{n}", KEYS[n : n + 1]), daemon_ids=[f"d{n}"], keys=KEYS[n : n + 1]
            )
            for n in range(12)
        ]
    )
    assert len(await store.list_pools()) == 12
    await database.close()
