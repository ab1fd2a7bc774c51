"""How far this daemon may pass its budgets at worst, as things stand: its part of the fleet's sum.

docs/INVARIANTS.md has the formula.
"""

from collections.abc import Iterable

from costd.engine.bounds import drawable
from costd.engine.rules import BudgetRule
from costd.model.counter import Counter
from costd.model.grant import GrantUse
from costd.model.policy import FailMode, FleetTerms


def overspend_bound(
    exposure_nusd: int,
    counters: Iterable[tuple[BudgetRule, Counter]],
    uses: Iterable[GrantUse],
    *,
    terms: FleetTerms,
    wall_ns: int,
) -> int:
    """Add up what may yet be spent past the limits of money budgets, by all causes.

    Shape:   pure. `exposure_nusd` is what open calls whose ceiling is known may cost beyond
             their holds; `counters` are those of the fleet's budgets whose windows are in force,
             `uses` those of override grants that were presented here.
    Ensures: with `fail_mode: closed`, no grants and no exposure, zero. What calls of unknown
             ceiling may cost is not in it, nor what `fail_mode: open` lets pass: nothing bounds
             them.
    """
    excused = 0
    if terms.fail_mode is FailMode.SAFE:
        excused = sum(_may_yet_excuse(terms, rule, counter) for rule, counter in counters)
    return exposure_nusd + excused + sum(_may_yet_grant(use, wall_ns) for use in uses)


def _may_yet_excuse(terms: FleetTerms, rule: BudgetRule, counter: Counter) -> int:
    """What the safe share of a counter still lets pass without a lease."""
    if not rule.is_shared or rule.budget.unit != "nusd":
        return 0
    limit, _ = drawable(rule, counter, critical=True)
    share = terms.safe_share
    return max(0, limit * share.numerator // share.denominator - counter.unadmitted)


def _may_yet_grant(use: GrantUse, wall_ns: int) -> int:
    """What a grant that was presented here still lets pass, though nobody lends it."""
    if not use.is_offline or use.uses_count >= use.uses_max_count or use.expires_ns <= wall_ns:
        return 0
    return max(0, use.amount_nusd - use.used_nusd)
