"""What a daemon asks the coordinator for, and what it makes of the answers."""

import pytest

from costd.daemon.fleet.borrow import (
    GROW_WITHIN_NS,
    RECALLS_COUNT_MAX,
    SATED_NS,
    SHRINK_AFTER_NS,
    STEP_MAX,
    WANTS_COUNT_MAX,
    Ahead,
    Borrowing,
)
from costd.model.lease import Lease, Shortage, Stand
from costd.model.money import AMOUNT_MAX
from costd.model.time import NS_PER_S
from costd.model.trace import NO_TRACE, Trace
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb

NOW_NS = 1_000 * NS_PER_S
LEVEL = pb.Level(limit=100, others_used=30)


class Counters:
    """The ledger's part: counters, and the leases they have."""

    def __init__(self):
        self.used, self.leases, self.unused_ns = {}, {}, {}

    def stand(self, key):
        lease = self.leases.get(key, Lease())
        return Stand(amount=lease.amount, settled=self.used.get(key, 0), version=lease.version)

    def lease(self, key):
        return self.leases.get(key)

    def set_leases(self, leases, unused_ns=None):
        self.leases.update(leases)
        self.unused_ns = unused_ns


class World:
    def __init__(self):
        self.counters, self.sent, self.told = Counters(), [], []
        self.borrowing = Borrowing(self.counters)
        self.borrowing.connected(self.sent.append, epoch=3)

    def ask(self, *shorts, now_ns=NOW_NS, name="w"):
        """Ask for (key, amount_min) each, and note when that waiter is told."""
        wanted = [Shortage(key, amount) for key, amount in shorts]
        return self.borrowing.ask(wanted, now_ns, lambda: self.told.append(name))

    def ask_ahead(self, *wishes, now_ns=NOW_NS):
        self.borrowing.ask_ahead([Ahead(*wish) for wish in wishes], now_ns)

    def reply(self, *grants, now_ns=NOW_NS, retry_ns=0, epoch=3, request_id=""):
        """Answer the newest request by (key, outcome, amount, version) each."""
        reply = pb.LeaseReply(request_id=request_id or self.sent[-1].request_id, epoch=epoch)
        for key, outcome, *granted in grants:
            grant = reply.grants.add(counter_key=key, outcome=outcome, level=LEVEL)
            if granted:
                grant.amount, grant.version = granted
        reply.retry_after.CopyFrom(wire.duration(retry_ns))
        self.borrowing.replied(reply, now_ns)

    @property
    def wants(self):
        """What the newest request wants: (key, at least, wanted)."""
        return [
            (want.stand.counter_key, want.amount_min, want.amount_wanted)
            for want in self.sent[-1].wants
        ]


@pytest.fixture
def world():
    return World()


GRANTED, EXHAUSTED, RECALLED, SET_FAILED, NOT_NOW = (
    pb.LEASE_OUTCOME_GRANTED,
    pb.LEASE_OUTCOME_EXHAUSTED,
    pb.LEASE_OUTCOME_RECALLED,
    pb.LEASE_OUTCOME_SET_FAILED,
    pb.LEASE_OUTCOME_NOT_NOW,
)
REFUSALS = (
    EXHAUSTED,
    NOT_NOW,
    pb.LEASE_OUTCOME_NO_BUDGET,
    pb.LEASE_OUTCOME_WRONG_WINDOW,
)


# ---- asking ------------------------------------------------------------------------------------


def test_nobody_is_asked_where_nobody_is_there(world):
    world.borrowing.disconnected()
    assert not world.borrowing.is_connected
    assert not world.ask((b"a", 5))
    world.ask_ahead((b"a", 5))
    assert world.sent == []


def test_all_that_is_short_is_asked_for_at_once_and_in_order(world):
    world.counters.used[b"b"] = 10
    assert world.ask((b"b", 13), (b"a", 5))
    [request] = world.sent
    assert (request.epoch, request.ahead) == (3, False)
    assert world.wants == [(b"a", 5, 20), (b"b", 13, 22)], "four such calls are to pass"
    assert request.wants[1].stand.settled == 10


def test_a_counter_is_asked_for_once_at_a_time_and_all_are_told(world):
    world.ask((b"a", 5), name="first")
    assert world.ask((b"b", 1), (b"a", 9), name="second")
    assert len(world.sent) == 1
    world.reply((b"a", GRANTED, 20, 1))
    assert world.told == ["first", "second"]
    assert world.ask((b"a", 25))
    assert len(world.sent) == 2


def test_who_waits_no_longer_is_not_told(world):
    waiter = lambda: world.told.append("gone")  # noqa: E731  it is looked up by what it is
    world.borrowing.ask([Shortage(b"a", 5)], NOW_NS, waiter)
    world.ask((b"a", 5), name="stays")
    world.borrowing.forget(waiter)
    world.reply((b"a", GRANTED, 20, 1))
    assert world.told == ["stays"]


