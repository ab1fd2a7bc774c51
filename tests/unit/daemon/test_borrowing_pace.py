"""How large the leases are that a daemon asks for."""

import pytest

from costd.daemon.borrow import STEP_AHEAD, Ahead, Borrowing
from costd.model.lease import Stand
from costd.wire.pb import fleet_pb2 as pb

SECOND_NS = 1_000_000_000
KEY = b"counter"


class Counters:
    """One counter in memory."""

    def __init__(self):
        self.held = None
        self.used = 0

    def stand(self, key):
        return Stand(settled=self.used)

    def lease(self, key):
        return self.held

    def set_leases(self, leases):
        self.held = leases.get(KEY, self.held)


@pytest.fixture
def wants():
    """Ask for one call of ten every half second; `wants(count, most)` returns what was wanted beyond
    what was used each time, where the coordinator grants so much at most."""
    counters, sent = Counters(), []
    borrowing = Borrowing(counters)
    borrowing.connected(sent.append, 1)
    at_ns = 0

    def wants(count, most):
        nonlocal at_ns
        steps = []
        for _ in range(count):
            at_ns += SECOND_NS // 2
            assert borrowing.ask([Ahead(KEY, counters.used + 10)], at_ns)
            request = sent.pop()
            wanted = request.wants[0].amount_wanted
            steps.append(wanted - counters.used)
            amount = min(wanted, counters.used + most)
            version = counters.held.version + 1 if counters.held else 1
            grant = pb.Grant(
                counter_key=KEY, amount=amount, version=version,
                outcome=pb.LEASE_OUTCOME_GRANTED, level=pb.Level(counter_key=KEY),
            )  # fmt: skip
            reply = pb.LeaseReply(request_id=request.request_id, epoch=1, grants=[grant])
            borrowing.replied(reply, at_ns)
            counters.used = amount
        return steps

    return wants


def test_a_lease_that_is_used_up_at_once_is_followed_by_one_twice_as_large(wants):
    first = 10 * STEP_AHEAD
    assert wants(4, 10**9) == [first, 2 * first, 4 * first, 8 * first]


def test_where_the_fleet_has_less_than_was_wanted_no_more_is_wanted_next_time(wants):
    assert wants(100, 15) == [10 * STEP_AHEAD] * 100


def test_what_is_wanted_fits_into_a_message_however_fast_it_is_used_up(wants):
    assert wants(60, 10**9)[-1] <= 2 * 10**9
    assert sum(wants(2, 2**61)) < 2**63
