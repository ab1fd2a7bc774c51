"""Token buckets: never more than the burst and what refills, exact and without drift."""

from fractions import Fraction

import hypothesis.strategies as st
from hypothesis import given, settings
from policy_parts import rate

from costd.engine.rate import available, give_back, refill_ns, take
from costd.model.policy import Rate
from costd.model.time import NS_PER_S

buckets = st.builds(
    lambda amount, burst, every_s: rate("r", amount, burst=burst, every_s=every_s),
    st.integers(1, 1000),
    st.integers(1, 2000),
    st.sampled_from([1e-9, 1e-3, 1, 60, 86_400]),
)
asks = st.lists(
    st.tuples(st.integers(0, 5 * NS_PER_S), st.integers(1, 2000), st.integers(0, 2000)),
    max_size=40,
)
UNHURRIED = settings(max_examples=300, deadline=None)


@UNHURRIED
@given(buckets, asks)
def test_no_stretch_of_time_sees_more_than_the_burst_and_what_refills_in_it(bucket: Rate, steps):
    full_ns, now_ns, taken = None, 0, []
    for passed_ns, units, _ in steps:
        now_ns += passed_ns
        fits, after_ns = take(bucket, full_ns, units, now_ns)
        if fits:
            full_ns = after_ns
            taken.append((now_ns, units))
    for first, (since_ns, _) in enumerate(taken):
        total = 0
        for until_ns, units in taken[first:]:
            total += units
            refilled = Fraction((until_ns - since_ns) * bucket.amount, bucket.interval_ns)
            # The capacity in time is rounded up, by less than one nanosecond of refill.
            slack = Fraction(bucket.amount, bucket.interval_ns)
            assert total <= bucket.burst + refilled + slack


@UNHURRIED
@given(buckets, st.integers(0, 10**12), st.integers(1, 2000))
def test_what_is_available_fits(bucket: Rate, behind_ns: int, units: int):
    free = available(bucket, 10**15 + behind_ns, 10**15)
    assert 0 <= free <= bucket.burst
    if free:
        assert take(bucket, 10**15 + behind_ns, free, 10**15)[0]
    fits, _ = take(bucket, 10**15 + behind_ns, units, 10**15)
    if units <= free:
        assert fits


@UNHURRIED
@given(buckets, asks)
def test_refunds_never_make_a_bucket_fuller_than_it_was(bucket: Rate, steps):
    full_ns, now_ns = None, 0
    for passed_ns, units, measured in steps:
        now_ns += passed_ns
        before_ns = max(full_ns or 0, now_ns)
        fits, after_ns = take(bucket, full_ns, units, now_ns)
        if not fits:
            continue
        unused = max(0, units - measured)
        full_ns = give_back(after_ns, unused, bucket.interval_ns, bucket.amount)
        kept_ns = refill_ns(units - unused, bucket.interval_ns, bucket.amount)
        # A refund rounds down, so that each call costs at least what it used.
        assert full_ns >= before_ns
        assert full_ns - before_ns >= kept_ns - 1
