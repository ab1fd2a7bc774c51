"""What the rules need from outside: state to read and prices to look up."""

from typing import Protocol

from costd.model.counter import Counter
from costd.model.grant import GrantRefusal, GrantUse
from costd.model.price import Price


class State(Protocol):
    """What the books hold now; implemented by the ledger over a store, and by a dict in tests.

    Exists so that rules can ask for exactly the keys they need and never touch a store.
    """

    @property
    def leases_until_ns(self) -> int:
        """Until when leases may be spent (steady ns), 0 where there are none."""
        ...

    def is_exhausted(self, key: bytes) -> bool:
        """Tell whether the coordinator said last that nobody has any more of this counter."""
        ...

    def refused_grant(self, key: bytes) -> GrantRefusal | None:
        """Say why the coordinator lends nothing of a grant's counter, if that is what it said."""
        ...

    def counter(self, key: bytes) -> Counter | None:
        """Return the counter under this key, None if nothing was counted yet."""
        ...

    def rate(self, key: bytes) -> int | None:
        """Return when this bucket is full again (steady ns), None if it is full."""
        ...

    def grant(self, grant_id: str) -> GrantUse | None:
        """Return what has been used of this override grant, None if nothing was."""
        ...


class Prices(Protocol):
    """Looks prices up in memory; implemented by `costd.pricing` and by a dict in tests."""

    def find(self, provider: str, model: str, *, wall_ns: int, batch: bool = False) -> Price | None:
        """Return the price in force at that wall time, None if nobody knows the model.

        With an empty provider, the provider is found from the model's name.
        """
        ...
