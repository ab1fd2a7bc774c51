import pytest

from costd.engine import lend
from costd.engine.lend import Loss, Terms
from costd.errors import InvalidAsk
from costd.model.lease import EMPTY_POOL, Level, Pool, Stand, Want
from costd.model.money import AMOUNT_MAX

STAND = Stand(
    amount=900,
    reserve_amount=90,
    settled=100,
    reserved=30,
    reserve_settled=10,
    reserve_reserved=3,
    overrun=1,
    granted=2,
    lowered=4,
    late=8,
    unadmitted=16,
    shadow=32,
    version=5,
)
"""Every figure another, so that none can stand for another."""


def restated(pool, before, after, *, limit=1_000):
    return lend.restate(pool, before, after, limit=limit, wall_ns=7)


# ---- the pool ------------------------------------------------------------------------------


def test_a_pool_adds_up_what_daemons_say():
    assert restated(Pool(taken=60, settled=60, overrun=3, daemons_count=1), None, STAND) == Pool(
        settled=160,
        reserved=30,
        reserve_settled=10,
        reserve_reserved=3,
        overrun=4,
        granted=2,
        late=8,
        unadmitted=16,
        shadow=32,
        taken=960,
        reserve_taken=90,
        daemons_count=2,
        limit=1_000,
        changed_ns=7,
    )


def test_what_a_daemon_says_again_replaces_what_it_said():
    once = restated(EMPTY_POOL, None, STAND)
    assert restated(once, STAND, STAND) == once
    gone = restated(once, STAND, Stand())
    assert gone == Pool(daemons_count=1, limit=1_000, changed_ns=7)


@pytest.mark.parametrize(
    ("stand", "message"),
    [
        (Stand(amount=-1), "stand.amount is -1; it must be between 0 and"),
        (Stand(shadow=-1), "stand.shadow is -1"),
        (Stand(late=AMOUNT_MAX + 1), f"stand.late is {AMOUNT_MAX + 1}"),
        (Stand(amount=4, reserve_amount=5), "reserve_amount 5 is more than amount 4"),
        (Stand(settled=AMOUNT_MAX, reserved=1), "settled and reserved together pass"),
    ],
)
def test_figures_that_no_books_can_hold_are_refused(stand, message):
    with pytest.raises(InvalidAsk, match=message):
        restated(EMPTY_POOL, None, stand)


def test_the_greatest_figures_that_books_can_hold_are_taken():
    most = Stand(amount=AMOUNT_MAX, reserve_amount=AMOUNT_MAX, settled=AMOUNT_MAX - 1, reserved=1)
    assert restated(EMPTY_POOL, None, most).taken == AMOUNT_MAX


def test_what_all_daemons_take_together_can_be_counted():
    pool = restated(EMPTY_POOL, None, Stand(amount=AMOUNT_MAX))
    with pytest.raises(InvalidAsk, match=f"take more than {AMOUNT_MAX} of one budget"):
        restated(pool, None, Stand(amount=1))


def test_nothing_is_lowered_by_a_limit_that_is_not_cut():
    assert lend.cut(Pool(taken=150, limit=100), 100).lowered == 0
    assert lend.cut(Pool(taken=150, limit=100), 120).lowered == 0


def test_what_is_taken_past_a_limit_that_is_cut_is_lowered():
    assert lend.cut(Pool(taken=150, limit=200), 100).lowered == 50
    assert lend.cut(Pool(taken=150, limit=-1), 100).lowered == 50, "there was none before"
    assert lend.cut(Pool(taken=80, limit=200), 100).lowered == 0


def test_what_has_another_cause_is_not_lowered_as_well():
    assert lend.cut(Pool(taken=150, limit=200, overrun=20, shadow=5), 100).lowered == 25


def test_what_was_lowered_is_less_once_less_is_taken():
    pool = lend.cut(Pool(taken=150, limit=200), 100)
    assert restated(pool, Stand(amount=150), Stand(amount=120), limit=100).lowered == 20
    assert restated(pool, Stand(amount=150), Stand(amount=90), limit=100).lowered == 0


def test_a_cause_that_excuses_less_than_before_shows_how_far_a_limit_was_cut():
    before = Stand(amount=100, settled=150, overrun=50)
    pool = lend.cut(restated(EMPTY_POOL, None, before, limit=100), 80)
    assert pool.lowered == 20
    after = Stand(amount=100, settled=150, overrun=40)
    assert restated(pool, before, after, limit=80).lowered == 30


def test_without_a_limit_nothing_is_lowered():
    assert lend.cut(Pool(taken=150, limit=200, lowered=3), None) == Pool(
        taken=150, limit=-1, lowered=3
    )


# ---- lending -------------------------------------------------------------------------------