def test_whoever_waits_when_the_stream_ends_is_told(world):
    world.ask((b"a", 5))
    world.borrowing.disconnected()
    assert world.told == ["w"]
    world.borrowing.connected(world.sent.append, epoch=4)
    world.ask((b"a", 5))
    assert [request.epoch for request in world.sent] == [3, 4]


# ---- traces ------------------------------------------------------------------------------------

OURS, THEIRS = Trace("00-ours", "a=1"), Trace("00-theirs")


def carried(request):
    return request.traceparent, request.tracestate


def test_a_request_goes_in_the_trace_of_whoever_waited_first(world):
    ask, short = world.borrowing.ask, [Shortage(b"a", 5)]
    first, second, nobody = (lambda: None), (lambda: None), (lambda: None)
    ask(short, NOW_NS, first, trace=OURS)
    ask(short, NOW_NS, second, trace=THEIRS)
    assert [carried(request) for request in world.sent] == [OURS]
    assert [world.borrowing.trace_of(each) for each in (first, second, nobody)] == [
        OURS,
        OURS,
        NO_TRACE,
    ]


def test_a_request_that_nobody_traced_is_sent_again_in_the_trace_of_who_came_later(world):
    world.ask_ahead((b"a", 5))
    world.borrowing.ask([Shortage(b"a", 5)], NOW_NS, lambda: None, trace=OURS)
    world.reply((b"a", RECALLED))
    world.borrowing.tick(NOW_NS)
    assert [carried(request) for request in world.sent] == [NO_TRACE, OURS]


# ---- answers -----------------------------------------------------------------------------------


def test_what_is_granted_is_kept_with_how_the_fleet_stands(world):
    world.ask((b"a", 5))
    world.reply((b"a", GRANTED, 20, 1))
    assert world.counters.leases == {b"a": Lease(amount=20, version=1, limit=100, others_used=30)}


def test_a_grant_that_was_seen_already_brings_news_of_the_fleet_alone(world):
    world.counters.leases[b"a"] = Lease(amount=7, version=2)
    world.ask((b"a", 9))
    world.reply((b"a", GRANTED, 20, 2))
    assert world.counters.leases[b"a"] == Lease(amount=7, version=2, limit=100, others_used=30)


def test_an_answer_of_another_stream_or_to_nothing_that_is_out_changes_nothing(world):
    world.ask((b"a", 5))
    world.reply((b"a", GRANTED, 20, 1), epoch=2)
    world.reply((b"a", GRANTED, 20, 1), request_id="3-99")
    assert (world.counters.leases, world.told) == ({}, [])
    world.reply((b"a", GRANTED, 20, 1))
    world.reply((b"a", GRANTED, 30, 2))
    assert (world.counters.leases[b"a"].amount, world.told) == (20, ["w"])


@pytest.mark.parametrize("outcome", REFUSALS)
def test_after_a_refusal_nothing_is_asked_until_it_makes_sense(world, outcome):
    world.ask((b"a", 5))
    world.reply((b"a", outcome), retry_ns=NS_PER_S)
    assert world.told == ["w"]
    assert not world.ask((b"a", 5), now_ns=NOW_NS + NS_PER_S - 1)
    world.ask_ahead((b"a", 5), now_ns=NOW_NS + NS_PER_S - 1)
    assert len(world.sent) == 1
    assert world.ask((b"a", 5), now_ns=NOW_NS + NS_PER_S)


def test_another_stream_may_be_asked_at_once(world):
    world.ask((b"a", 5))
    world.reply((b"a", NOT_NOW), retry_ns=NS_PER_S)
    world.borrowing.disconnected()
    world.borrowing.connected(world.sent.append, epoch=4)
    assert world.ask((b"a", 5))


def test_what_nobody_has_is_known_until_the_coordinator_says_otherwise(world):
    world.ask((b"a", 5))
    world.reply((b"a", EXHAUSTED))
    assert set(world.borrowing.not_lent.exhausted) == {b"a"}
    world.ask((b"a", 5))
    world.reply((b"a", GRANTED, 20, 1))
    assert set(world.borrowing.not_lent.exhausted) == set()


def test_what_others_are_asked_to_give_back_is_asked_for_again_under_another_name(world):
    world.ask((b"a", 5))
    first = world.sent[-1].request_id
    world.reply((b"a", RECALLED), retry_ns=20)
    world.borrowing.tick(NOW_NS + 19)
    assert (len(world.sent), world.told) == (1, [])
    world.borrowing.tick(NOW_NS + 20)
    assert len({request.request_id for request in world.sent}) == 2
    world.reply((b"a", GRANTED, 20, 1), request_id=first)
    assert world.told == [], "an answer to what was sent before says nothing of this"
    world.reply((b"a", GRANTED, 20, 1))
    assert world.told == ["w"]


