"""What every store of a coordinator forgets, each behaviour once, over memory and PostgreSQL."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from costd.coordinator.postgres import PostgresStore
from costd.coordinator.rows import Daemon, Outbox, Rows, Share
from costd.coordinator.store import CoordinatorStore, TopUp
from costd.model.lease import Pool, Stand
from costd.model.time import NEVER_NS
from costd.testing.fleet_store import MemoryFleetStore

NOW_NS = 10**18
OLD = Daemon(
    daemon_id="d1",
    name="host-1",
    epoch=4,
    spoken_epoch=3,
    sequence=7,
    seen_ns=50,
    tenure_ends_ns=60,
)
NEW = replace(OLD, daemon_id="d2", seen_ns=150, tenure_ends_ns=160)
CLOSED = Share(stand=Stand(amount=5, settled=5, version=2), epoch=4)
EMPTY = Share(stand=Stand(version=3), epoch=4)


def key_of(name: str, end_ns: int = NEVER_NS) -> bytes:
    return end_ns.to_bytes(8, "big") + b"b" * 8 + name.encode()


KEY, OTHER = key_of("a"), key_of("b")


@pytest.fixture(params=["memory", "postgres"])
async def store(request) -> AsyncIterator[CoordinatorStore]:
    if request.param == "memory":
        yield MemoryFleetStore(wall_ns=lambda: NOW_NS)
    else:
        open_database = request.getfixturevalue("open_database")
        async with open_database() as database:
            yield PostgresStore(database, wall_ns=lambda: NOW_NS)


async def put(store, *, daemons=(OLD,), pools=None, shares=None, outboxes=None):
    def work(rows: Rows) -> None:
        for daemon in daemons:
            rows.put_daemon(daemon)
        for key, pool in (pools or {}).items():
            rows.put_pool(key, pool)
        for (key, daemon_id), share in (shares or {}).items():
            rows.put(key, daemon_id, rows.pool(key), share)
        for daemon_id, outbox in (outboxes or {}).items():
            rows.put_outbox(daemon_id, outbox)

    await store.transact(
        work,
        daemon_ids={each.daemon_id for each in daemons} | {each[1] for each in shares or ()},
        keys={*(pools or ()), *(each[0] for each in shares or ())},
        outboxes_of=list(outboxes or ()),
    )


async def known(store, daemon_id: str) -> tuple[Daemon | None, Outbox | None]:
    """Ask for a daemon as it enrols, and write nothing."""
    rows = await store.transact(lambda rows: rows, daemon_ids=[daemon_id], outboxes_of=[daemon_id])
    return rows.daemons.get(daemon_id), rows.outboxes.get(daemon_id)


# ---- daemons ------------------------------------------------------------------------------------


async def test_a_daemon_that_was_not_heard_for_long_is_forgotten(store):
    await put(store, daemons=[OLD, NEW])
    assert await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS) == ("", ["d1"])
    assert await store.list_daemons() == [NEW]
    assert await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS) == ("", [])


@pytest.mark.parametrize("column", ["seen_ns", "tenure_ends_ns"])
async def test_one_that_may_still_be_there_is_kept(store, column):
    await put(store, daemons=[replace(OLD, **{column: 100})])
    assert await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS) == ("", [])


@pytest.mark.parametrize(
    "share",
    [
        replace(CLOSED, stand=Stand(amount=6, settled=5)),
        replace(CLOSED, stand=Stand(amount=6, settled=3, reserved=2)),
        replace(CLOSED, stand=Stand(amount=5, reserve_amount=1, settled=5)),
        replace(CLOSED, lost=1),
        replace(CLOSED, reserve_lost=1),
    ],
    ids=["unused", "unused beside what is reserved", "unused reserve", "lost", "lost reserve"],
)
async def test_one_that_holds_something_is_kept(store, share):
    await put(store, shares={(KEY, "d1"): CLOSED, (OTHER, "d1"): share})
    assert await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS) == ("", [])
    assert await store.list_daemons() == [OLD]


@pytest.mark.parametrize(
    "share",
    [
        CLOSED,
        replace(CLOSED, stand=Stand(amount=5, settled=3, reserved=2)),
        replace(CLOSED, stand=Stand(settled=7, overrun=7)),
        replace(CLOSED, is_reclaimed=True),
        replace(EMPTY, late=1),
        replace(EMPTY, stand=Stand(unadmitted=1)),
    ],
    ids=["used", "in flight", "overrun", "taken back", "late", "unadmitted"],
)
async def test_what_a_forgotten_daemon_used_stays_counted(store, share):
    pool = Pool(settled=5, taken=5, daemons_count=1)
    await put(store, pools={KEY: pool}, shares={(KEY, "d1"): share, (OTHER, "d1"): EMPTY})
    assert await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS) == ("", ["d1"])
    assert await store.list_shares() == [(KEY, "d1", share)]
    assert dict(await store.list_pools())[KEY] == pool


async def test_shares_of_which_nothing_is_in_any_sum_go_with_their_daemon(store):
    taken = replace(EMPTY, is_reclaimed=True)
    await put(
        store,
        daemons=[OLD, NEW],
        shares={(KEY, "d1"): EMPTY, (OTHER, "d1"): taken, (KEY, "d2"): EMPTY},
    )
    await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS)
    assert await store.list_shares() == [(KEY, "d2", EMPTY)]


async def test_one_that_comes_back_goes_on_where_it_was(store):
    await put(store, outboxes={"d1": Outbox(usage_sequence=12, epoch=4)})
    await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS)
    daemon, outbox = await known(store, "d1")
    assert daemon == Daemon(daemon_id="d1", name="host-1", epoch=5, spoken_epoch=3, sequence=-8)
    assert outbox == Outbox(usage_sequence=12)
    assert await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS) == ("", ["d1"])
    assert await known(store, "d1") == (daemon, outbox)
    await put(store, daemons=[replace(daemon, epoch=6, sequence=0, seen_ns=70)])
    assert (await known(store, "d1"))[0].epoch == 6
    await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS)
    assert (await known(store, "d1"))[0] == replace(daemon, epoch=7, sequence=-1)


async def test_one_that_is_forgotten_twice_before_it_tells_of_its_usage_goes_on_behind_it(store):
    await put(store, outboxes={"d1": Outbox(usage_sequence=12, epoch=4)})
    await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS)
    await store.transact(lambda rows: rows.put_daemon(rows.daemons["d1"]), daemon_ids=["d1"])
    assert await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS) == ("", ["d1"])
    assert (await known(store, "d1"))[1] == Outbox(usage_sequence=12)


async def test_one_that_never_was_there_is_not_known(store):
    await put(store)
    await store.old.daemons(heard_before_ns=100, at_ns=NOW_NS)
    assert (await known(store, "d9"))[0] is None
    assert await store.list_daemons() == []


# ---- counters -----------------------------------------------------------------------------------

IDLE = Pool(settled=5, taken=5, changed_ns=90)


async def test_a_counter_goes_with_its_shares_and_top_ups(store):
    await put(
        store,
        pools={KEY: IDLE, OTHER: replace(IDLE, taken=5, settled=3, reserved=2)},
        shares={(KEY, "d1"): CLOSED, (KEY, "d2"): EMPTY, (OTHER, "d1"): CLOSED},
    )
    await store.top_up(
        TopUp(top_up_id="t", counter_key=KEY, amount=1, actor="a", reason="", at_ns=80)
    )
    assert await store.old.counters([KEY, key_of("none")], changed_before_ns=100) == 1
    assert [key for key, _ in await store.list_pools()] == [OTHER]
    assert [key for key, _, _ in await store.list_shares()] == [OTHER]
    assert await store.list_top_ups(KEY) == []
    assert await store.old.counters([KEY, OTHER], changed_before_ns=100) == 1


@pytest.mark.parametrize(
    "pool",
    [
        replace(IDLE, changed_ns=100),
        replace(IDLE, changed_ns=0),
        replace(IDLE, taken=6),
        replace(IDLE, reserve_taken=1),
    ],
    ids=["changed since", "changed nobody knows when", "unused", "unused reserve"],
)
async def test_a_counter_that_is_not_over_stays(store, pool):
    await put(store, pools={KEY: pool}, shares={(KEY, "d1"): CLOSED})
    assert await store.old.counters([KEY], changed_before_ns=100) == 0
    assert await store.list_pools() == [(KEY, pool)]
    assert len(await store.list_shares()) == 1


async def test_a_top_up_is_a_change_of_its_counter(store):
    await put(store, pools={KEY: IDLE})
    await store.top_up(
        TopUp(top_up_id="t", counter_key=KEY, amount=1, actor="a", reason="", at_ns=100)
    )
    assert await store.old.counters([KEY], changed_before_ns=100) == 0
    assert dict(await store.list_pools())[KEY].topped_up == 1


# ---- who shares a counter -----------------------------------------------------------------------


async def test_daemons_that_were_not_heard_lately_share_no_counter(store):
    gone = "d3"
    await put(
        store,
        daemons=[OLD, NEW],
        pools={KEY: Pool(daemons_count=9, settled=4), OTHER: Pool(daemons_count=2)},
        shares={
            **{(KEY, each): CLOSED for each in ("d1", "d2", gone)},
            **{(OTHER, each): EMPTY for each in ("d1", "d2")},
        },
    )
    assert await store.old.recount([KEY, OTHER], heard_after_ns=100) == 2
    pools = dict(await store.list_pools())
    assert pools == {KEY: Pool(daemons_count=1, settled=4), OTHER: Pool(daemons_count=1)}
    assert await store.old.recount([KEY, OTHER], heard_after_ns=100) == 0
    assert await store.old.recount([KEY], heard_after_ns=50) == 1
    assert dict(await store.list_pools())[KEY].daemons_count == 2
