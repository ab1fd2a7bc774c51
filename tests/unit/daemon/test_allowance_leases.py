"""Allowances of a fleet's budget: within the lease, within the tenure, judged by the fleet."""

import pytest
from allowance_world import CALL_NUSD, HEAD, LIFETIME_S, World, parsed

from costd.engine import keys
from costd.engine.changes import Family
from costd.model.lease import Lease, Shortage
from costd.model.time import NS_PER_S

USD = 10**9
BUDGET = HEAD + "budgets:\n  - {id: all, window: total, limit: $100%s}\n"


class Fleet(World):
    """A daemon with a coordinator, which nobody asks: the test is the coordinator."""

    def __init__(self, policy=BUDGET % "", *, tenure_s=9.0, **lease):
        super().__init__(policy)
        self.ledger.rules = type(self.ledger.rules)(
            parsed(policy), self.ledger.rules.prices, in_fleet=True
        )
        self.tenure(tenure_s)
        (self.rule,) = self.ledger.rules.budgets.values()
        self.key = keys.window_prefix(2**63 - 1, self.rule.tag)
        self.borrowed = []
        self.desk.borrow = self.borrowed.append
        if lease:
            self.lend(**lease)

    def tenure(self, seconds):
        until_ns = self.clock.steady_ns + round(seconds * NS_PER_S)
        self.ledger.state.leases_until_ns = until_ns

    def lend(self, amount, others=0):
        lease = Lease(amount=round(amount * USD), limit=100 * USD, others_used=others * USD)
        self.ledger.set_leases({self.key: lease})


def test_an_allowance_is_a_share_of_what_is_left_of_the_lease():
    world = Fleet(amount=20)
    allowance = world.client().hello().granted(10**6)
    assert allowance.amount_nusd == 1 * USD // CALL_NUSD * CALL_NUSD
    assert world.counter.reserved == allowance.amount_nusd
    world.check()


def test_an_allowance_is_a_share_of_what_the_fleet_has_left_where_that_is_less():
    world = Fleet(amount=20, others=96)
    assert world.client().hello().granted(10**6).amount_nusd <= 4 * USD // 20


def test_an_allowance_keeps_under_the_next_step_of_the_fleet():
    world = Fleet(BUDGET % ", steps: [{at: 50%, do: [cache]}]", amount=90, others=48)
    allowance = world.client().hello().granted(10**6)
    assert allowance.amount_nusd <= 2 * USD // 20


@pytest.mark.parametrize(
    ("tenure_s", "lifetime_s"), [(60, LIFETIME_S), (LIFETIME_S, LIFETIME_S), (3, 3), (0.1, 0.1)]
)
def test_an_allowance_ends_within_the_tenure(tenure_s, lifetime_s):
    world = Fleet(amount=20, tenure_s=tenure_s)
    allowance = world.client().hello().granted(100)
    assert allowance.lifetime.ToNanoseconds() == round(lifetime_s * NS_PER_S)


@pytest.mark.parametrize("tenure_s", [-1, 0, 0.099])
def test_there_is_no_allowance_when_the_tenure_is_all_but_over(tenure_s):
    world = Fleet(amount=20, tenure_s=tenure_s)
    assert not world.client().hello().ask(100).HasField("allowance")


def test_a_lease_that_is_too_small_for_an_allowance_is_to_be_enlarged():
    world = Fleet(amount=0.1)
    client = world.client().hello()
    answer = client.ask(100)
    assert not answer.HasField("allowance")
    assert answer.retry_after.seconds == 1
    ((short,),) = world.borrowed
    assert short == Shortage(world.key, 4 * CALL_NUSD * 20)
    world.lend(short.amount_min / USD)
    client.heard.clear()
    assert client.ask(100).allowance.calls_count == 4


def test_what_is_wanted_for_an_allowance_comes_on_top_of_what_is_used():
    world = Fleet(amount=0.1)
    assert world.asked(0.09 * USD)
    world.client().hello().ask(100)
    ((short,),) = world.borrowed
    assert short.amount_min == 90_000_000 + 4 * CALL_NUSD * 20


def test_without_a_lease_the_first_call_is_what_is_wanted():
    world = Fleet()
    world.client().hello().ask(100)
    assert world.borrowed == [(Shortage(world.key, CALL_NUSD),)]


def test_a_lease_is_not_asked_for_where_the_fleet_has_too_little_left():
    world = Fleet(amount=0.01, others=99)
    assert not world.client().hello().ask(100).HasField("allowance")
    assert world.borrowed == []


def test_what_nobody_can_ask_for_is_told_to_nobody():
    world = Fleet()
    world.desk.borrow = None
    assert not world.client().hello().ask(100).HasField("allowance")


def test_all_leases_that_are_too_small_are_wanted_together_in_order():
    policy = HEAD + (
        "budgets:\n  - {id: all, window: total, limit: $100}\n"
        "  - {id: calls, window: total, limit: 1000 calls}\n"
    )
    world = World(policy)
    rules = world.ledger.rules
    world.ledger.rules = type(rules)(parsed(policy), rules.prices, in_fleet=True)
    world.ledger.state.leases_until_ns = 9 * NS_PER_S
    tags = sorted(world.ledger.rules.budgets)
    made = [keys.window_prefix(2**63 - 1, tag) for tag in tags]
    world.ledger.set_leases({key: Lease(10_000_000, 0, 1000 * USD) for key in made})
    calls = next(k for k in made if rules.budgets[k[8:16]].budget.unit == "calls")
    world.ledger.set_leases({calls: Lease(3, 0, 1000)})
    heard = []
    world.desk.borrow = heard.append
    world.client().hello().ask(100)
    assert [short.key for short in heard[0]] == made


def test_allowances_are_revoked_when_the_fleet_has_little_left_though_the_lease_has_room():
    world = Fleet(amount=20)
    client = world.client().hello()
    client.granted(100)
    world.lend(20, others=97)
    assert world.asked(1 * USD)
    assert [m.revocation.reason for m in client.heard if m.WhichOneof("message") == "revocation"]


def test_an_allowance_of_free_calls_does_not_mind_the_tenure():
    policy = BUDGET % "" + "prices: [{models: openai/gpt-4o, input: $0, output: $0}]\n"
    world = Fleet(policy, tenure_s=0)
    assert world.client().hello().granted(100).lifetime.ToNanoseconds() == LIFETIME_S * NS_PER_S


def test_a_fail_mode_sets_no_allowance_aside():
    world = Fleet(BUDGET % "" + "fleet: {fail_mode: open}\n", tenure_s=0)
    assert not world.client().hello().ask(100).HasField("allowance")
    assert world.asked(5 * USD)
    assert world.counter.unadmitted == 5 * USD


def test_draws_of_an_allowance_are_news_to_the_coordinator():
    world = Fleet(amount=20)
    world.client().hello().granted(100)
    assert world.ledger.fleet_changed == {world.key}
    assert [key for key, _ in world.store.scan(Family.LEASES)] == [world.key]
