"""Whatever is lent and given back, a daemon uses no more of a fleet's budget than it may."""

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from policy_parts import budget, policy, step
from scenario import World, ask_id

from costd.daemon.sweeper import Retention
from costd.engine.bounds import bounds, room_left, shortage
from costd.engine.changes import Family
from costd.engine.leases import relent, stand
from costd.engine.resolve import Report
from costd.engine.rules import BudgetRule
from costd.errors import ReservationClosed, ReservationNotFound
from costd.model.ask import Ask
from costd.model.counter import EMPTY_COUNTER, Counter
from costd.model.decision import Verdict
from costd.model.lease import Lease, Shortage, Wanting
from costd.model.policy import FailMode, FleetTerms, PolicySet
from costd.model.reservation import Excuse, ReservationState
from costd.model.time import NS_PER_S

CENT = 10_000_000
KEEP = Retention(counters_s=10**9, usage_s=10**9, alerts_s=10**9, audit_s=10**9)
LADDER = [step(40, max_retries=1), step(70, tiers_down=1), step(burn=4, cache=True)]


def version(mode: str = "closed") -> PolicySet:
    return policy(
        budget("all", "50", reserve="10", steps=LADDER),
        budget("user", "20", per=("user",)),
        budget("calls", 12, unit="calls", match={"team": "b"}),
        budget("seen", "9", match={"team": "a"}, shadow=True),
        budget("here", "45", share="host"),
        fleet=FleetTerms(fail_mode=FailMode(mode)),
    )


POLICIES = [version(), version("safe"), version("open")]
amounts = st.sampled_from([0, 1, CENT, 50 * CENT, 160 * CENT, 333_333_333, 700 * CENT])
lent = st.sampled_from([0, 1, 3, CENT, 100 * CENT, 400 * CENT, 2000 * CENT, 5000 * CENT])
shares = st.sampled_from([0, 10, 50, 100])


