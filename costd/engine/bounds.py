"""How much a budget lets be held: its limit, or what this daemon is lent of the fleet's.

Every question for the limit in force of a counter is answered here.
"""

from costd.engine.rules import BudgetRule
from costd.model.counter import Counter
from costd.model.lease import Shortage
from costd.model.policy import FailMode, FleetTerms


def bounds(rule: BudgetRule, counter: Counter) -> tuple[int | None, int]:
    """What settled and reserved may reach together, and the part of that in reserve.

    Shape:   (None, 0 or more) without a limit; (0, 0) on a fleet's budget without a lease.
    """
    if not rule.is_shared:
        return rule.limit, rule.budget.reserve
    lease = counter.lease
    return (lease.amount, lease.reserve_amount) if lease is not None else (0, 0)


def drawable(rule: BudgetRule, counter: Counter, *, critical: bool) -> tuple[int, int]:
    """What this class may draw in all, and what of it is used: (limit, used).

    Critical classes see the whole limit; others see it without the protected reserve. Of a
    fleet's budget it is what all daemons may draw and use, as last known: steps go by this.
    """
    budget = rule.budget
    assert budget.limit is not None
    if rule.is_shared:
        limit, reserve, used, reserve_used = _level(rule, counter)
        return (limit, used) if critical else (limit - reserve, used - reserve_used)
    if critical or not budget.reserve:
        return budget.limit, counter.settled + counter.reserved
    return budget.limit - budget.reserve, counter.used - counter.reserve_used


def _level(rule: BudgetRule, counter: Counter) -> tuple[int, int, int, int]:
    """How the fleet stands, as last known: (limit, reserve, used, used of the reserve)."""
    lease = counter.lease
    if lease is None or not lease.limit:  # none, or one that was dropped
        assert rule.limit is not None
        return rule.limit, rule.budget.reserve, counter.used, counter.reserve_used
    return (
        lease.limit,
        lease.reserve,
        counter.used + lease.others_used,
        counter.reserve_used + lease.others_reserve_used,
    )


def room_left(rule: BudgetRule, counter: Counter, *, critical: bool, in_tenure: bool) -> int | None:
    """How much more this daemon may hold now for this class; None without a limit.

    `in_tenure` tells whether leases may be spent; without, there is no room on a fleet's budget.
    """
    limit, reserve = bounds(rule, counter)
    if limit is None:
        return None
    if rule.is_shared and not in_tenure:
        return 0
    left = limit - counter.used
    if reserve and not critical:
        left = min(left, limit - reserve - (counter.used - counter.reserve_used))
    return max(0, left)


def fleet_room(rule: BudgetRule, counter: Counter, *, critical: bool) -> int | None:
    """How much more there is for this class in all, as last known, whoever may use it."""
    if rule.limit is None or not rule.is_shared:
        return room_left(rule, counter, critical=critical, in_tenure=True)
    if counter.lease is None or not counter.lease.limit:
        # Nobody has told: all that is known is that nothing larger than the limit can pass.
        return rule.limit if critical else rule.limit - rule.budget.reserve
    limit, _, used, _ = _level(rule, counter)
    general_limit, general_used = drawable(rule, counter, critical=critical)
    return max(0, min(limit - used, general_limit - general_used))


def from_reserve(rule: BudgetRule, counter: Counter, hold: int) -> int:
    """The part of a critical class's hold that the general part cannot hold."""
    limit, reserve = bounds(rule, counter)
    if not reserve or limit is None:
        return 0
    general_left = limit - reserve - (counter.used - counter.reserve_used)
    return hold - min(hold, max(0, general_left))


def shortage(
    rule: BudgetRule, key: bytes, counter: Counter, amount: int, *, critical: bool
) -> Shortage:
    """State what a lease must reach so that this much more can be held.

    Ensures: with a lease of `amount_min`, its reserve as it is, `room_left` is at least `amount`.
    """
    needed = counter.used + amount
    _, reserve = bounds(rule, counter)
    if reserve and not critical:
        needed = max(needed, counter.used - counter.reserve_used + amount + reserve)
    return Shortage(key, needed, critical)


def may_excuse(terms: FleetTerms, rule: BudgetRule, counter: Counter, amount: int) -> bool:
    """Tell whether a hold without a lease is admitted all the same, where nobody can be asked."""
    if terms.fail_mode is FailMode.SAFE:
        share, (limit, _) = terms.safe_share, drawable(rule, counter, critical=True)
        return counter.unadmitted + amount <= limit * share.numerator // share.denominator
    return terms.fail_mode is FailMode.OPEN
