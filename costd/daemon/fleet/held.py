"""What a daemon holds of the fleet: what it uses, what it asks for ahead, what it gives back.

No I/O, as the tenancy that it is part of.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from costd.daemon.books.ledger import Ledger
from costd.daemon.fleet.borrow import Ahead, Borrowing
from costd.daemon.fleet.rated import RateShares
from costd.engine import keys
from costd.engine.window import window_bounds
from costd.model.lease import Stand
from costd.model.time import NEVER_NS, NS_PER_S

IDLE_NS: Final = 20 * NS_PER_S
"""What was not touched for so long is given back."""
RECALLED_NS: Final = NS_PER_S
"""So long after a recall, what comes free is given back at once."""
EARLY_NS: Final = 2 * NS_PER_S
"""So long before a window begins, its leases are asked for."""


class Recalls(Protocol):
    """Who else must give back what a counter is short of; implemented by the desk of clients."""

    def pressed(self, counter_keys: Sequence[bytes]) -> None:
        """Take back what clients hold on these counters."""
        ...


class Held:
    """One daemon's leases, and when each was last of use."""

    def __init__(self, ledger: Ledger, borrowing: Borrowing) -> None:
        self._ledger = ledger
        self._borrowing = borrowing
        self.rated = RateShares(ledger)
        self.recalls: Recalls | None = None
        self._touched: dict[bytes, int] = {}
        """When a counter that is leased was last used, or granted."""
        self.is_leaving = False
        """Whether the daemon stops: nothing is asked for ahead any more."""
        self._recalled: dict[bytes, int] = {}
        """Until when what comes free of a counter is given back at once."""

    def touch(self, counter_keys: Iterable[bytes], steady_ns: int) -> None:
        """Note that counters are of use now."""
        self._touched.update(dict.fromkeys(counter_keys, steady_ns))

    def watch(self, stands: Iterable[tuple[bytes, Stand]], steady_ns: int) -> None:
        """Begin to watch what has come free, however its counter changed."""
        self.know((key for key, stand in stands if _has_unused(stand)), steady_ns)

    def know(self, counter_keys: Iterable[bytes], steady_ns: int) -> None:
        """Begin to watch counters that nothing is known of yet."""
        for key in counter_keys:
            self._touched.setdefault(key, steady_ns)

    def lower(self, counter_keys: Iterable[bytes], *, keep_rates: bool = False) -> bool:
        """Lower leases to what is used of them; the next report tells. False if none was higher.

        With `keep_rates`, rates keep what is needed of them.
        """
        ledger = self._ledger
        lowered = {}
        for key in counter_keys:
            lease, stand = ledger.lease(key), ledger.stand(key)
            used = stand.used
            if keep_rates and lease is not None:
                used = max(used, self.rated.kept(key, lease))
            is_rate = self.rated.rule_of(key) is not None
            has_unused = stand.amount > used if is_rate else _has_unused(stand)
            if lease is not None and has_unused:
                lowered[key] = msgspec.structs.replace(
                    lease,
                    amount=min(stand.amount, used),
                    reserve_amount=min(stand.reserve_amount, stand.reserve_used),
                )
        self.rated.given_back(lowered)
        ledger.set_leases(lowered)
        ledger.fleet_changed.update(lowered)
        return bool(lowered)

    def leave(self) -> bool:
        """Give back all that is not used, and borrow nothing ahead any more; whether any was."""
        self.is_leaving = True
        return self.lower(sorted(self._ledger.lent.held))

    def give_back_idle(self, wall_ns: int, steady_ns: int) -> None:
        """Give back what is of no use any more."""
        idle = [
            key
            for key, touched_ns in self._touched.items()
            if steady_ns - touched_ns > IDLE_NS or self._is_ended(key, wall_ns)
        ]
        for key in self.rated.split(idle)[0]:
            # Asks draw from its bucket, and leave its lease alone.
            if self.rated.is_busy(key, self._touched[key]):
                self._touched[key] = steady_ns
                idle.remove(key)
        self.lower(idle)
        # Told also where nothing was left to lower: the receipt is what lets it be forgotten.
        self._ledger.fleet_changed.update(idle)
        for key in idle:
            del self._touched[key]

    def give_back_freed(self, steady_ns: int) -> bool:
        """Give back what has come free of counters that others are short of; whether any has."""
        if not self._recalled:
            return False
        self._recalled = {k: until for k, until in self._recalled.items() if until > steady_ns}
        return self.lower([key for key in self._ledger.fleet_changed if key in self._recalled])

    def recalled(self, counter_keys: Iterable[bytes], steady_ns: int) -> tuple[bool, bool]:
        """Give back at once what others need.

        Shape:   whether anything was, and whether rates are among what is recalled: a receipt then
                 tells what is fair by now.
        """
        held = [key for key in counter_keys if self._ledger.lease(key) is not None]
        if not held:
            return False, False
        if self.recalls is not None:
            self.recalls.pressed(held)
        rated, others = self.rated.split(held)
        self._recalled.update(dict.fromkeys(others, steady_ns + RECALLED_NS))
        self._ledger.fleet_changed.update(rated)
        return self.lower(held, keep_rates=True), bool(rated)

    def cut(self) -> list[bytes]:
        """Find what was lent by a higher limit than the one in force."""
        ledger, found = self._ledger, []
        for key in sorted(ledger.lent.held):
            rule, lease = ledger.rules.budgets.get(keys.tag_of(key)), ledger.lease(key)
            limit = rule.limit if rule is not None else None
            if lease is not None and limit is not None and limit < lease.limit:
                found.append(key)
        return found

    def ask_ahead(self, changed: Iterable[bytes], wall_ns: int, steady_ns: int) -> None:
        """Ask for more of what runs low, and for the next window of what soon ends."""
        wishes = []
        for key in () if self.is_leaving else changed:
            stand = self._ledger.stand(key)
            step = self._borrowing.step_of(key)
            if key in self._recalled or self.rated.rule_of(key) is not None:
                continue
            if keys.is_grants(key):
                continue  # its token is here only while an ask redeems it
            if step and stand.amount - stand.used < step // 2:
                wishes.append(Ahead(key))
            end_ns, tag, per = keys.split_counter_key(key)
            rule = self._ledger.rules.budgets.get(tag)
            if rule is None or end_ns >= NEVER_NS or not 0 < end_ns - wall_ns < EARLY_NS:
                continue
            next_end_ns = window_bounds(rule.budget.window, end_ns)[1]
            following = keys.window_prefix(next_end_ns, tag) + per.encode()
            if self._ledger.lease(following) is None:
                wishes.append(Ahead(following, step))
        self._borrowing.ask_ahead(wishes, steady_ns)

    def forget(self, told: Mapping[bytes, Stand]) -> None:
        """Forget leases of which nothing is left, and all of whose use has been receipted."""
        ledger = self._ledger
        over: list[bytes] = []
        for key, stand in told.items():
            is_over = not _has_unused(stand) and not stand.reserved
            if is_over and key not in ledger.fleet_changed and ledger.stand(key) == stand:
                over.append(key)
        wall_ns = ledger.clock.now().wall_ns
        over = [key for key in over if self._is_ended(key, wall_ns) or self._is_idle(key)]
        ledger.account_no_longer(over)
        for key in over:
            self._touched.pop(key, None)

    @staticmethod
    def _is_ended(key: bytes, wall_ns: int) -> bool:
        return keys.split_counter_key(key)[0] <= wall_ns

    def _is_idle(self, key: bytes) -> bool:
        return key not in self._touched


def _has_unused(stand: Stand) -> bool:
    return stand.amount > stand.used or stand.reserve_amount > stand.reserve_used
