"""Which counters of fleet budgets this daemon must account for to the coordinator."""

from collections.abc import Iterable, Sequence

from costd.engine.changes import Family
from costd.engine.rules import Rules
from costd.store.port import Put, Store


class Lent:
    """Counters that hold a lease, or use that the coordinator has not receipted.

    Each is marked in the store in the batch that first touches it, so that a restart knows what
    to state when it enrols; the marks are held in memory too, and no ask reads the store for one.
    """

    def __init__(self, store: Store) -> None:
        self.held: set[bytes] = {key for key, _ in store.scan(Family.LEASES)}
        """All that are marked."""
        self.changed: set[bytes] = set(self.held)
        """Those to report: changed, or refused by how the fleet stood when it last told."""

    def touched(self, puts: Sequence[Put], rules: Rules) -> list[bytes]:
        """Find the fleet's counters that a batch writes, also of a budget the policy has lost."""
        found = []
        for family, key, counter in puts:
            if family is Family.COUNTERS:
                rule = rules.budget_of(key)
                if counter.lease is not None or (rule is not None and rule.is_shared):
                    found.append(key)
        return found

    def marks(self, touched: Iterable[bytes]) -> list[Put]:
        """Write the marks that are missing, with the batch that touches their counters."""
        return [(Family.LEASES, key, b"") for key in touched if key not in self.held]

    def unmarks(self, dropped: Iterable[bytes]) -> list[Put]:
        """Delete the marks of counters of which nothing is left to account for."""
        return [(Family.LEASES, key, None) for key in dropped if key in self.held]

    def committed(self, touched: Iterable[bytes]) -> None:
        """Note what a batch has touched, once it is written."""
        self.held.update(touched)
        self.changed.update(touched)

    def forgotten(self, gone: Iterable[bytes]) -> None:
        """Note whose marks are deleted."""
        self.held.difference_update(gone)
        self.changed.difference_update(gone)
