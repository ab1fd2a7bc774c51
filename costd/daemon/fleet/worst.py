"""A daemon's part of the fleet's worst case, reckoned from its books now and then."""

from collections.abc import Iterator
from typing import Final

from costd.daemon.books.bookkeeping import Bookkeeping
from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.rules import BudgetRule
from costd.engine.worst import overspend_bound
from costd.model.counter import EMPTY_COUNTER, Counter
from costd.model.time import NS_PER_S

RECKON_EVERY_NS: Final = 5 * NS_PER_S
"""What counters and grants may yet let pass is read so often; calls in flight count at once."""


class WorstCase:
    """How far this daemon may pass its budgets.

    Shape:   reads the books and changes nothing; may be asked in any thread.
    """

    def __init__(self, books: Bookkeeping) -> None:
        self._books = books
        self._reckoned = (0, -RECKON_EVERY_NS)

    def bound_nusd(self) -> int:
        """Add up exposure, what a safe share may yet excuse, and what is left of grants."""
        books, now = self._books, self._books.clock.now()
        beside_nusd, at_ns = self._reckoned
        if now.steady_ns - at_ns >= RECKON_EVERY_NS:
            beside_nusd = overspend_bound(
                0,
                self._counters(now.wall_ns),
                (use for _, use in books.store.scan(Family.GRANTS)),
                terms=books.rules.policy.fleet,
                wall_ns=now.wall_ns,
            )
            self._reckoned = (beside_nusd, now.steady_ns)
        return books.totals.exposure_nusd + beside_nusd

    def _counters(self, wall_ns: int) -> Iterator[tuple[BudgetRule, Counter]]:
        """Yield the fleet's counters in force, as far as they are known.

        Shape:   those that are accounted for, and the one of each budget without `per`.
        """
        books, rules = self._books, self._books.rules
        named = {
            rule.counter_key({}, wall_ns)
            for rule in rules.budgets.values()
            if rule.is_shared and not rule.budget.per
        }
        for key in named.union(tuple(books.lent.held)):
            rule = rules.budgets.get(keys.tag_of(key))
            if rule is not None and keys.split_counter_key(key)[0] > wall_ns:
                yield rule, books.state.counter(key) or EMPTY_COUNTER
