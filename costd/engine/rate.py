"""Token buckets as one number each: when the bucket is full again.

A bucket that is full at `full_ns` has, at `now_ns`, refilled all but `full_ns - now_ns` worth of
time. Taking units pushes `full_ns` into the future by what they take to refill; asking is
whether that stays within the burst; a refund pulls it back; debt is being further ahead than the
burst. (The generic cell rate algorithm, ITU-T I.371.) One integer, exact, and a full bucket is
simply forgotten.
"""

from costd.model.money import ceil_div
from costd.model.policy import Rate


def refill_ns(units: int, interval_ns: int, amount: int) -> int:
    """How long these units take to refill; rounded up, so that a rate is never exceeded."""
    return ceil_div(units * interval_ns, amount)


def take(rate: Rate, full_ns: int | None, units: int, steady_ns: int) -> tuple[bool, int]:
    """Try to take units from a bucket.

    Shape:   pure; returns (fits, when the bucket would be full again).
    Units:   `steady_ns` is the steady clock; `full_ns` None is a full bucket.
    """
    start = steady_ns if full_ns is None or full_ns < steady_ns else full_ns
    full = start - (-units * rate.interval_ns // rate.amount)
    # As `full - steady_ns <= refill_ns(burst)`, multiplied out: no division on the hot path.
    return (full - steady_ns - 1) * rate.amount < rate.burst * rate.interval_ns, full


def available(rate: Rate, full_ns: int | None, steady_ns: int) -> int:
    """How many units the bucket holds now; rounded down, never negative."""
    behind = 0 if full_ns is None else max(0, full_ns - steady_ns)
    return max(0, rate.burst - ceil_div(behind * rate.amount, rate.interval_ns))


def give_back(full_ns: int, units: int, ns_num: int, ns_den: int) -> int:
    """Refund units (negative: take more, into debt if need be).

    Ensures: refunding what was taken restores the bucket to at most what it was; a refund past
             full is forgotten, because a bucket full in the past is full.
    """
    return full_ns - (
        units * ns_num // ns_den if units >= 0 else -ceil_div(-units * ns_num, ns_den)
    )
