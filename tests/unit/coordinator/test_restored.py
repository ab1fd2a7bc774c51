"""A database that was restored from a backup: daemons know better what they hold."""

import pytest

from costd.coordinator.exchange import Exchange
from costd.coordinator.lendable import Span
from costd.coordinator.reception import Published, Reception
from costd.coordinator.rows import Daemon, Outbox, Rows, Share
from costd.engine.lend import restate
from costd.engine.rules import Rules
from costd.errors import InvalidAsk, StillSpending
from costd.model.lease import EMPTY_POOL, Stand
from costd.model.time import NS_PER_S
from costd.policy import parse_policy
from costd.pricing import PriceBook
from costd.testing import FakeClock
from costd.testing.fleet_store import MemoryFleetStore
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb

NOW_NS = 1_772_409_540 * NS_PER_S
SPAN = Span()
POLICY = parse_policy(
    "version: 1\nbudgets: [{id: b, window: minute, limit: 100 calls}]", "policy.yaml"
)
RULES = Rules(POLICY, PriceBook(POLICY), in_fleet=True)
[RULE] = RULES.budgets.values()
LIMIT = RULE.limit
KEY = RULE.counter_key({}, NOW_NS)
ENDED_KEY = RULE.counter_key({}, NOW_NS - 120 * NS_PER_S)


def rows_of(known, *, epoch=3, key=KEY):
    """What the backup has: d1 stands as `known` in that epoch."""
    pool = restate(EMPTY_POOL, None, known, limit=LIMIT, wall_ns=NOW_NS)
    return Rows(
        daemons={"d1": Daemon(daemon_id="d1", epoch=epoch, spoken_epoch=epoch)},
        pools={key: pool},
        shares={(key, "d1"): Share(stand=known, epoch=epoch)},
        outboxes={"d1": Outbox()},
    )


def enrolled(rows, stand, *, epoch=3, key=KEY):
    exchange = Exchange(rows, RULES, now_ns=NOW_NS, span=SPAN)
    enrol = pb.Enrol(daemon_id="d1", epoch=epoch, now_ns=NOW_NS)
    enrol.stands.append(wire.stand_to_pb(key, stand))
    exchange.enrol(enrol)
    return exchange


def granted(exchange, epoch):
    want = pb.Want(stand=wire.stand_to_pb(KEY, Stand()), amount_min=1, amount_wanted=1)
    request = pb.LeaseRequest(request_id="r", epoch=epoch, sequence=1, wants=[want])
    return exchange.request("d1", request).grants[0].outcome


@pytest.mark.parametrize(
    ("known", "stated", "epoch"),
    [
        (Stand(amount=5, version=1), Stand(amount=LIMIT, version=2), 3),
        (Stand(amount=5, version=1), Stand(amount=LIMIT, version=1), 4),
    ],
    ids=["a grant is forgotten", "an epoch is forgotten"],
)
def test_what_a_daemon_holds_is_believed_and_nothing_granted_until_all_have_told(
    known, stated, epoch
):
    rows = rows_of(known)
    exchange = enrolled(rows, stated, epoch=epoch)
    assert rows.shares[KEY, "d1"].stand == stated
    assert rows.pools[KEY].taken == LIMIT
    assert rows.lends_from_ns == NOW_NS + SPAN.tenure_ns + SPAN.skew_ns_max
    assert granted(exchange, epoch + 1) == pb.LEASE_OUTCOME_NOT_NOW


def test_a_counter_that_is_forgotten_altogether_is_believed_likewise():
    rows = Rows(daemons={"d1": Daemon(daemon_id="d1", epoch=3)}, outboxes={"d1": Outbox()})
    enrolled(rows, Stand(amount=7, version=2))
    assert rows.pools[KEY].taken == 7
    assert rows.lends_from_ns == NOW_NS + SPAN.tenure_ns + SPAN.skew_ns_max


def test_what_others_were_lent_meanwhile_comes_late():
    rows = rows_of(Stand(amount=5, version=1))
    other = Stand(amount=LIMIT - 5, version=1)
    rows.pools[KEY] = restate(rows.pools[KEY], None, other, limit=LIMIT, wall_ns=NOW_NS)
    enrolled(rows, Stand(amount=25, version=2))
    assert (rows.pools[KEY].taken, rows.pools[KEY].late) == (LIMIT + 20, 20)
    assert rows.shares[KEY, "d1"].late == 20


