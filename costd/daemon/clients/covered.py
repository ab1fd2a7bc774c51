"""Whose draws a kill switch would have to refuse."""

from collections.abc import Iterable

from costd.daemon.books.ledger import Ledger
from costd.model.allowance import Allowance
from costd.model.labels import RESERVED_KEYS, Selector


def covered(scope: Selector, ledger: Ledger, allowances: Iterable[Allowance]) -> list[bytes]:
    """Name the allowances that a scope covers, or may: it may read labels that theirs leave out."""
    known = ledger.rules.scope_labels | RESERVED_KEYS
    found = []
    for allowance in allowances:
        held = ledger.find_reservation(allowance.allowance_id)
        assert held is not None
        facts = held.facts
        if all(
            match.holds(facts) or (match.key not in known and match.key not in facts)
            for match in scope.matches
        ):
            found.append(allowance.allowance_id)
    return found
