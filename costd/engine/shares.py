"""A fleet's rates: each daemon holds a share of the refill and of the burst, in millionths.

A daemon's bucket is one integer, as any: when it is full again. How long that is does not depend
on the share, and this is what keeps shares simple. A part that is given back takes its part of
what is in the bucket along; a part that is added brings what refilled in it meanwhile. Tokens
are neither made nor counted twice: all buckets together, and what nobody holds, never hold more
than the whole burst, and refill together as fast as the whole.
"""

from typing import Final

import msgspec

from costd.engine.rate import refill_ns
from costd.model.lease import Pool
from costd.model.money import ceil_div
from costd.model.policy import Rate

WHOLE: Final = 1_000_000
"""All of a rate; what shares are counted in."""
_POOR: Final = (3, 4)
"""A holder with less of its fair part than this may ask others for some."""
_HALF: Final = 2


def scaled(rate: Rate, share: int) -> Rate:
    """The rate that is left of one for who holds this share of it; nothing ever passes none.

    Ensures: refill and burst of all shares together are at most the whole's.
    """
    if not share:
        return msgspec.structs.replace(rate, burst=0)
    return msgspec.structs.replace(
        rate,
        amount=rate.amount * share,
        interval_ns=rate.interval_ns * WHOLE,
        burst=rate.burst * share // WHOLE,
    )


def share_for(rate: Rate, units: int) -> int:
    """The least share whose burst holds so many units; more than WHOLE where none does."""
    return ceil_div(units * WHOLE, rate.burst)


def burst_ns(rate: Rate) -> int:
    """How long an empty bucket takes to fill, whatever the share."""
    return refill_ns(rate.burst, rate.interval_ns, rate.amount)


def unused_ns(rate: Rate, full_ns: int | None, steady_ns: int) -> int:
    """How long an empty bucket takes to become as full as this one is; 0 for one in debt."""
    whole_ns = burst_ns(rate)
    return whole_ns - min(whole_ns, _behind_ns(full_ns, steady_ns))


def grown(
    rate: Rate, full_ns: int | None, before: int, after: int, *, unused_ns: int, steady_ns: int
) -> int | None:
    """When a bucket is full again whose share changes from `before` to `after`; None: it is full.

    Shape:   pure. `unused_ns` is for how long what is added was nobody's, as far as is known.
    Ensures: what is in the bucket rises by no more than what refilled in the added part, which
             begins empty where nothing is known; what is taken away takes its part along.
    """
    if after <= before:
        return full_ns
    whole_ns, added = burst_ns(rate), after - before
    missing_ns = whole_ns - min(whole_ns, max(0, unused_ns))
    behind_ns = ceil_div(before * _behind_ns(full_ns, steady_ns) + added * missing_ns, after)
    return steady_ns + behind_ns if behind_ns else None


def kept(rate: Rate, full_ns: int | None, share: int, fair: int, steady_ns: int) -> int:
    """What a holder keeps when others are short.

    Shape:   pure. `fair` is what each holder would have if all, and one more, had the same.
    Ensures: who uses what it has keeps at least its fair part; who does not, half of what it has,
             so that asking again frees the rest; nobody keeps what is too little for one unit.
    """
    is_busy = _HALF * _behind_ns(full_ns, steady_ns) > burst_ns(rate)
    keeps = min(share, fair) if is_busy else share // _HALF
    return keeps if rate.burst * keeps >= WHOLE else 0


def fair_share(pool: Pool) -> int:
    """What each holder would have if all, and one more, had the same."""
    return WHOLE // (pool.daemons_count + 1)


def may_recall(pool: Pool, share: int, *, has_too_little: bool) -> bool:
    """Tell whether others are asked to give something back for a daemon that holds this share.

    Ensures: not where its share is fair and lets calls pass, so that busy holders leave each
             other alone.
    """
    least, of = _POOR
    is_poor = has_too_little or share * of < fair_share(pool) * least
    return is_poor and pool.taken > share


def pooled(
    before: Pool, after: Pool, rate: Rate, taken: tuple[int, int], *, unused_ns: int, wall_ns: int
) -> Pool:
    """Follow what nobody holds of a rate, once one daemon took `taken`: (before, after).

    Shape:   pure; `start_ns` of a rate's pool is since when what nobody holds has been refilling.
             `unused_ns` is how full the bucket was that something is given back of.
    Ensures: what nobody holds is at most as full as its parts were; daemons_count is of those
             that hold something.
    """
    was, now = taken
    holders = before.daemons_count + (now > 0) - (was > 0)
    start_ns = before.start_ns
    if now < was:
        whole_ns, free, freed = burst_ns(rate), max(0, WHOLE - before.taken), was - now
        old_ns, new_ns = (
            min(whole_ns, max(0, told_ns)) for told_ns in (unclaimed_ns(before, wall_ns), unused_ns)
        )
        start_ns = wall_ns - (free * old_ns + freed * new_ns) // (free + freed)
    return msgspec.structs.replace(after, daemons_count=holders, start_ns=start_ns)


def unclaimed_ns(pool: Pool, wall_ns: int) -> int:
    """For how long what nobody holds of a rate has been refilling."""
    return max(0, wall_ns - pool.start_ns)


def _behind_ns(full_ns: int | None, steady_ns: int) -> int:
    return 0 if full_ns is None else max(0, full_ns - steady_ns)
