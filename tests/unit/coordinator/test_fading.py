"""Runs that are over, and daemons that come back after they were forgotten."""

import pytest
from msgspec.structs import replace

from costd.coordinator.exchange import Exchange
from costd.coordinator.fading import PAGE_COUNT, Fading, Kept, is_over, is_shared
from costd.coordinator.lendable import Span
from costd.coordinator.rows import Daemon, Outbox, Rows, Share
from costd.engine.lend import restate
from costd.engine.rules import Rules
from costd.model.lease import EMPTY_POOL, Pool, Stand
from costd.model.time import NEVER_NS, NS_PER_S
from costd.policy import parse_policy
from costd.pricing import PriceBook
from costd.testing.fleet_store import MemoryFleetStore
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb

NOW_NS = 1_772_409_540 * NS_PER_S
SPAN = Span()
POLICY = parse_policy(
    """
version: 1
budgets:
  - {id: run, window: run, match: {run: "*"}, limit: 100 calls}
  - {id: all, window: total, limit: 100 calls}
  - {id: day, window: day, limit: 100 calls}
rates:
  - {id: pace, limit: 60 requests / minute, burst: 60, share: fleet}
""",
    "policy.yaml",
)
RULES = Rules(POLICY, PriceBook(POLICY), in_fleet=True)
BY_ID = {rule.budget.budget_id: rule for rule in RULES.budgets.values()}
RUN = BY_ID["run"].counter_key({"run": "one"}, NOW_NS)
ALL = BY_ID["all"].counter_key({}, NOW_NS)
DAY = BY_ID["day"].counter_key({}, NOW_NS)
[PACE_TAG] = RULES.shared_rates
PACE = NEVER_NS.to_bytes(8, "big") + PACE_TAG
GONE = RUN[:8] + b"8 bytes." + RUN[16:]
IDLE = Pool(settled=5, taken=5, changed_ns=NOW_NS - 100 * NS_PER_S, daemons_count=2)
KEPT = Kept(daemons_ns=60 * NS_PER_S, runs_ns=60 * NS_PER_S)


def over(key, pool=IDLE):
    return is_over(key, pool, RULES, now_ns=NOW_NS, changed_before_ns=NOW_NS - 60 * NS_PER_S)


# ---- counters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "expected"),
    [(RUN, True), (ALL, False), (DAY, False), (GONE, False)],
    ids=["a run", "a budget without an end", "a day", "what the policy does not know"],
)
def test_of_idle_counters_those_of_runs_are_over(key, expected):
    assert over(key) is expected


@pytest.mark.parametrize(
    "changed",
    [
        {"changed_ns": NOW_NS - 60 * NS_PER_S},
        {"changed_ns": 0},
        {"taken": 6},
        {"reserve_taken": 1},
    ],
    ids=["changed lately", "changed nobody knows when", "unused", "unused reserve"],
)
def test_a_run_of_which_something_may_come_is_not_over(changed):
    assert not over(RUN, replace(IDLE, **changed))


def test_what_a_dead_daemon_has_in_flight_does_not_keep_its_run():
    assert over(RUN, replace(IDLE, settled=3, reserved=2))


def test_a_rate_that_nobody_holds_is_over_once_it_is_full_again():
    unheld = Pool(changed_ns=IDLE.changed_ns, start_ns=NOW_NS - 60 * NS_PER_S)
    assert over(PACE, unheld)
    assert not over(PACE, replace(unheld, start_ns=unheld.start_ns + 1))
    assert not over(PACE, replace(unheld, taken=1))


def test_daemons_are_counted_where_several_share_a_budget():
    assert is_shared(ALL, RULES)
    assert is_shared(DAY, RULES)
    assert not is_shared(RUN, RULES)
    assert not is_shared(PACE, RULES)
    assert not is_shared(GONE, RULES)


async def test_daemons_that_come_back_after_an_outage_are_counted_again():
    store = MemoryFleetStore()
    store.pools = {ALL: replace(IDLE, daemons_count=3)}
    store.shares = {(ALL, f"d{number}"): Share() for number in range(3)}
    store.daemons = {f"d{number}": Daemon(daemon_id=f"d{number}") for number in range(3)}
    fading = Fading(store, lambda: RULES, KEPT)
    await fading.counters(NOW_NS)
    assert store.pools[ALL].daemons_count == 0
    heard = {each: replace(daemon, seen_ns=NOW_NS) for each, daemon in store.daemons.items()}
    store.daemons = heard
    await fading.counters(NOW_NS)
    assert store.pools[ALL].daemons_count == 3


async def test_counters_are_looked_at_page_by_page_from_now_on():
    store = MemoryFleetStore()
    names = [f"run={number:04}" for number in range(PAGE_COUNT)]
    runs = [RUN[:16] + name.encode() for name in names]
    ended = (NOW_NS - 1).to_bytes(8, "big") + DAY[8:]
    store.pools = dict.fromkeys([*runs, ALL, ended], IDLE)
    store.shares = {(ALL, f"d{number}"): Share() for number in range(3)}
    store.daemons = {"d1": Daemon(daemon_id="d1", seen_ns=NOW_NS)}
    fading, gone = Fading(store, lambda: RULES, KEPT), []
    gone += await fading.counters(NOW_NS)
    assert fading.has_more_counters
    gone += await fading.counters(NOW_NS)
    assert not fading.has_more_counters
    assert sorted(gone) == runs
    assert store.pools == {ALL: replace(IDLE, daemons_count=1), ended: IDLE}