@pytest.mark.parametrize(
    ("known", "stated", "key"),
    [
        (Stand(amount=5, version=2), Stand(amount=7, version=1), KEY),
        (Stand(amount=5, version=2), Stand(amount=7, version=2), KEY),
        (Stand(amount=5, version=1), Stand(amount=5, version=2), KEY),
        (Stand(amount=7, version=1), Stand(amount=5, settled=5, version=2), KEY),
        (Stand(amount=5, version=1), Stand(amount=7, version=2), ENDED_KEY),
    ],
    ids=["an older grant", "no grant", "as much", "gives back", "a window that is over"],
)
def test_a_late_or_modest_daemon_is_no_sign_of_that(known, stated, key):
    rows = rows_of(known, key=key)
    enrolled(rows, stated, key=key)
    assert rows.lends_from_ns == 0
    assert rows.shares[key, "d1"].stand.amount == 5


def admitted(rows, **fields):
    exchange = Exchange(rows, RULES, now_ns=NOW_NS, span=SPAN)
    return exchange.enrol(pb.Enrol(daemon_id="d1", now_ns=NOW_NS, **fields))


def test_what_a_daemon_has_not_told_yet_stays_taken_and_is_asked_for():
    rows = rows_of(Stand(amount=7, settled=2, version=1))
    welcome = admitted(rows, epoch=3, heard_epoch=3, heard_sequence=1)
    assert welcome.has_forgotten
    assert [level.counter_key for level in welcome.levels] == [KEY]
    assert rows.pools[KEY].taken == 7


def test_an_admittance_that_was_lost_is_given_again():
    rows = rows_of(Stand(amount=7, settled=2, version=1))
    for _ in range(2):
        assert admitted(rows, epoch=3, heard_epoch=3, heard_sequence=1).has_forgotten


def test_use_that_was_forgotten_and_lent_to_others_comes_late():
    rows = rows_of(Stand(amount=5, version=1))
    other = Stand(amount=LIMIT - 5, version=1)
    rows.pools[KEY] = restate(rows.pools[KEY], None, other, limit=LIMIT, wall_ns=NOW_NS)
    exchange = Exchange(rows, RULES, now_ns=NOW_NS, span=SPAN)
    told = wire.stand_to_pb(KEY, Stand(amount=20, settled=20, version=1))
    exchange.report("d1", pb.LeaseReport(epoch=3, sequence=1, now_ns=NOW_NS, stands=[told]))
    assert rows.shares[KEY, "d1"].stand.amount == 20
    assert (rows.pools[KEY].taken, rows.pools[KEY].late) == (LIMIT + 15, 15)


def reclaimed(rows, **heard):
    exchange = Exchange(rows, RULES, now_ns=NOW_NS, span=SPAN, **heard)
    return exchange.reclaim("d1", [KEY])


@pytest.mark.parametrize("heard", ["lends_from_ns", "reclaims_from_ns"])
def test_a_tenure_that_a_restored_database_says_is_over_is_not_believed_until_all_were_heard(heard):
    rows = rows_of(Stand(amount=7, version=1))
    assert rows.daemons["d1"].tenure_ends_ns < NOW_NS
    with pytest.raises(StillSpending, match=r"its database was restored.* wait 1\.5 s more"):
        reclaimed(rows, **{heard: NOW_NS + 3 * NS_PER_S // 2})
    assert rows.shares[KEY, "d1"].stand.amount == 7
    assert reclaimed(rows, **{heard: NOW_NS}) == 7


async def test_a_replica_takes_nothing_from_anybody_who_may_not_have_joined_since_it_started():
    clock, store = FakeClock(), MemoryFleetStore()
    published = Published(pb.PublishedPolicy(number=1), RULES)
    reception = Reception(store, clock, published, SPAN)
    store.daemons["d1"] = Daemon(daemon_id="d1", name="d1", epoch=3)
    store.pools[KEY], store.shares[KEY, "d1"] = EMPTY_POOL, Share(stand=Stand(amount=7, version=1))

    async def reclaim():
        def work(rows):
            return reception.exchange(rows, clock.now().wall_ns).reclaim("d1", [KEY])

        return await store.transact(work, daemon_ids=["d1"], keys=[KEY])

    clock.advance((SPAN.tenure_ns + SPAN.skew_ns_max) / NS_PER_S - 1)
    with pytest.raises(StillSpending, match=r"wait 1\.0 s more"):
        await reclaim()
    clock.advance(1)
    assert await reclaim() == 7


def test_a_stream_from_before_a_restore_is_over_where_its_daemon_is_reclaimed():
    rows = rows_of(Stand(amount=7, version=1))
    exchange = Exchange(rows, RULES, now_ns=NOW_NS, span=SPAN)
    exchange.reclaim("d1", [KEY])  # the database counts epoch 4 again, in which the daemon speaks
    for sequence in (1, 2):
        with pytest.raises(InvalidAsk, match="enrol anew"):
            exchange.report("d1", pb.LeaseReport(epoch=4, sequence=sequence, now_ns=NOW_NS))