def lent(pool, *, amount_min, wanted=0, stand=None, critical=False, whole=False):
    want = Want(
        stand=stand or Stand(),
        amount_min=amount_min,
        amount_wanted=wanted or amount_min,
        critical=critical,
    )
    return lend.lend(pool, Terms(limit=100, reserve=20, whole=whole), want)


def test_what_is_left_without_the_reserve_is_lent_to_the_last_unit():
    assert lent(Pool(taken=50), amount_min=30) == Stand(amount=30, version=1)
    assert lent(Pool(taken=50), amount_min=31) is None


def test_a_critical_want_draws_from_the_reserve_what_else_it_lacks():
    held = Stand(amount=5, reserve_amount=2, version=3)
    pool = Pool(taken=55, reserve_taken=2)
    assert lent(pool, stand=held, amount_min=40, critical=True) == Stand(
        amount=40, reserve_amount=10, version=4
    )
    assert lent(Pool(taken=50), amount_min=50, critical=True) == Stand(
        amount=50, reserve_amount=20, version=1
    )
    assert lent(Pool(taken=50), amount_min=51, critical=True) is None


def test_a_reserve_is_lent_also_where_the_general_part_is_passed():
    assert lent(Pool(taken=90), amount_min=10, critical=True).reserve_amount == 10
    assert lent(Pool(taken=90), amount_min=11, critical=True) is None


def test_what_is_held_already_is_not_lent_again():
    held = Stand(amount=30, settled=10, version=3)
    assert lent(Pool(taken=80), stand=held, amount_min=20) == held
    assert lent(Pool(taken=50), stand=held, amount_min=35).amount == 35
    overrun = Stand(amount=5, settled=40, version=3)
    assert lent(Pool(taken=40), stand=overrun, amount_min=45).amount == 45


def test_nothing_more_is_the_same_lease():
    held = Stand(amount=30, version=3)
    assert lent(Pool(taken=80), stand=held, amount_min=30, wanted=60) == held


def test_more_than_is_needed_is_lent_where_there_is_more():
    alone = lent(Pool(), amount_min=10, wanted=30)
    assert alone == Stand(amount=30, version=1)
    among_ten = lent(Pool(daemons_count=10), amount_min=1, wanted=80)
    assert 1 <= among_ten.amount < 30


def test_a_runs_budget_is_lent_whole():
    assert lent(Pool(daemons_count=10), amount_min=1, whole=True).amount == 80


def test_a_daemon_is_told_how_the_others_stand():
    pool = Pool(settled=40, reserved=10, reserve_settled=6, reserve_reserved=2)
    stand = Stand(settled=15, reserved=5, reserve_settled=3)
    assert lend.level(pool, Terms(limit=100, reserve=20), stand) == Level(
        limit=100, reserve=20, others_used=30, others_reserve_used=5
    )


def test_others_never_used_less_than_nothing():
    stand = Stand(settled=15, reserve_settled=3)
    told = lend.level(Pool(settled=10, reserve_settled=1), Terms(limit=100), stand)
    assert (told.others_used, told.others_reserve_used) == (0, 0)


# ---- reports -------------------------------------------------------------------------------


def test_a_report_that_has_seen_the_newest_grant_gives_back():
    now = Stand(amount=20, settled=10, version=3)
    assert lend.heard(Stand(amount=50, version=3), now) == now


@pytest.mark.parametrize("version", [2, 4])
def test_a_report_that_crossed_a_grant_gives_nothing_back(version):
    before = Stand(amount=50, reserve_amount=9, version=3)
    now = Stand(amount=20, reserve_amount=1, settled=10, version=version)
    assert lend.heard(before, now) == Stand(amount=50, reserve_amount=9, settled=10, version=3)


def test_who_may_give_back_may_not_take():
    held = Stand(amount=50, reserve_amount=9)
    less = Stand(amount=40, reserve_amount=8, settled=60)
    assert lend.at_most(less, held) == less
    more = Stand(amount=60, reserve_amount=10, settled=40)
    assert lend.at_most(more, held) == Stand(amount=50, reserve_amount=9, settled=40)
    # Except for what it used already, of which the coordinator may not have heard.
    more = Stand(amount=60, reserve_amount=12, settled=55, reserve_settled=11)
    assert lend.at_most(more, held) == Stand(
        amount=55, reserve_amount=11, settled=55, reserve_settled=11
    )
    mixed = Stand(amount=40, reserve_amount=10)
    assert lend.at_most(mixed, held) == Stand(amount=40, reserve_amount=9)


def test_the_reserve_that_is_left_lies_within_what_is_left():
    assert lend.at_most(Stand(amount=60, reserve_amount=8), Stand(amount=5, reserve_amount=8)) == (
        Stand(amount=5, reserve_amount=5)
    )


