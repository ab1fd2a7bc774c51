"""The coordinator's books: what daemons hold of a fleet's budgets. Every change goes through here.

One rule, as for a single daemon's counters: nobody is promised what is not there. What a daemon
may use stays taken until the daemon itself says that it uses less.
"""

import msgspec

from costd.engine.apportion import apportion
from costd.errors import InvalidAsk
from costd.model.lease import NO_STAND, Level, Pool, Stand, Want
from costd.model.money import AMOUNT_MAX


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy in force says of a fleet budget, top-ups included."""

    limit: int
    reserve: int = 0
    whole: bool = False
    """Whether one daemon holds all of it: a run's budget."""


def restate(
    pool: Pool, before: Stand | None, after: Stand, *, limit: int | None, wall_ns: int
) -> Pool:
    """Replace what one daemon takes by what it says now.

    Shape:   pure; `before` is what the pool holds of that daemon, None if nothing; `limit` is the
             one in force, None where the policy has lost the budget.
    Ensures: every column changes by the difference; `lowered` rises only where the limit was cut.
    Errors:  InvalidAsk for figures that are below zero or past what can be counted.
    """
    problem = stand_problem(after)
    if problem:
        raise InvalidAsk(problem)
    old = before or NO_STAND
    taken = pool.taken + after.taken - old.taken
    if taken > AMOUNT_MAX:
        raise InvalidAsk(f"with this, daemons would take more than {AMOUNT_MAX} of one budget")
    columns = {
        name: getattr(pool, name) + getattr(after, name) - getattr(old, name) for name in _SUMS
    }
    changed = msgspec.structs.replace(
        pool,
        **columns,
        taken=taken,
        reserve_taken=pool.reserve_taken + after.reserve_taken - old.reserve_taken,
        daemons_count=pool.daemons_count + (before is None),
        changed_ns=wall_ns,
    )
    fallen = max(excused(old) - excused(after), _spare(old) - _spare(after), 0)
    return cut(changed, limit, fallen=fallen)


def cut(pool: Pool, limit: int | None, *, fallen: int = 0) -> Pool:
    """Follow the limit in force; where it was cut below what is taken, that is `lowered`.

    Shape:   `fallen` is by how much less other causes excuse, in all or of what is within leases:
             they may have hidden how far the limit was cut.
    """
    new_limit = -1 if limit is None else limit
    if limit is None:
        return msgspec.structs.replace(pool, limit=new_limit)
    excess = pool.taken - new_limit - (pool.excused - pool.lowered)
    was_cut = new_limit != pool.limit and (pool.limit < 0 or new_limit < pool.limit)
    lowered = max(0, excess) if was_cut else max(0, min(pool.lowered + fallen, excess))
    return msgspec.structs.replace(pool, limit=new_limit, lowered=lowered)


def lend(pool: Pool, terms: Terms, want: Want) -> Stand | None:
    """Find what a daemon may use if it gets what it wants; None if there is too little.

    Shape:   pure; the pool already holds `want.stand`, and is not changed: `restate` does that.
    Ensures: the amount is at least `want.amount_min`; what it takes beyond what the daemon takes
             already lies within the limit in force, and only a critical want draws the reserve.
    """
    stand = want.stand
    needed = max(0, want.amount_min - stand.taken)
    wanted = max(needed, want.amount_wanted - stand.taken)
    general, total = rooms(pool, terms)
    from_reserve = max(0, needed - max(0, general)) if want.critical else 0
    if from_reserve > total - max(0, general):
        return None
    more = apportion(
        max(0, min(general, total)),
        holders_count=max(1, pool.daemons_count),
        needed=needed - from_reserve,
        wanted=wanted - from_reserve,
        whole=terms.whole,
    )
    if more is None:
        return None
    if not more + from_reserve:
        return stand
    return msgspec.structs.replace(
        stand,
        amount=stand.taken + more + from_reserve,
        reserve_amount=stand.reserve_taken + from_reserve if from_reserve else stand.reserve_amount,
        version=stand.version + 1,
    )


def heard(before: Stand, now: Stand) -> Stand:
    """Read a stand that may have been sent before its daemon saw the newest grant.

    Ensures: then nothing is given back by it; what was used counts.
    """
    if now.version == before.version:
        return now
    return msgspec.structs.replace(
        now,
        amount=before.amount,
        reserve_amount=before.reserve_amount,
        version=before.version,
    )