class Leases(RuleBasedStateMachine):
    """One daemon whose leases rise and fall while calls come and go."""

    @initialize(index=st.integers(0, len(POLICIES) - 1))
    def open(self, index: int) -> None:
        self.world = World(POLICIES[index], retention=KEEP, in_fleet=True)
        self.open_ids: list[bytes] = []
        self.count = 0
        self.tenure(600)

    # ---- the coordinator ----------------------------------------------------------------------

    @rule(lasts_s=st.sampled_from([0, 1, 600, 600, 600]))
    def tenure(self, lasts_s: int) -> None:
        until_ns = self.world.clock.steady_ns + lasts_s * NS_PER_S
        self.world.ledger.state.leases_until_ns = until_ns

    @rule(
        name=st.sampled_from(["all", "all", "user/user=ann", "calls", "seen"]),
        amount=lent,
        kept=shares,
        others=amounts,
    )
    def lend(self, name: str, amount: int, kept: int, others: int) -> None:
        """Raise or lower a lease, with any part of it in reserve."""
        key = self.world.key_of(name)
        rule_of = self.world.ledger.rules.budgets[key[8:16]]
        before = self.world.ledger.stand(key)
        lease = Lease(
            amount=amount,
            reserve_amount=amount * kept // 100,
            limit=rule_of.limit,
            reserve=rule_of.budget.reserve,
            others_used=others,
        )
        self.world.ledger.set_leases({key: lease})
        after = self.world.ledger.stand(key)
        assert after.amount >= min(before.amount, before.used)
        assert after.reserve_amount >= min(before.reserve_amount, before.reserve_used)
        assert 0 <= after.reserve_amount <= after.amount

    @rule(name=st.sampled_from(["all", "user/user=ann"]))
    def give_back(self, name: str) -> None:
        """Give back all that is not used, and once nothing is in flight account for it no longer."""
        key, ledger = self.world.key_of(name), self.world.ledger
        ledger.set_leases({key: Lease()})
        if not ledger.stand(key).reserved:
            ledger.account_no_longer([key])
            assert self.world.store.get(Family.LEASES, key) is None

    @rule()
    def restart(self) -> None:
        ledger = self.world.ledger
        self.world.open()
        assert self.world.ledger.lent.held == ledger.lent.held

    # ---- agents -------------------------------------------------------------------------------

    @rule(
        team=st.sampled_from(["a", "b"]),
        task_class=st.sampled_from(["draft", "draft", "review"]),
        amount=amounts,
        lends=st.booleans(),
    )
    def admit(self, team: str, task_class: str, amount: int, lends: bool) -> None:
        self.count += 1
        ask = Ask(
            ask_id=ask_id(f"a{self.count}"),
            labels={"team": team, "user": "ann"},
            task_class=task_class,
            estimated_cost_nusd=amount,
        )
        ledger = self.world.ledger
        found = ledger.admit(ask, may_wait=True)
        if isinstance(found, Wanting):
            wanted = [short.key for short in found.shortages]
            assert wanted == sorted(set(wanted))
            if lends:
                self.tenure(600)
                ledger.set_leases({short.key: self._enough(short) for short in found.shortages})
                found = ledger.admit(ask, may_wait=True)
                assert not isinstance(found, Wanting), "what it wanted was not enough"
            else:
                found = ledger.admit(ask)
        if found.decision.verdict is Verdict.DENY:
            return
        self.open_ids.append(found.decision.reservation_id)
        held = ledger.find_reservation(found.decision.reservation_id)
        for line in held.counters:
            rule_of = ledger.rules.budgets[line.key[8:16]]
            if rule_of.is_shared and line.hold and line.excuse is Excuse.NONE:
                now = ledger.stand(line.key)
                assert now.used <= now.amount
                assert not line.reserve_hold or now.reserve_used <= now.reserve_amount
                assert self.world.clock.steady_ns < ledger.state.leases_until_ns

    def _enough(self, short: Shortage) -> Lease:
        """Lend exactly what is wanted, as the coordinator would."""
        ledger = self.world.ledger
        rule_of, now = ledger.rules.budgets[short.key[8:16]], ledger.stand(short.key)
        held = ledger.lease(short.key) or Lease(
            limit=rule_of.limit or 0, reserve=rule_of.budget.reserve
        )
        kept = now.reserve_amount
        if short.critical:
            kept = max(kept, now.reserve_used) + max(0, short.amount_min - now.taken)
        amount = max(now.amount, short.amount_min)
        return Lease(amount, min(kept, amount), held.limit, held.reserve, held.others_used)

    @precondition(lambda self: self.open_ids)
    @rule(pick=st.integers(0, 99), how=st.sampled_from(["settle", "void", "extend"]), cost=amounts)
    def close(self, pick: int, how: str, cost: int) -> None:
        reservation_id = self.open_ids[pick % len(self.open_ids)]
        ledger = self.world.ledger
        try:
            if how == "settle":
                ledger.settle(reservation_id, cost_nusd=cost)
            elif how == "void":
                ledger.void(reservation_id)
            else:
                ledger.extend(reservation_id, additional_cost_nusd=cost, may_wait=bool(pick % 2))
        except (ReservationClosed, ReservationNotFound):
            self.open_ids.remove(reservation_id)

    @rule(cost=amounts)
    def record(self, cost: int) -> None:
        self.count += 1
        ask = Ask(ask_id=ask_id(f"r{self.count}"), labels={"user": "ann", "team": "a"})
        self.world.ledger.record(ask, Report(cost_nusd=cost), cost_known=True)

    @rule(passed_s=st.sampled_from([1, 700, 90_000]))
    def wait(self, passed_s: int) -> None:
        self.world.clock.advance(passed_s)
        while self.world.sweeper.sweep():
            pass

    # ---- what always holds --------------------------------------------------------------------

    @invariant()
    def nothing_is_used_beyond_the_lease_but_for_a_cause(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.check()
        ledger = self.world.ledger
        marked = {key for key, _ in self.world.store.scan(Family.LEASES)}
        assert marked == ledger.lent.held
        for key, counter in self.world.store.scan(Family.COUNTERS):
            rule_of = ledger.rules.budgets[key[8:16]]
            if not rule_of.is_shared:
                continue
            limit, _ = bounds(rule_of, counter)
            assert counter.limit == limit
            assert counter.used <= limit + counter.excused
            assert not counter.lowered, "a lease was lowered below its use"

    @invariant()
    def a_shared_counter_that_holds_something_is_accounted_for(self) -> None:
        if not hasattr(self, "world"):
            return
        held = [
            line.key
            for _, each in self.world.store.scan(Family.RESERVATIONS)
            if each.state is ReservationState.HELD
            for line in each.counters
            if line.hold
        ]
        rules = self.world.ledger.rules.budgets
        shared = {key for key in held if rules[key[8:16]].is_shared}
        assert shared <= self.world.ledger.lent.held


Leases.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
TestLeases = Leases.TestCase

small = st.integers(0, 60)


@st.composite
def counters(draw) -> Counter:
    """A counter of a shared budget, as any history may leave it."""
    general, reserve = draw(small), draw(small)
    settled, reserve_settled = draw(st.integers(0, general)), draw(st.integers(0, reserve))
    amount = draw(small)
    lease = Lease(amount, draw(st.integers(0, amount)), 100, 20) if draw(st.booleans()) else None
    return Counter(
        settled=settled + reserve_settled,
        reserved=general - settled + reserve - reserve_settled,
        reserve_settled=reserve_settled,
        reserve_reserved=reserve - reserve_settled,
        lease=lease,
    )


@given(counters(), small, small)
def test_what_is_lowered_stays_above_its_use_and_what_is_raised_is_taken(counter, amount, kept):
    old = counter.lease or Lease()
    asked = Lease(amount, min(kept, amount))
    new = relent(counter, asked).lease
    if asked.amount >= old.amount:
        assert new.amount == asked.amount
    else:
        assert new.amount == max(asked.amount, min(old.amount, counter.used))
    assert new.amount >= new.reserve_amount >= min(old.reserve_amount, counter.reserve_used)
    general, old_general = counter.used - counter.reserve_used, old.amount - old.reserve_amount
    assert new.amount - new.reserve_amount >= min(old_general, general)
    raised = asked.reserve_amount >= old.reserve_amount
    if raised and asked.amount - asked.reserve_amount >= old_general:
        assert new == asked


@given(counters(), st.integers(1, 40), st.booleans())
def test_a_lease_of_what_was_wanted_has_room_for_what_it_was_wanted_for(counter, amount, critical):
    made = BudgetRule(budget("b", 100, unit="calls", reserve=20), in_fleet=True)
    short = shortage(made, b"k", counter, amount, critical=critical)
    old = counter.lease or Lease()
    lent_now = relent(counter, Lease(max(old.amount, short.amount_min), old.reserve_amount))
    assert room_left(made, lent_now, critical=critical, in_tenure=True) >= amount
    assert room_left(made, lent_now, critical=critical, in_tenure=False) == 0


@given(counters())
def test_a_stand_says_what_the_counter_says(counter):
    told = stand(counter)
    assert (told.used, told.reserve_used) == (counter.used, counter.reserve_used)
    assert told.amount == (counter.lease.amount if counter.lease else 0)
    assert stand(EMPTY_COUNTER).taken == 0
