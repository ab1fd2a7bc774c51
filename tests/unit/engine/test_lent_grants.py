"""Override grants in a fleet, at one daemon: lent like a budget, or redeemed by the audience."""

import pytest
from policy_parts import budget, policy
from scenario import GRANT_KEYS, World, token

from costd.engine import keys
from costd.engine.changes import Family
from costd.grants import verify
from costd.model.grant import Grant, GrantRefusal
from costd.model.lease import Lease
from costd.model.money import usd_to_nusd
from costd.model.policy import Share

EMPTY = policy(budget("b", "0.01", share=Share.HOST), grant_keys=GRANT_KEYS)
FOR_ALL = token("g", "10", uses=2, aud=())
NAMED = token("g", "10", uses=2)


def fleet(grant=FOR_ALL, **lent):
    """Open books in a fleet with a tenure of an hour, lent so much of a grant."""
    world = World(EMPTY, in_fleet=True, grants={"g": grant}).play("tenure 1h -> ok")
    lend(world, **lent)
    return world


def counters(world):
    grant = verify(
        world.grants["g"],
        keys=GRANT_KEYS,
        audience="costd",
        wall_ns=world.clock.wall_ns,
        in_fleet=True,
    )
    assert isinstance(grant, Grant)
    return keys.grant_keys(grant)


def lend(world, uses=0, amount="0"):
    leases = zip(counters(world), (uses, usd_to_nusd(amount)), strict=True)
    world.ledger.set_leases({key: Lease(amount=lent) for key, lent in leases if lent})


def test_a_use_and_its_amount_are_wanted_together_and_nothing_is_written():
    world = fleet()
    before = dict(world.store.scan(Family.COUNTERS))
    world.play("admit c1 class=review 5 grant=g grant-wait -> wants lent=g=1,g=5")
    assert dict(world.store.scan(Family.COUNTERS)) == before
    assert world.play("grant g -> unused")


def test_what_is_lent_is_redeemed_and_more_is_wanted_then():
    fleet(uses=1, amount="5").play(
        """
        admit c1 class=review 5 grant=g grant-wait -> allow:GRANT granted=g
        show b -> reserved=5 granted=5
        grant g -> uses=1 used=5
        admit c2 class=review 4 grant=g grant-wait -> wants lent=g=2,g=9
        admit c2 class=review 4 grant=g -> deny:BUDGET_EXHAUSTED grant=NO_LEASE
        """
    )


def test_only_what_lacks_is_wanted():
    fleet(uses=1).play("admit c1 class=review 5 grant=g grant-wait -> wants lent=g=5")


def test_nobody_redeems_past_what_was_signed_whatever_is_lent():
    fleet(uses=9, amount="90").play(
        """
        admit c1 class=review 5 grant=g -> allow:GRANT
        admit c2 class=review 6 grant=g grant-wait -> deny:BUDGET_EXHAUSTED grant=AMOUNT_EXCEEDED
        admit c3 class=review 4 grant=g -> allow:GRANT
        admit c4 class=review 1 grant=g grant-wait -> deny:BUDGET_EXHAUSTED grant=USED_UP
        """
    )


def test_nothing_is_wanted_of_a_grant_that_is_not_needed():
    World(
        policy(budget("b", "10", share=Share.HOST), grant_keys=GRANT_KEYS),
        in_fleet=True,
        grants={"g": FOR_ALL},
    ).play("admit c1 class=review 5 grant=g grant-wait -> allow grant=NOT_NEEDED")


def test_what_the_ask_lacks_itself_is_wanted_before_its_grant():
    made = policy(budget("b", "10"), grant_keys=GRANT_KEYS)
    World(made, in_fleet=True, grants={"g": FOR_ALL}).play(
        """
        tenure 1h -> ok
        admit c1 class=review 5 grant=g wait -> wants lent=b=5!
        admit c1 class=review 5 grant=g wait grant-wait -> wants
        exhausted b -> ok
        admit c1 class=review 5 grant=g grant-wait -> wants lent=g=1,g=5
        """
    )


def test_a_lease_is_worth_nothing_without_a_tenure():
    world = fleet(uses=1, amount="5").play("tenure 0 -> ok")
    world.play("admit c1 class=review 5 grant=g -> deny:BUDGET_EXHAUSTED grant=NO_LEASE")


def test_the_audience_redeems_alone_where_nobody_lends_and_it_is_told_apart():
    world = fleet(NAMED, uses=1, amount="5").play(
        """
        admit c1 class=review 5 grant=g -> allow:GRANT
        admit c2 class=review 4 grant=g grant-wait -> wants lent=g=2,g=9
        admit c2 class=review 4 grant=g -> allow:GRANT
        admit c3 class=review 1 grant=g -> deny:BUDGET_EXHAUSTED grant=USED_UP
        settle c1 2 -> ok
        settle c2 3 -> ok
        """
    )
    uses, amount = map(world.ledger.stand, counters(world))
    assert (uses.settled, uses.unadmitted, uses.amount) == (2, 1, 1)
    assert (amount.settled, amount.unadmitted) == (usd_to_nusd("5"), usd_to_nusd("3"))
    assert {*counters(world)} <= world.ledger.fleet_changed, "the coordinator is told of it"


@pytest.mark.parametrize("grant", [FOR_ALL, NAMED])
def test_what_the_coordinator_said_last_is_the_reason(grant):
    world = fleet(grant)
    uses, amount = counters(world)
    world.ledger.state.exhausted = {amount}
    world.play("admit c1 class=review 5 grant=g -> deny:BUDGET_EXHAUSTED grant=AMOUNT_EXCEEDED")
    world.ledger.state.exhausted = {uses}
    world.play("admit c1 class=review 5 grant=g -> deny:BUDGET_EXHAUSTED grant=USED_UP")
    world.ledger.state.exhausted = ()
    world.ledger.state.refused_grants = {uses: GrantRefusal.BAD_SIGNATURE}
    world.play("admit c1 class=review 5 grant=g -> deny:BUDGET_EXHAUSTED grant=BAD_SIGNATURE")


def test_a_void_gives_the_use_back_and_a_settle_what_it_did_not_cost():
    world = fleet(uses=2, amount="10").play(
        """
        admit c1 class=review 5 grant=g -> allow:GRANT
        void c1 -> ok
        admit c2 class=review 5 grant=g -> allow:GRANT
        settle c2 2 -> ok
        """
    )
    uses, amount = map(world.ledger.stand, counters(world))
    assert (uses.settled, uses.reserved) == (1, 0)
    assert (amount.settled, amount.reserved) == (usd_to_nusd("2"), 0)


def test_an_extension_needs_more_of_the_amount_to_be_lent():
    world = fleet(uses=1, amount="5").play(
        """
        admit c1 class=review 5 grant=g -> allow:GRANT
        extend c1 2 wait -> wants lent=g=7!
        extend c1 2 -> stop:NO_LEASE
        """
    )
    world.ledger.state.exhausted = {counters(world)[1]}
    world.play("extend c1 2 -> stop:GRANT")
    world.ledger.state.exhausted = ()
    lend(world, uses=1, amount="7")
    world.play("extend c1 2 wait -> ok / extend c1 4 wait -> stop:GRANT")
    alone = fleet(NAMED, uses=1, amount="5")
    alone.play("admit c1 class=review 5 grant=g -> allow:GRANT / extend c1 2 -> ok")
