"""Two daemons share a rate: tenancies, reception and books as they run, driven by hand."""

import random
from fractions import Fraction

import pytest
from fleet_by_hand import Fleet
from msgspec.structs import replace
from policy_parts import budget, policy, rate

from costd.model.decision import Reason
from costd.model.policy import FailMode, FleetTerms, Share
from costd.model.time import NS_PER_S

MINUTE = rate("r", 60, burst=60)


def shared(*rates, **fields):
    return policy(budget("any"), *rates, **fields)


@pytest.fixture(params=[3, 7, 11])
def chance(request):
    return random.Random(request.param)


def test_a_fleet_of_two_has_one_burst_between_them():
    fleet = Fleet(shared(MINUTE))
    assert fleet["a"].passes(40) == 40
    # What the first holds and has not used is recalled, down to its fair part.
    assert 10 <= fleet["b"].passes(40) <= 20
    left = fleet["a"].passes(40)
    assert fleet.passed == 40 + fleet["b"].passed + left <= 61
    assert sum(fleet.shares().values()) <= 1_000_000


def test_a_daemon_that_is_alone_gets_the_whole_rate():
    fleet = Fleet(shared(MINUTE))
    assert fleet["a"].passes(80) == 60


def test_a_whole_call_too_large_for_the_burst_is_refused_without_asking():
    fleet = Fleet(shared(rate("money", 5, "nusd")))
    assert fleet["a"].admit() is Reason.RATE_LIMITED
    assert fleet.shares() == {"a": 0, "b": 0}


@pytest.mark.parametrize("every_s", [0.1, 0.5])
def test_busy_daemons_share_evenly_and_never_pass_the_rate(every_s):
    fleet = Fleet(shared(rate("r", 10, every_s=1, burst=20)), "abc")
    began_ns, before = fleet.clock.steady_ns, 0
    for _ in range(round(20 / every_s)):
        for daemon in fleet.daemons.values():
            daemon.passes(1 if every_s < 0.5 else 4)
        fleet.pass_s(every_s)
        elapsed_s = (fleet.clock.steady_ns - began_ns) / NS_PER_S
        assert fleet.passed <= 20 + 10 * elapsed_s + 1
        if not before and elapsed_s > 10:
            before, counts = fleet.passed, [each.passed for each in fleet.daemons.values()]
            since_s = elapsed_s
    assert fleet.passed - before >= 0.9 * 10 * (elapsed_s - since_s)
    for daemon, count in zip(fleet.daemons.values(), counts, strict=True):
        assert daemon.passed - count >= 0.2 * (fleet.passed - before)


def test_no_traffic_passes_the_rate_whoever_comes_and_goes(chance):
    fleet = Fleet(shared(rate("r", 5, every_s=1, burst=8)), "abcd")
    began_ns, away = fleet.clock.steady_ns, set()
    for _ in range(120):
        name = chance.choice("abcd")
        if chance.random() < 0.05:
            if name in away:
                fleet[name].connect()
            else:
                fleet[name].disconnect()
            away ^= {name}
            fleet.talk()
        if chance.random() < 0.03:
            fleet[name].restart(connect=name not in away)
        fleet[name].passes(chance.randint(1, 4))
        fleet.pass_s(chance.choice([0.01, 0.1, 0.3, 3]), away=away)
        elapsed_s = (fleet.clock.steady_ns - began_ns) / NS_PER_S
        assert fleet.passed <= 8 + 5 * elapsed_s + 1
        assert sum(fleet.shares().values()) <= 1_000_000


def test_a_burst_of_one_goes_from_daemon_to_daemon_with_what_has_refilled():
    fleet = Fleet(shared(rate("r", 1, every_s=10)))
    order = random.Random(5)
    for _ in range(80):
        for name in order.sample("ab", 2):
            fleet[name].passes(1)
        fleet.pass_s(order.uniform(0.5, 1.5))
    elapsed_s = fleet.clock.steady_ns / NS_PER_S
    assert 0.8 * elapsed_s / 10 <= fleet.passed <= 1 + elapsed_s / 10
    assert all(daemon.passed for daemon in fleet.daemons.values())


def test_what_is_idle_is_given_back_with_what_is_in_it():
    fleet = Fleet(shared(rate("r", 6, every_s=3600)))
    assert fleet["a"].passes(2) == 2
    fleet.pass_s(30)
    assert fleet["a"].share() > 0  # its bucket has not refilled
    assert fleet["b"].passes(6) >= 2
    assert fleet["a"].passes(6) >= 1
    assert 5 <= fleet.passed <= 6  # nothing in it was lost, but what is less than one call
    fleet.pass_s(3600 * 2, step_s=4)
    assert fleet.shares() == {"a": 0, "b": 0}
    assert fleet["b"].passes(7) == 6


