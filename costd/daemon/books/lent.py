"""Which counters of fleet budgets this daemon must account for to the coordinator."""

from collections.abc import Iterable, Sequence
from typing import Final

from costd.engine.changes import Family
from costd.engine.rules import Rules
from costd.store.port import Put, Store

_EPOCH_BYTES: Final = 8


class Lent:
    """Counters that hold a lease, or use that the coordinator has not receipted.

    Each is marked in the store in the batch that first touches it, so that a restart knows what
    to state when it enrols; the marks are held in memory too, and no ask reads the store for one.

    An Enrol from before a counter was marked does not state it. It may be late on its way, and be
    heard after one that does; the coordinator then takes what is left of that lease for free, and
    lends it to others. So nothing may be left of it until no such Enrol can be heard any more:
    what comes free of these counters (`must_give_back`) is given back in the batch that frees it.
    The mark says the newest epoch that such an Enrol can name, and so a restart knows it as well.
    """

    def __init__(self, store: Store) -> None:
        marks = dict(store.scan(Family.LEASES))
        self.held: set[bytes] = set(marks)
        """All that are marked."""
        self.changed: set[bytes] = set(marks)
        """Those to report: changed, or refused by how the fleet stood when it last told."""
        self._unstated = {key: int.from_bytes(mark) for key, mark in marks.items() if mark}
        """Marked counters that an Enrol under way may not state, and the epoch it names at most."""
        self._enrol_epoch: int | None = None
        """The newest epoch that an Enrol under way may name; None where none can be heard."""

    def touched(self, puts: Sequence[Put], rules: Rules) -> list[bytes]:
        """Find the fleet's counters that a batch writes, also of a budget the policy has lost."""
        found = []
        for family, key, counter in puts:
            if family is Family.COUNTERS:
                rule = rules.budget_of(key)
                if counter.lease is not None or (rule is not None and rule.is_shared):
                    found.append(key)
        return found

    def must_give_back(self, touched: Iterable[bytes]) -> list[bytes]:
        """Find those of which nothing may be left unused, whatever comes free."""
        return [key for key in touched if key not in self.held or key in self._unstated]

    def marks(self, touched: Iterable[bytes]) -> list[Put]:
        """Write the marks that are missing, with the batch that touches their counters."""
        epoch = self._enrol_epoch
        mark = b"" if epoch is None else epoch.to_bytes(_EPOCH_BYTES)
        return [(Family.LEASES, key, mark) for key in touched if key not in self.held]

    def unmarks(self, dropped: Iterable[bytes]) -> list[Put]:
        """Delete the marks of counters of which nothing is left to account for."""
        return [(Family.LEASES, key, None) for key in dropped if key in self.held]

    def marked(self, touched: Iterable[bytes]) -> None:
        """Note whose marks are written."""
        for key in touched:
            if key not in self.held and self._enrol_epoch is not None:
                self._unstated[key] = self._enrol_epoch
            self.held.add(key)

    def committed(self, touched: Sequence[bytes]) -> None:
        """Note what a batch has touched, once it is written."""
        self.marked(touched)
        self.changed.update(touched)

    def forgotten(self, gone: Sequence[bytes]) -> None:
        """Note whose marks are deleted."""
        self.held.difference_update(gone)
        self.changed.difference_update(gone)

    def may_enrol(self, epoch: int) -> None:
        """Note that Enrols are under way that name this epoch or an earlier one."""
        self._enrol_epoch = epoch

    def heard_in(self, epoch: int) -> None:
        """Note that the coordinator was heard from in this epoch: it refuses Enrols from before."""
        if self._enrol_epoch is not None and self._enrol_epoch < epoch:
            self._enrol_epoch = None
        if self._unstated:
            self._unstated = {key: at for key, at in self._unstated.items() if at >= epoch}
