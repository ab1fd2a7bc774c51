"""How the budgets of the policy stand, for metrics: one figure a budget, however many counters."""

from typing import Final, NamedTuple

from costd.daemon.books.ledger import Ledger
from costd.engine import keys
from costd.engine.bounds import drawable
from costd.engine.changes import Family
from costd.engine.degrade import utilisation_bp
from costd.engine.rules import FULL_BP, BudgetRule
from costd.engine.window import window_bounds
from costd.errors import CostdError
from costd.model.counter import EMPTY_COUNTER, Counter
from costd.model.policy import Unit
from costd.model.time import NEVER_NS, NS_PER_S

BUDGETS_MAX: Final = 200
"""So many budgets are shown, the first of the policy; a thousand series in all."""


class Standing(NamedTuple):
    """One budget in its window now; of one with many counters, the fullest of them."""

    budget: str
    window: str
    used_nusd: int | None
    """None for a budget of tokens or calls."""
    limit_nusd: int | None
    utilisation_ratio: float | None
    """None without a limit."""
    window_s: tuple[float, float] | None
    """When the window began and when it ends; None for one without an end."""


class Standings:
    """Reads all of them at once, for several metrics.

    Runs beside the thread that decides: it reads the store past its cache.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.rows: list[Standing] = []
        """As they were at the last reading."""
        self.unshown_count = 0
        """Budgets past BUDGETS_MAX."""

    def read(self) -> list[Standing]:
        """Read them anew; a few store look-ups a budget.

        Errors:  StoreUnavailable, StoreCorrupt; then there are no rows, rather than old ones.
        """
        ledger, now_ns = self._ledger, self._ledger.clock.now().wall_ns
        active = [rule for rule in ledger.rules.budgets.values() if rule.budget.active]
        self.unshown_count = max(0, len(active) - BUDGETS_MAX)
        try:
            ledger.fullest.walk(ledger.store, now_ns)
            self.rows = [self._standing(rule, now_ns) for rule in active[:BUDGETS_MAX]]
        except CostdError:
            self.rows = []
            raise
        return self.rows

    def _standing(self, rule: BudgetRule, now_ns: int) -> Standing:
        # Not through the rule, which remembers: this runs beside the thread that decides.
        start_ns, end_ns = window_bounds(rule.budget.window, now_ns)
        prefix = keys.window_prefix(end_ns, rule.tag)
        found = self._ledger.fullest.keys_of(prefix) if rule.budget.per else {prefix}
        levels = [self._level(rule, key) for key in found] or [_level(rule, EMPTY_COUNTER)]
        limit, used = max(levels, key=lambda level: level[1])
        is_money = rule.budget.unit is Unit.NUSD
        return Standing(
            budget=rule.budget.budget_id,
            window=rule.budget.window.kind,
            used_nusd=used if is_money else None,
            limit_nusd=limit if is_money else None,
            utilisation_ratio=None if limit is None else utilisation_bp(used, limit) / FULL_BP,
            window_s=None if end_ns >= NEVER_NS else (start_ns / NS_PER_S, end_ns / NS_PER_S),
        )

    def _level(self, rule: BudgetRule, key: bytes) -> tuple[int | None, int]:
        rows = self._ledger.store.scan(Family.COUNTERS, key, key + b"\0")
        counter: Counter | None = next((counter for _, counter in rows), None)
        if rule.budget.per:
            self._ledger.fullest.seen(key, counter)
        return _level(rule, counter or EMPTY_COUNTER)


def _level(rule: BudgetRule, counter: Counter) -> tuple[int | None, int]:
    """What may be drawn in all, None without a limit, and what of it is used: the fleet's."""
    if rule.limit is None:
        return None, counter.used
    return drawable(rule, counter, critical=True)
