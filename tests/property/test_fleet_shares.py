"""Shares of a rate: moving them about makes no tokens, however often and whoever does it."""

from fractions import Fraction

import hypothesis.strategies as st
from hypothesis import given, settings
from policy_parts import rate

from costd.engine import shares
from costd.engine.rate import take
from costd.engine.shares import WHOLE
from costd.model.lease import Pool
from costd.model.policy import Rate

UNHURRIED = settings(max_examples=200, deadline=None)
DAEMONS = range(3)

rates = st.builds(
    lambda amount, burst, every_s: rate("r", amount, burst=burst, every_s=every_s),
    st.integers(1, 100),
    st.integers(1, 200),
    st.sampled_from([1e-6, 1, 60, 86_400]),
)
moments = st.integers(0, 10**14)
parts = st.integers(0, WHOLE)


def level(whole: Rate, share: int, full_ns: int | None, now_ns: int) -> Fraction:
    """How many tokens a bucket has, by the ideal and unrounded; below zero in debt."""
    behind = 0 if full_ns is None else max(0, full_ns - now_ns)
    refilled = Fraction(whole.burst * whole.interval_ns, whole.amount) - behind
    return Fraction(share, WHOLE) * refilled * whole.amount / whole.interval_ns


@UNHURRIED
@given(rates, parts, parts, st.integers(0, 10**6), moments, st.integers(1, 300))
def test_a_share_passes_no_more_than_its_part_of_the_whole(whole, share, other, behind, now, units):
    lent = shares.scaled(whole, share)
    assert lent.burst * WHOLE <= whole.burst * share
    fits, full_ns = take(lent, now + behind, units, now)
    if fits:
        before = level(whole, share, now + behind, now)
        assert level(whole, share, full_ns, now) <= before - units
    rest = shares.scaled(whole, min(other, WHOLE - share))
    assert lent.burst + rest.burst <= whole.burst


@UNHURRIED
@given(rates, st.integers(1, 300))
def test_the_least_share_for_a_call_lets_it_pass_when_full(whole, units):
    share = shares.share_for(whole, units)
    assert (share > WHOLE) == (units > whole.burst)
    if share <= WHOLE:
        assert take(shares.scaled(whole, share), None, units, 0)[0]
        assert not take(shares.scaled(whole, share - 1), None, units, 0)[0]


@UNHURRIED
@given(rates, parts, parts, st.integers(0, 10**15), moments, st.integers(-5, 10**15))
def test_growing_brings_no_more_than_what_refilled_in_the_added_part(
    whole, before, after, behind, now, unused
):
    full_ns = now + behind
    grown = shares.grown(whole, full_ns, before, after, unused_ns=unused, steady_ns=now)
    if after <= before:
        assert grown == full_ns
        return
    added = Fraction(after - before, WHOLE)
    refilled = min(
        added * max(0, unused) * whole.amount / whole.interval_ns,
        # What is rounded up is the time a bucket takes to fill, by less than one nanosecond.
        added * (whole.burst + Fraction(whole.amount, whole.interval_ns)),
    )
    assert level(whole, after, grown, now) <= level(whole, before, full_ns, now) + refilled


@UNHURRIED
@given(rates, parts, parts, st.integers(0, 10**15), moments)
def test_what_is_given_back_takes_its_part_of_the_bucket_along(whole, before, after, behind, now):
    after = min(before, after)
    kept = level(whole, after, now + behind, now)
    given_back = Fraction(before - after, WHOLE) * shares.unused_ns(whole, now + behind, now)
    given_back *= Fraction(whole.amount, whole.interval_ns)
    if level(whole, WHOLE, now + behind, now) >= 0:
        slack = Fraction(whole.amount, whole.interval_ns)
        assert kept + given_back <= level(whole, before, now + behind, now) + slack


@UNHURRIED
@given(rates, parts, st.integers(0, 10**15), parts, moments)
def test_what_is_kept_is_part_of_what_is_held(whole, share, behind, fair, now):
    kept = shares.kept(whole, now + behind, share, fair, now)
    assert 0 <= kept <= share
    assert not kept or shares.scaled(whole, kept).burst


steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "grow", "shrink", "wait", "wait"]),
        st.sampled_from(DAEMONS),
        st.integers(1, 60),
        st.integers(0, WHOLE),
        st.integers(0, 2 * 10**9),
    ),
    max_size=60,
)


@UNHURRIED
@given(
    st.builds(
        lambda amount, burst: rate("r", amount, burst=burst, every_s=1),
        st.integers(1, 50),
        st.integers(1, 60),
    ),
    steps,
)
def test_the_fleet_admits_no_more_than_one_burst_and_what_refills(whole, steps):
    """The coordinator's pool and three daemons, who take, ask for more and give back at random."""
    pool, held, full, now = Pool(start_ns=-(10**18)), [0, 0, 0], [None, None, None], 0
    taken: list[tuple[int, int]] = []
    for what, who, units, part, wait_ns in steps:
        before = held[who]
        if what == "wait":
            now += wait_ns
        elif what == "take":
            fits, full_ns = take(shares.scaled(whole, before), full[who], units, now)
            if fits:
                full[who] = full_ns
                taken.append((now, units))
        else:
            room = WHOLE - sum(held)
            after = before + min(part, room) if what == "grow" else before - min(part, before)
            unused = shares.unused_ns(whole, full[who], now)
            full[who] = shares.grown(
                whole, full[who], before, after,
                unused_ns=shares.unclaimed_ns(pool, now), steady_ns=now,
            )  # fmt: skip
            changed = Pool(taken=pool.taken + after - before, start_ns=pool.start_ns)
            pool = shares.pooled(
                pool, changed, whole, (before, after), unused_ns=unused, wall_ns=now
            )
            held[who] = after
        assert pool.daemons_count == sum(share > 0 for share in held)
    for first, (since, _) in enumerate(taken):
        total = 0
        for until, units in taken[first:]:
            total += units
            refilled = Fraction((until - since) * whole.amount, whole.interval_ns)
            slack = Fraction(len(steps) * whole.amount, whole.interval_ns)
            assert total <= whole.burst + refilled + slack


def test_whoever_is_poor_or_has_too_little_may_recall_what_others_hold():
    pool = Pool(taken=WHOLE, daemons_count=3)
    assert shares.fair_share(pool) == 250_000
    assert shares.may_recall(pool, 0, has_too_little=False)
    assert shares.may_recall(pool, 187_499, has_too_little=False)
    assert not shares.may_recall(pool, 187_500, has_too_little=False)
    assert shares.may_recall(pool, 187_500, has_too_little=True)
    assert not shares.may_recall(Pool(taken=5, daemons_count=1), 5, has_too_little=True)