def test_what_a_daemon_explained_before_its_lease_was_reclaimed_explains_nothing_later():
    left = lend.reclaimed(Stand(amount=50, settled=20, overrun=10))
    back = Stand(amount=20, settled=20, reserved=36, overrun=10)
    assert lend.beyond(left, back) == 36


def test_what_a_daemon_explains_since_is_not_late():
    left = lend.reclaimed(Stand(amount=50, settled=20))
    assert lend.beyond(left, Stand(amount=20, settled=45, overrun=5, unadmitted=8)) == 12


def test_what_was_late_already_is_not_late_again():
    before = Stand(amount=20, settled=20, reserved=36)
    assert lend.beyond(before, Stand(amount=20, settled=58)) == 2


def test_what_was_taken_from_a_daemon_explains_nothing_that_it_used():
    left = Stand(amount=20, settled=20)
    assert lend.beyond(left, Stand(settled=20, reserved=36, lowered=56)) == 36


def test_less_than_was_left_is_not_late():
    assert lend.beyond(Stand(amount=50), Stand(settled=20)) == 0


# ---- daemons that are gone, or came back with less ----------------------------------------


def test_a_daemon_is_presumed_to_spend_what_it_has_not_used():
    assert lend.presumed(STAND) == 900 - 130
    assert lend.presumed(Stand(amount=50, settled=60)) == 0


def test_of_a_reclaimed_lease_what_was_used_is_left():
    assert lend.reclaimed(STAND) == Stand(
        amount=130,
        reserve_amount=13,
        settled=100,
        reserved=30,
        reserve_settled=10,
        reserve_reserved=3,
        overrun=1,
        granted=2,
        lowered=4,
        late=8,
        unadmitted=16,
        shadow=32,
        version=5,
    )


def test_what_older_books_do_not_tell_of_may_have_been_spent():
    before = Stand(amount=50, reserve_amount=8, settled=20, reserve_settled=3)
    after = Stand(amount=10, reserve_amount=2, settled=10, reserve_settled=2)
    assert lend.loss(before, 0, 0, after) == Loss(lost=40, reserve_lost=6, late=0)


def test_what_was_lost_before_and_is_told_again_is_not_lost_twice():
    before = Stand(amount=10, reserve_amount=2, settled=10, reserve_settled=2)
    after = Stand(amount=25, reserve_amount=6, settled=25, reserve_settled=6)
    assert lend.loss(before, 40, 6, after) == Loss(lost=25, reserve_lost=2, late=0)


def test_older_books_that_hold_what_was_given_back_are_late_with_it():
    before = Stand(amount=20, reserve_amount=1, settled=20)
    after = Stand(amount=50, reserve_amount=4, settled=50)
    assert lend.loss(before, 0, 0, after) == Loss(lost=0, reserve_lost=0, late=30)


def test_what_excused_what_is_lost_goes_on_to():
    before = Stand(settled=60, overrun=10, shadow=4)
    assert lend.loss(before, 0, 0, Stand(settled=50, overrun=3)) == Loss(
        lost=10, reserve_lost=0, late=11
    )
    assert lend.loss(before, 0, 0, Stand(settled=60, overrun=20)).late == 0


def test_what_is_lost_stays_taken():
    pool = Pool(taken=50, reserve_taken=5, settled=20, late=3)
    assert lend.lose(pool, 40, 6) == Pool(taken=90, reserve_taken=11, settled=20, late=3)
    assert lend.excuse_late(pool, 4) == Pool(taken=50, reserve_taken=5, settled=20, late=7)


def test_a_limit_that_was_cut_explains_what_excuses_within_the_lease_no_longer_do():
    lent = Stand(amount=286, settled=75, reserved=187, unadmitted=187)
    pool = lend.restate(EMPTY_POOL, None, lent, limit=300, wall_ns=1)
    pool = lend.cut(pool, 60)
    assert (pool.taken, pool.lowered) == (286, 39)
    # A call that nobody admitted was voided, one was admitted within the lease, one beyond it.
    now = Stand(amount=286, settled=207, reserved=103, unadmitted=182)
    pool = lend.restate(pool, lent, now, limit=60, wall_ns=2)
    assert (pool.taken, pool.unadmitted, pool.lowered) == (310, 182, 68)


def test_a_limit_that_was_cut_explains_nothing_beyond_the_lease():
    lent = Stand(amount=100, settled=100)
    pool = lend.cut(lend.restate(EMPTY_POOL, None, lent, limit=100, wall_ns=1), 60)
    pool = lend.restate(pool, lent, Stand(amount=100, settled=130), limit=60, wall_ns=2)
    assert (pool.taken, pool.lowered) == (130, 40)
