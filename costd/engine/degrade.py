"""The ladder: which steps a budget has reached, and what they ask for."""

from collections.abc import Iterable

from costd.engine.rules import FULL_BP, BudgetRule
from costd.model.decision import Directives
from costd.model.policy import Step
from costd.model.time import NEVER_NS

_UTILISATION_BP_MAX = 10**12
"""Far past every step, and small enough to be stored and sent whatever callers record."""
_BURN_WINDOW_BP = 500  # not in the first 5 % of the window, where any spending looks fast
BURN_USED_BP = 1_000  # nor under 10 % used, where it does not matter yet


def utilisation_bp(used: int, limit: int) -> int:
    """Used as basis points of the limit, rounded down; a limit of zero is always full."""
    if limit <= 0:
        return FULL_BP
    share = used * FULL_BP // limit
    return min(share, _UTILISATION_BP_MAX)


def burn_bp(used: int, limit: int, *, start_ns: int, end_ns: int, wall_ns: int) -> int:
    """Pace of spending as basis points of the pace that would last to the window's end.

    Zero in the first 5 % of the window, under 10 % used, and in a window without an end.
    """
    if end_ns >= NEVER_NS:
        return 0
    length, elapsed = end_ns - start_ns, max(wall_ns - start_ns, 1)
    if elapsed * FULL_BP < length * _BURN_WINDOW_BP or utilisation_bp(used, limit) < BURN_USED_BP:
        return 0
    return used * length * FULL_BP // (max(limit, 1) * elapsed)


def steps_reached(rule: BudgetRule, *, used: int, limit: int, wall_ns: int) -> tuple[Step, ...]:
    """List the steps a budget has reached with this much used."""
    share = utilisation_bp(used, limit)
    pace = 0
    if rule.has_burn:
        start_ns, end_ns = rule.window(wall_ns)
        pace = burn_bp(used, limit, start_ns=start_ns, end_ns=end_ns, wall_ns=wall_ns)
    return tuple(
        step
        for step in rule.budget.steps
        if (step.at_bp is not None and share >= step.at_bp)
        or (step.burn_bp is not None and pace >= step.burn_bp)
    )


class Demands:
    """What all reached steps together ask of a candidate; built up during one evaluation."""

    __slots__ = ("deny", "directives", "economy", "rule", "switch_provider", "tiers_down")

    def __init__(self) -> None:
        self.directives: Directives | None = None
        self.tiers_down = 0
        self.switch_provider = False
        self.economy = False
        self.deny: BudgetRule | None = None
        self.rule: BudgetRule | None = None
        """The first budget that asked for anything cheaper."""

    def add(self, rule: BudgetRule, steps: Iterable[Step]) -> None:
        """Take the strictest of every directive."""
        for step in steps:
            asked = Directives(
                max_output_tokens=step.max_output_tokens,
                max_retries=step.max_retries,
                compression=step.compression,
                cache=step.cache,
                batch=step.batch,
            )
            if step.deny and self.deny is None:
                self.deny = rule
            cheaper = step.tiers_down or step.switch_provider or step.economy
            if asked != _NOTHING:
                self.directives = (
                    asked if self.directives is None else strictest(self.directives, asked)
                )
            if self.rule is None and (cheaper or asked != _NOTHING):
                self.rule = rule
            self.tiers_down = max(self.tiers_down, step.tiers_down)
            self.switch_provider = self.switch_provider or step.switch_provider
            self.economy = self.economy or step.economy


_NOTHING = Directives()


def strictest(one: Directives, other: Directives) -> Directives:
    """Combine directives so that both are obeyed."""
    return Directives(
        max_output_tokens=_least(one.max_output_tokens, other.max_output_tokens),
        max_retries=_least(one.max_retries, other.max_retries),
        compression=one.compression or other.compression,
        cache=one.cache or other.cache,
        batch=one.batch or other.batch,
    )


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
