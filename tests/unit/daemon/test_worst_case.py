"""A daemon's worst case, from its books."""

from fractions import Fraction

from policy_parts import budget, policy
from scenario import GRANT_KEYS, World, token

from costd.daemon.fleet.worst import WorstCase
from costd.model.policy import FailMode, FleetTerms

USD = 10**9
SAFE = FleetTerms(fail_mode=FailMode.SAFE, safe_share=Fraction(1, 100))


def world(*rules, **fields):
    return World(policy(*rules, **fields), in_fleet=True)


def test_calls_in_flight_count_at_once_and_the_rest_every_few_seconds():
    played = world(budget("b", "100"), fleet=SAFE)
    worst = WorstCase(played.ledger)
    assert worst.bound_nusd() == USD
    played.play("admit r1 0.4 -> allow")
    assert worst.bound_nusd() == USD + played.ledger.totals.exposure_nusd
    played.play("t=5 show b -> unadmitted=0.4")
    assert worst.bound_nusd() == USD * 6 // 10 + played.ledger.totals.exposure_nusd


def test_every_counter_that_was_touched_has_a_safe_share_and_none_whose_window_is_over():
    played = world(budget("b", "100", per=("user",)), fleet=SAFE)
    assert WorstCase(played.ledger).bound_nusd() == 0
    played.play("admit r1 0.4 user=ann -> allow\nadmit r2 0.4 user=bob -> allow\nsettle r1 0 -> ok")
    assert WorstCase(played.ledger).bound_nusd() >= USD * 16 // 10
    played.play("settle r2 0 -> ok\nt=2d sweep -> 2")
    assert WorstCase(played.ledger).bound_nusd() == 0


def test_what_is_left_of_a_grant_that_was_presented_counts():
    played = World(
        policy(budget("b", "1"), grant_keys=GRANT_KEYS),
        in_fleet=True,
        grants={"g": token("g", "10", uses=2)},
    )
    assert WorstCase(played.ledger).bound_nusd() == 0
    played.play("admit r1 4 class=review grant=g -> allow:GRANT")
    exposed = played.ledger.totals.exposure_nusd
    assert WorstCase(played.ledger).bound_nusd() == 6 * USD + exposed
