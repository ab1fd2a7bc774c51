"""A fleet's rate at one daemon: bounded by its share, asked for more of, refused for a reason."""

from fractions import Fraction

import pytest
from policy_parts import budget, policy, rate
from scenario import GRANT_KEYS, World, token

from costd.engine import keys
from costd.engine.allot import allot
from costd.model.ask import Ask
from costd.model.lease import Lease
from costd.model.policy import FailMode, FleetTerms
from costd.model.time import NS_PER_S

WHOLE = 1_000_000
ANY = budget("any")
TEN = rate("r", 10)


def fleet(made, **shares):
    """Open books in a fleet with a tenure of an hour, and these shares of its rates."""
    world = World(made, in_fleet=True).play("tenure 1h -> ok")
    lend(world, **shares)
    return world


def lend(world, unused_ns=10**18, **shares):
    """Hold these shares; what is added has been nobody's for so long."""
    leases = {}
    for rate_id, share in shares.items():
        [made] = [each for each in world.policy.rates if each.rate_id == rate_id]
        key = keys.share_key(keys.rate_tag(made))
        leases[key] = Lease(amount=share, limit=WHOLE, reserve=WHOLE // 2)
    world.ledger.set_leases(leases, dict.fromkeys(leases, unused_ns))
    return leases


def wants(world, ask_id="w", **fields):
    """What an ask lacks, where it lacks nothing but leases."""
    ask = Ask(ask_id=ask_id.ljust(16, "."), estimated_cost_nusd=NS_PER_S, **fields)
    found = world.ledger.admit(ask, may_wait=True)
    return [(s.amount_min, s.critical) for s in getattr(found, "shortages", ())]


def test_a_share_bounds_burst_and_refill():
    fleet(policy(ANY, TEN), r=200_000).play(
        """
        admit r1 1 -> allow
        admit r2 1 -> allow
        admit r3 1 -> deny:RATE_LIMITED by=r used=10 limit=10 resets=30
        t=29 admit r4 1 -> deny:RATE_LIMITED
        t=30 admit r5 1 -> allow
        """
    )


def test_without_a_share_or_a_tenure_nothing_passes():
    fleet(policy(ANY, TEN)).play("admit r1 1 -> deny:NO_LEASE by=r resets=never")
    fleet(policy(ANY, TEN), r=WHOLE).play("t=2h admit r1 1 -> deny:NO_LEASE by=r")


def test_a_daemon_alone_has_the_whole_rate():
    World(policy(ANY, TEN)).play("admit r1 1 -> allow")


def test_what_a_call_lacks_is_wanted_in_millionths():
    world = fleet(policy(ANY, TEN))
    assert wants(world) == [(100_000, True)]
    lend(world, r=99_999)
    assert wants(world) == [(100_000, True)]
    lend(world, r=250_000)
    world.play("admit r1 1 -> allow\nadmit r2 1 -> allow")
    assert wants(world) == [(350_000, False)]
    lend(world, r=950_000)
    world.play("".join(f"admit s{n} 1 -> allow\n" for n in range(6)))
    assert wants(world) == [(WHOLE, False)]
    lend(world, r=WHOLE)
    world.play("admit t1 1 -> allow")
    assert wants(world) == []


def test_a_call_larger_than_the_whole_burst_wants_nothing():
    world = fleet(policy(ANY, rate("r", NS_PER_S // 2, "nusd")))
    assert wants(world) == []
    world.play("admit r1 1 -> deny:RATE_LIMITED resets=never")


def test_rates_and_budgets_that_are_short_are_wanted_together():
    world = fleet(policy(budget("b", "5"), TEN, rate("s", 4)))
    assert sorted(wants(world)) == [(100_000, True), (250_000, True), (NS_PER_S, False)]


def test_a_budget_that_has_no_more_wants_no_share():
    world = fleet(policy(budget("b", "0.5"), TEN))
    assert wants(world) == []


def test_what_the_coordinator_has_none_of_is_refused_as_a_rate_is():
    world = fleet(policy(ANY, TEN, fleet=FleetTerms(fail_mode=FailMode.OPEN)))
    world.ledger.state.exhausted = {keys.share_key(keys.rate_tag(TEN))}
    world.play("admit r1 1 -> deny:RATE_LIMITED")


@pytest.mark.parametrize(
    ("mode", "table"),
    [
        ("closed", "admit r1 1 -> deny:NO_LEASE"),
        ("open", "".join(f"admit r{n} 1 -> allow\n" for n in range(12))),
        ("safe", "admit r1 1 -> allow\nadmit r2 1 -> allow\nadmit r3 1 -> deny:RATE_LIMITED"),
    ],
)
def test_the_policy_says_what_becomes_of_calls_that_nobody_can_be_asked_about(mode, table):
    terms = FleetTerms(fail_mode=FailMode(mode), safe_share=Fraction(1, 5))
    world = fleet(policy(ANY, TEN, fleet=terms))
    world.play(table.replace("r3 1 -> deny:RATE_LIMITED", "r3 1 -> deny:NO_LEASE"))


def test_a_safe_share_is_no_more_than_what_is_held():
    terms = FleetTerms(fail_mode=FailMode.SAFE, safe_share=Fraction(1, 5))
    fleet(policy(ANY, TEN, fleet=terms), r=300_000).play(
        """
        admit r1 1 -> allow
        admit r2 1 -> allow
        admit r3 1 -> allow
        admit r4 1 -> deny:RATE_LIMITED
        """
    )


def test_a_share_that_grows_brings_what_refilled_in_it_and_no_more():
    world = fleet(policy(ANY, TEN), r=200_000).play("admit r1 1 -> allow\nadmit r2 1 -> allow")
    lend(world, unused_ns=0, r=700_000)
    world.play("admit r3 1 -> deny:RATE_LIMITED")
    lend(world, unused_ns=31 * NS_PER_S, r=900_000)  # a fifth, a little more than half full
    world.play("admit r4 1 -> allow\nadmit r5 1 -> deny:RATE_LIMITED")


def test_a_refund_is_at_the_share_of_that_moment():
    money = rate("r", 10 * NS_PER_S, "nusd")
    world = fleet(policy(ANY, money), r=400_000)
    world.play(
        """
        admit r1 2 -> allow
        admit r2 2 -> allow
        admit r3 1 -> deny:RATE_LIMITED
        settle r1 1 -> ok
        admit r3 1 -> allow
        """
    )
    lend(world, unused_ns=0, r=800_000)
    world.play(
        """
        settle r2 5 -> ok
        t=7 admit r4 1 -> deny:RATE_LIMITED
        t=31 admit r5 1 -> allow
        """
    )


def test_what_was_used_of_a_share_that_is_gone_is_put_nowhere():
    money = rate("r", 10 * NS_PER_S, "nusd")
    world = fleet(policy(ANY, money), r=400_000).play("admit r1 2 -> allow")
    lend(world, r=0)
    world.play("settle r1 5 -> ok")
    lend(world, r=400_000)
    world.play("admit r2 4 -> allow")


def test_what_would_pass_and_what_explains_go_by_the_share():
    money = rate("r", 10 * NS_PER_S, "nusd")
    world = fleet(policy(ANY, money), r=500_000)
    world.play("admit r1 6 -> deny:NO_LEASE by=r most=5\nexplain r1 6 -> deny:NO_LEASE by=r")


def test_a_grant_overrides_a_share_that_is_too_small():
    world = World(policy(ANY, TEN, grant_keys=GRANT_KEYS), in_fleet=True, grants={"g": token("g")})
    world.play("admit r1 1 class=review grant=g -> allow:GRANT")


def test_an_allowance_is_at_most_a_quarter_of_the_shares_burst_and_ends_with_the_tenure():
    world = fleet(policy(budget("b", "1000"), rate("r", 100, every_s=1, burst=100)), r=500_000)
    leases = {
        keys.window_prefix(rule.window(world.clock.wall_ns)[1], rule.tag): Lease(
            amount=900 * NS_PER_S, limit=1000 * NS_PER_S
        )
        for rule in world.ledger.rules.budgets.values()
    }
    world.ledger.set_leases(leases)

    def size():
        ask = Ask(ask_id="x" * 16, estimated_cost_nusd=NS_PER_S // 10)
        return allot(world.ledger.question(ask, ""), 1000)

    assert size().granted.calls_count == 12
    world.ledger.state.leases_until_ns = world.clock.steady_ns + NS_PER_S // 2
    assert size().lifetime_ns == NS_PER_S // 2


def test_an_allowance_under_a_shared_rate_alone_ends_with_the_tenure():
    world = fleet(policy(ANY, rate("r", 100, every_s=1, burst=100)), r=500_000)
    world.ledger.state.leases_until_ns = world.clock.steady_ns + NS_PER_S // 2
    ask = Ask(ask_id="x" * 16, estimated_cost_nusd=NS_PER_S // 10)
    assert allot(world.ledger.question(ask, ""), 1000).lifetime_ns == NS_PER_S // 2


def test_shares_are_kept_over_a_restart_and_whatever_is_swept():
    world = fleet(policy(ANY, TEN), r=200_000).play("admit r1 1 -> allow")
    world.play("t=3d sweep -> 1\nrestart -> ok\ntenure 1h -> ok\nadmit r2 1 -> allow")