def at_most(stand: Stand, held: Stand) -> Stand:
    """Read a stand as one that may give back, and may not take; what was used counts anyhow."""
    amount = min(stand.amount, max(held.amount, stand.used))
    reserve_max = max(held.reserve_amount, stand.reserve_used)
    reserve_amount = min(stand.reserve_amount, reserve_max, amount)
    if (amount, reserve_amount) == (stand.amount, stand.reserve_amount):
        return stand
    return msgspec.structs.replace(stand, amount=amount, reserve_amount=reserve_amount)


def rooms(pool: Pool, terms: Terms) -> tuple[int, int]:
    """What nobody holds: (without the protected reserve, in all); below zero where it is passed."""
    general_taken = pool.taken - pool.reserve_taken
    return terms.limit - terms.reserve - general_taken, terms.limit - pool.taken


def level(pool: Pool, terms: Terms, stand: Stand) -> Level:
    """Tell how the fleet stands, to the daemon that stands so."""
    return Level(
        limit=terms.limit,
        reserve=terms.reserve,
        others_used=max(0, pool.used - stand.used),
        others_reserve_used=max(0, pool.reserve_used - stand.reserve_used),
    )


def presumed(stand: Stand) -> int:
    """What a daemon may still use, and so is presumed spent once nobody hears of it."""
    return stand.taken - stand.used


def reclaimed(stand: Stand) -> Stand:
    """What is left of a stand when an operator says that its daemon will never come back."""
    return msgspec.structs.replace(stand, amount=stand.used, reserve_amount=stand.reserve_used)


def beyond(before: Stand, after: Stand) -> int:
    """What a daemon takes more than it was left with, beyond what else it can explain by now."""
    return max(0, after.taken - before.taken - (excused(after) - excused(before)))


def excuse_late(pool: Pool, more: int) -> Pool:
    """Note what daemons used of leases that were taken back from them."""
    return msgspec.structs.replace(pool, late=pool.late + more)


class Loss(msgspec.Struct, frozen=True):
    """What a daemon may have spent and can no longer tell of, and what excuses what is left."""

    lost: int
    reserve_lost: int
    late: int


def loss(before: Stand, lost: int, reserve_lost: int, after: Stand) -> Loss:
    """Find what may have been spent between two stands of which the later books know nothing.

    Shape:   pure; `lost` and `reserve_lost` are what was lost before: told again, that is among
             what the daemon may have spent then.
    """
    more = before.taken + lost - after.taken
    reserve_more = before.reserve_taken + reserve_lost - after.reserve_taken
    # Old books may hold what was told to be free already, and is somebody else's by now; and what
    # excused what is lost by now goes on to.
    late = max(0, -more) + max(0, excused(before) - excused(after))
    return Loss(max(0, more), max(0, reserve_more), late)


def lose(pool: Pool, lost: int, reserve_lost: int) -> Pool:
    """Keep taken what a daemon may have spent and can no longer tell of."""
    return msgspec.structs.replace(
        pool, taken=pool.taken + lost, reserve_taken=pool.reserve_taken + reserve_lost
    )


def stand_problem(stand: Stand) -> str | None:
    """Find what no daemon's books can say."""
    for name in Stand.__struct_fields__:
        value = getattr(stand, name)
        if not 0 <= value <= AMOUNT_MAX:
            return f"stand.{name} is {value}; it must be between 0 and {AMOUNT_MAX}"
    if stand.reserve_amount > stand.amount:
        return f"stand.reserve_amount {stand.reserve_amount} is more than amount {stand.amount}"
    if stand.used > AMOUNT_MAX:
        return f"settled and reserved together pass {AMOUNT_MAX}"
    return None


def _spare(stand: Stand) -> int:
    """How much is excused of what a daemon used within its lease."""
    return max(0, excused(stand) - max(0, stand.used - stand.amount))


def excused(stand: Stand) -> int:
    """How far past what it was lent a daemon may stand by what it did itself.

    Not what was taken from it, `lowered`: the pool counts by its own limit how far that was cut.
    """
    return stand.overrun + stand.granted + stand.late + stand.unadmitted + stand.shadow


_SUMS = (
    "settled",
    "reserved",
    "reserve_settled",
    "reserve_reserved",
    "overrun",
    "granted",
    "late",
    "unadmitted",
    "shadow",
)
