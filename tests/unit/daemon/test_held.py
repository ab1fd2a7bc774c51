"""What a daemon gives back of its leases, and what it asks for before it is needed."""

import pytest
from policy_parts import budget, policy
from scenario import World

from costd.daemon.fleet.borrow import Borrowing
from costd.daemon.fleet.held import EARLY_NS, Held
from costd.model.lease import Lease, Shortage
from costd.model.time import NS_PER_S
from costd.wire.pb import fleet_pb2 as pb

USD = NS_PER_S
MINUTE_NS = 60 * NS_PER_S


class Holding:
    """A real ledger in a fleet, and what is asked for to fill it."""

    def __init__(self):
        made = policy(budget("b", "100", window="minute"))
        self.world = World(made, in_fleet=True).play("tenure 1h -> ok\nlease b 40 -> ok")
        self.ledger = self.world.ledger
        self.key = self.world.key_of("b")
        [rule] = self.ledger.rules.budgets.values()
        self.next_key = rule.counter_key({}, self.now.wall_ns + MINUTE_NS)
        self.borrowing = Borrowing(self.ledger)
        self.sent = []
        self.borrowing.connected(self.sent.append, 1)
        self.held = Held(self.ledger, self.borrowing)

    @property
    def now(self):
        return self.ledger.clock.now()

    def need(self, usd):
        """Have something asked for and answered, so that it is known how much is of use."""
        self.borrowing.ask([Shortage(self.key, usd * USD)], self.now.steady_ns)
        reply = pb.LeaseReply(request_id=self.sent.pop().request_id, epoch=1)
        self.borrowing.replied(reply, self.now.steady_ns)

    def asked_ahead(self):
        self.held.ask_ahead([self.key], self.now.wall_ns, self.now.steady_ns)
        return [want.stand.counter_key for request in self.sent for want in request.wants]


@pytest.fixture
def holding():
    return Holding()


def test_what_is_given_back_is_told(holding):
    holding.world.play("admit r1 15 -> allow")
    holding.ledger.fleet_changed.clear()
    assert holding.held.lower([holding.key])
    assert holding.ledger.lease(holding.key).amount == 15 * USD
    assert holding.ledger.fleet_changed == {holding.key}
    holding.ledger.fleet_changed.clear()
    assert not holding.held.lower([holding.key])
    assert holding.ledger.fleet_changed == set()


def test_a_lease_on_the_next_window_is_asked_for_shortly_before_it_begins(holding):
    holding.world.clock.advance((MINUTE_NS - EARLY_NS) / NS_PER_S)
    holding.need(10)
    assert holding.asked_ahead() == []
    holding.world.clock.advance(0.001)
    assert holding.asked_ahead() == [holding.next_key]


def test_a_lease_on_the_next_window_that_is_held_is_not_asked_for_again(holding):
    holding.world.clock.advance(59)
    holding.need(10)
    holding.ledger.set_leases({holding.next_key: Lease(amount=5 * USD, limit=100 * USD)})
    assert holding.asked_ahead() == []


def test_more_is_asked_for_once_less_than_half_a_step_is_left(holding):
    holding.need(10)
    holding.world.play("admit r1 20 -> allow")
    assert holding.asked_ahead() == []
    holding.world.play("admit r2 0.01 -> allow")
    assert holding.asked_ahead() == [holding.key]
