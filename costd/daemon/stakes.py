"""Which allowances hold money of which counters, so that a counter's trouble finds its holders."""

from collections.abc import Iterable, Sequence

from costd.daemon.ledger import Ledger
from costd.engine import keys
from costd.engine.allot import has_little_left
from costd.model.reservation import Reservation


class Stakes:
    """An index over the allowances that are out; in memory, rebuilt when a daemon starts."""

    def __init__(self) -> None:
        self._on_counter: dict[bytes, set[bytes]] = {}
        self._counters_of: dict[bytes, tuple[bytes, ...]] = {}

    def add(self, held: Reservation) -> None:
        """Note what an allowance holds."""
        found = tuple(line.key for line in held.counters)
        self._counters_of[held.reservation_id] = found
        for key in found:
            self._on_counter.setdefault(key, set()).add(held.reservation_id)

    def drop(self, allowance_id: bytes) -> None:
        """Forget an allowance that is out no longer; nothing for one that was forgotten before."""
        for key in self._counters_of.pop(allowance_id, ()):
            self._on_counter[key].discard(allowance_id)
            if not self._on_counter[key]:
                del self._on_counter[key]

    def on_little_left(self, held: Reservation, ledger: Ledger) -> list[bytes]:
        """Find which counters of a reservation have little left that allowances hold part of."""
        rules = ledger.rules
        found = []
        for line in held.counters if self._on_counter else ():
            if line.key in self._on_counter:
                rule, counter = (
                    rules.budgets.get(keys.tag_of(line.key)),
                    ledger.state.counter(line.key),
                )
                if rule and counter and has_little_left(rule, counter, rules.policy.allowance):
                    found.append(line.key)
        return found

    def of(self, counter_keys: Sequence[bytes]) -> set[bytes]:
        """Find the allowances that hold money of any of these counters."""
        found: Iterable[set[bytes]] = (self._on_counter.get(key, set()) for key in counter_keys)
        return set().union(*found)
