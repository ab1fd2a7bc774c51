"""What a coordinator said last that it lends nothing of, for asks while nobody answers."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, TypeVar

from costd.engine import keys
from costd.model.grant import GrantRefusal

KEYS_COUNT_MAX: Final = 100_000
"""Of each kind, so that counters without an end do not fill the memory: some 20 MB."""

Said = TypeVar("Said")


class NotLent:
    """Counters by what was said of them; the one that was spoken of longest ago goes first.

    Shape:   the mappings stay the same objects, since the ledger's rules look into them.
    """

    def __init__(self, *, keys_count_max: int = KEYS_COUNT_MAX) -> None:
        self._count_max = keys_count_max
        self.exhausted: OrderedDict[bytes, None] = OrderedDict()
        """Nobody has any more of these."""
        self.refused_grants: OrderedDict[bytes, GrantRefusal] = OrderedDict()
        """Nothing is lent of an override grant's counters, and why."""

    def clear(self, key: bytes) -> None:
        """Forget what was said of a counter: something else was."""
        self.exhausted.pop(key, None)
        self.refused_grants.pop(key, None)

    def exhaust(self, counter_keys: Iterable[bytes]) -> None:
        """Note that nobody has any more of some counters."""
        for key in counter_keys:
            self._note(self.exhausted, key, None)

    def refuse(self, key: bytes, refusal: GrantRefusal) -> None:
        """Note why nothing is lent of an override grant's counter."""
        self._note(self.refused_grants, key, refusal)

    def forget_ended(self, wall_ns: int) -> None:
        """Forget counters whose window is over: nobody asks for them any more."""
        for said in (self.exhausted, self.refused_grants):
            for key in [key for key in said if keys.split_counter_key(key)[0] <= wall_ns]:
                del said[key]

    def _note(self, said: OrderedDict[bytes, Said], key: bytes, what: Said) -> None:
        said[key] = what
        said.move_to_end(key)
        while len(said) > self._count_max:
            said.popitem(last=False)