def test_the_share_of_a_daemon_that_is_gone_is_taken_after_its_tenure():
    fleet = Fleet(shared(rate("r", 10, every_s=1, burst=10)))
    assert fleet["a"].passes(10) == 10
    held = fleet["a"].share()
    fleet["a"].disconnect()
    fleet.pass_s(8, away="a")
    assert fleet["a"].admit() is Reason.OK  # its tenure lasts
    fleet["b"].passes(20)
    assert fleet["b"].share() <= 1_000_000 - held
    fleet.pass_s(9, away="a")
    assert fleet["a"].admit() is Reason.NO_LEASE
    for _ in range(10):
        fleet["b"].passes(20)
        fleet.pass_s(0.5, away="a")
    assert fleet["b"].share() > 1_000_000 - held
    fleet["a"].connect()
    fleet.talk()
    assert fleet["a"].share() == 0
    assert sum(fleet.shares().values()) <= 1_000_000
    for _ in range(4):
        fleet["a"].passes(1)
        fleet.pass_s(1)
    assert fleet["a"].share() > 0


def test_a_share_survives_a_restart():
    fleet = Fleet(shared(MINUTE))
    assert fleet["a"].passes(5) == 5
    held = fleet["a"].share()
    fleet["a"].restart(connect=True)
    assert fleet["a"].share() == held > 0
    fleet.talk()
    assert fleet["a"].share() == held
    assert fleet["a"].passes(80) == 55


def test_books_that_may_be_old_lose_no_share_of_a_rate_for_ever():
    fleet = Fleet(shared(MINUTE))
    assert fleet["a"].passes(60) == 60
    fleet["a"].boots += 1
    fleet["a"].restart(connect=True, lost_by_reboot=True)
    fleet.talk()
    assert fleet.shares() == {"a": 0, "b": 0}
    fleet.pass_s(120)
    assert fleet["b"].passes(80) == 60


@pytest.mark.parametrize(("mode", "count"), [("closed", 0), ("open", 30), ("safe", 6)])
def test_without_a_tenure_the_policy_says_what_becomes_of_calls(mode, count):
    terms = FleetTerms(fail_mode=FailMode(mode), safe_share=Fraction(1, 10))
    fleet = Fleet(shared(MINUTE, fleet=terms))
    fleet["a"].passes(1)
    fleet.pass_s(2)
    fleet["a"].disconnect()
    fleet.pass_s(60, away="a")
    assert fleet["a"].passes(30) == count
    assert fleet["a"].admit() is (Reason.OK if mode == "open" else Reason.NO_LEASE)


def test_rates_of_the_host_and_rates_that_look_on_borrow_nothing():
    for made in (shared(replace(MINUTE, share=Share.HOST)), shared(replace(MINUTE, shadow=True))):
        fleet = Fleet(made)
        passed = fleet["a"].passes(70)
        assert passed == (60 if made.rates[0].share is Share.HOST else 70)
        assert fleet.store.shares == {}


def test_what_was_measured_is_put_right_at_the_share_of_that_moment():
    fleet = Fleet(shared(rate("money", 60 * NS_PER_S, "nusd", burst=60 * NS_PER_S)))
    admitted = [fleet["a"].hold() for _ in range(20)]
    assert len(admitted) == 20
    for held in admitted[:10]:
        fleet["a"].ledger.settle(held, cost_nusd=0)
    assert fleet["a"].passes(60) == 50
    for held in admitted[10:]:
        fleet["a"].ledger.settle(held, cost_nusd=3 * NS_PER_S)
    assert fleet["a"].admit() is Reason.RATE_LIMITED
    fleet.pass_s(60)
    assert 38 <= fleet["a"].passes(70) <= 40


def test_a_lost_share_is_no_place_to_put_a_refund():
    fleet = Fleet(shared(rate("money", 60 * NS_PER_S, "nusd", burst=60 * NS_PER_S)))
    held = fleet["a"].hold()
    fleet.pass_s(100)
    assert fleet["a"].share() == 0
    fleet["a"].ledger.settle(held, cost_nusd=30 * NS_PER_S)
    assert fleet["b"].passes(70) == 60


def test_another_policy_may_take_a_rate_away_and_give_it_back():
    fleet = Fleet(shared(MINUTE))
    assert fleet["a"].passes(20) == 20
    fleet["a"].ledger.swap_policy(policy(budget("any")))
    fleet.pass_s(21)
    assert fleet["a"].share() == 0
    fleet["a"].ledger.swap_policy(fleet["a"].made)
    assert 10 < fleet["a"].passes(80) <= 40 + 21