def test_what_nobody_gives_back_in_the_end_is_as_good_as_spent(world):
    world.ask((b"a", 5))
    for count in range(1, RECALLS_COUNT_MAX):
        world.reply((b"a", RECALLED))
        world.borrowing.tick(NOW_NS)
        assert (len(world.sent), world.told) == (count + 1, [])
    world.reply((b"a", RECALLED))
    assert (world.told, set(world.borrowing.not_lent.exhausted)) == (["w"], {b"a"})
    assert not world.ask((b"a", 5), now_ns=NOW_NS + SATED_NS - 1)
    assert world.ask((b"a", 5), now_ns=NOW_NS + SATED_NS)


def test_what_is_refused_as_well_is_not_waited_for(world):
    world.ask((b"a", 5), (b"b", 5))
    world.reply((b"a", RECALLED), (b"b", NOT_NOW), retry_ns=NS_PER_S)
    assert world.told == ["w"]


def test_what_nobody_waits_for_any_more_is_not_asked_for_again(world):
    waiter = lambda: world.told.append("gone")  # noqa: E731  it is looked up by what it is
    world.borrowing.ask([Shortage(b"a", 5)], NOW_NS, waiter)
    world.reply((b"a", RECALLED))
    world.borrowing.forget(waiter)
    world.borrowing.tick(NOW_NS)
    assert len(world.sent) == 1
    world.ask((b"a", 5))
    assert len(world.sent) == 2


# ---- ahead of need -----------------------------------------------------------------------------


def test_what_is_asked_for_ahead_needs_nothing_and_says_so(world):
    world.counters.used[b"a"] = 10
    world.ask_ahead((b"a", 8), (b"b", 6))
    assert world.sent[-1].ahead
    assert world.wants == [(b"a", 0, 18), (b"b", 0, 6)]


def test_what_is_being_asked_for_is_not_asked_for_ahead(world):
    world.ask((b"a", 5))
    world.ask_ahead((b"a", 8))
    assert len(world.sent) == 1


def test_what_was_not_to_be_had_ahead_is_left_alone_for_a_moment(world):
    world.ask_ahead((b"a", 8))
    world.reply((b"a", RECALLED))
    world.ask_ahead((b"a", 8), now_ns=NOW_NS + SATED_NS - 1)
    assert len(world.sent) == 1
    world.ask_ahead((b"a", 8), now_ns=NOW_NS + SATED_NS)
    assert len(world.sent) == 2


def test_many_wishes_are_asked_for_in_parts(world):
    world.ask_ahead(*((b"%d" % number, 1) for number in range(WANTS_COUNT_MAX + 1)))
    assert [len(request.wants) for request in world.sent] == [WANTS_COUNT_MAX, 1]


# ---- how much ----------------------------------------------------------------------------------


def lent_twice(world, after_ns):
    """Be lent 20, use them, and ask for five more so much later; returns how much was wanted."""
    world.ask((b"a", 5))
    world.reply((b"a", GRANTED, 20, 1))
    world.counters.used[b"a"] = 20
    world.borrowing.tick(NOW_NS + after_ns)
    world.ask((b"a", 25), now_ns=NOW_NS + after_ns)
    [(_, least, wanted)] = world.wants
    assert least == 25
    return wanted - 20


def test_a_lease_that_was_used_up_fast_is_followed_by_one_twice_as_large(world):
    assert lent_twice(world, GROW_WITHIN_NS - 1) == 40
    assert world.borrowing.step_of(b"a") == 40


def test_a_lease_that_lasted_is_followed_by_one_as_large(world):
    assert lent_twice(world, GROW_WITHIN_NS) == 20


def test_after_a_while_the_next_lease_begins_small_again(world):
    world.ask_ahead((b"a", 80))
    world.borrowing.tick(NOW_NS + SHRINK_AFTER_NS)
    assert world.borrowing.step_of(b"a") == 80
    world.borrowing.tick(NOW_NS + SHRINK_AFTER_NS + 1)
    assert world.borrowing.step_of(b"a") == 0


@pytest.mark.parametrize("outcome", [EXHAUSTED, RECALLED])
def test_where_there_was_nothing_left_the_next_lease_begins_small_again(world, outcome):
    world.ask_ahead((b"a", 80))
    world.reply((b"a", outcome))
    assert world.borrowing.step_of(b"a") == 0


def test_where_little_was_granted_the_next_lease_is_little_too(world):
    world.counters.used[b"a"] = 10
    world.ask((b"a", 15))
    world.reply((b"a", GRANTED, 17, 1))
    assert world.borrowing.step_of(b"a") == 7


def test_no_lease_grows_past_what_can_be_counted(world):
    world.ask_ahead((b"a", STEP_MAX))
    world.reply((b"a", GRANTED, AMOUNT_MAX, 1))
    world.counters.used[b"a"] = AMOUNT_MAX - 3
    world.ask((b"a", AMOUNT_MAX), now_ns=NOW_NS + 1)
    assert world.wants == [(b"a", AMOUNT_MAX, AMOUNT_MAX)]
    assert world.borrowing.step_of(b"a") == STEP_MAX