# ---- daemons ------------------------------------------------------------------------------------


async def forgotten(*shares):
    """A store that has forgotten daemon d1, which holds nothing of any counter."""
    store = MemoryFleetStore()
    store.daemons["d1"] = Daemon(
        daemon_id="d1", epoch=3, spoken_epoch=3, sequence=9, seen_ns=NOW_NS - 100 * NS_PER_S
    )
    store.outboxes["d1"] = Outbox(usage_sequence=40, epoch=3)
    for key, share in shares:
        store.shares[key, "d1"] = share
        store.pools[key] = restate(EMPTY_POOL, None, share.stand, limit=100, wall_ns=NOW_NS)
    assert await Fading(store, lambda: RULES, KEPT).daemons(NOW_NS) == ["d1"]
    assert store.daemons == {}
    return store


async def enrolled(store, *stands, **fields):
    enrol = pb.Enrol(daemon_id="d1", now_ns=NOW_NS, **{"epoch": 3, "heard_epoch": 3, **fields})
    enrol.stands.extend(wire.stand_to_pb(key, stand) for key, stand in stands)

    def work(rows: Rows):
        exchange = Exchange(rows, RULES, now_ns=NOW_NS, span=SPAN)
        return exchange.enrol(enrol), rows.lends_from_ns

    keys = [key for key, _ in stands]
    return await store.transact(
        work, daemon_ids=["d1"], keys=keys, outboxes_of=["d1"], with_all_shares_of=["d1"]
    )


async def test_a_daemon_that_comes_back_is_counted_once_and_holds_up_nobody():
    used = Stand(amount=5, settled=5, version=2)
    store = await forgotten((ALL, Share(stand=used, epoch=3)))
    welcome, lends_from_ns = await enrolled(
        store, (ALL, replace(used, settled=6)), heard_sequence=9, usage_first_sequence=38
    )
    assert (welcome.epoch, welcome.usage_sequence, welcome.has_forgotten) == (5, 40, False)
    assert lends_from_ns == 0
    assert store.pools[ALL].settled == 6
    assert store.alerts == []


async def test_what_was_taken_from_it_before_is_taken_when_it_comes_back():
    store = await forgotten()
    held = Stand(amount=9, settled=5, reserved=1, version=2)
    welcome, lends_from_ns = await enrolled(store, (RUN, held), heard_sequence=9)
    assert list(welcome.reclaimed_keys) == [RUN]
    assert (welcome.has_forgotten, lends_from_ns) == (False, 0)
    assert (store.pools[RUN].taken, store.pools[RUN].used) == (6, 6)
    assert store.shares[RUN, "d1"].is_reclaimed


async def test_what_it_used_up_of_a_run_that_is_forgotten_counts_again():
    store = await forgotten()
    used = Stand(amount=5, settled=5, version=2)
    welcome, lends_from_ns = await enrolled(store, (RUN, used), heard_sequence=9)
    assert (list(welcome.reclaimed_keys), welcome.has_forgotten, lends_from_ns) == ([], False, 0)
    assert store.pools[RUN].taken == 5


async def test_a_database_set_back_to_when_it_was_forgotten_believes_it():
    store = await forgotten()
    held = Stand(amount=9, settled=5, version=2)
    welcome, lends_from_ns = await enrolled(
        store, (ALL, held), epoch=5, heard_epoch=5, heard_sequence=1
    )
    assert welcome.has_forgotten
    assert list(welcome.reclaimed_keys) == []
    assert lends_from_ns == NOW_NS + SPAN.outlived_ns
    assert store.pools[ALL].taken == 9


async def test_books_of_a_living_daemon_may_know_a_run_that_is_forgotten():
    store = MemoryFleetStore()
    store.daemons["d1"] = Daemon(daemon_id="d1", epoch=3, spoken_epoch=3, sequence=9)
    store.outboxes["d1"] = Outbox(epoch=3)
    used = Stand(amount=5, settled=5, version=2)
    welcome, lends_from_ns = await enrolled(store, (RUN, used), heard_sequence=9)
    assert (welcome.has_forgotten, lends_from_ns) == (False, 0)
    assert store.pools[RUN].taken == 5
    held = replace(used, amount=6)
    store.shares.clear()
    store.pools.clear()
    welcome, lends_from_ns = await enrolled(store, (RUN, held), epoch=4)
    assert (welcome.has_forgotten, lends_from_ns) == (True, NOW_NS + SPAN.outlived_ns)
    assert store.pools[RUN].taken == 6


async def test_a_run_that_goes_on_counts_what_its_daemon_once_held():
    """A late settle may free some of what was used up when the run was forgotten."""
    store = MemoryFleetStore()
    store.daemons["d1"] = Daemon(daemon_id="d1", epoch=3)
    stand = Stand(amount=5, settled=3, version=2)
    report = pb.LeaseReport(epoch=3, sequence=1, now_ns=NOW_NS)
    report.stands.append(wire.stand_to_pb(RUN, stand))

    def work(rows: Rows):
        Exchange(rows, RULES, now_ns=NOW_NS, span=SPAN).report("d1", report)

    await store.transact(work, daemon_ids=["d1"], keys=[RUN])
    assert store.shares[RUN, "d1"].stand == stand
    assert (store.pools[RUN].taken, store.pools[RUN].used) == (5, 3)
